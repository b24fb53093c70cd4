"""Features for Gaussians without training: every pixel contributes its feature to the Gaussians that it shows.

F_i = Σ_p w_ip f_p / Σ_p w_ip over the pixels p of all views, w = alpha · transmittance: one adjoint of the rasteriser per view
(docs/methods.md; Occam's LGS). Views are streamed, maps are lifted a few channels at a time, and a `Projection` lets a
million Gaussians hold 64 numbers each instead of 512. `fit_field` then teaches them to a semantic field: the warm start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmgs_ns.rasterize.lift import lift
from vlmgs_ns.semantics.field import SemanticField
from vlmgs_ns.semantics.losses import LossWeights, huber, mse
from vlmgs_ns.system.progress import Report

CHANNELS = 64
"""Channels lifted at once, at most."""
NEAR = 0.05
"""Views closer than this to the running direction (distance of unit vectors) all weigh the same."""


@dataclass
class FeatureView:
    """One view: what was rasterised, and a feature map of its photo."""

    info: dict[str, Any]
    """The third value of `rasterization` for one camera and all N Gaussians."""
    features: Tensor  # [h, w, D] of any float type and any size; resized bilinearly to the picture
    mask: Tensor | None = None  # [H, W] bool: pixels that count; None: all


Views = Callable[[], Iterable[FeatureView]]
"""Called once for each pass over the views: they are made again rather than kept."""


@dataclass(frozen=True)
class Projection:
    """An orthonormal projection of features to fewer dimensions: lengths and cosines within its span are kept."""

    axes: Tensor  # [d, D] orthonormal rows

    @staticmethod
    def fit(maps: Iterable[Tensor], dims: int) -> Projection:
        """Return the `dims` axes that keep most of the maps' squares; maps [..., D] are read once, one at a time.

        Raises:
            ValueError: no maps, or fewer channels than `dims`.
        """
        moment: Tensor | None = None
        for features in maps:
            rows = features.reshape(-1, features.shape[-1]).float()
            square = (rows.T @ rows).double()
            moment = square if moment is None else moment + square
        if moment is None:
            raise ValueError("no feature maps to fit a projection to: give at least one")
        if not 1 <= dims <= len(moment):
            raise ValueError(f"a projection of {len(moment)} channels to {dims}: give a number from 1 to {len(moment)}")
        return Projection(torch.linalg.eigh(moment)[1].flip(1)[:, :dims].T.float().contiguous())

    def apply(
        self,
        features: Tensor,  # [..., D]
    ) -> Tensor:
        """[..., d]."""
        return features @ self.axes.T.to(features)

    def restore(
        self,
        projected: Tensor,  # [..., d]
    ) -> Tensor:
        """Return the nearest features of which these are the projection. [..., D]."""
        return projected @ self.axes.to(projected)


@dataclass
class Lifted:
    """Features of N Gaussians."""

    features: Tensor  # [N, D], or [N, d] with a projection; 0 where not seen
    mass: Tensor  # [N] Σ w over the pixels that counted
    seen: Tensor  # [N] bool: mass above 0
    projection: Projection | None = None
    """By which the features were reduced."""

    def rows(
        self,
        ids: Tensor,  # [M] int64
    ) -> Tensor:
        """Return the features of some Gaussians in all their channels. [M, D]."""
        part = self.features[ids]
        return part if self.projection is None else self.projection.restore(part)


@torch.no_grad()
def lift_features(
    views: Views,
    *,
    projection: Projection | None = None,
    gate: float = 0.0,
    robust_passes: int = 0,
    scratch: float = math.inf,
    progress: Report | None = None,
) -> Lifted:
    """Return the weighted mean of the features of all pixels that show a Gaussian.

    Args:
        views: makes the views, all of the same N Gaussians, for one pass over them.
        projection: reduces the maps before they are lifted.
        gate: in [0, 1]; a view counts for a Gaussian only if it shows at least this fraction of the mass that the best view
            shows. It leaves out views in which the Gaussian is nearly hidden, far, or at the border. Costs one pass more.
        robust_passes: so many times the mean is taken again, with every view's share divided by its distance from the running
            direction (Weiszfeld's steps to the median of directions): views that disagree lose their weight.
        scratch: bytes for the channels that are lifted at once, one of them at least.
        progress: called with the views done, over all passes.

    Returns:
        features, never NaN: where no pixel shows a Gaussian, 0 and not seen.

    Raises:
        ValueError: no views, a fraction outside [0, 1], views of different Gaussians, or maps that are not finite.
    """
    if not 0 <= gate <= 1:
        raise ValueError(f"gate={gate} is not a fraction: give a number from 0 to 1")
    done = 0
    best: Tensor | None = None

    def counted() -> Iterable[FeatureView]:
        nonlocal done
        for view in views():
            yield view
            done += 1
            if progress is not None:
                progress(done)

    if gate > 0:
        for view in counted():
            mass = _mass(view)
            best = mass if best is None else torch.maximum(best, _alike(mass, best))
    lifted = _mean(counted(), projection, gate, best, None, scratch)
    for _ in range(robust_passes):
        again = _mean(counted(), projection, gate, best, F.normalize(lifted.features, dim=-1), scratch)
        lifted = Lifted(again.features, lifted.mass, lifted.seen, projection)
    return lifted


def fit_field(
    field: SemanticField,
    means: Tensor,  # [N, 3] world
    clip: Lifted,
    dino: Lifted,
    *,
    steps: int = 500,
    batch: int = 8192,
    lr: float = 1e-2,
    final_lr: float = 2e-3,
    generator: torch.Generator | None = None,
    progress: Report | None = None,
) -> list[float]:
    """Warm start: teach the field the lifted features, in minibatches of Gaussians and without rasterising.

    The losses are those of the pictures, without alignment (`losses`), on each Gaussian's own features; lifted CLIP features
    are made unit vectors first. The schedule is FMGS': an exponential decay of the rate, clipped gradients. The optimiser is
    Adam: RAdam takes a tenth of its rate at first and a third after two hundred steps, too little for as few as these.

    Args:
        field: trained in place.
        means: centres of the Gaussians.
        clip, dino: what was lifted for them.
        steps: optimiser steps.
        batch: Gaussians a step, drawn with replacement by the mass that CLIP was lifted from, as pictures would weigh them.
        lr, final_lr: learning rates of the first and the last step.
        generator: for the draw.
        progress: called with the steps done, and the loss.

    Returns:
        the loss of each step.

    Raises:
        ValueError: no Gaussian was seen, or not as many features as means.
    """
    if not len(means) == len(clip.mass) == len(dino.mass):
        raise ValueError(f"{len(means)} means, {len(clip.mass)} CLIP and {len(dino.mass)} DINO features: one of each a Gaussian")
    both = clip.seen & dino.seen
    odds = clip.mass.double() * both
    total = odds.cumsum(dim=0)
    if not bool(both.any()):
        raise ValueError(f"none of {len(means)} Gaussians was seen in a view: lift features before fitting the field")
    weights = LossWeights()
    optimizer = torch.optim.Adam(field.parameters(), lr=lr, eps=1e-15)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, (final_lr / lr) ** (1 / max(1, steps - 1)))
    history = []
    for step in range(steps):
        # not torch.multinomial, which takes at most 2²⁴ Gaussians
        draw = torch.rand(batch, generator=generator, dtype=torch.float64).to(total.device) * total[-1]
        ids = torch.searchsorted(total, draw, right=True).clamp_max(len(means) - 1)
        clip_now, dino_now = field(means[ids])
        loss = weights.clip * huber(clip_now, F.normalize(clip.rows(ids), dim=-1)) + weights.dino * mse(dino_now, dino.rows(ids))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(field.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append(float(loss.detach()))
        if progress is not None:
            progress(step + 1, f"loss {history[-1]:.4f}")
    return history


def _mean(
    views: Iterable[FeatureView],
    projection: Projection | None,
    gate: float,
    best: Tensor | None,  # [N] greatest mass in a view
    running: Tensor | None,  # [N, D] unit vectors
    scratch: float,
) -> Lifted:
    """One pass; views weigh what they show, and with `running` the less the farther they are from it."""
    sums = total = None
    for view in views:
        mass = _mass(view)
        shown = mass > 0 if best is None else (mass > 0) & (mass >= gate * best)
        ids = torch.nonzero(shown)[:, 0]
        features = view.features.to(mass.device)
        if projection is not None:
            features = projection.apply(features.float())
        if sums is None or total is None:
            sums, total = mass.new_zeros(len(mass), features.shape[-1]), torch.zeros_like(mass)
        _alike(mass, total)
        shares = mass[ids]
        if running is None:
            for begin, part in _lifted_parts(view, features, scratch):
                sums[:, begin : begin + part.shape[1]].index_add_(0, ids, part[ids])
        else:
            means = torch.cat([part[ids] for _, part in _lifted_parts(view, features, scratch)], dim=1) / shares[:, None]
            apart = (F.normalize(means, dim=-1) - running[ids]).norm(dim=-1)
            shares = shares / apart.clamp_min(NEAR)
            sums.index_add_(0, ids, means * shares[:, None])
        total.index_add_(0, ids, shares)
    if sums is None or total is None:
        raise ValueError("no views to lift features from: give at least one")
    seen = total > 0
    return Lifted(sums.div_(torch.where(seen, total, 1.0)[:, None]), total, seen, projection)


def _mass(view: FeatureView) -> Tensor:
    """Return the blending mass of each Gaussian in the pixels that count. [N]."""
    info = view.info
    if len(info["depths"]) != 1:
        raise ValueError(f"a view of {len(info['depths'])} cameras: rasterise the cameras one at a time")
    ones = torch.ones(1, info["height"], info["width"], 1, device=info["depths"].device)
    return lift(info, ones if view.mask is None else ones * view.mask[None, ..., None])[0, :, 0]


def _lifted_parts(
    view: FeatureView,
    features: Tensor,  # [h, w, D]
    scratch: float,
) -> Iterable[tuple[int, Tensor]]:
    """Yield the first channel and Σ w f [N, channels] of a few channels at a time."""
    size = view.info["height"], view.info["width"]
    # The adjoint holds a row for every splat of every tile; the sums and a copy of them, and the map, are held as well.
    rows = len(view.info["flatten_ids"]) + 2 * view.info["depths"].shape[1] + 3 * size[0] * size[1]
    channels = int(max(1, min(CHANNELS, scratch / (4 * rows))))
    for begin in range(0, features.shape[-1], channels):
        part = features[..., begin : begin + channels].float()
        if not torch.isfinite(part).all():
            raise ValueError("a feature map has values that are NaN or infinite: it would spoil every Gaussian that it shows")
        if part.shape[:2] != size:
            part = resized(part, size)
        if view.mask is not None:
            part = part * view.mask[..., None]
        yield begin, lift(view.info, part[None])[0]


def resized(
    features: Tensor,  # [h, w, D]
    size: tuple[int, int],  # H, W
) -> Tensor:  # [H, W, D]
    """Return a map resized bilinearly."""
    return F.interpolate(features.movedim(-1, 0)[None], size=size, mode="bilinear", align_corners=False)[0].movedim(0, -1)


def _alike(mass: Tensor, other: Tensor) -> Tensor:
    if mass.shape != other.shape:
        raise ValueError(f"views of {len(mass)} and of {len(other)} Gaussians: rasterise all of them in every view")
    return mass
