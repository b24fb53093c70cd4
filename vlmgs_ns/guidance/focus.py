"""From regions to Gaussians: which of them a round's answers are about.

A region is traced back through the rasteriser (`lift`): per Gaussian, the blending mass that falls inside the regions over the
mass that the same views see of it. The views vote: a Gaussian is in focus where nearly all of that mass is inside and several
views see it, so that boxes around an object, which in any single view also cover what stands behind it, together single out the
object. On the embedded scene, five views, most objects: half the mass in any number of views gave 60 to 80 % of Gaussians on the
object that the boxes were drawn around, 80 % of it in two views gives 91 to 99 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmgs_ns.densify.budget import keep_highest
from vlmgs_ns.rasterize.lift import lift

MAJORITY = 0.8
"""Share of a Gaussian's visible mass that must lie inside the regions."""
WITNESSES = 2
"""Views, of those answered, that must see a Gaussian; where there are fewer, all of them."""
GLIMPSE = 0.1
"""Blending mass, in pixels, from which on a view's vote counts: little, because opacities may just have been reset."""
UNSEEN = 0.5
"""Blending mass, in pixels, below which a photo does not show a Gaussian."""


@dataclass(frozen=True)
class TracedView:
    """The render of one view, and which of its pixels the answer is about."""

    info: dict[str, Any]
    """What `rasterization` returned with the render (one camera)."""
    mask: Tensor  # [H, W] bool


@torch.no_grad()
def focus(
    views: Iterable[TracedView], max_points: int | None = None, witnesses: int = WITNESSES, majority: float = MAJORITY
) -> Tensor:
    """The share of each Gaussian that lies inside the regions, 0 for those not chosen. [N] float in [0, 1].

    Each view chooses at most `max_points` of the Gaussians in focus, those with the greatest mass inside its mask; None: all.
    No views: [0].
    """
    inside = total = votes = None
    masses = []
    for view in views:
        maps = torch.stack([view.mask.float(), torch.ones_like(view.mask, dtype=torch.float32)], dim=-1)
        mass = lift(view.info, maps[None])[0]  # [N, 2]
        inside = mass[:, 0] if inside is None else inside + mass[:, 0]
        total = mass[:, 1] if total is None else total + mass[:, 1]
        sees = (mass[:, 1] >= GLIMPSE).int()
        votes = sees if votes is None else votes + sees
        masses.append(mass[:, 0])
    if inside is None or total is None or votes is None:
        return torch.zeros(0)
    share = torch.where(total > 0, inside / total.clamp_min(1e-12), torch.zeros_like(total)).clamp(0, 1)
    in_focus = (share >= majority) & (votes >= min(witnesses, len(masses)))
    chosen = torch.zeros_like(in_focus)
    for mass_inside in masses:
        chosen |= keep_highest(in_focus & (mass_inside > 0), mass_inside, len(share) if max_points is None else max_points)
    return share * chosen


@torch.no_grad()
def seen_mass(info: dict[str, Any]) -> Tensor:
    """Blending mass of each Gaussian in a render, in pixels. [N]."""
    everything = torch.ones(1, info["height"], info["width"], 1, device=info["means2d"].device)
    return lift(info, everything)[0, :, 0]
