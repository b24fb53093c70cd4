"""Light baked once per scene into small grids on every face.

A bright panel in the ceiling, sampled at fixed points, casts soft shadows; a fixed fan of rays per surface point gives
the ambient part its occlusion. Because light is stored on surfaces it is the same in every view, and a view costs one
lookup per sample instead of dozens of shadow rays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmgs_ns.toy.decor import LAMP_HALF
from vlmgs_ns.toy.room import Part, Room, rotate
from vlmgs_ns.toy.solid import NEAREST, Array

_SHELL_CELL, _PART_CELL = 0.07, 0.035
"""Metres between the nodes of a grid, on the room and on objects."""
_LIFT = 4e-3
"""Metres a shadow ray starts above its surface."""
_REACH = 0.9
"""Metres beyond which a wall or object no longer darkens the ambient part."""
_AMBIENT, _PANEL = 0.47, 2.05


@dataclass(frozen=True, eq=False)
class LightMap:
    """Light on every face of one part, as one flat array for gathering."""

    values: Array
    """[sum of rows x columns] float32."""
    starts: Array
    """First value of each face, [F] int."""
    columns: Array
    """Nodes along u of each face, [F] int."""
    rows: Array
    """Nodes along v of each face, [F] int."""

    def at(
        self,
        face: Array,  # [N] int
        u: Array,  # [N] in [0, 1]
        v: Array,  # [N] in [0, 1]
    ) -> Array:  # [N]
        """Bilinear light at points of the part's faces."""
        columns = self.columns[face]
        x = u * (columns - 1).astype(np.float32)
        y = v * (self.rows[face] - 1).astype(np.float32)
        i = np.minimum(x.astype(np.int32), columns - 2)
        j = np.minimum(y.astype(np.int32), self.rows[face] - 2)
        fx, fy = x - i, y - j
        first = self.starts[face] + j * columns + i
        low = self.values[first] * (1 - fx) + self.values[first + 1] * fx
        above = first + columns
        high = self.values[above] * (1 - fx) + self.values[above + 1] * fx
        return low * (1 - fy) + high * fy


def bake(room: Room) -> list[LightMap]:
    """Light maps of the shell and of every part, in the order of ``room.owners``."""
    return [_bake_part(room, part, inward=k == 0) for k, part in enumerate((room.shell, *room.parts))]


def panel_points(room: Room) -> Array:
    """World positions of the light samples, [3, 20]."""
    x = (np.arange(5) - 2.0) / 2.5 * LAMP_HALF[0]
    y = (np.arange(4) - 1.5) / 2.0 * LAMP_HALF[1]
    grid_x, grid_y = np.meshgrid(x, y)
    return np.stack([grid_x.ravel(), grid_y.ravel(), np.full(20, room.height - 0.03)])


def _bake_part(room: Room, part: Part, inward: bool) -> LightMap:
    """Light on one part: grids of all faces computed together."""
    cell = _SHELL_CELL if inward else _PART_CELL
    rows, columns, points, normals = [], [], [], []
    for face in range(part.shape.faces):
        width, height = part.shape.lengths(face, np.array([0.25, 0.5, 0.75]))
        columns.append(int(np.clip(np.ceil(width.max() / cell), 3, 96)) + 1)
        rows.append(int(np.clip(np.ceil(height / cell), 3, 96)) + 1)
        u, v = np.meshgrid(np.linspace(0.0, 1.0, columns[-1]), np.linspace(0.0, 1.0, rows[-1]))
        # Nodes on an edge look past it: pull them in so that they see what the face sees.
        inset = 0.02
        p, n = part.shape.surface(face, np.clip(u.ravel(), inset / 4, 1 - inset / 4), np.clip(v.ravel(), inset, 1 - inset))
        points.append(p)
        normals.append(-n if inward else n)
    world = part.to_world(np.concatenate(points, axis=1)).astype(np.float32)
    normal = rotate(part.rotation, np.concatenate(normals, axis=1)).astype(np.float32)
    light = _light_at(room, world + _LIFT * normal, normal)
    sizes = np.array(rows) * np.array(columns)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    grids = np.split(light, starts[1:])
    soft = [
        _soften(grid.reshape(r, c), part.shape.wraps(face))
        for face, (grid, r, c) in enumerate(zip(grids, rows, columns, strict=True))
    ]
    values = np.concatenate([grid.ravel() for grid in soft]).astype(np.float32)
    return LightMap(values, starts.astype(np.int32), np.array(columns, np.int32), np.array(rows, np.int32))


def _light_at(room: Room, p: Array, n: Array) -> Array:
    """Light, [N], arriving at points ``p`` [3, N] with unit normals ``n`` [3, N], in units of full albedo."""
    total = np.zeros(p.shape[1], np.float32)
    lamps = panel_points(room).astype(np.float32)
    for lamp in lamps.T:
        d = lamp[:, None] - p
        squared = (d * d).sum(axis=0)
        facing = np.maximum((d * n).sum(axis=0), 0.0) / np.sqrt(squared)
        leaving = np.maximum(d[2], 0.0) / np.sqrt(squared)
        # Softer than the inverse square: the light of an overcast room, not of a torch.
        power = facing * (0.25 + 0.75 * leaving) / (0.9 + 0.28 * squared)
        lit = np.flatnonzero(power > 1e-4)
        clear = ~_blocked(room, p[:, lit], d[:, lit])
        total[lit[clear]] += power[lit[clear]]
    return _AMBIENT * _openness(room, p, n) + (_PANEL / lamps.shape[1]) * total


def _blocked(room: Room, p: Array, d: Array, limit: float = 1.0) -> Array:
    """Return whether a part lies between ``p`` and ``p + limit * d``, both [3, N]; [N] bool."""
    blocked = np.zeros(p.shape[1], bool)
    squared = (d * d).sum(axis=0)
    for part in room.parts:
        toward = part.centre.astype(np.float32)[:, None] - p
        along = np.clip((toward * d).sum(axis=0) / squared, 0.0, limit)
        miss = toward - along * d
        near = np.flatnonzero(((miss * miss).sum(axis=0) < part.shape.bounding_radius**2) & ~blocked)
        if len(near):
            t = part.shape.intersect(part.to_local(p[:, near]), part.turn_local(d[:, near]))
            blocked[near[t < limit]] = True
    return blocked


def _openness(room: Room, p: Array, n: Array) -> Array:
    """Share of the ambient light that reaches each point, [N] in [0, 1]: near walls and objects block it."""
    helper = np.where(np.abs(n[2]) < 0.9, np.array([[0.0], [0.0], [1.0]]), np.array([[1.0], [0.0], [0.0]])).astype(np.float32)
    side = np.cross(helper, n, axis=0)
    side /= np.linalg.norm(side, axis=0)
    other = np.cross(n, side, axis=0)
    total = np.zeros(p.shape[1], np.float32)
    fan = [(0.0, 0.0)] + [(0.5, k / 5) for k in range(5)] + [(0.85, (k + 0.5) / 6) for k in range(6)]
    half = np.array(room.shell.shape.half, np.float32)[:, None]
    local = room.shell.to_local(p)
    for lean, turn in fan:
        x, y = lean * np.cos(2 * np.pi * turn), lean * np.sin(2 * np.pi * turn)
        d = np.float32(x) * side + np.float32(y) * other + np.float32(np.sqrt(1.0 - lean * lean)) * n
        walls = ((half - np.sign(d) * local) / np.maximum(np.abs(d), NEAREST)).min(axis=0)
        free = np.clip(walls / _REACH, 0.0, 1.0)
        open_to = np.flatnonzero(~_blocked(room, p, d, _REACH))
        total[open_to] += 0.45 + 0.55 * free[open_to]
    return total / len(fan)


def _soften(grid: Array, wraps: bool) -> Array:
    """Binomial 3 × 3 blur, [R, C]; it hides the steps between the light samples' shadows."""
    padded = np.pad(grid, ((1, 1), (0, 0)), mode="edge")
    grid = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    if wraps:
        around = np.concatenate([grid[:, -2:-1], grid, grid[:, 1:2]], axis=1)
    else:
        around = np.pad(grid, ((0, 0), (1, 1)), mode="edge")
    return 0.25 * around[:, :-2] + 0.5 * around[:, 1:-1] + 0.25 * around[:, 2:]
