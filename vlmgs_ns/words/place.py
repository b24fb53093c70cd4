"""Where a phrase is in space: the box around the Gaussians that it selects, in the scene's coordinates and the data's own.

A Gaussian of the wall behind a thing may be as relevant as the thing, but hardly shows in the thing's mask; one is enough to
double the box. So the box is drawn around those selected Gaussians that show mostly in masks. Of what no view shows, such as
the inside of a thing, relevancy alone decides. A box around two things that both fit, or around a thing and a stain far from it,
would lie between them: of several connected parts, the box is of the one that the masks show most clearly. In the box each
Gaussian counts as clearly as the masks show it: one of the wall behind hardly does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.words.box import OrientedBox, oriented_box
from vlmgs_ns.words.clean import cleaned
from vlmgs_ns.words.find import Found

LEAST_IN_MASK = 0.5
"""Share of what a Gaussian shows in all views that lies in the phrase's masks."""
LEAST_SHOWN = 1.0
"""Blending weight over all views, in pixels, from which a Gaussian counts as shown."""


@dataclass(frozen=True)
class Place:
    """The Gaussians of a phrase."""

    mask: Tensor  # [N] bool, on the CPU: selected, seen in masks where seen, and of the clearest part
    selected: int
    """Gaussians that the phrase selects, as `words.find` does, seen in masks or not."""
    box: OrientedBox | None
    """Around the mask, in the scene's coordinates, nerfstudio's; None where it is empty."""


def places(
    found: Found,
    splats: Splats,
    neighbours: Neighbours,
    threshold: float,
    shown: Tensor,  # [N, P + 1] on the CPU
) -> list[Place]:
    """Return the place of each phrase.

    Args:
        found: the Gaussians of each phrase, selected with `threshold`.
        splats: all Gaussians of the scene.
        neighbours: Gaussians of the scene that touch.
        shown: as `Question.shown`, summed over all views.
    """
    above = (found.relevancy - threshold).clamp_min(0)
    return [
        _place(mask, splats, neighbours, shown[:, k], shown[:, -1], shown[:, k] * above[:, k])
        for k, mask in enumerate(found.masks.unbind(1))
    ]


def _place(
    selected: Tensor,  # [N] bool
    splats: Splats,
    neighbours: Neighbours,
    in_masks: Tensor,  # [N]
    in_all: Tensor,  # [N]
    clarity: Tensor,  # [N] how much a Gaussian shows in masks, and how relevant it is
) -> Place:
    shows = (in_masks >= LEAST_IN_MASK * in_all) | (in_all < LEAST_SHOWN)
    mask = cleaned(selected & shows, splats, neighbours).mask
    if mask.any():
        labels = neighbours.components(mask)
        parts = torch.zeros(int(labels.max()) + 1).index_add_(0, labels[mask], clarity[mask].float())
        mask = labels == parts.argmax()
    box = oriented_box(splats[mask.to(splats.means.device)], clarity[mask]) if mask.any() else None
    return Place(mask, int(selected.sum()), box)


def in_data(
    box: OrientedBox,
    transform: Tensor,  # [3, 4] rotation and translation from the data's coordinates
    scale: float,
) -> OrientedBox:
    """Return a box of the scene in the coordinates that the data came in: of its COLMAP model, or of transforms.json before its
    ``applied_transform``.

    nerfstudio maps x ↦ scale · (R x + t), its ``dataparser_transform`` and ``dataparser_scale``; this is the inverse.
    """
    rotation, translation = transform[:, :3].double().cpu(), transform[:, 3].double().cpu()
    centre = (box.centre.double().cpu() / scale - translation) @ rotation
    axes, size = box.axes.double().cpu() @ rotation, box.size.double().cpu() / scale
    return OrientedBox(centre.to(torch.float32), axes.to(torch.float32), size.to(torch.float32))
