"""Settings of the semantic stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vlmgs_ns.semantics.field import LITE, FieldConfig
from vlmgs_ns.semantics.losses import LossWeights
from vlmgs_ns.semantics.relevancy import NEGATIVES
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.ranges import Count, Fraction, Positive, Some, check_ranges

Mode = Literal["warm", "fmgs", "lift"]
MANY_STEPS = 1500
"""Rendered steps from which RAdam, which the paper takes, serves as well as Adam."""


@dataclass
class SemanticsConfig:
    """The semantic field, built on the finished Gaussians. The defaults are FMGS' own where FMGS has them."""

    enabled: bool = True
    """Build it after the last iteration, so that the scene can be searched with words."""
    mode: Mode = "warm"
    """warm: fit the field to features lifted from the photos, then refine it on rendered maps; fmgs: train it on rendered maps
    alone, as the paper does; lift: keep the lifted features themselves, no field and no training."""
    sizes: FieldConfig = field(default_factory=FieldConfig)
    """Hash grids and heads. The encoders say clip_dim and dino_dim, whatever is given here."""
    clip: str = "auto"
    """The image-text encoder: open_clip's name of an architecture, hf-hub:OWNER/NAME, or a folder. auto: ViT-B-16 where its
    weights are on this machine, else the embedded tiny CLIP, which knows the embedded rooms only: on any other scene, without
    --prompt, the stage is left out. embedded: that one, on any scene."""
    clip_pretrained: str = "laion2b_s34b_b88k"
    """open_clip's tag of the weights, or a file of weights; read for a name of an architecture, and for auto."""
    dino: str = "auto"
    """The dense encoder: a vision transformer's name on Hugging Face, or a folder. auto: facebook/dino-vits8 where its weights
    are on this machine, else the embedded tiny one."""
    dino_shorter_side: Some = 500
    """Pixels to which a photo's shorter side is scaled for the dense encoder; at most 240 for the embedded one."""
    device: str = "auto"
    """Device of the encoders; auto: CUDA where there is one, else the CPU."""
    dtype: str = "auto"
    """Precision of the encoders: float32, float16, bfloat16 or auto."""
    negatives: tuple[str, ...] = NEGATIVES
    """Phrases that a query has to beat."""
    gate: Fraction = 0.0
    """Lifting: a view counts for a Gaussian that it shows at least this fraction as much as the best view does; 0: all count."""
    robust_passes: Count = 0
    """Lifting: passes that take weight from views that disagree with the others."""
    smoothing: Count = 10
    """Lifting: times that CLIP features are averaged over touching Gaussians of much the same colour; 0: never."""
    lift_memory: Positive = 2.0
    """Gigabytes that lifting may hold beside the scene and the field; features are projected to as few dimensions as that takes,
    32 at least."""
    warm_steps: Count = 500
    """warm: steps on lifted features, without rendering."""
    warm_batch: Some = 8192
    """warm: Gaussians in each of those steps."""
    refine_steps: Count = 0
    """warm: rendered steps after those, one photo each, with pixel alignment. They tell things apart better, but what is found
    fits a fixed threshold less (docs/methods.md)."""
    steps: Count = 2500
    """fmgs: rendered steps without pixel alignment, one photo each."""
    alignment_steps: Count = 1700
    """fmgs: rendered steps after those, with pixel alignment."""
    render_size: Some = 480
    """Longer side in pixels of rendered maps, and at most half of the photo's."""
    lr: Positive = 5e-3
    """Learning rate of the first of 1,500 rendered steps or more (RAdam)."""
    short_lr: Positive = 1e-2
    """Learning rate of the first of fewer rendered steps, and of those on lifted features (Adam)."""
    final_lr: Positive = 2e-3
    """Learning rate of the last step, to which it falls."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Weights of the losses of rendered maps."""
    seed: int = 42
    """Seed of the field's initial weights, and of the order of Gaussians and photos."""

    def rendered_steps(self) -> tuple[int, int]:
        """Return the number of steps on rendered maps, and how many of them come before pixel alignment."""
        if self.mode == "fmgs":
            return self.steps + self.alignment_steps, self.steps
        return (self.refine_steps, 0) if self.mode == "warm" else (0, 0)

    def many_steps(self) -> bool:
        """Return whether rendered steps are enough for the paper's optimiser."""
        return self.mode == "fmgs" and self.steps + self.alignment_steps >= MANY_STEPS

    def check(self) -> None:
        """Raise InputError for a value out of range."""
        check_ranges(self, "--pipeline.model.semantics.")
        if not self.negatives or any(not phrase.strip() for phrase in self.negatives):
            raise InputError(
                "--pipeline.model.semantics.negatives are empty, but relevancy needs one; leave the flag out, or give some"
            )


LITE_SEMANTICS = SemanticsConfig(mode="lift", sizes=LITE, warm_steps=400, warm_batch=2048, steps=400, alignment_steps=200)
"""For a laptop's CPU: lifted features take a third of the processor time of a warm start, which finds about as much."""
