"""Casts the rays of one view and shades what they meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmgs_ns.toy.decor import paint_ceiling, paint_floor, paint_wall
from vlmgs_ns.toy.light import LightMap, panel_points
from vlmgs_ns.toy.room import Part, Room, rotate
from vlmgs_ns.toy.solid import Array
from vlmgs_ns.toy.textures import encode, paint
from vlmgs_ns.toy.viewpoints import Pinhole, Viewpoint

_NEAR = 0.05
_GLOW = 1.15


@dataclass(frozen=True, eq=False)
class Photo:
    """Colour, object ids and depth of one view."""

    rgb: Array
    """sRGB, antialiased, [H, W, 3] uint8."""
    instance: Array
    """Object id at pixel centres, 0 for the room, [H, W] uint8."""
    depth: Array
    """z-depth at pixel centres, metres, [H, W] float32."""


def photograph(room: Room, maps: list[LightMap], lens: Pinhole, view: Viewpoint, supersample: int = 2) -> Photo:
    """Render one view; colour is the mean of ``supersample²`` samples per pixel, in linear light."""
    fine = cast(room, lens, view, supersample)
    light = shade(room, maps, view, fine)
    s, h, w = supersample, lens.height, lens.width
    mean = light.reshape(3, h, s, w, s).mean(axis=(2, 4), dtype=np.float32)
    centre = fine if s == 1 else cast(room, lens, view, 1)
    instance = room.owners[centre.part].reshape(h, w)
    return Photo(encode(np.moveaxis(mean, 0, -1)), instance, centre.depth.reshape(h, w))


def instances(room: Room, lens: Pinhole, view: Viewpoint) -> Array:
    """Object id at pixel centres, [H, W] uint8, without shading."""
    return room.owners[cast(room, lens, view, 1).part].reshape(lens.height, lens.width)


@dataclass(frozen=True, eq=False)
class Hits:
    """First hits of a grid of rays, flattened row by row."""

    direction: Array
    """World directions with unit depth, [3, N]."""
    depth: Array
    """z-depth, metres, [N]."""
    part: Array
    """0 for the shell, then 1 + position in ``room.parts``, [N]."""


def cast(room: Room, lens: Pinhole, view: Viewpoint, per_side: int) -> Hits:
    """First hits of ``per_side²`` rays per pixel, evenly spaced and centred in the pixel."""
    s = per_side
    x = ((np.arange(lens.width * s) + 0.5) / s - lens.cx) / lens.focal
    y = ((np.arange(lens.height * s) + 0.5) / s - lens.cy) / lens.focal
    r = view.rotation
    # z-depth is the ray parameter because directions have unit depth.
    direction = np.empty((3, len(y), len(x)), np.float32)
    for k in range(3):
        direction[k] = (r[k, 0] * x).astype(np.float32)[None] + (r[k, 1] * y + r[k, 2]).astype(np.float32)[:, None]
    depth = _leave_shell(room, view, direction)
    owner = np.zeros(depth.shape, np.uint8)
    eye = view.position.astype(np.float32)[:, None]
    for k, part in enumerate(room.parts, start=1):
        rows, columns = _window(part, lens, view, s)
        window = direction[:, rows, columns]
        if not window.size:
            continue
        flat = part.turn_local(window.reshape(3, -1))
        t = part.shape.intersect(part.to_local(eye), flat).reshape(window.shape[1:])
        nearer = t < depth[rows, columns]
        depth[rows, columns][nearer] = t[nearer]
        owner[rows, columns][nearer] = k
    return Hits(direction.reshape(3, -1), depth.ravel(), owner.ravel())


def _leave_shell(room: Room, view: Viewpoint, direction: Array) -> Array:
    """Depth at which rays [3, H, W] from inside the room reach its shell, [H, W]."""
    eye = view.position - room.shell.centre
    depth = np.full(direction.shape[1:], np.inf, np.float32)
    with np.errstate(divide="ignore"):
        for k, half in enumerate(room.shell.shape.half):
            gap = np.where(direction[k] > 0, np.float32(half - eye[k]), np.float32(-half - eye[k]))
            # a ray along a wall never reaches it, whichever sign its zero has
            np.minimum(depth, np.where(direction[k] == 0, np.float32(np.inf), gap / direction[k]), out=depth)
    return depth


def _window(part: Part, lens: Pinhole, view: Viewpoint, s: int) -> tuple[slice, slice]:
    """Rows and columns of the ray grid that can meet a part."""
    half = np.array(part.shape.half)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]).T
    corners = view.to_camera(part.to_world(signs * half[:, None]))
    if corners[2].max() <= _NEAR:
        return slice(0, 0), slice(0, 0)
    if corners[2].min() <= _NEAR:
        return slice(0, lens.height * s), slice(0, lens.width * s)
    x = s * (lens.focal * corners[0] / corners[2] + lens.cx)
    y = s * (lens.focal * corners[1] / corners[2] + lens.cy)
    return _span(y, lens.height * s), _span(x, lens.width * s)


def _span(values: Array, size: int) -> slice:
    first = int(np.clip(np.floor(values.min()) - 1, 0, size))
    return slice(first, max(first, int(np.clip(np.ceil(values.max()) + 1, 0, size))))


def shade(room: Room, maps: list[LightMap], view: Viewpoint, hits: Hits) -> Array:
    """Linear light, [3, N], that leaves each hit towards the camera."""
    out = np.empty((3, len(hits.depth)), np.float32)
    eye = view.position.astype(np.float32)[:, None]
    for k in np.flatnonzero(np.bincount(hits.part, minlength=len(room.owners))):
        at = np.flatnonzero(hits.part == k)
        direction = np.stack([row[at] for row in hits.direction])
        p = eye + hits.depth[at] * direction
        if k == 0:
            colour = _shade_shell(room, maps[0], p)
        else:
            colour = _shade_part(room, room.parts[k - 1], maps[k], p, direction)
        for row, values in zip(out, colour, strict=True):
            row[at] = values
    return out


def _shade_part(room: Room, part: Part, light_map: LightMap, p: Array, direction: Array) -> Array:
    """Light leaving points ``p`` [3, N] of a part, [3, N]."""
    local = part.to_local(p)
    face, u, v = part.shape.chart(local)
    light = light_map.at(face, u, v)
    colour = paint(part.material, part.shape, local, face, u, v) * light
    if part.material.gloss:
        normal = np.empty_like(p)
        for k in np.unique(face):
            here = face == k
            normal[:, here] = rotate(part.rotation, part.shape.surface(int(k), u[here], v[here])[1])
        to_eye = -direction / np.linalg.norm(direction, axis=0)
        to_lamp = panel_points(room).mean(axis=1).astype(np.float32)[:, None] - p
        between = to_eye + to_lamp / np.linalg.norm(to_lamp, axis=0)
        between /= np.linalg.norm(between, axis=0)
        colour = colour + part.material.gloss * light * np.maximum((between * normal).sum(axis=0), 0.0) ** 60
    return colour


def _shade_shell(room: Room, light_map: LightMap, p: Array) -> Array:
    """Light leaving points ``p`` [3, N] of the floor, walls and ceiling, [3, N]."""
    face, u, v = room.shell.shape.chart(room.shell.to_local(p))
    light = light_map.at(face, u, v)
    out = np.empty_like(p)
    for k in np.flatnonzero(np.bincount(face, minlength=6)):
        at = np.flatnonzero(face == k)
        x, y, z = (row[at] for row in p)
        level = light[at]
        if k == 4:
            albedo = paint_floor(room.decor, x, y)
        else:
            albedo, glow = paint_ceiling(x, y) if k == 5 else paint_wall(room.decor, room.decor.walls[k], y if k < 2 else x, z)
            level = np.where(glow, np.float32(_GLOW), level)
        for row, values in zip(out, albedo, strict=True):
            row[at] = values * level
    return out
