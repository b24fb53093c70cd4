"""New Gaussians where a region asks for detail and there is nothing to densify: along its pixels' rays, at a plausible depth.

Plausible is the depth on which neighbouring photos agree. Where a gap in the background shows nothing that they could agree on,
it is the depth of the nearest surroundings that are there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vlmgs_ns.densify.photo_depth import Neighbour, photo_depth
from vlmgs_ns.densify.seeding import ray_points
from vlmgs_ns.guidance.training_scene import Render, TrainingScene, Viewpoint, nearest

GAP = 0.5
"""A pixel is a gap where its coverage is below this part of what most of the view has: after a reset of the opacities everything
is faint, but nothing is missing."""
WRONG = 0.1
"""Mean absolute colour error from which a pixel asks for a new Gaussian."""
NEIGHBOURS = 4
DEPTHS = 128
NEAR, FAR = 0.2, 8.0
"""Range of depths that are tried, in units of the scene's extent; even steps of inverse depth."""
GREATEST_SIZE = 4.0
"""Standard deviation of a new Gaussian, in pixels, at most."""


@torch.no_grad()
def plant(
    viewpoint: Viewpoint,
    render: Render,
    region: Tensor,  # [H, W] bool
    count: int,
    scene: TrainingScene,
    seed: int,
    fill_gaps: bool,
) -> int:
    """Plant up to `count` Gaussians for the pixels of a photo's region that the render gets most wrong; how many.

    Args:
        render: of the viewpoint.
        seed: decides which pixels are drawn, with weights by their error.
        fill_gaps: also plant in gaps where photos agree on no depth.
    """
    photo = scene.photo(viewpoint)
    error = (render.rgb - photo).abs().mean(dim=-1)
    gaps = region & (render.coverage < GAP * render.coverage.quantile(0.9))
    pixels = torch.nonzero((region & (error > WRONG)) | gaps)
    if len(pixels) == 0 or count < 1:
        return 0
    # Gumbel's trick: a draw without replacement, from a generator of its own so that training's is left alone
    noise = torch.rand(len(pixels), generator=torch.Generator().manual_seed(seed)).clamp(1e-7, 1 - 1e-7).to(error.device)
    keys = error[pixels[:, 0], pixels[:, 1]].clamp_min(1e-3).log() - torch.log(-torch.log(noise))
    drawn = pixels[keys.argsort(descending=True)[:count]]
    size = min(GREATEST_SIZE, 0.5 * math.sqrt(len(pixels) / len(drawn)))  # in pixels: they cover what they stand for
    others = [
        Neighbour(scene.photo(camera), camera.K, camera.opencv) for camera in nearest(scene.viewpoints(), viewpoint, NEIGHBOURS)
    ]
    extent = scene.extent()
    depths = 1 / torch.linspace(1 / (NEAR * extent), 1 / (FAR * extent), DEPTHS, device=error.device)
    depth = photo_depth(drawn, photo, viewpoint.K, viewpoint.opencv, others, depths)
    if fill_gaps:
        in_gap = gaps[drawn[:, 0], drawn[:, 1]] & depth.isnan()
        depth[in_gap] = _depth_around(drawn[in_gap], render.depth, region & ~gaps, extent)
    known = depth.isfinite()
    drawn, depth = drawn[known], depth[known]
    means = ray_points(drawn, depth, viewpoint.K, viewpoint.opencv)
    return scene.plant(means, photo[drawn[:, 0], drawn[:, 1]], size * depth / viewpoint.K[0, 0])


def _depth_around(
    pixels: Tensor,  # [P, 2]
    depth: Tensor,  # [H, W]
    known: Tensor,  # [H, W] bool
    extent: float,
) -> Tensor:  # [P]
    """Depth of the nearest pixel where it is known; behind everything where it is nowhere."""
    places = torch.nonzero(known)
    if len(places) == 0 or len(pixels) == 0:
        return depth.new_full((len(pixels),), 2 * extent)
    from scipy.spatial import cKDTree

    index = cKDTree(places.cpu().numpy()).query(pixels.cpu().numpy())[1]
    at = places[torch.from_numpy(index).to(places.device)]
    return depth[at[:, 0], at[:, 1]]
