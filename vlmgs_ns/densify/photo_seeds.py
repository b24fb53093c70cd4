"""Gaussians to start from, out of the training photos alone: points of their depth maps, thinned to a budget.

Where a photo shows detail they are small and dense, where it is plain, large and few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vlmgs_ns.densify.depth_maps import STEP, DepthMap, SeedPhoto, depth_maps
from vlmgs_ns.densify.seeding import Seeds, ray_points
from vlmgs_ns.system.progress import Report

DETAIL, PLAINEST = 0.03, 4.0
"""Contrast of a patch from which on a point stands for one cell alone, and for how many cells' widths it may stand at most."""
OPACITY = (0.1, 0.5)
"""Opacity of a point that no neighbour confirms, and of one that all do."""
BISECTIONS = 6
HASH = np.array([73856093, 19349663, 83492791])  # of a cube's three indices
SPREAD = 0.5
"""Standard deviation of a Gaussian, in units of the distance to the next."""


def seeds_from_photos(
    photos: Sequence[SeedPhoto],
    extent: float,
    count: int,
    progress: Report = lambda done, note="": None,
) -> Seeds:
    """At most `count` Gaussians on the surfaces on which photos agree, coloured by the photo.

    Args:
        photos: of one scene, at the size at which they are compared.
        extent: of the scene, world units: decides the range of depths.
        progress: called `depth_maps.PASSES` times for each photo.
    """
    parts = [_points(photo, known) for photo, known in zip(photos, depth_maps(photos, extent, progress), strict=True)]
    means, colours, widths, support = (torch.cat(values) for values in zip(*parts, strict=True))
    chosen, factor = _thinned(means, widths, support, count)
    sizes = SPREAD * factor * widths[chosen]
    return Seeds(
        means=means[chosen],
        scales=sizes[:, None].repeat(1, 3),
        quats=means.new_tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(chosen), 1),
        colors=colours[chosen],
        opacities=OPACITY[0] + (OPACITY[1] - OPACITY[0]) * support[chosen],
    )


def _points(photo: SeedPhoto, known: DepthMap) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # [M, 3], [M, 3], [M], [M]
    """Places, colours, widths (of what a point stands for, world units) and support of a photo's points."""
    grey = photo.photo.mean(dim=-1)[None, None]
    mean = avg_pool2d(grey, 5, 1, 2, count_include_pad=False)
    contrast = (avg_pool2d(grey**2, 5, 1, 2, count_include_pad=False) - mean**2).clamp_min(0).sqrt()[0, 0]
    there = known.depth.isfinite()
    pixels, depth = known.pixels[there], known.depth[there]
    rows, columns = pixels.unbind(-1)
    cells = (DETAIL / contrast[rows, columns].clamp_min(1e-6)).sqrt().clamp(1, PLAINEST)
    widths = cells * STEP * depth / photo.K[0, 0]
    return ray_points(pixels, depth, photo.K, photo.camera_to_world), photo.photo[rows, columns], widths, known.support[there]


def _thinned(
    means: Tensor,  # [M, 3]
    widths: Tensor,  # [M]
    support: Tensor,  # [M]
    count: int,
) -> tuple[Tensor, float]:
    """Indices of at most `count` points, one for each cube of about its width, and the factor on widths that this takes."""
    order = support.argsort(descending=True, stable=True)
    places, sizes = means[order].double().cpu().numpy(), widths[order].double().cpu().numpy()

    def first_in_cubes(factor: float) -> npt.NDArray[np.int64]:
        level = np.floor(np.log2(factor * sizes)).astype(np.int64)
        cubes = np.floor(places / np.exp2(level)[:, None]).astype(np.int64)
        return np.unique((cubes * HASH).sum(axis=1) * 64 + level % 64, return_index=True)[1]

    low, high = 1.0, 1.0
    while len(kept := first_in_cubes(high)) > count:
        low, high = high, 2 * high
    for _ in range(BISECTIONS if high > 1 else 0):
        tried = first_in_cubes(middle := (low + high) / 2)
        if len(tried) <= count:
            high, kept = middle, tried
        else:
            low = middle
    return order[torch.from_numpy(kept).to(order.device)], high
