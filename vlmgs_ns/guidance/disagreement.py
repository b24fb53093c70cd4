"""Where neighbouring photos contradict a render.

Each pixel of the render is a point in the world by its rendered depth. Seen from a neighbouring training camera that point should
have the colour of the photo there; where it has another, either the depth or the colour of the render is false. Cameras are
pinholes with OpenCV axes (x right, y down, z forward); pixel centres lie at half integers; photos are undistorted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vlmgs_ns.densify.photo_depth import Neighbour

COVERED = 0.5
"""Accumulated opacity from which on a rendered depth means something."""
HIDDEN = 0.05
"""A point is hidden from a neighbour if it lies deeper than what the neighbour renders there, by this part of that depth."""


@torch.no_grad()
def disagreement(
    render: Tensor,  # [H, W, 3] in [0, 1]
    depth: Tensor,  # [H, W]
    coverage: Tensor,  # [H, W]
    K: Tensor,  # [3, 3]
    camera_to_world: Tensor,  # [4, 4]
    neighbours: Sequence[Neighbour],
    hidden: float = HIDDEN,
) -> Tensor:
    """How much neighbouring photos, warped into a view by its rendered depth, differ from its render. [H, W] in [0, 1].

    Per pixel the median, over the neighbours that see its point, of the mean absolute colour difference; of an even number of
    them the lower middle one, so that with two the better match counts and one missed occlusion does not show. NaN where the view
    itself is not covered or no neighbour sees the point. What stands in front of a neighbour's surface counts as seen: a floater
    must show.

    Args:
        render, coverage: colours and accumulated opacity.
        depth: z-depth, world units (`rasterization`'s expected depth "ED").
        K, camera_to_world: intrinsics in pixels, and pose with OpenCV axes.
        neighbours: training views, each of any size.
        hidden: relative tolerance of the occlusion test.

    Raises:
        ValueError: maps of different sizes.
    """
    H, W = depth.shape
    if render.shape != (H, W, 3) or coverage.shape != (H, W):
        raise ValueError(
            f"render {list(render.shape)}, depth {list(depth.shape)} and coverage {list(coverage.shape)} do not fit together:"
            " give [H, W, 3], [H, W] and [H, W]"
        )
    render = render.float()
    points = _unproject(depth.float(), K.float(), camera_to_world.float())
    unknown = (coverage < COVERED) | ~depth.isfinite() | (depth <= 0)
    differences = [torch.full_like(points[..., 0], torch.nan)]
    for neighbour in neighbours:
        colours = _look_up(points, neighbour, hidden)
        differences.append((colours - render).abs().mean(dim=-1))
    return torch.stack(differences).nanmedian(dim=0).values.masked_fill(unknown, torch.nan)


def _unproject(
    depth: Tensor,  # [H, W]
    K: Tensor,  # [3, 3]
    camera_to_world: Tensor,  # [4, 4]
) -> Tensor:
    """World points of all pixel centres. [H, W, 3]."""
    H, W = depth.shape
    y, x = torch.meshgrid(*(torch.arange(size, device=depth.device) + 0.5 for size in (H, W)), indexing="ij")
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.linalg.inv(K).T
    return rays * depth[..., None] @ camera_to_world[:3, :3].T + camera_to_world[:3, 3]


def _look_up(
    points: Tensor,  # [H, W, 3] world
    neighbour: Neighbour,
    hidden: float,
) -> Tensor:
    """Colours of a neighbour's photo at points of the world, bilinear; NaN where it does not see them. [H, W, 3]."""
    h, w = neighbour.photo.shape[:2]
    pose = neighbour.camera_to_world.to(points)
    local = (points - pose[:3, 3]) @ pose[:3, :3]  # rotated by the transpose
    z = local[..., 2]
    pixels = (local @ neighbour.K.to(points).T)[..., :2] / z[..., None]
    size = points.new_tensor([w, h])
    seen = (z > 0) & (pixels >= 0).all(dim=-1) & (pixels <= size).all(dim=-1)
    grid = (2 * pixels / size - 1).nan_to_num(2, 2, -2)[None]  # -1 and 1 are the outer edges of the picture
    if neighbour.depth is not None:
        # Not bilinear: between two surfaces there is none.
        surface = grid_sample(
            neighbour.depth.to(points)[None, None], grid, mode="nearest", padding_mode="border", align_corners=False
        )[0, 0]
        seen &= ~(z > surface * (1 + hidden))
    photo = neighbour.photo.to(points).permute(2, 0, 1)[None]
    colours = grid_sample(photo, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    return colours.permute(1, 2, 0).masked_fill(~seen[..., None], torch.nan)
