"""How far away a pixel is, by what neighbouring photos agree on: a plane sweep along single rays.

A point at the right depth has the same colours in all photos that see it. For each pixel, a small patch is moved through a range
of depths and compared with the neighbours; the depth where they agree best is taken where it stands out. This needs no geometry,
and so serves where training has none yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vlmgs_ns.guidance.disagreement import Neighbour

PATCH = (-2.0, 0.0, 2.0)
"""Offsets of the patch's pixels, in both directions."""
AGREEING = 3
"""Neighbours, the best matching ones, that are averaged: others may be hidden by something in front."""
GREATEST_COST = 0.08
"""Mean absolute colour difference up to which photos agree."""
STANDS_OUT = 0.5
"""The best depth must cost at most this part of what the median depth does: along a striped wall many depths fit."""
UNIQUE = 0.7
"""The best depth must cost at most this part of what any depth does that is not beside it: on a carpet several depths fit."""
BESIDE = 4
"""Steps of depth to either side that count as beside the best."""
PLAIN = 0.02
"""A patch for which the median depth costs less than this has nothing to compare: along a plain wall every depth fits."""


@torch.no_grad()
def photo_depth(
    pixels: Tensor,  # [P, 2] row, column
    photo: Tensor,  # [H, W, 3] in [0, 1]
    K: Tensor,  # [3, 3]
    camera_to_world: Tensor,  # [4, 4]
    neighbours: Sequence[Neighbour],
    depths: Tensor,  # [D]
) -> Tensor:
    """Depth of each pixel on which neighbouring photos agree. [P] z-depth, world units; NaN where none stands out.

    Args:
        photo, K, camera_to_world: the pixels' view; intrinsics in pixels, pose with OpenCV axes.
        neighbours: other photos, of any size; their depth is not used.
        depths: z-depths to try, at least three, world units, monotonous; the answer lies between them.
    """
    P, D = len(pixels), len(depths)
    if P == 0 or len(neighbours) == 0:
        return photo.new_full((P,), torch.nan)
    step = torch.tensor(PATCH, device=photo.device)
    offsets = torch.stack(torch.meshgrid(step, step, indexing="ij"), dim=-1).reshape(-1, 2)
    at = pixels[:, None].float() + offsets  # [P, 9, 2]
    rows, columns = at[..., 0].clamp(0, photo.shape[0] - 1), at[..., 1].clamp(0, photo.shape[1] - 1)
    wanted = photo[rows.long(), columns.long()]  # [P, 9, 3]
    x, y = (columns.floor() + 0.5 - K[0, 2]) / K[0, 0], (rows.floor() + 0.5 - K[1, 2]) / K[1, 1]
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ camera_to_world[:3, :3].T  # [P, 9, 3]
    points = camera_to_world[:3, 3] + rays[:, None] * depths[:, None, None]  # [P, D, 9, 3]
    costs = torch.stack([_cost(points, wanted, neighbour) for neighbour in neighbours])  # [K, P, D]
    best = costs.sort(dim=0).values[: min(AGREEING, len(neighbours))].mean(dim=0)  # [P, D]
    cost, index = best.min(dim=1)
    usual = best.masked_fill(best.isinf(), torch.nan).nanmedian(dim=1).values
    away = (torch.arange(D, device=index.device) - index[:, None]).abs() > BESIDE
    second = best.masked_fill(~away, torch.inf).amin(dim=1)
    clear = (
        cost.isfinite() & (cost <= UNIQUE * second) & (cost <= GREATEST_COST) & (cost <= STANDS_OUT * usual) & (usual >= PLAIN)
    )
    # the ends of the range are where the cost was still falling, not where it is least
    clear &= (index > 0) & (index < D - 1)
    return torch.where(clear, _between(depths, best, index), torch.full_like(cost, torch.nan))


def _between(
    depths: Tensor,  # [D]
    costs: Tensor,  # [P, D]
    index: Tensor,  # [P]
) -> Tensor:  # [P]
    """The depth of the least cost of a parabola through the best depth's cost and its two neighbours', in inverse depth."""
    middle = index.clamp(1, len(depths) - 2)
    before, at, after = (costs.gather(1, (middle + k)[:, None]).squeeze(1) for k in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = torch.where(bend > 0, 0.5 * (before - after) / bend.clamp_min(1e-12), torch.zeros_like(at))
    shift = torch.nan_to_num(shift).clamp(-0.5, 0.5)
    inverse = 1 / depths
    other = inverse[middle + shift.sign().long()]
    return 1 / (inverse[middle] + shift.abs() * (other - inverse[middle]))


def _cost(
    points: Tensor,  # [P, D, 9, 3]
    wanted: Tensor,  # [P, 9, 3]
    neighbour: Neighbour,
) -> Tensor:  # [P, D]
    """Mean colour difference of the patches in one neighbour; infinite where it does not see the whole patch."""
    world_to_camera = neighbour.camera_to_world.inverse()
    local = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    z = local[..., 2]
    projected = local @ neighbour.K.T
    height, width = neighbour.photo.shape[:2]
    u = projected[..., 0] / z.clamp_min(1e-6) / width * 2 - 1
    v = projected[..., 1] / z.clamp_min(1e-6) / height * 2 - 1
    seen = ((z > 1e-6) & (u.abs() < 1) & (v.abs() < 1)).all(dim=-1)
    grid = torch.stack([u, v], dim=-1).reshape(1, 1, -1, 2)
    colours = grid_sample(neighbour.photo.movedim(-1, 0)[None], grid, align_corners=False, padding_mode="border")
    colours = colours[0, :, 0].T.reshape(*u.shape, 3)
    cost = (colours - wanted[:, None]).abs().mean(dim=(-1, -2))
    return torch.where(seen, cost, torch.full_like(cost, torch.inf))
