"""Colours and patterns."""

from __future__ import annotations

import numpy as np
import pytest

from vlmgs_ns.toy.shapes import Box, Cylinder, Ellipsoid, Torus
from vlmgs_ns.toy.solid import Array, Shape
from vlmgs_ns.toy.textures import PALETTE, Material, encode, linear, paint

RED, CREAM = "#c8242b", "#f4efe4"


def painted(pattern: str, shape: Shape, face: int, u: Array, v: Array) -> Array:
    p, _ = shape.surface(face, u, v)
    return paint(Material(RED, CREAM, pattern, 0.1), shape, p, np.full(len(u), face), u, v)


@pytest.mark.parametrize("name", PALETTE)
def test_encode_inverts_linear(name: str) -> None:
    code = PALETTE[name]
    assert encode(linear(code)).tolist() == [int(code[i : i + 2], 16) for i in (1, 3, 5)]


def test_encode_clips() -> None:
    assert encode(np.array([-1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("pattern", ["plain", "stripes", "segments", "checker", "dots", "wood", "marble"])
@pytest.mark.parametrize("shape", [Ellipsoid(0.3, 0.3, 0.3), Box(0.3, 0.2, 0.2), Cylinder(0.2, 0.3), Torus(0.3, 0.1)])
def test_patterns_mix_their_two_colours(pattern: str, shape: Shape) -> None:
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(0.01, 0.99, 80), np.linspace(0.01, 0.99, 80)))
    colour = painted(pattern, shape, 0, u, v)
    low, high = linear(RED)[:, None], linear(CREAM)[:, None]
    weight = (colour - low) / (high - low)
    assert weight.min() > -1e-5
    assert weight.max() < 1 + 1e-5
    assert np.ptp(weight, axis=0).max() < 1e-4
    if pattern == "plain":
        assert np.abs(weight).max() < 1e-6
    else:
        assert 0.05 < weight[0].mean() < 0.95


@pytest.mark.parametrize("pattern", ["segments", "checker", "dots"])
def test_patterns_close_around_a_cylinder(pattern: str) -> None:
    """A quarter turn's worth of samples left of the seam continues the pattern's rhythm right of it."""
    shape, v = Cylinder(0.23, 0.3), np.full(4000, 0.4)
    colour = painted(pattern, shape, 0, (np.arange(4000) + 0.5) / 4000, v)[0]
    edges = np.flatnonzero(np.diff(np.concatenate([colour, colour[:1]])))
    gaps = np.diff(np.concatenate([edges, edges[:1] + 4000]))
    assert np.ptp(gaps[::2]) <= 2
    assert np.ptp(gaps[1::2]) <= 2


def test_checker_by_hand() -> None:
    # A face of 0.4 m x 0.4 m with period 0.1 has 8 x 8 squares.
    at = (np.arange(8) + 0.5) / 8
    u, v = (a.ravel() for a in np.meshgrid(at, at))
    is_accent = np.isclose(painted("checker", Box(0.2, 0.2, 0.2), 0, u, v)[0], linear(CREAM)[0]).reshape(8, 8)
    expected = (np.arange(8)[:, None] + np.arange(8)) % 2 == 1
    assert np.array_equal(is_accent, expected)


def test_unknown_pattern() -> None:
    with pytest.raises(ValueError, match="'tartan' is unknown; use plain"):
        painted("tartan", Box(0.2, 0.2, 0.2), 0, np.array([0.5]), np.array([0.5]))
