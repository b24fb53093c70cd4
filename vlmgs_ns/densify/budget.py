"""Choosing when there are more candidates than places: the highest scores win, always exactly as many as allowed."""

from __future__ import annotations

import torch
from torch import Tensor


def keep_highest(
    candidates: Tensor,  # [N] bool
    scores: Tensor,  # [N]
    places: int,
) -> Tensor:
    """Return the `places` candidates with the highest scores, all if there are fewer. Ties go to the lower index. [N] bool."""
    indices = torch.nonzero(candidates).squeeze(1)
    if len(indices) <= max(places, 0):
        return candidates
    order = torch.argsort(scores[indices], descending=True, stable=True)[: max(places, 0)]
    kept = torch.zeros_like(candidates)
    kept[indices[order]] = True
    return kept


def draw_half(
    candidates: Tensor,  # [N] bool
    scores: Tensor,  # [N] in [0, 1]
) -> Tensor:
    """Half of the candidates (rounded up), drawn among them with weight 1/(1e-6 + 1 - score) (FastGS' VCP). [N] bool."""
    indices = torch.nonzero(candidates).squeeze(1)
    drawn = torch.zeros_like(candidates)
    if len(indices):
        # Gumbel's trick draws without replacement, and unlike torch.multinomial has no limit of 2^24 categories
        weights = 1 / (1e-6 + 1 - scores[indices].double().clamp(0, 1))
        noise = -torch.log(-torch.log(torch.rand(len(indices), dtype=torch.float64, device=weights.device).clamp_min(1e-300)))
        order = torch.argsort(torch.log(weights) + noise, descending=True)
        drawn[indices[order[: (len(indices) + 1) // 2]]] = True
    return drawn
