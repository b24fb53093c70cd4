"""A selection without its dust: faint Gaussians, and parts that hang together with nothing of weight.

A phrase scores Gaussians one by one, so that a few far away pass by chance, and fog that no pixel shows comes along. Neither is
part of an object; in a viewer of its own, where nothing covers them, both show.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.shape import mass

LEAST_OPACITY = 0.1
LEAST_SHARE = 0.1


class Cleaned(NamedTuple):
    """What is left, and what was dropped."""

    mask: Tensor  # [N] bool
    faint: int
    """Gaussians dropped for their opacity."""
    apart: int
    """Gaussians dropped with the part they belong to."""


@torch.no_grad()
def cleaned(
    mask: Tensor,  # [N] bool
    splats: Splats,
    neighbours: Neighbours,
    least_opacity: float = LEAST_OPACITY,
    least_share: float = LEAST_SHARE,
) -> Cleaned:
    """Drop faint Gaussians, then the connected parts that are light beside the heaviest.

    Args:
        mask: the selection.
        splats: all Gaussians of the scene.
        neighbours: of the same scene.
        least_opacity: in [0, 1]; Gaussians below it go. 0 keeps them all.
        least_share: in [0, 1]; parts of less than this share of the heaviest part's mass go. 0 keeps all, 1 the heaviest alone.

    Raises:
        ValueError: a limit out of range, or a mask that does not fit the scene.
    """
    for name, value in (("least_opacity", least_opacity), ("least_share", least_share)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must be between 0 and 1")
    opaque = mask & (splats.opacities.cpu() >= least_opacity)
    labels = neighbours.components(opaque)
    if not opaque.any():
        return Cleaned(opaque, int(mask.sum()), 0)
    masses = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
    masses.index_add_(0, labels[opaque], mass(splats).detach().cpu().double()[opaque])
    # Relative to the heaviest, which always stays, a hair of rounding aside.
    heavy = masses >= least_share * masses.max()
    kept = torch.zeros_like(opaque)
    kept[opaque] = heavy[labels[opaque]]
    return Cleaned(kept, int((mask & ~opaque).sum()), int((opaque & ~kept).sum()))


@torch.no_grad()
def without_floaters(
    splats: Splats,
    neighbours: Neighbours,
) -> Tensor:  # [N] bool
    """Return which Gaussians of a scene are no floaters: what `cleaned` keeps of all, and the faint ones connected to that."""
    every = torch.ones(len(splats), dtype=torch.bool)
    return neighbours.grow(cleaned(every, splats, neighbours).mask, splats.opacities.cpu() < LEAST_OPACITY)
