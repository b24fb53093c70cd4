"""Solids a ray meets: ellipsoid, box, cylinder and cone in closed form, the torus by sphere tracing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmgs_ns.toy.solid import NEAREST, TINY, Array, Shape, box_interval, first_crossing, quadratic_interval, slab

_TORUS_STEPS = 200
_TORUS_TOLERANCE = 1e-4


def _angle(x: Array, y: Array) -> Array:
    """Angle of (x, y) as a fraction of a turn, [0, 1]."""
    return np.arctan2(y, x) * np.float32(0.5 / np.pi) + np.float32(0.5)


def _turn(u: Array) -> tuple[Array, Array]:
    """Cosine and sine of the angle that :func:`_angle` calls ``u``."""
    angle = (np.asarray(u) - 0.5) * (2.0 * np.pi)
    return np.cos(angle), np.sin(angle)


def _disc(radius: float, z: float, up: float, u: Array, v: Array) -> tuple[Array, Array]:
    """Planar chart of a round cap; corners outside the disc are still points of its plane."""
    x = (2.0 * u - 1.0) * radius
    y = (2.0 * v - 1.0) * radius
    zeros = np.zeros_like(x)
    return np.stack([x, y, zeros + z]), np.stack([zeros, zeros, zeros + up])


@dataclass(frozen=True)
class Ellipsoid(Shape):
    """Ellipsoid with semi-axes ``a, b, c``; a sphere when they are equal. One face: longitude, polar angle from +z."""

    a: float
    b: float
    c: float

    @property
    def half(self) -> tuple[float, float, float]:
        return self.a, self.b, self.c

    def intersect(self, origin: Array, direction: Array) -> Array:
        axes = np.array([[self.a], [self.b], [self.c]], np.float32)
        o, d = origin / axes, direction / axes
        b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
        a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0
        return first_crossing(*quadratic_interval(a, b, c))

    def chart(self, p: Array) -> tuple[Array, Array, Array]:
        polar = np.arccos(np.clip(p[2] / self.c, -1.0, 1.0)) * np.float32(1.0 / np.pi)
        return np.zeros(p.shape[1], np.intp), _angle(p[0] / self.a, p[1] / self.b), polar

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:
        cos, sin = _turn(u)
        ring, z = np.sin(np.pi * v), np.cos(np.pi * v)
        unit = np.stack([ring * cos, ring * sin, z])
        axes = np.array([[self.a], [self.b], [self.c]])
        normal = unit / axes
        return unit * axes, normal / np.linalg.norm(normal, axis=0)

    def lengths(self, face: int, v: Array) -> tuple[Array, float]:
        return np.pi * (self.a + self.b) * np.sin(np.pi * v), float(np.pi * (self.a + self.b + 2.0 * self.c) / 4.0)

    def support(self, direction: Array) -> float:
        return float(np.linalg.norm(np.asarray(direction) * self.half))

    @property
    def bounding_radius(self) -> float:
        return max(self.half)


@dataclass(frozen=True)
class Box(Shape):
    """Box with half extents ``a, b, c``. Faces 2 k, 2 k + 1: low and high side of axis k, u before v in xyz."""

    a: float
    b: float
    c: float
    faces = 6

    @property
    def half(self) -> tuple[float, float, float]:
        return self.a, self.b, self.c

    def intersect(self, origin: Array, direction: Array) -> Array:
        return first_crossing(*box_interval(origin, direction, self.half))

    def chart(self, p: Array) -> tuple[Array, Array, Array]:
        q = p / np.array(self.half, np.float32)[:, None]
        size = np.abs(q)
        x_wins = (size[0] >= size[1]) & (size[0] >= size[2])
        z_wins = (size[2] > size[1]) & ~x_wins
        axis = np.where(x_wins, 0, np.where(z_wins, 2, 1))
        major = np.where(x_wins, q[0], np.where(z_wins, q[2], q[1]))
        u = np.where(x_wins, q[1], q[0])
        v = np.where(z_wins, q[1], q[2])
        clip = np.float32(0.5)
        return 2 * axis + (major > 0), np.clip(u * clip + clip, 0.0, 1.0), np.clip(v * clip + clip, 0.0, 1.0)

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:
        axis, sign = face // 2, 2.0 * (face % 2) - 1.0
        first, second = [k for k in range(3) if k != axis]
        p, n = np.zeros((3, len(u))), np.zeros((3, len(u)))
        p[axis], n[axis] = sign * self.half[axis], sign
        p[first] = (2.0 * u - 1.0) * self.half[first]
        p[second] = (2.0 * v - 1.0) * self.half[second]
        return p, n

    def lengths(self, face: int, v: Array) -> tuple[Array, float]:
        first, second = [k for k in range(3) if k != face // 2]
        return np.full_like(v, 2.0 * self.half[first]), 2.0 * self.half[second]

    def support(self, direction: Array) -> float:
        return float(np.abs(np.asarray(direction) * self.half).sum())

    def wraps(self, face: int) -> bool:
        return False


@dataclass(frozen=True)
class Cylinder(Shape):
    """Upright cylinder. Faces: side (angle, height from the bottom), top, bottom (both planar, x then y)."""

    radius: float
    half_height: float
    faces = 3

    @property
    def half(self) -> tuple[float, float, float]:
        return self.radius, self.radius, self.half_height

    def intersect(self, origin: Array, direction: Array) -> Array:
        a = direction[0] ** 2 + direction[1] ** 2
        b = origin[0] * direction[0] + origin[1] * direction[1]
        c = origin[0] ** 2 + origin[1] ** 2 - self.radius**2
        enter, leave = quadratic_interval(a, b, c)
        low, high = slab(origin[2], direction[2], self.half_height)
        return first_crossing(np.maximum(enter, low), np.minimum(leave, high))

    def chart(self, p: Array) -> tuple[Array, Array, Array]:
        # On the surface exactly one of the two excesses is zero, the other negative.
        cap = (np.abs(p[2]) - self.half_height) > (np.hypot(p[0], p[1]) - self.radius)
        face = np.where(cap, np.where(p[2] > 0, 1, 2), 0)
        scale = 0.5 / self.radius
        u = np.where(cap, p[0] * scale + 0.5, _angle(p[0], p[1]))
        v = np.where(cap, p[1] * scale + 0.5, p[2] * (0.5 / self.half_height) + 0.5)
        return face, np.clip(u, 0.0, 1.0), np.clip(v, 0.0, 1.0)

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:
        if face:
            up = 1.0 if face == 1 else -1.0
            return _disc(self.radius, up * self.half_height, up, u, v)
        cos, sin = _turn(u)
        z = (2.0 * v - 1.0) * self.half_height
        return np.stack([self.radius * cos, self.radius * sin, z]), np.stack([cos, sin, np.zeros_like(z)])

    def lengths(self, face: int, v: Array) -> tuple[Array, float]:
        if face:
            return np.full_like(v, 2.0 * self.radius), 2.0 * self.radius
        return np.full_like(v, 2.0 * np.pi * self.radius), 2.0 * self.half_height

    def support(self, direction: Array) -> float:
        return float(self.radius * np.hypot(direction[0], direction[1]) + self.half_height * abs(direction[2]))


@dataclass(frozen=True)
class Cone(Shape):
    """Upright cone, apex at +half_height. Faces: side (angle, height from the base), base (planar, x then y)."""

    radius: float
    half_height: float
    faces = 2

    @property
    def half(self) -> tuple[float, float, float]:
        return self.radius, self.radius, self.half_height

    def intersect(self, origin: Array, direction: Array) -> Array:
        # x² + y² ≤ k² (h - z)², of which the slab |z| ≤ h keeps the lower half only.
        k2 = np.float32((self.radius / (2.0 * self.half_height)) ** 2)
        down = self.half_height - origin[2]
        a = direction[0] ** 2 + direction[1] ** 2 - k2 * direction[2] ** 2
        a = np.where(np.abs(a) < TINY, np.float32(TINY), a)
        b = origin[0] * direction[0] + origin[1] * direction[1] + k2 * down * direction[2]
        c = origin[0] ** 2 + origin[1] ** 2 - k2 * down**2
        under = b * b - a * c
        root = np.sqrt(np.maximum(under, 0.0))
        first, second = (-b - root) / a, (-b + root) / a
        near, far = np.minimum(first, second), np.maximum(first, second)
        # A ray steeper than the side (a < 0) is inside outside its roots; the lower cone is the end that points down.
        steep, falling = a < 0, direction[2] < 0
        enter = np.where(steep, np.where(falling, far, -np.inf), near)
        leave = np.where(steep, np.where(falling, np.inf, near), far)
        misses = (under < 0) & ~steep
        low, high = slab(origin[2], direction[2], self.half_height)
        enter = np.where(misses, np.inf, np.maximum(enter, low))
        return first_crossing(enter, np.minimum(leave, high))

    def chart(self, p: Array) -> tuple[Array, Array, Array]:
        height = p[2] * (0.5 / self.half_height) + 0.5
        base = height * self.radius < self.radius * (1.0 - height) - np.hypot(p[0], p[1])
        scale = 0.5 / self.radius
        u = np.where(base, p[0] * scale + 0.5, _angle(p[0], p[1]))
        v = np.where(base, p[1] * scale + 0.5, height)
        return np.where(base, 1, 0), np.clip(u, 0.0, 1.0), np.clip(v, 0.0, 1.0)

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:
        if face:
            return _disc(self.radius, -self.half_height, -1.0, u, v)
        cos, sin = _turn(u)
        ring = self.radius * (1.0 - v)
        slant = np.hypot(self.radius, 2.0 * self.half_height)
        out, up = 2.0 * self.half_height / slant, self.radius / slant
        normal = np.stack([out * cos, out * sin, np.full_like(cos, up)])
        return np.stack([ring * cos, ring * sin, (2.0 * v - 1.0) * self.half_height]), normal

    def lengths(self, face: int, v: Array) -> tuple[Array, float]:
        if face:
            return np.full_like(v, 2.0 * self.radius), 2.0 * self.radius
        return 2.0 * np.pi * self.radius * (1.0 - v), float(np.hypot(self.radius, 2.0 * self.half_height))

    def support(self, direction: Array) -> float:
        tip = self.half_height * direction[2]
        return float(max(tip, self.radius * np.hypot(direction[0], direction[1]) - tip))


@dataclass(frozen=True)
class Torus(Shape):
    """Torus about the z axis: ``ring`` to the middle of the tube, ``tube`` its radius. One face: angle, tube angle."""

    ring: float
    tube: float

    @property
    def half(self) -> tuple[float, float, float]:
        return self.ring + self.tube, self.ring + self.tube, self.tube

    def intersect(self, origin: Array, direction: Array) -> Array:
        # The quartic loses all its digits in float32; walking the exact distance does not.
        count = direction.shape[1]
        out = np.full(count, np.inf, np.float32)
        length = np.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
        enter, leave = box_interval(origin, direction, self.half)
        live = np.flatnonzero((enter <= leave) & (leave > NEAREST))
        t = np.maximum(enter[live], 2.0 * NEAREST)
        o = np.broadcast_to(origin, direction.shape)[:, live]
        d, last, speed = direction[:, live], leave[live], length[live]
        for _ in range(_TORUS_STEPS):
            x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
            gap = np.abs(np.hypot(np.hypot(x, y) - self.ring, z) - self.tube)
            hit = gap < _TORUS_TOLERANCE
            out[live[hit]] = t[hit]
            keep = ~hit & (t <= last)
            live, t, o, d = live[keep], t[keep] + gap[keep] / speed[keep], o[:, keep], d[:, keep]
            last, speed = last[keep], speed[keep]
            if not len(live):
                break
        return out

    def chart(self, p: Array) -> tuple[Array, Array, Array]:
        around = np.hypot(p[0], p[1]) - self.ring
        return np.zeros(p.shape[1], np.intp), _angle(p[0], p[1]), _angle(around, p[2])

    def surface(self, face: int, u: Array, v: Array) -> tuple[Array, Array]:
        cos, sin = _turn(u)
        out, up = _turn(v)
        ring = self.ring + self.tube * out
        return np.stack([ring * cos, ring * sin, self.tube * up]), np.stack([out * cos, out * sin, up])

    def lengths(self, face: int, v: Array) -> tuple[Array, float]:
        return np.full_like(v, 2.0 * np.pi * self.ring), 2.0 * np.pi * self.tube

    def support(self, direction: Array) -> float:
        x, y, z = (float(c) for c in direction)
        return float(self.ring * np.hypot(x, y) + self.tube * np.sqrt(x * x + y * y + z * z))
