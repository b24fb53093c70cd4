"""Sparse points like those of structure from motion: on seen surfaces, with colours and the views that see them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmgs_ns.toy.raycast import Photo
from vlmgs_ns.toy.solid import Array
from vlmgs_ns.toy.viewpoints import Pinhole, Viewpoint

NOISE = 0.004
"""Standard deviation of the points' position error, metres."""
_DEPTH_SLACK = 0.02
_MIN_VIEWS = 2
_OVERSAMPLE = 1.3


@dataclass(frozen=True, eq=False)
class Points:
    """P points and their M observations, sorted by view and then by point."""

    xyz: Array
    """World positions with noise, metres, [P, 3] float64."""
    rgb: Array
    """sRGB, [P, 3] uint8."""
    error: Array
    """Mean reprojection error in pixels, [P]."""
    view: Array
    """View of each observation, [M] int."""
    point: Array
    """Point of each observation, [M] int."""
    pixel: Array
    """Column and row at which the view sees it, pixel centres at half integers, [M, 2]."""


def sample_points(rng: np.random.Generator, lens: Pinhole, views: list[Viewpoint], photos: list[Photo], count: int) -> Points:
    """At most ``count`` points from random pixels of the training views, each seen by at least two of these.

    Fewer remain where too few pixels are seen twice. Held-out views add observations, never points or colours.
    """
    train = [k for k, view in enumerate(views) if not view.held_out]
    true, rgb = _draw(rng, lens, [views[k] for k in train], [photos[k] for k in train], round(_OVERSAMPLE * count))
    seen = [_observe(lens, view, photo, true) for view, photo in zip(views, photos, strict=True)]
    supporters = np.zeros(true.shape[1], int)
    for k in train:
        supporters[seen[k][0]] += 1
    kept = np.flatnonzero(supporters >= min(_MIN_VIEWS, len(train)))
    kept = np.sort(rng.permutation(kept)[:count])
    new_index = np.full(true.shape[1], -1)
    new_index[kept] = np.arange(len(kept))
    xyz = (true[:, kept] + rng.normal(0.0, NOISE, (3, len(kept)))).T
    view_ids, point_ids, pixels = [], [], []
    for k, (index, pixel) in enumerate(seen):
        chosen = new_index[index] >= 0
        view_ids.append(np.full(int(chosen.sum()), k))
        point_ids.append(new_index[index[chosen]])
        pixels.append(pixel[chosen])
    view, point, pixel = np.concatenate(view_ids), np.concatenate(point_ids), np.concatenate(pixels)
    return Points(xyz, rgb[kept], _errors(lens, views, xyz, view, point, pixel), view, point, pixel)


def _draw(
    rng: np.random.Generator, lens: Pinhole, views: list[Viewpoint], photos: list[Photo], count: int
) -> tuple[Array, Array]:
    """Surface points [3, Q] and colours [Q, 3] at random pixels away from the outlines of objects."""
    positions, colours = [], []
    share = -(-count // len(views))
    for view, photo in zip(views, photos, strict=True):
        inner = photo.instance[1:-1, 1:-1]
        flat = np.ones(inner.shape, bool)
        for neighbour in (
            photo.instance[:-2, 1:-1],
            photo.instance[2:, 1:-1],
            photo.instance[1:-1, :-2],
            photo.instance[1:-1, 2:],
        ):
            flat &= neighbour == inner
        free = np.flatnonzero(flat)
        chosen = rng.choice(free, min(share, len(free)), replace=False)
        row, column = chosen // inner.shape[1] + 1, chosen % inner.shape[1] + 1
        depth = photo.depth[row, column].astype(np.float64)
        x = (column + 0.5 - lens.cx) / lens.focal * depth
        y = (row + 0.5 - lens.cy) / lens.focal * depth
        positions.append(np.einsum("ij,jn->in", view.rotation, np.stack([x, y, depth])) + view.position[:, None])
        colours.append(photo.rgb[row, column])
    return np.concatenate(positions, axis=1), np.concatenate(colours)


def project(lens: Pinhole, view: Viewpoint, p: Array) -> tuple[Array, Array]:
    """Pixels [N, 2] and depths [N] of world points [3, N]; pixels of points behind the camera mean nothing."""
    x, y, depth = view.to_camera(p)
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    return np.stack([lens.focal * x / safe + lens.cx, lens.focal * y / safe + lens.cy], axis=1), depth


def _observe(lens: Pinhole, view: Viewpoint, photo: Photo, p: Array) -> tuple[Array, Array]:
    """Return the indices [S] int of the points [3, Q] that a view sees, and their pixels [S, 2]."""
    pixel, depth = project(lens, view, p)
    column, row = np.floor(pixel).T
    framed = np.flatnonzero((depth > 0.05) & (column >= 0) & (row >= 0) & (column < lens.width) & (row < lens.height))
    surface = photo.depth[row[framed].astype(int), column[framed].astype(int)]
    index = framed[np.abs(surface - depth[framed]) < _DEPTH_SLACK * depth[framed]]
    return index, pixel[index]


def _errors(lens: Pinhole, views: list[Viewpoint], xyz: Array, view: Array, point: Array, pixel: Array) -> Array:
    """Mean distance in pixels between each noisy point's projections and its observations, [P]."""
    total, count = np.zeros(len(xyz)), np.bincount(point, minlength=len(xyz))
    for k, viewpoint in enumerate(views):
        mine = view == k
        projected, _ = project(lens, viewpoint, xyz[point[mine]].T)
        total += np.bincount(point[mine], np.linalg.norm(projected - pixel[mine], axis=1), minlength=len(xyz))
    return total / np.maximum(count, 1)


def write_ply(path: Path, points: Points) -> None:
    """Binary PLY with x y z (float32 metres) and red green blue (uint8)."""
    record = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows = np.empty(len(points.xyz), record)
    rows["xyz"], rows["rgb"] = points.xyz, points.rgb
    properties = [f"property float {c}" for c in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}", *properties, "end_header", ""]
    path.write_bytes("\n".join(header).encode() + rows.tobytes())
