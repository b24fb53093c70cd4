"""Where a phrase is in space: the box around the Gaussians that it selects, in the scene's coordinates and the data's own.

A box around two things that both fit, or around a thing and a stain far from it, would lie between them: of several connected
parts, the box is of the one that the masks show most clearly, unless all are wanted. In the box each Gaussian counts as clearly
as the masks show it: one of the wall behind hardly does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.words.box import OrientedBox, oriented_box
from vlmgs_ns.words.find import Found
from vlmgs_ns.words.query import Parts


@dataclass(frozen=True)
class Place:
    """The Gaussians of a phrase."""

    mask: Tensor  # [N] bool, on the CPU: selected, and of the wanted parts
    selected: int
    """Gaussians that the phrase selects, as `words.find` does, in all parts."""
    box: OrientedBox | None
    """Around the mask, in the scene's coordinates, nerfstudio's; None where it is empty."""


def places(
    found: Found,
    splats: Splats,
    neighbours: Neighbours,
    threshold: float,
    shown: Tensor,  # [N, P] on the CPU
    parts: Parts = "clearest",
) -> list[Place]:
    """Return the place of each phrase.

    Args:
        found: the Gaussians of each phrase, selected with `threshold`.
        splats: all Gaussians of the scene.
        neighbours: Gaussians of the scene that touch.
        shown: blending weight of each Gaussian in each phrase's masks, over all views, as of `Question.trace`.
        parts: of each phrase's selection.
    """
    clarity = shown * (found.relevancy - threshold).clamp_min(0)
    return [
        _place(mask, splats, neighbours, weights, parts)
        for mask, weights in zip(found.masks.unbind(1), clarity.unbind(1), strict=True)
    ]


def _place(
    selected: Tensor,  # [N] bool
    splats: Splats,
    neighbours: Neighbours,
    clarity: Tensor,  # [N] how much a Gaussian shows in masks, and how relevant it is
    parts: Parts,
) -> Place:
    mask = selected
    if mask.any() and parts == "clearest":
        labels = neighbours.components(mask)
        weights = torch.zeros(int(labels.max()) + 1).index_add_(0, labels[mask], clarity[mask].float())
        mask = labels == weights.argmax()
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
