"""Depth of training photos by plane sweep over neighbouring views: coarse to fine, checked against the neighbours' own depth.

A map has one value for each cell of `STEP` x `STEP` pixels, NaN where nothing is known. Where photos are too plain to agree on
anything, depth is interpolated from what is confirmed around, and kept where the photos do not contradict it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from vlmgs_ns.densify.photo_depth import GREATEST_COST, PLAIN, Neighbour, best_depth, matching_costs, photo_depth
from vlmgs_ns.densify.seeding import ray_points
from vlmgs_ns.system.progress import Report

STEP = 2
"""Pixels between two cells, in both directions; the coarse sweep takes every other cell, in a picture of half the size."""
NEIGHBOURS = 4
DEPTHS = 128
NEAR, FAR = 0.2, 20.0
"""Range of depths that are tried, in units of the scene's extent; even steps of inverse depth."""
REFINED = 9
"""Depths that the fine sweep tries, over two coarse steps to either side."""
SAME = 0.03
"""Depths of two photos agree up to this part of them."""
IN_FRONT = 0.1
"""An interpolated point that lies nearer to a neighbour than its surface does, by this part, would hide it."""
PASSES = 3
"""How often each photo is looked at: swept, checked and filled."""
BASELINE = 0.05
"""Least distance between two cameras that are compared, in units of the scene's extent: depth needs some."""
TURN = 2.0
"""What turning away by a right angle counts in the choice of neighbours, in units of the scene's extent."""
AROUND, REACH, COLOUR = 8, 16.0, 40.0
"""Confirmed cells that depth is interpolated from, how far away the nearest of them may be, in cells, and how many cells of
distance a whole unit of colour counts as: a plain area ends where its colour does."""
SMOOTH = 0.05
"""Relative deviation of the inverse depths that are interpolated: beyond it they belong to several surfaces."""


@dataclass(frozen=True)
class SeedPhoto(Neighbour):
    """A training photo whose depth is wanted."""

    mask: Tensor | None = None
    """[h, w] bool, the pixels that count; None: all."""


@dataclass(frozen=True)
class DepthMap:
    """What is known of one photo's depth."""

    pixels: Tensor  # [h, w, 2] row, column
    depth: Tensor  # [h, w] z-depth, world units; NaN where it is unknown
    support: Tensor  # [h, w] share of the neighbours that confirm it, in [0, 1]; 0 where it is interpolated


def depth_maps(
    photos: Sequence[SeedPhoto],
    extent: float,
    progress: Report = lambda done, note="": None,
) -> list[DepthMap]:
    """Depth of each photo that at least one neighbour (two, where there are three) confirms, plain areas filled.

    Args:
        progress: called `PASSES` times for each photo.
    """
    done = count(1)

    def looked_at(known: DepthMap) -> DepthMap:
        progress(next(done))
        return known

    near = neighbours_of(photos, extent)
    small = [_halved(photo) for photo in photos]
    swept = [
        looked_at(_sweep(photo, [photos[k] for k in others], half, [small[k] for k in others], extent))
        for photo, half, others in zip(photos, small, near, strict=True)
    ]
    confirmed = [looked_at(_confirmed(k, photos, swept, others)) for k, others in enumerate(near)]
    return [looked_at(_filled(k, photos, confirmed, others)) for k, others in enumerate(near)]


def neighbours_of(
    photos: Sequence[Neighbour],
    extent: float,
) -> list[list[int]]:
    """For each photo, those to compare it with: near, looking the same way, and not from (almost) the same place."""
    places = torch.stack([photo.camera_to_world[:3, 3] for photo in photos]).cpu()
    towards = torch.stack([photo.camera_to_world[:3, 2] for photo in photos]).cpu()
    distance = torch.cdist(places, places) / extent
    unlike = distance + TURN * (1 - towards @ towards.T)
    found = []
    for k in range(len(photos)):
        chosen: list[int] = []
        for other in unlike[k].argsort(stable=True).tolist():
            apart = distance[other, [k, *chosen]]
            if len(chosen) < NEIGHBOURS and other != k and bool((apart >= BASELINE).all()):
                chosen.append(other)
        found.append(chosen)
    return found


def _halved(photo: SeedPhoto) -> SeedPhoto:
    height, width = (max(1, size // 2) for size in photo.photo.shape[:2])
    small = interpolate(photo.photo.movedim(-1, 0)[None], (height, width), mode="area")[0].movedim(0, -1)
    factors = photo.K.new_tensor([[width / photo.photo.shape[1]], [height / photo.photo.shape[0]], [1.0]])
    return replace(photo, photo=small.contiguous(), K=photo.K * factors)


def _cells(photo: Tensor) -> Tensor:  # [h, w, 2]
    """Row and column of each cell's pixel."""
    rows, columns = (torch.arange(STEP // 2, size, STEP, device=photo.device) for size in photo.shape[:2])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def _sweep(
    photo: SeedPhoto, others: Sequence[SeedPhoto], half: SeedPhoto, halves: Sequence[SeedPhoto], extent: float
) -> DepthMap:
    """Coarse depth over the whole range in pictures of half the size, then fine depth around it."""
    pixels = _cells(photo.photo)
    h, w = pixels.shape[:2]
    flat = pixels.reshape(-1, 2)
    found = DepthMap(pixels, photo.photo.new_full((h, w), torch.nan), photo.photo.new_zeros(h, w))
    at = _cells(half.photo)
    if not others or 0 in at.shape:
        return found
    inverse = torch.linspace(1 / (NEAR * extent), 1 / (FAR * extent), DEPTHS, device=photo.photo.device)
    coarse = photo_depth(at.reshape(-1, 2), half.photo, half.K, half.camera_to_world, halves, 1 / inverse).reshape(at.shape[:2])
    i, j = ((torch.arange(size) // 2).clamp(max=most - 1) for size, most in zip((h, w), at.shape[:2], strict=True))
    guess = _grown(coarse)[i][:, j].reshape(-1)
    tried = guess.isfinite()
    if photo.mask is not None:
        tried &= photo.mask[flat[:, 0], flat[:, 1]]
    if not tried.any():
        return found
    steps = torch.linspace(2, -2, REFINED, device=inverse.device) * (inverse[0] - inverse[1])
    depths = 1 / (1 / guess[tried, None] + steps).clamp_min(float(inverse[-1]) / 2)
    costs = matching_costs(flat[tried], photo.photo, photo.K, photo.camera_to_world, others, depths)
    least, index = costs.min(dim=1)
    clear = (least <= GREATEST_COST) & (index > 0) & (index < REFINED - 1) & (costs.amax(dim=1) >= PLAIN)
    found.depth.view(-1)[tried] = torch.where(clear, best_depth(depths, costs), torch.nan)
    return found


def _grown(depth: Tensor) -> Tensor:  # [h, w]
    """A map whose unknown cells beside known ones have the median of these."""
    around = torch.stack([pad(depth, (1, 1, 1, 1), value=torch.nan)[i : i + depth.shape[0], j : j + depth.shape[1]]
                          for i in range(3) for j in range(3)])  # fmt: skip
    return torch.where(depth.isfinite(), depth, around.nanmedian(dim=0).values)


def _seen(
    points: Tensor,  # [P, 3] world
    other: SeedPhoto,
    known: DepthMap,
) -> tuple[Tensor, Tensor]:  # [P], [P]
    """Depth of points in another photo, and the depth that is known there; NaN where it does not see them."""
    world_to_camera = other.camera_to_world.inverse()
    local = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    z = local[:, 2].masked_fill(local[:, 2] <= 0, torch.nan)
    column, row = (local @ other.K.T)[:, 0] / z, (local @ other.K.T)[:, 1] / z
    h, w = known.depth.shape
    i, j = (row.nan_to_num(-1) / STEP).floor().long(), (column.nan_to_num(-1) / STEP).floor().long()
    inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
    found = known.depth[i.clamp(0, h - 1), j.clamp(0, w - 1)]
    return z, found.masked_fill(~inside, torch.nan)


def _confirmed(index: int, photos: Sequence[SeedPhoto], swept: Sequence[DepthMap], others: Sequence[int]) -> DepthMap:
    """The depths that enough neighbours' own maps agree with."""
    mine, photo = swept[index], photos[index]
    known = mine.depth.isfinite()
    votes = torch.zeros_like(mine.depth)
    points = ray_points(mine.pixels[known], mine.depth[known], photo.K, photo.camera_to_world)
    for k in others:
        z, theirs = _seen(points, photos[k], swept[k])
        votes[known] += ((z - theirs).abs() <= SAME * z).float()
    enough = known & (votes >= min(2, max(1, len(others) - 1)))
    return DepthMap(mine.pixels, mine.depth.masked_fill(~enough, torch.nan), votes / max(1, len(others)) * enough)


def _filled(index: int, photos: Sequence[SeedPhoto], confirmed: Sequence[DepthMap], others: Sequence[int]) -> DepthMap:
    """The map with unknown cells interpolated from confirmed ones of about their colour, where photos do not contradict."""
    from scipy.spatial import cKDTree

    mine, photo = confirmed[index], photos[index]
    known, wanted = mine.depth.isfinite(), mine.depth.isnan()
    if photo.mask is not None:
        wanted &= photo.mask[mine.pixels[..., 0], mine.pixels[..., 1]]
    if int(known.sum()) < AROUND or not wanted.any():
        return mine
    colours = photo.photo[mine.pixels[..., 0], mine.pixels[..., 1]]
    places = torch.cat([mine.pixels / STEP, COLOUR * colours], dim=-1).cpu()
    tree = cKDTree(places[known.cpu()].numpy())
    distance, nearest = tree.query(places[wanted.cpu()].numpy(), AROUND, distance_upper_bound=2 * REACH)
    away = torch.from_numpy(distance).to(mine.depth)
    near = torch.from_numpy(nearest).to(known.device)
    weight = torch.where(away.isfinite(), 1 / (away + 0.5) ** 2, torch.zeros_like(away))
    inverse = (1 / mine.depth[known])[near.clamp(max=int(known.sum()) - 1)]
    total = weight.sum(dim=1).clamp_min(1e-12)
    mean = (weight * inverse).sum(dim=1) / total
    spread = ((weight * (inverse - mean[:, None]) ** 2).sum(dim=1) / total).sqrt()
    usable = (away[:, 0] <= REACH) & (spread <= SMOOTH * mean)
    pixels, depth = mine.pixels[wanted][usable], 1 / mean[usable]
    cameras = [photos[k] for k in others]
    fits = matching_costs(pixels, photo.photo, photo.K, photo.camera_to_world, cameras, depth[:, None])[:, 0] <= GREATEST_COST
    points = ray_points(pixels, depth, photo.K, photo.camera_to_world)
    for k in others:
        z, theirs = _seen(points, photos[k], confirmed[k])
        fits &= ~(z < (1 - IN_FRONT) * theirs)
    filled = mine.depth.clone()
    filled[tuple((pixels[fits] // STEP).T)] = depth[fits]
    return DepthMap(mine.pixels, filled, mine.support)
