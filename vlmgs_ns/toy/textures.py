"""Patterns painted on surfaces, and the colours they are painted in.

A pattern maps points of a surface to a weight in [0, 1] between a material's two colours. Patterns are functions of
position alone, so every view sees the same paint. Colours are linear light, [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmgs_ns.toy.solid import Array, Shape

PALETTE = {
    "red": "#c8242b",
    "orange": "#ee7d1a",
    "yellow": "#f2c81e",
    "green": "#2f9443",
    "blue": "#2456b8",
    "purple": "#7a3a9c",
    "pink": "#ee86ab",
    "turquoise": "#27b1ab",
    "white": "#ece9e1",
    "black": "#2b2b30",
    "brown": "#8a5a33",
}
"""Colour words of the objects and their sRGB values."""

LIGHT, DARK = "#f4efe4", "#2c2a33"


def linear(code: str) -> Array:
    """Linear light of an sRGB hex code such as ``#c8242b``; float32, shape [3]."""
    srgb = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float64) / 255.0
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def encode(light: Array) -> Array:
    """sRGB bytes of linear light of any shape; values outside [0, 1] are clipped."""
    x = np.clip(light, 0.0, 1.0)
    return np.round(255.0 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)


@dataclass(frozen=True)
class Material:
    """Paint of a surface: a base colour, a second colour and the pattern that mixes them."""

    colour: str
    """Hex code of the base colour."""
    accent: str = LIGHT
    """Hex code of the pattern's second colour."""
    pattern: str = "plain"
    """plain, stripes, segments, checker, dots, wood or marble."""
    period: float = 0.1
    """Metres after which the pattern repeats."""
    gloss: float = 0.0
    """Strength of the highlight of the ceiling light; 0 is matte."""


def paint(
    material: Material,
    shape: Shape,
    p: Array,  # [3, N] on the surface, in the solid's frame
    face: Array,  # [N] int
    u: Array,  # [N] in [0, 1]
    v: Array,  # [N] in [0, 1]
) -> Array:  # [3, N]
    """Albedo of points of a solid, in linear light."""
    base, accent = linear(material.colour)[:, None], linear(material.accent)[:, None]
    if material.pattern == "plain":
        return np.broadcast_to(base, p.shape)
    if material.pattern in ("wood", "marble"):
        weight = _wood(p, material.period) if material.pattern == "wood" else _marble(p, material.period)
        return base + weight * (accent - base)
    weight = np.zeros(len(u), np.float32)
    for k in np.unique(face):
        here = np.flatnonzero(face == k)
        weight[here] = _flat(material, shape, int(k), u[here], v[here])
    return base + weight * (accent - base)


def _flat(material: Material, shape: Shape, face: int, u: Array, v: Array) -> Array:
    """Weight of a two-colour pattern on one face, [N] of zeros and ones."""
    wraps, period = shape.wraps(face), material.period
    middle, height = shape.lengths(face, np.array([0.5], np.float32))
    across = _repeats(float(middle[0]), period)
    up = _repeats(height, period)
    if material.pattern == "stripes":
        return (np.floor(v * 2 * up) % 2).astype(np.float32)
    if material.pattern == "segments":
        return (np.floor(u * 2 * across) % 2).astype(np.float32)
    if material.pattern == "checker":
        return ((np.floor(u * 2 * across) + np.floor(v * 2 * up)) % 2).astype(np.float32)
    if material.pattern == "dots":
        row = np.clip(np.floor(v * up), 0, up - 1)
        middle_of_row = (row + 0.5) / up
        width, _ = shape.lengths(face, middle_of_row)
        count = np.maximum(np.round(width / period), 1.0)
        x = u * count + 0.5 * (row % 2) * wraps
        dx = (x - np.floor(x) - 0.5) * width / count
        dy = (v - middle_of_row) * height
        return (dx * dx + dy * dy < (0.31 * period) ** 2).astype(np.float32)
    raise ValueError(f"pattern {material.pattern!r} is unknown; use plain, stripes, segments, checker, dots, wood or marble")


def _repeats(length: float, period: float) -> int:
    """Return the number of whole repeats that fits best, so that a pattern closes on itself around a solid."""
    return max(1, round(length / period))


def wave_noise(x: Array, y: Array, z: Array | float = 0.0) -> Array:
    """Smooth pattern without visible repeats in about [-1, 1]; arguments in radians, any equal shapes."""
    return 0.5 * (
        np.sin(1.0 * x + 1.7 * np.sin(0.7 * y + 0.4) + 0.9 * z) + np.sin(0.8 * y - 1.3 * np.sin(0.9 * x + 1.9) + 1.1 * z)
    )


def _wood(p: Array, period: float) -> Array:
    """Long grain along x, [N] in [0, 1]."""
    turn = np.float32(2.0 * np.pi / period)
    return 0.5 + 0.5 * np.sin(turn * (p[1] + 0.6 * p[2]) + 1.4 * wave_noise(0.35 * turn * p[0], 0.5 * turn * p[1], 2.0))


def _marble(p: Array, period: float) -> Array:
    """Thin bright veins, [N] in [0, 1]."""
    x, y, z = p * np.float32(2.0 * np.pi / period)
    bend = 1.5 * wave_noise(0.8 * x, 0.8 * z, 0.8 * y) + 0.6 * wave_noise(2.1 * y, 1.9 * x, 2.0 * z)
    vein = np.abs(np.sin(0.35 * x + 0.3 * y + 0.4 * z + bend))
    return np.clip(1.0 - 2.2 * vein, 0.0, 1.0)
