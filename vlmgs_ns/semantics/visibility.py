"""Which Gaussians photos show. What only the rim of photos shows, or nothing, floats about when one looks from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmgs_ns.semantics.blend import shown
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.system.progress import bar

LEAST_WEIGHT, LEAST_PHOTOS = 0.1, 2
"""A Gaussian counts as photographed where this many photos show it, with this blending weight in pixels and its centre in the
picture."""


@dataclass(frozen=True)
class Visibility:
    """What photos show of the Gaussians."""

    weight: Tensor  # [N] blending weight over all photos, in pixels
    photos: Tensor  # [N] photos that show it
    cameras: int
    """Number of the photos."""
    fullest: int
    """The camera that shows the most Gaussians."""

    @property
    def photographed(self) -> Tensor:  # [N] bool
        """Which Gaussians enough photos show; of a single photo, those that it shows."""
        return self.photos >= min(LEAST_PHOTOS, self.cameras)


def visibility(splats: Splats, cameras: Sequence[Pinhole]) -> Visibility:
    """Look at all Gaussians of a scene from the cameras of its photos, one or more."""
    weight, photos, counts = torch.zeros(len(splats)), torch.zeros(len(splats), dtype=torch.int64), []
    with bar("Looking at what photos show", len(cameras)) as report:
        for number, camera in enumerate(cameras, start=1):
            white = torch.ones(camera.height, camera.width, 1)
            mine = shown(splats, camera, white, min_opacity=0.0, min_radius=0.0)[:, 0]
            there = ((mine >= LEAST_WEIGHT) & camera.shows(splats.means)).cpu()
            weight += mine.cpu()
            photos += there
            counts.append(int(there.sum()))
            report(number)
    return Visibility(weight, photos, len(cameras), counts.index(max(counts)))
