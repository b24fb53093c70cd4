"""Where a phrase is in space: the box around the Gaussians that it selects, in the scene's coordinates and the data's own.

A Gaussian of the wall behind a thing may pass by its own relevancy, but hardly shows in the thing's mask; one is enough to
double the box. So a Gaussian is selected where it is relevant and shows mostly in masks. Of what no view shows, such as the
inside of a thing, relevancy alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmgs_ns.selection.box import OrientedBox, oriented_box
from vlmgs_ns.selection.clean import cleaned
from vlmgs_ns.selection.connect import Neighbours
from vlmgs_ns.semantics.blend import Splats
from vlmgs_ns.semantics.query import select

LEAST_IN_MASK = 0.5
"""Share of what a Gaussian shows in all views that lies in the phrase's masks."""
LEAST_SHOWN = 1.0
"""Blending weight over all views, in pixels, from which a Gaussian counts as shown."""


@dataclass(frozen=True)
class Place:
    """The Gaussians that a phrase selects."""

    mask: Tensor  # [N] bool, on the CPU, without dust
    box: OrientedBox | None
    """In the scene's coordinates, nerfstudio's; None where nothing is selected."""


def place_of(
    relevancy: Tensor,  # [N] in [0, 1], on the CPU
    splats: Splats,
    neighbours: Neighbours,
    threshold: float,
    in_masks: Tensor,  # [N]
    in_all: Tensor,  # [N]
) -> Place:
    """Select the Gaussians above the threshold that show in the masks, clean the selection and draw the box around it.

    Args:
        in_masks, in_all: what each Gaussian shows in the phrase's masks and altogether, as `Question.shown`, over all views.
    """
    shows = (in_masks >= LEAST_IN_MASK * in_all) | (in_all < LEAST_SHOWN)
    kept = cleaned(select(relevancy, threshold) & shows, splats, neighbours).mask
    return Place(kept, oriented_box(splats[kept.to(splats.means.device)]) if kept.any() else None)


def in_data(
    box: OrientedBox,
    transform: Tensor,  # [3, 4] rotation and translation from the data's coordinates
    scale: float,
) -> OrientedBox:
    """A box of the scene in the coordinates that the data came in: of its COLMAP model, or of transforms.json before its
    ``applied_transform``.

    nerfstudio maps x ↦ scale · (R x + t), its ``dataparser_transform`` and ``dataparser_scale``; this is the inverse.
    """
    rotation, translation = transform[:, :3].double().cpu(), transform[:, 3].double().cpu()
    centre = (box.centre.double().cpu() / scale - translation) @ rotation
    axes, size = box.axes.double().cpu() @ rotation, box.size.double().cpu() / scale
    return OrientedBox(centre.to(torch.float32), axes.to(torch.float32), size.to(torch.float32))
