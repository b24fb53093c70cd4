"""From a phrase to numbers per Gaussian and per pixel: relevancy, selection, masks, and colours for a whole feature map.

Relevancy (LERF, FMGS): against every negative n the softmax over (10·⟨f, phrase⟩, 10·⟨f, n⟩), and of these the minimum. It is in
[0, 1], and 0.5 where the phrase ties with the hardest negative. A softmax over two is a sigmoid of the difference, which falls
as the negative's score rises: the minimum is the sigmoid against the greatest negative score, and nothing can overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEGATIVES = ("object", "things", "stuff", "texture")
"""Phrases that a query has to beat (FMGS, after LERF)."""
TEMPERATURE = 10.0
_ROWS = 1 << 16


def relevancy_from_scores(
    scores: Tensor,  # [..., P + M] of the phrases, then of the negatives
    phrases: int,  # P
) -> Tensor:
    """Return the relevancy of every phrase from scores ⟨f, text⟩, of Gaussians or blended. [..., P] in [0, 1].

    Raises:
        ValueError: no negatives.
    """
    if scores.shape[-1] <= phrases:
        raise ValueError(f"no negative phrases to compare with: give at least one, as {', '.join(NEGATIVES)}")
    hardest = scores[..., phrases:].amax(dim=-1, keepdim=True)
    return torch.sigmoid(TEMPERATURE * (scores[..., :phrases] - hardest))


def select(
    relevancy: Tensor,  # [N]
    threshold: float,
) -> Tensor:
    """Return the Gaussians more relevant than the threshold. [N] bool. At 0.5, a tie with a negative is not selected."""
    return relevancy > threshold


def segment(
    relevancy_map: Tensor,  # [H, W]
    threshold: float,
    alpha: Tensor | None = None,  # [H, W]
    least_alpha: float = 0.5,
) -> Tensor:
    """Return the mask of the pixels more relevant than the threshold. [H, W] bool.

    Where `alpha`, the blended opacity, is given, pixels that less than `least_alpha` covers are left out: their scores are all
    near 0, so that their relevancy is near 0.5 for any phrase.
    """
    mask = relevancy_map > threshold
    return mask if alpha is None else mask & (alpha >= least_alpha)


@dataclass(frozen=True)
class PcaBasis:
    """Three axes by which features are coloured; made once for a scene, so that its pictures do not flicker."""

    mean: Tensor  # [D]
    axes: Tensor  # [D, 3] orthonormal columns, or 0 where the features have fewer dimensions
    spread: Tensor  # [3] standard deviation along each axis


def pca_basis(
    features: Tensor,  # [N, D]
) -> PcaBasis:
    """Return the three principal axes of the features. No chance in it, and each axis' largest entry is positive.

    Without features (N = 0) every colour is grey.
    """
    count, dims = features.shape
    if count == 0:
        return PcaBasis(features.new_zeros(dims), features.new_zeros(dims, 3), features.new_zeros(3))
    mean = torch.stack([part.double().sum(dim=0) for part in features.split(_ROWS)]).sum(dim=0) / count
    covariance = torch.zeros(dims, dims, dtype=torch.float64, device=features.device)
    for part in features.split(_ROWS):  # so that a million features never stand in memory twice
        offsets = part.double() - mean
        covariance += offsets.T @ offsets
    values, vectors = torch.linalg.eigh(covariance / count)
    values, axes = values.flip(0)[:3], vectors.flip(1)[:, :3]
    real = values > 1e-12 * values[:1].clamp_min(1e-30)
    axes, values = axes * real, values * real
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    missing = 3 - len(values)
    axes, values = torch.nn.functional.pad(axes, (0, missing)), torch.nn.functional.pad(values, (0, missing))
    return PcaBasis(mean.to(features.dtype), axes.to(features.dtype), values.sqrt().to(features.dtype))


def pca_colours(
    features: Tensor,  # [..., D]
    basis: PcaBasis,
) -> Tensor:
    """Red, green and blue along the three axes: the mean is grey, ±2 standard deviations are full. [..., 3] in [0, 1]."""
    along = (features - basis.mean) @ basis.axes
    flat = basis.spread == 0
    return (0.5 + torch.where(flat, 0.0, along / torch.where(flat, 1.0, 4 * basis.spread))).clamp(0, 1)
