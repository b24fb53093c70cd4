"""Ray tests against hand-computed cases, dense marching of implicit functions, and the torus quartic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vlmgs_ns.toy.shapes import Box, Cone, Cylinder, Ellipsoid, Torus
from vlmgs_ns.toy.solid import Array, Shape

SHAPES = {
    "sphere": Ellipsoid(0.5, 0.5, 0.5),
    "ellipsoid": Ellipsoid(0.7, 0.4, 0.3),
    "box": Box(0.5, 0.3, 0.4),
    "cylinder": Cylinder(0.4, 0.6),
    "cone": Cone(0.5, 0.4),
    "torus": Torus(0.5, 0.2),
}

# Written independently of the package: negative inside, positive outside.
IMPLICIT: dict[str, Callable[[Array], Array]] = {
    "sphere": lambda p: np.linalg.norm(p, axis=0) - 0.5,
    "ellipsoid": lambda p: np.sqrt((p[0] / 0.7) ** 2 + (p[1] / 0.4) ** 2 + (p[2] / 0.3) ** 2) - 1,
    "box": lambda p: np.max([np.abs(p[0]) - 0.5, np.abs(p[1]) - 0.3, np.abs(p[2]) - 0.4], axis=0),
    "cylinder": lambda p: np.maximum(np.hypot(p[0], p[1]) - 0.4, np.abs(p[2]) - 0.6),
    "cone": lambda p: np.maximum(np.hypot(p[0], p[1]) - 0.5 * (0.4 - p[2]) / 0.8, -0.4 - p[2]),
    "torus": lambda p: np.hypot(np.hypot(p[0], p[1]) - 0.5, p[2]) - 0.2,
}

every_shape = pytest.mark.parametrize("name", SHAPES)


def column(*values: float) -> Array:
    return np.array(values, np.float32)[:, None]


def rays(count: int, seed: int) -> tuple[Array, Array]:
    """Rays from a sphere of radius 2 to points near the origin: some hit, some miss."""
    rng = np.random.default_rng(seed)
    origin = rng.normal(size=(3, count))
    origin *= 2.0 / np.linalg.norm(origin, axis=0)
    return origin.astype(np.float32), (rng.uniform(-0.7, 0.7, (3, count)) - origin).astype(np.float32)


def grid(shape: Shape, face: int) -> tuple[Array, Array]:
    """Interior points of a face's unit square; caps keep to the disc."""
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(0.04, 0.96, 14), np.linspace(0.04, 0.96, 13)))
    if isinstance(shape, (Cylinder, Cone)) and face:
        inside = np.hypot(2 * u - 1, 2 * v - 1) < 0.97
        u, v = u[inside], v[inside]
    return u, v


@pytest.mark.parametrize(
    ("shape", "origin", "direction", "expected"),
    [
        (Ellipsoid(0.5, 0.5, 0.5), (-2, 0, 0), (1, 0, 0), 1.5),
        (Ellipsoid(0.5, 0.5, 0.5), (-2, 0, 0), (2, 0, 0), 0.75),
        (Ellipsoid(0.5, 0.5, 0.5), (0, 0, 0), (0, 1, 0), 0.5),
        (Ellipsoid(0.5, 0.5, 0.5), (-2, 0.6, 0), (1, 0, 0), np.inf),
        (Ellipsoid(0.5, 0.5, 0.5), (2, 0, 0), (1, 0, 0), np.inf),
        (Ellipsoid(0.7, 0.4, 0.3), (0, 0, 3), (0, 0, -1), 2.7),
        (Box(1, 2, 3), (-4, 1.9, 2.9), (1, 0, 0), 3.0),
        (Box(1, 2, 3), (-4, 2.1, 0), (1, 0, 0), np.inf),
        (Box(1, 2, 3), (-2, -3, 0), (1, 1, 0), 1.0),
        (Box(1, 2, 3), (0, 0, 0), (0, 0, -1), 3.0),
        (Cylinder(1, 2), (-3, 0, 0), (1, 0, 0), 2.0),
        (Cylinder(1, 2), (0.5, 0, 5), (0, 0, -1), 3.0),
        (Cylinder(1, 2), (1.5, 0, 5), (0, 0, -1), np.inf),
        (Cylinder(1, 2), (-3, 0, 2.1), (1, 0, 0), np.inf),
        (Cone(1, 1), (-3, 0, 0), (1, 0, 0), 2.5),
        (Cone(1, 1), (0, 0, 3), (0, 0, -1), 2.0),
        (Cone(1, 1), (0, 0, -3), (0, 0, 1), 2.0),
        (Cone(1, 1), (-3, 0, 1.2), (1, 0, 0), np.inf),
        (Torus(1, 0.25), (-3, 0, 0), (1, 0, 0), 1.75),
        (Torus(1, 0.25), (0, 0, 0), (1, 0, 0), 0.75),
        (Torus(1, 0.25), (0, 0, 3), (0, 0, -1), np.inf),
        (Torus(1, 0.25), (1, 0, 3), (0, 0, -1), 2.75),
    ],
)
def test_hand_computed_hits(shape: Shape, origin: tuple[float, ...], direction: tuple[float, ...], expected: float) -> None:
    assert shape.intersect(column(*origin), column(*direction))[0] == pytest.approx(expected, abs=3e-4)


@every_shape
def test_hits_agree_with_dense_marching(name: str) -> None:
    origin, direction = rays(600, seed=1)
    t = SHAPES[name].intersect(origin, direction)
    steps = np.linspace(0.0, 2.0, 2001)
    p = origin[:, :, None].astype(np.float64) + direction[:, :, None] * steps
    inside = IMPLICIT[name](p.reshape(3, -1)).reshape(600, -1) < 0
    marched = np.where(inside.any(axis=1), steps[inside.argmax(axis=1)], np.inf)
    hit = np.isfinite(marched)
    assert 100 < hit.sum() < 600
    assert np.isfinite(t[hit]).all()
    assert np.abs(t[hit] - marched[hit]).max() < 2e-3
    # Marching steps over a grazed edge, so a hit that it misses must be a shallow one.
    grazing = np.isfinite(t) & ~hit
    assert grazing.sum() < 6


@every_shape
def test_hits_lie_on_the_surface(name: str) -> None:
    origin, direction = rays(400, seed=2)
    t = SHAPES[name].intersect(origin, direction)
    hit = np.isfinite(t)
    p = origin[:, hit] + t[hit] * direction[:, hit]
    assert np.abs(IMPLICIT[name](p.astype(np.float64))).max() < 3e-4


@every_shape
def test_one_origin_serves_all_rays(name: str) -> None:
    _, direction = rays(50, seed=3)
    origin = column(1.2, -0.9, 1.1)
    direction = direction - 0.4 * origin
    single = [SHAPES[name].intersect(origin, direction[:, k : k + 1])[0] for k in range(50)]
    assert np.array_equal(SHAPES[name].intersect(origin, direction), np.array(single))


@every_shape
def test_no_rays_no_hits(name: str) -> None:
    assert SHAPES[name].intersect(column(0, 0, 2), np.zeros((3, 0), np.float32)).shape == (0,)


def test_torus_agrees_with_its_quartic() -> None:
    origin, direction = rays(300, seed=4)
    found = SHAPES["torus"].intersect(origin, direction)
    for o, d, t in zip(origin.T.astype(float), direction.T.astype(float), found, strict=True):
        # (|p|² + R² - r²)² = 4 R² (x² + y²) along p = o + t d.
        square = np.array([d @ d, 2 * o @ d, o @ o + 0.25 - 0.04])
        flat = np.array([d[:2] @ d[:2], 2 * o[:2] @ d[:2], o[:2] @ o[:2]])
        roots = np.roots(np.polysub(np.polymul(square, square), 4 * 0.25 * flat))
        real = roots[np.abs(roots.imag) < 1e-7].real
        expected = min(real[real > 0], default=np.inf)
        assert t == pytest.approx(expected, abs=2e-3)


def test_a_ray_that_skims_the_hole_of_a_torus_still_arrives() -> None:
    tilt = np.linspace(-0.3, 0.3, 400, dtype=np.float32)
    direction = np.stack([np.ones_like(tilt), np.zeros_like(tilt), tilt])
    t = SHAPES["torus"].intersect(column(-2, 0, 0.21), direction)
    z = 0.21 + np.linspace(0, 4, 8001)[:, None] * tilt
    x = -2 + np.linspace(0, 4, 8001)[:, None]
    meets = (IMPLICIT["torus"](np.stack([np.broadcast_to(x, z.shape), np.zeros_like(z), z])) < -1e-3).any(axis=0)
    assert np.isfinite(t[meets]).all()


@every_shape
def test_chart_inverts_surface(name: str) -> None:
    shape = SHAPES[name]
    for face in range(shape.faces):
        u, v = grid(shape, face)
        p, _ = shape.surface(face, u, v)
        faces, back_u, back_v = shape.chart(p.astype(np.float32))
        assert (faces == face).all()
        assert np.abs(back_u - u).max() < 1e-5
        assert np.abs(back_v - v).max() < 1e-5


@every_shape
def test_normals_are_unit_and_point_outwards(name: str) -> None:
    shape = SHAPES[name]
    for face in range(shape.faces):
        p, n = shape.surface(face, *grid(shape, face))
        assert np.abs(IMPLICIT[name](p)).max() < 1e-9
        assert np.linalg.norm(n, axis=0) == pytest.approx(1.0)
        step = 1e-6
        slope = [
            (IMPLICIT[name](p + step * axis[:, None]) - IMPLICIT[name](p - step * axis[:, None])) / (2 * step)
            for axis in np.eye(3)
        ]
        assert np.abs(slope / np.linalg.norm(slope, axis=0) - n).max() < 1e-4


@every_shape
def test_support_is_the_farthest_surface_point(name: str) -> None:
    shape = SHAPES[name]
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(0, 1, 181), np.linspace(0, 1, 181)))
    round_cap = np.hypot(2 * u - 1, 2 * v - 1) <= 1.0
    clouds = []
    for face in range(shape.faces):
        keep = round_cap if isinstance(shape, (Cylinder, Cone)) and face else slice(None)
        clouds.append(shape.surface(face, u[keep], v[keep])[0])
    points = np.concatenate(clouds, axis=1)
    for direction in np.random.default_rng(5).normal(size=(20, 3)):
        assert shape.support(direction) == pytest.approx((direction @ points).max(), abs=2e-3)
    assert np.linalg.norm(points, axis=0).max() <= shape.bounding_radius + 1e-9
    assert np.all(np.abs(points).max(axis=1) <= np.array(shape.half) + 1e-9)


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "ellipsoid"])
def test_lengths_measure_the_surface(name: str) -> None:
    """An ellipse's length is only approximated, so the ellipsoid is left out; the sphere is exact."""
    shape = SHAPES[name]
    line = np.linspace(0.0, 1.0, 2001)
    for face in range(shape.faces):
        for at in (0.2, 0.5, 0.9):
            width, height = shape.lengths(face, np.array([at]))
            p, _ = shape.surface(face, line, np.full(2001, at))
            if not isinstance(shape, Torus):
                assert np.linalg.norm(np.diff(p), axis=0).sum() == pytest.approx(width[0], rel=1e-3)
            p, _ = shape.surface(face, np.full(2001, at), line)
            assert np.linalg.norm(np.diff(p), axis=0).sum() == pytest.approx(height, rel=1e-3)
