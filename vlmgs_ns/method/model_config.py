"""Settings of the model, and the strategy of densification that they ask for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Annotated, Literal

from gsplat.strategy import DefaultStrategy
from nerfstudio.models.splatfacto import SplatfactoModelConfig

from vlmgs_ns.densify.strategy import FastGSStrategy
from vlmgs_ns.guidance.config import GuidanceConfig
from vlmgs_ns.semantics.config import SemanticsConfig
from vlmgs_ns.system.ranges import Amount, Count, Fraction, Positive, Range, Share, Some
from vlmgs_ns.system.schedules import Steps


@dataclass
class ModelSettings(SplatfactoModelConfig):
    """Splatfacto's settings and ours, their schedules given for a run of any length."""

    run_length: Count = 0
    """Iterations that fractions of the run are of; 0: --max-num-iterations, or what a resumed checkpoint was begun with."""
    densification: Literal["fastgs", "default"] = "fastgs"
    """Which Gaussians are born and die: FastGS' multi-view consistent strategy, or gsplat's DefaultStrategy, Splatfacto's."""
    warmup_length: Steps = 0.025  # type: ignore[assignment]
    """Iteration, or fraction of the run, until which no Gaussian is born or dies."""
    refine_every: Steps = 0.025  # type: ignore[assignment]
    """Iterations, or fraction of the run, between densifications."""
    stop_split_at: Steps = 0.75  # type: ignore[assignment]
    """Iteration, or fraction of the run, after which no Gaussian is born."""
    resolution_schedule: Steps = 0.1  # type: ignore[assignment]
    """Iterations, or fraction of the run, until the training resolution doubles."""
    sh_degree_interval: Steps = 0.05  # type: ignore[assignment]
    """Iterations, or fraction of the run, until one more degree of spherical harmonics is used."""
    stop_screen_size_at: Steps = 0.75  # type: ignore[assignment]
    """Iteration, or fraction of the run, until which Gaussians that are large on the screen are pruned."""
    reset_alpha_every: Some = 6
    """Densifications between resets of the opacities."""
    reset_opacity: Share = 0.01
    """Opacities above this are brought down to it at each reset (FastGS' strategy only)."""
    pause_after_reset: Steps = 0
    """Iterations, or fraction of the run, after a reset in which no Gaussian is born or dies (FastGS' strategy only)."""
    cull_alpha_thresh: Fraction = 0.005
    """Opacity below which a Gaussian is a candidate for removal while densifying."""
    cull_scale_thresh: Amount = 0.1
    """Size, as a fraction of the scene's extent, above which a Gaussian is a candidate for removal."""
    cull_scale_after: Steps = 0.15
    """Iteration, or fraction of the run, after which size, in the scene and on the screen, makes a Gaussian such a candidate
    (FastGS' strategy only; Splatfacto's waits for the first opacity reset)."""
    cull_screen_size: Amount = 0.15
    """Size, as a fraction of the picture's longer side, above which a Gaussian is a candidate for removal."""
    densify_grad_thresh: Amount = 0.0002
    """Gradient of the 2-D mean, in units of half the picture, from which small Gaussians are cloned."""
    densify_absgrad_thresh: Amount = 0.0012
    """Absolute gradient (AbsGS) of the 2-D mean from which large Gaussians are split."""
    densify_size_thresh: Amount = 0.001
    """Size, as a fraction of the scene's extent, up to which a Gaussian is small."""
    score_views: Some = 10
    """K: training steps before a round, those since the last one at most, whose renders score Gaussians."""
    score_error_thresh: Fraction = 0.1
    """τ: normalised error from which a pixel asks for help."""
    importance_thresh: Amount = 5.0
    """Pixels asking for help to which a Gaussian must contribute, per view, before it is densified."""
    consistent_growth: bool = True
    """VCD: densify only what several views ask for."""
    consistent_pruning: bool = True
    """VCP: remove half of the candidates, drawn by how much several views blame them; else remove them all."""
    opacity_ceiling: Share = 0.8
    """Opacities are clamped to this after each densification; 1: never."""
    final_prune_every: Steps = 0.15  # type: ignore[assignment]
    """Iterations, or fraction of the run, between prunings after the last densification; 0: none."""
    final_prune_opacity: Fraction = 0.1
    """Opacity below which those prunings remove."""
    final_prune_score: Fraction = 0.9
    """Pruning score in [0, 1] above which those prunings remove."""
    max_gaussians: Some = 3_000_000
    """The count of Gaussians never grows beyond this, the highest scores win; a start with more is cut at the first round."""
    max_new_per_round: Count = 500_000
    """The most Gaussians that one densification adds; the highest scores win."""
    relocation: Fraction = 0.15
    """Where max-gaussians leaves no room for births, the share of the Gaussians, the most transparent, that give their places to
    them in one densification; 0: none (FastGS' strategy only)."""
    seeding: Literal["auto", "points", "photos", "both"] = "auto"
    """What a run starts from. points: the scene's points, or random ones where it has none; photos: points that are found in the
    photos where neighbouring ones agree on a depth, and no other; both; auto: both where the scene has no points of its own and
    random_init does not ask for random ones, else points."""
    num_seeds: Some = 50_000
    """The most Gaussians that are found in the photos."""
    random_opacity: Annotated[float, Range(0.001, 0.999)] = 0.5
    """Opacity with which random Gaussians start; those at the scene's points start with 0.1, as in 3DGS."""
    random_scale: Positive = 1.0
    """Side of the cube in which random Gaussians start, in units of the scene's extent (twice the radius of the cameras)."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    """Who is asked where to densify, and when (with FastGS' strategy only)."""
    semantics: SemanticsConfig = field(default_factory=SemanticsConfig)
    """The field that words find things with, built after the last iteration. --prompt "red ball; wooden table" gives outputs
    relevancy_0 and relevancy_1."""
    ambient_shell: Count = 0
    """Grey Gaussians that are seeded on a tube around the points the scene starts from, where there would be none; 0: no tube."""
    compact_box: Share | None = None
    """β of the compact box: a Gaussian reaches only the tiles that meet its ellipse at β times the squared Mahalanobis
    distance where it fades below 1/255. 1 changes no pixel, less is faster; unset: 1."""


SPLATFACTO_NAMES = {
    "prune_opa": "cull_alpha_thresh",
    "grow_grad2d": "densify_grad_thresh",
    "grow_scale3d": "densify_size_thresh",
    "prune_scale3d": "cull_scale_thresh",
    "prune_scale2d": "cull_screen_size",
    "refine_scale2d_stop_iter": "stop_screen_size_at",
    "refine_start_iter": "warmup_length",
    "refine_stop_iter": "stop_split_at",
}
"""gsplat's names of what both strategies know, and the settings' names; a field that has one name in both is not listed."""
OUR_NAMES = {
    "pause_refine_after_reset": "pause_after_reset",
    "grow_absgrad2d": "densify_absgrad_thresh",
    "importance_threshold": "importance_thresh",
    "focus_strength": "guidance.strength",
    "focus_background": "guidance.keep_background",
    "prune_scale_start_iter": "cull_scale_after",
    "final_prune_opa": "final_prune_opacity",
}
"""The same for what FastGS' strategy alone takes from the settings."""


def make_strategy(settings: ModelSettings, num_photos: int) -> DefaultStrategy:
    """Return the strategy that adds and removes Gaussians, by settings whose schedules are resolved to iterations."""
    ours = settings.densification == "fastgs"
    strategy = FastGSStrategy if ours else DefaultStrategy
    known = vars(settings)
    names = {item.name: item.name for item in fields(strategy) if item.name in known} | SPLATFACTO_NAMES
    values = {name: attrgetter(setting)(settings) for name, setting in (names | OUR_NAMES if ours else names).items()}
    reset_every = max(1, settings.reset_alpha_every * int(settings.refine_every))
    if ours:
        if int(settings.cull_scale_after) >= int(settings.stop_split_at):
            warnings.warn(
                f"no Gaussian is pruned for its size: that begins after step {int(settings.cull_scale_after)}, and the last "
                f"densification is before step {int(settings.stop_split_at)}; lower --pipeline.model.cull-scale-after",
                stacklevel=2,
            )
        return FastGSStrategy(**values, reset_every=reset_every)
    return DefaultStrategy(
        **values,
        reset_every=reset_every,
        grow_scale2d=settings.split_screen_size,
        # Splatfacto waits until every photo was seen once; in a short run over many photos that would be for ever.
        pause_refine_after_reset=min(num_photos + int(settings.refine_every), reset_every // 2),
        absgrad=settings.use_absgrad,
    )
