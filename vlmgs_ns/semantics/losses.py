"""Losses of the semantic field: Huber on CLIP, squared error on DINO, and pixel alignment of the two (FMGS, 3.4).

Reductions, which the paper leaves open. `huber` and `mse` sum over channels and take the mean over the pixels that count.
`pixel_alignment` takes the mean over the pairs of neighbours that count: both pixels inside the picture and the mask, and both
with a direction in both maps. No loss is NaN where nothing counts: it is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

HUBER_DELTA = 1.25
NO_DIRECTION = 1e-6
"""Vectors shorter than this have no direction: what is rendered where there is no Gaussian."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Half of the eight neighbours (rows down, columns right): the other half are the same pairs from their other ends."""


@dataclass
class LossWeights:
    """Weights of the terms (FMGS)."""

    clip: float = 0.2
    """Weight of the Huber loss on CLIP."""
    dino: float = 0.8
    """Weight of the squared error on DINO."""
    alignment: float = 0.05
    """Weight of the pixel alignment; 0 leaves it out, as the first 2,500 steps do. The paper's 0.01, in means over cells."""


@dataclass
class SemanticLoss:
    """The weighted sum and its terms before weighting, scalars."""

    total: Tensor
    clip: Tensor
    dino: Tensor
    alignment: Tensor


def huber(
    predicted: Tensor,  # [..., D]
    target: Tensor,  # [..., D]
    mask: Tensor | None = None,  # [...] bool
    delta: float = HUBER_DELTA,
) -> Tensor:
    """Huber loss, summed over channels, mean over pixels (of the mask: True counts)."""
    predicted, target = _counted(predicted, target, mask)
    return _mean(F.huber_loss(predicted, target, reduction="none", delta=delta).sum(dim=-1))


def mse(
    predicted: Tensor,  # [..., D]
    target: Tensor,  # [..., D]
    mask: Tensor | None = None,  # [...] bool
) -> Tensor:
    """Squared error, summed over channels, mean over pixels (of the mask: True counts)."""
    predicted, target = _counted(predicted, target, mask)
    return _mean((predicted - target).square().sum(dim=-1))


def pixel_alignment(
    clip: Tensor,  # [H, W, D]
    dino: Tensor,  # [H, W, E]
    mask: Tensor | None = None,  # [H, W] bool
) -> Tensor:
    """L1 distance of CLIP's cosine similarity between neighbours to DINO's, mean over pairs of the 3×3 neighbourhood.

    DINO is the teacher: it receives no gradient. A pixel without a direction in one of the maps takes part in no pair.
    """
    if clip.shape[:2] != dino.shape[:2] or clip.dim() != 3 or dino.dim() != 3:
        raise ValueError(f"maps of shapes {list(clip.shape)} and {list(dino.shape)}: both must be [H, W, channels] of one size")
    a, counts = _directions(clip)
    b, also = _directions(dino.detach())
    counts = counts & also if mask is None else counts & also & mask
    height, width = counts.shape
    total, pairs = clip.sum() * 0, counts.new_zeros((), dtype=torch.int64)
    for down, right in NEIGHBOURS:
        here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
        there = slice(down, height), slice(max(0, right), width - max(0, -right))
        both = counts[here] & counts[there]
        gap = (a[here] * a[there]).sum(dim=-1) - (b[here] * b[there]).sum(dim=-1)
        total = total + torch.where(both, gap.abs(), 0.0).sum()
        pairs = pairs + both.sum()
    return total / pairs.clamp_min(1)


def semantic_loss(
    clip: Tensor,  # [H, W, D] rendered
    clip_target: Tensor,  # [H, W, D]
    dino: Tensor,  # [H, W, E] rendered
    dino_target: Tensor,  # [H, W, E]
    mask: Tensor | None = None,  # [H, W] bool
    weights: LossWeights | None = None,
) -> SemanticLoss:
    """Return all three terms of one picture. Pixels in `mask` count; None: all."""
    weights = weights or LossWeights()
    on_clip, on_dino = huber(clip, clip_target, mask), mse(dino, dino_target, mask)
    alignment = pixel_alignment(clip, dino, mask) if weights.alignment else torch.zeros_like(on_clip)
    total = weights.clip * on_clip + weights.dino * on_dino + weights.alignment * alignment
    return SemanticLoss(total, on_clip, on_dino, alignment)


def _counted(predicted: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Select the pixels that count; not multiplied by zero, so that a target may be NaN where it is masked."""
    if predicted.shape != target.shape:
        raise ValueError(f"predicted {list(predicted.shape)} and target {list(target.shape)} must have the same shape")
    return (predicted, target) if mask is None else (predicted[mask], target[mask])


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(1, losses.numel())


def _directions(
    vectors: Tensor,  # [H, W, D]
) -> tuple[Tensor, Tensor]:
    """Return unit vectors [H, W, D] and where they are defined [H, W] bool; elsewhere 0 without gradient."""
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    long = lengths > NO_DIRECTION
    return torch.where(long, vectors / torch.where(long, lengths, 1.0), 0.0), long[..., 0]
