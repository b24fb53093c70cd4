"""Viewpoints of the photos, and their pinhole camera.

Cameras are OpenCV cameras inside this package: x right, y down, z forward; pixel centres lie at half integers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vlmgs_ns.toy.room import Room
from vlmgs_ns.toy.solid import Array

TRAIN_HEIGHTS = (1.45, 0.95, 1.9)
"""Heights in metres of the training cameras."""
HELD_OUT_HEIGHTS = (1.2, 1.68)
"""Heights in metres of the held-out cameras, between the training ones."""
CLEARANCE = 0.35
"""Metres every camera keeps from objects and walls."""
_HALF_FIELD = np.deg2rad(35.0)


@dataclass(frozen=True)
class Pinhole:
    """Intrinsics in pixels."""

    width: int
    height: int
    focal: float

    @classmethod
    def wide(cls, width: int, height: int) -> Pinhole:
        """Return a camera whose longer side spans 70 degrees."""
        return cls(width, height, round(max(width, height) / 2 / float(np.tan(_HALF_FIELD)), 4))

    @property
    def cx(self) -> float:
        return self.width / 2

    @property
    def cy(self) -> float:
        return self.height / 2


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """One posed photo."""

    rotation: Array
    """Camera to world, OpenCV axes, [3, 3]."""
    position: Array
    """Optical centre in the world, metres, [3]."""
    held_out: bool

    def to_camera(self, p: Array) -> Array:
        """World points [3, N] in this camera's frame (z is depth)."""
        return np.einsum("ji,jn->in", self.rotation, p - self.position[:, None])


def look_at(position: Array, target: Array, held_out: bool = False) -> Viewpoint:
    """Return an upright camera at ``position`` [3] that looks at ``target`` [3], not straight up or down."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return Viewpoint(np.stack([right, np.cross(forward, right), forward], axis=1), np.asarray(position, np.float64), held_out)


def draw_viewpoints(rng: np.random.Generator, room: Room, views: int, held_out: int, arc: bool = False) -> list[Viewpoint]:
    """Draw ``views`` cameras of which ``held_out`` are held out: spread evenly through the list, or one arc of the turn."""
    if arc:
        return [replace(view, held_out=k < held_out) for k, view in enumerate(_draw(rng, room, views, TRAIN_HEIGHTS, False))]
    train = _draw(rng, room, views - held_out, TRAIN_HEIGHTS, False)
    test = _draw(rng, room, held_out, HELD_OUT_HEIGHTS, True)
    order = [(k + 0.5) / max(len(some), 1) for some in (train, test) for k in range(len(some))]
    both = train + test
    return [both[i] for i in np.argsort(order, kind="stable")]


def _draw(rng: np.random.Generator, room: Room, count: int, heights: tuple[float, ...], held_out: bool) -> list[Viewpoint]:
    """``count`` cameras in one turn of the room: most look across the middle, every third at a wall from inside."""
    out = []
    for k in range(count):
        azimuth = 2.0 * np.pi * (k + rng.uniform(-0.25, 0.25)) / count + (0.4 if held_out else 0.0)
        height = heights[(k + k // len(heights)) % len(heights)] + float(rng.uniform(-0.04, 0.04))
        if k % 3 == 2:
            position, target = _outward(rng, room, azimuth, height)
        else:
            position, target = _inward(rng, room, azimuth, height)
        out.append(look_at(_clear(room, position, height), target, held_out))
    return out


def _inward(rng: np.random.Generator, room: Room, azimuth: float, height: float) -> tuple[Array, Array]:
    """Near a wall, looking across the table."""
    reach = float(rng.uniform(0.66, 0.84))
    position = np.array([reach * room.half_x * np.cos(azimuth), reach * room.half_y * np.sin(azimuth), height])
    return position, np.array([*rng.uniform(-0.45, 0.45, 2), rng.uniform(0.55, 0.95)])


def _outward(rng: np.random.Generator, room: Room, azimuth: float, height: float) -> tuple[Array, Array]:
    """On the near side of the table, looking past it at the far wall and what stands there."""
    reach = float(rng.uniform(0.3, 0.5))
    position = np.array([-reach * room.half_x * np.cos(azimuth), -reach * room.half_y * np.sin(azimuth), height])
    aim = azimuth + float(rng.uniform(-0.3, 0.3))
    far = np.array([room.half_x * np.cos(aim), room.half_y * np.sin(aim), rng.uniform(0.4, 1.7)])
    return position, far


def _clear(room: Room, position: Array, height: float) -> Array:
    """``position`` [3], moved the least along a spiral in its own plane so that it keeps its clearance."""
    for step in range(400):
        turn, reach = 2.4 * step, 0.04 * np.sqrt(step)
        moved = np.array([position[0] + reach * np.cos(turn), position[1] + reach * np.sin(turn), height])
        if room.clearance(moved) >= CLEARANCE:
            return moved
    raise RuntimeError(f"no free place for a camera near {np.round(position, 2).tolist()}; use another seed")
