"""Objects of the room: parts, objects, and the dataclass of a whole scene.

World frame: metres, z up, the origin in the middle of the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlmgs_ns.toy.decor import Decor
from vlmgs_ns.toy.shapes import Box
from vlmgs_ns.toy.solid import Array, Shape
from vlmgs_ns.toy.textures import Material


def rotate(
    rotation: Array,  # [3, 3]
    v: Array,  # [3, N]
) -> Array:  # [3, N]
    """``rotation @ v`` without BLAS, whose threads may change the last bit from run to run."""
    r = rotation.astype(v.dtype)
    return np.stack([r[i, 0] * v[0] + r[i, 1] * v[1] + r[i, 2] * v[2] for i in range(3)])


def yaw(angle: float) -> Array:
    """Rotation by ``angle`` radians about the world's z axis, [3, 3]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class Part:
    """One solid placed in the world."""

    shape: Shape
    material: Material
    centre: Array
    """World position of the solid's origin, [3]."""
    rotation: Array
    """Solid to world, [3, 3]."""

    def to_local(self, p: Array) -> Array:
        """World points [3, N] in the solid's frame."""
        return self.turn_local(p - self.centre.astype(p.dtype)[:, None])

    def turn_local(self, d: Array) -> Array:
        """World directions [3, N] in the solid's frame."""
        return d if self.is_upright else rotate(self.rotation.T, d)

    def to_world(self, p: Array) -> Array:
        """Points of the solid's frame, [3, N], in the world."""
        return rotate(self.rotation, p) + self.centre[:, None]

    @cached_property
    def is_upright(self) -> bool:
        return bool(np.array_equal(self.rotation, np.eye(3)))

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Tight world box: lowest and highest corner, [3] each."""
        low = np.array([-self.shape.support(-self.rotation[axis]) for axis in range(3)])
        high = np.array([self.shape.support(self.rotation[axis]) for axis in range(3)])
        return self.centre + low, self.centre + high


@dataclass(frozen=True, eq=False)
class SceneObject:
    """A labelled thing made of one or more parts."""

    name: str
    """Unique in its scene, e.g. ``red spotted ball``."""
    phrases: tuple[str, ...]
    """Ways to ask for it; the name first. No phrase belongs to two objects."""
    noun: str
    colour: str
    texture: str
    place: str
    parts: tuple[Part, ...]

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """Tight world box: lowest and highest corner, [3] each."""
        low, high = zip(*(part.bounds for part in self.parts), strict=True)
        return np.min(low, axis=0), np.max(high, axis=0)


@dataclass(frozen=True, eq=False)
class Room:
    """A furnished room. Object ids are positions in ``objects`` plus one; id 0 is the room itself."""

    half_x: float
    half_y: float
    height: float
    decor: Decor
    objects: tuple[SceneObject, ...]

    @cached_property
    def shell(self) -> Part:
        """The floor, walls and ceiling: a box seen from inside."""
        box = Box(self.half_x, self.half_y, self.height / 2)
        return Part(box, Material("#ffffff"), np.array([0.0, 0.0, self.height / 2]), np.eye(3))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Every part of every object, in order."""
        return tuple(part for thing in self.objects for part in thing.parts)

    @cached_property
    def owners(self) -> Array:
        """Object id of each part, with id 0 for the shell in front: [1 + P] uint8."""
        ids = [i for i, thing in enumerate(self.objects, start=1) for _ in thing.parts]
        return np.array([0, *ids], np.uint8)

    def clearance(self, p: Array) -> float:
        """Metres from a point [3] to the nearest object's box, or to the walls if these are nearer; ≤ 0 inside one."""
        low = np.array([-self.half_x, -self.half_y, 0.0])
        high = np.array([self.half_x, self.half_y, self.height])
        nearest = float(min((p - low).min(), (high - p).min()))
        for part in self.parts:
            lo, hi = part.bounds
            nearest = min(nearest, float(np.linalg.norm(np.maximum(np.maximum(lo - p, p - hi), 0.0))))
        return nearest
