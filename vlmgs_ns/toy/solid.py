"""Interface of a solid, and the interval arithmetic that ray tests share.

Vectors are stored component first, ``[3, N]``, so that every operation below runs over contiguous memory. Each solid
sits at the origin of its own frame (metres, z up). Besides the ray test a solid has *charts*: its surface is cut into
``faces``, each a unit square (u, v), so that light can be baked into small grids and patterns painted on the surface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

Array = np.ndarray

NEAREST = 1e-4
"""Rays start this far (in units of the direction) from their origin, so that a surface does not hit itself."""
TINY = 1e-9
"""Stands in for zero where a ray runs along a surface."""


def first_crossing(
    enter: Array,  # [N]
    leave: Array,  # [N]
) -> Array:  # [N]
    """First crossing after :data:`NEAREST` of the inside interval [enter, leave]; infinity where there is none."""
    t = np.where(enter > NEAREST, enter, leave)
    return np.where((enter <= leave) & (t > NEAREST), t, np.inf).astype(np.float32)


def slab(
    origin: Array,  # [N] or [1]
    direction: Array,  # [N]
    half: float,
) -> tuple[Array, Array]:  # [N], [N]
    """Interval of t in which ``origin + t * direction`` lies in [-half, half], along one axis."""
    inverse = 1.0 / np.where(np.abs(direction) < TINY, np.float32(TINY), direction)
    middle = -origin * inverse
    reach = half * np.abs(inverse)
    return middle - reach, middle + reach


def box_interval(
    origin: Array,  # [3, N] or [3, 1]
    direction: Array,  # [3, N]
    half: tuple[float, float, float],
) -> tuple[Array, Array]:  # [N], [N]
    """Interval of t in which ``origin + t * direction`` lies in a box about the origin; empty (enter > leave) for a miss."""
    enter, leave = slab(origin[0], direction[0], half[0])
    for axis in (1, 2):
        low, high = slab(origin[axis], direction[axis], half[axis])
        enter, leave = np.maximum(enter, low), np.minimum(leave, high)
    return enter, leave


def quadratic_interval(
    a: Array,  # [N], positive
    b: Array,  # [N], half of the linear coefficient
    c: Array,  # [N] or [1]
) -> tuple[Array, Array]:  # [N], [N]
    """Interval where a t² + 2 b t + c ≤ 0 for a > 0; empty, (inf, -inf), where the parabola stays above zero."""
    a = np.maximum(a, np.float32(TINY))
    under = b * b - a * c
    root = np.sqrt(np.maximum(under, 0.0))
    misses = under < 0.0
    return np.where(misses, np.inf, (-b - root) / a), np.where(misses, -np.inf, (-b + root) / a)


class Shape(ABC):
    """A solid at the origin of its own frame."""

    faces: int = 1

    @property
    @abstractmethod
    def half(self) -> tuple[float, float, float]:
        """Half extents of the bounding box in the solid's own frame, metres."""

    @abstractmethod
    def intersect(
        self,
        origin: Array,  # [3, N] or [3, 1]
        direction: Array,  # [3, N], any length
    ) -> Array:  # [N]
        """Smallest t > NEAREST at which ``origin + t * direction`` crosses the surface; infinity for a miss."""

    @abstractmethod
    def chart(
        self,
        p: Array,  # [3, N] on the surface
    ) -> tuple[Array, Array, Array]:  # face [N] int, u [N], v [N]
        """Face and position in [0, 1]² of points of the surface."""

    @abstractmethod
    def surface(
        self,
        face: int,
        u: Array,  # [N] in [0, 1]
        v: Array,  # [N] in [0, 1]
    ) -> tuple[Array, Array]:  # points [3, N], outward unit normals [3, N]
        """Inverse of :meth:`chart` for one face, with the outward unit normal."""

    @abstractmethod
    def lengths(
        self,
        face: int,
        v: Array,  # [N]
    ) -> tuple[Array, float]:  # [N], scalar
        """Metres that u = 0..1 spans at height ``v`` of a face, and metres that v = 0..1 spans."""

    @abstractmethod
    def support(self, direction: Array) -> float:
        """Largest ``direction · p`` over the solid, for a ``direction`` of shape [3]; gives tight bounding boxes."""

    def wraps(self, face: int) -> bool:
        """Return whether u = 0 and u = 1 of this face are the same line."""
        return face == 0

    @property
    def bounding_radius(self) -> float:
        """Radius in metres of a sphere about the origin that holds the solid."""
        return float(np.linalg.norm(self.half))
