"""How far away a pixel is, by what neighbouring photos agree on: a plane sweep along single rays.

A point at the right depth has the same colours in all photos that see it. For each pixel, a small patch is moved through a range
of depths and compared with the neighbours; the depth where they agree best is taken where it stands out. This needs no geometry,
and so serves where training has none yet. On a CPU a kernel (`sweep`) compares, elsewhere batches of torch do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from vlmgs_ns.rasterize.threads import parallel_for

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


GRAIN = 64  # pixels that a thread takes at a time
BATCH = 2048  # pixels whose points torch holds at a time


@dataclass(frozen=True)
class Neighbour:
    """A training view beside the one in question."""

    photo: Tensor
    """[h, w, 3] in [0, 1]."""
    K: Tensor
    """[3, 3] intrinsics, pixels of the photo."""
    camera_to_world: Tensor
    """[4, 4], OpenCV axes."""
    depth: Tensor | None = None
    """[h, w] rendered z-depth of this view, NaN where it is unknown; without it every point in the picture counts as seen."""


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
    costs = matching_costs(pixels, photo, K, camera_to_world, neighbours, depths[None])
    cost, index = costs.min(dim=1)
    usual = costs.masked_fill(costs.isinf(), torch.nan).nanmedian(dim=1).values
    away = (torch.arange(D, device=index.device) - index[:, None]).abs() > BESIDE
    second = costs.masked_fill(~away, torch.inf).amin(dim=1)
    clear = (
        cost.isfinite() & (cost <= UNIQUE * second) & (cost <= GREATEST_COST) & (cost <= STANDS_OUT * usual) & (usual >= PLAIN)
    )
    # the ends of the range are where the cost was still falling, not where it is least
    clear &= (index > 0) & (index < D - 1)
    return torch.where(clear, best_depth(depths[None], costs), torch.full_like(cost, torch.nan))


@torch.no_grad()
def matching_costs(
    pixels: Tensor,  # [P, 2] row, column
    photo: Tensor,  # [H, W, 3] in [0, 1]
    K: Tensor,  # [3, 3]
    camera_to_world: Tensor,  # [4, 4]
    neighbours: Sequence[Neighbour],
    depths: Tensor,  # [P, D], or [1, D] for all pixels
) -> Tensor:  # [P, D]
    """Mean colour difference of patches at each depth, over the neighbours that match best; infinite where too few see them.

    Arguments as those of `photo_depth`.
    """
    rays, wanted = _patches(pixels, photo, K)
    costs = _costs_by_kernel if photo.device.type == "cpu" else _costs_by_torch
    return costs(rays, wanted, camera_to_world, neighbours, depths)


def _patches(
    pixels: Tensor,  # [P, 2]
    photo: Tensor,  # [H, W, 3]
    K: Tensor,  # [3, 3]
) -> tuple[Tensor, Tensor]:  # [P, 9, 3], [P, 9, 3]
    """Rays of the pixels' patches in their camera, at z = 1, and colours; at the picture's edge its last pixels again."""
    step = torch.tensor(PATCH, device=photo.device)
    offsets = torch.stack(torch.meshgrid(step, step, indexing="ij"), dim=-1).reshape(-1, 2)
    at = pixels[:, None].float() + offsets  # [P, 9, 2]
    rows, columns = at[..., 0].clamp(0, photo.shape[0] - 1), at[..., 1].clamp(0, photo.shape[1] - 1)
    wanted = photo[rows.long(), columns.long()]  # [P, 9, 3]
    x, y = (columns.floor() + 0.5 - K[0, 2]) / K[0, 0], (rows.floor() + 0.5 - K[1, 2]) / K[1, 1]
    rays = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # [P, 9, 3]
    return rays, wanted


def best_depth(
    depths: Tensor,  # [P, D], or [1, D] for all pixels
    costs: Tensor,  # [P, D]
) -> Tensor:  # [P]
    """Depth of the least cost of a parabola through the best depth's cost and its two neighbours', in inverse depth."""
    middle = costs.argmin(dim=1, keepdim=True).clamp(1, costs.shape[1] - 2)
    before, at, after = (costs.gather(1, middle + k) for k in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = torch.where(bend > 0, 0.5 * (before - after) / bend.clamp_min(1e-12), torch.zeros_like(at))
    shift = torch.nan_to_num(shift).clamp(-0.5, 0.5)
    inverse = (1 / depths).expand_as(costs)
    best, other = inverse.gather(1, middle), inverse.gather(1, middle + shift.sign().long())
    return (1 / (best + shift.abs() * (other - best)))[:, 0]


def _costs_by_kernel(
    rays: Tensor,  # [P, 9, 3]
    wanted: Tensor,  # [P, 9, 3]
    camera_to_world: Tensor,  # [4, 4]
    neighbours: Sequence[Neighbour],
    depths: Tensor,  # [P, D] or [1, D]
) -> Tensor:  # [P, D]
    """`matching_costs` on the CPU."""
    from vlmgs_ns.rasterize.jit import announce_compilation  # brings numba

    with announce_compilation():
        from vlmgs_ns.densify import sweep

    photos = torch.cat([pad(neighbour.photo.float().reshape(-1, 3), (0, 1)) for neighbour in neighbours])
    sizes = torch.tensor([neighbour.photo.shape[:2] for neighbour in neighbours])  # [K, 2]
    first = sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
    projections = torch.stack(
        [n.K.double() @ (n.camera_to_world.double().inverse() @ camera_to_world.double())[:3] for n in neighbours]
    )
    out = torch.empty(len(rays), depths.shape[1])
    parallel_for(
        sweep.patch_costs, len(rays), GRAIN, rays[..., :2].float().contiguous().numpy(), pad(wanted.float(), (0, 1)).numpy(),
        depths.float().contiguous().numpy(), photos.numpy(), torch.cat([first[:, None], sizes], dim=1).numpy(),
        projections.float().numpy(), min(AGREEING, len(neighbours)), out.numpy(),
    )  # fmt: skip
    return out


def _costs_by_torch(
    rays: Tensor,  # [P, 9, 3]
    wanted: Tensor,  # [P, 9, 3]
    camera_to_world: Tensor,  # [4, 4]
    neighbours: Sequence[Neighbour],
    depths: Tensor,  # [P, D] or [1, D]
) -> Tensor:  # [P, D]
    """`matching_costs` on any device."""
    out = rays.new_empty(len(rays), depths.shape[1])
    for some in torch.arange(len(rays), device=rays.device).split(BATCH):
        z = depths[some] if len(depths) > 1 else depths
        points = camera_to_world[:3, 3] + (rays[some] @ camera_to_world[:3, :3].T)[:, None] * z[..., None, None]  # [P, D, 9, 3]
        costs = torch.stack([_cost(points, wanted[some], neighbour) for neighbour in neighbours])  # [K, P, D]
        out[some] = costs.sort(dim=0).values[: min(AGREEING, len(neighbours))].mean(dim=0)
    return out


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
