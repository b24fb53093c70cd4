"""Multi-view scores of Gaussians: how consistently views need more detail, and each one's share of the error (FastGS, section 3).

For K training views j with render r_j and photo g_j, the error map e_j = mean over channels of |r_j - g_j|, min-max normalised
per view, marks the pixels M_j = e_j > τ. With count_ij, the marked pixels of view j to which Gaussian i contributes (an exact
integer), and E_j = 0.8·L1 + 0.2·(1 - SSIM), of what the view's mask leaves:

    importance s_d(i) = floor(Σ_j count_ij / K)          densify where it is high in many views
    pruning    s_p(i) = minmax_i(Σ_j count_ij · E_j)     prune where it is high

The views are the renders that training makes anyway in the last K steps before a round. Sums lie in the strategy's state, under
the keys below: what is planted meanwhile leaves them with their Gaussians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmgs_ns.rasterize.lift import contribution_counts

MARKED, BLAMED, VIEWS = KEYS = ("marked", "blamed", "scored_views")

ERROR_THRESHOLD = 0.1
"""τ."""


@dataclass
class ScoredView:
    """A training photo and the present render of it."""

    render: Tensor  # [H, W, 3] in [0, 1]
    photo: Tensor  # [H, W, 3] in [0, 1]
    info: dict[str, Any]
    """The third value of `rasterization` (one camera)."""
    mask: Tensor | None = None  # [H, W] bool: pixels that count; None: all


@dataclass
class Scores:
    """Per-Gaussian scores of one round."""

    importance: Tensor  # [N] float, whole numbers: s_d
    pruning: Tensor  # [N] float in [0, 1]: s_p


def min_max(values: Tensor) -> Tensor:
    """Scaled to [0, 1]; all zero where all values are the same."""
    if values.numel() == 0:
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


def error_mask(
    render: Tensor,  # [H, W, 3]
    photo: Tensor,  # [H, W, 3]
    threshold: float = ERROR_THRESHOLD,
    mask: Tensor | None = None,  # [H, W] bool
) -> Tensor:
    """M_j: pixels whose error, normalised over the view (over the mask, if there is one), exceeds the threshold. [H, W] bool."""
    error = (render - photo).abs().mean(dim=-1)
    if mask is None:
        return min_max(error) > threshold
    marked = torch.zeros_like(mask)
    marked[mask] = min_max(error[mask]) > threshold
    return marked


@torch.no_grad()
def add_view(
    state: dict[str, Any],
    view: ScoredView,
    ssim: Callable[[Tensor, Tensor], Tensor],
    threshold: float = ERROR_THRESHOLD,
) -> None:
    """Count one more view; it shows the Gaussians as they are now.

    Args:
        ssim: structural similarity of two pictures [1, 3, H, W].
    """
    counts = contribution_counts(view.info, error_mask(view.render, view.photo, threshold, view.mask)[None]).sum(dim=0).double()
    blame = counts * _loss(view, ssim)
    seen = number_of_views(state)
    state[MARKED], state[BLAMED] = (state[MARKED] + counts, state[BLAMED] + blame) if seen else (counts, blame)
    state[VIEWS] = seen + 1


def number_of_views(state: dict[str, Any]) -> int:
    """Return how many views were counted since scores were last taken."""
    return state.get(VIEWS) or 0


def take_scores(state: dict[str, Any]) -> Scores:
    """Return s_d and s_p of the views counted so far, at least one, and begin anew."""
    marked, blamed, count = state[MARKED], state[BLAMED], state[VIEWS]
    state[MARKED], state[BLAMED], state[VIEWS] = None, None, 0
    return Scores(torch.div(marked, count, rounding_mode="floor").float(), min_max(blamed).float())


def _loss(view: ScoredView, ssim: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """E_j; pixels that do not count are black in both pictures, and the mean is over those that do."""
    render, photo, share = view.render, view.photo, 1.0
    if view.mask is not None:
        render, photo = (torch.where(view.mask[..., None], picture, 0.0) for picture in (render, photo))
        share = max(float(view.mask.float().mean()), 1 / view.mask.numel())
    l1 = (render - photo).abs().mean()
    similarity = ssim(render.movedim(-1, 0)[None], photo.movedim(-1, 0)[None])
    return (0.8 * l1 + 0.2 * (1 - similarity)) / share
