"""Draws a furnished room: which objects, in which colours, where."""

from __future__ import annotations

from functools import partial

import numpy as np

from vlmgs_ns.toy.decor import draw_decor
from vlmgs_ns.toy.furniture import CATALOGUE, Kind, make_object, make_table
from vlmgs_ns.toy.room import Room, SceneObject
from vlmgs_ns.toy.solid import Array
from vlmgs_ns.toy.textures import PALETTE

TABLE_HEIGHT = 0.62
ROOM_HEIGHT = 2.6
_PLACES = (*["table"] * 3, *["corner"] * 3, *["floor"] * 2, *["wall"] * 2)
"""In this order a kind is always left: corners take at most two of the floor's five, and walls choose from seven."""
_SIZES = {"table": (0.125, 0.16), "corner": (0.34, 0.42), "wall": (0.27, 0.33), "floor": (0.21, 0.25)}
"""Place → smallest and largest object size, metres."""
_TEXTURES = ("plain", "plain", "plain", "stripes", "stripes", "dots", "dots", "checker", "segments", "marble", "wood")
_GAP = 0.06
_ATTEMPTS = 50


def draw_room(rng: np.random.Generator) -> Room:
    """Return a room of about 6 × 5 × 2.6 m: a table, three objects on it and seven around it, names and phrases unique."""
    half_x, half_y = float(rng.uniform(2.75, 3.0)), float(rng.uniform(2.35, 2.55))
    decor = draw_decor(rng, half_x, half_y)
    for _ in range(_ATTEMPTS):
        objects = _furnish(rng, half_x, half_y)
        if objects is not None:
            return Room(half_x, half_y, ROOM_HEIGHT, decor, objects)
    raise RuntimeError(f"no room for the furniture after {_ATTEMPTS} attempts; use another seed")


def _furnish(rng: np.random.Generator, half_x: float, half_y: float) -> tuple[SceneObject, ...] | None:
    """One attempt at placing all objects, or None where one finds no free spot."""
    spots = {place: _spots(rng, place, half_x, half_y) for place in _SIZES}
    colours = [str(c) for c in rng.permutation([c for c in PALETTE if c != "brown"])]
    textures = [str(t) for t in rng.permutation(_TEXTURES)]
    inside = np.array([half_x, half_y]) - _GAP
    objects = [make_table(rng, TABLE_HEIGHT)]
    for place, kind in zip(_PLACES, _draw_kinds(rng), strict=True):
        texture = next((t for t in textures if t in kind.textures), "plain")
        if texture in textures:
            textures.remove(texture)
        # Wood comes once, so that every colour is used once and "brown" needs no second word.
        colour = "brown" if texture == "wood" else colours.pop()
        size, angle = float(rng.uniform(*_SIZES[place])), float(rng.uniform(0.0, 2.0 * np.pi))
        make = partial(make_object, kind, colour, texture, place, size, angle)
        placed = None
        while spots[place] and placed is None:
            foot = spots[place].pop()
            low, high = make(foot).bounds
            foot[:2] -= np.maximum(high[:2] - inside, 0.0) - np.maximum(-inside - low[:2], 0.0)
            thing = make(foot)
            placed = thing if all(_apart(thing, other) for other in objects) else None
        if placed is None:
            return None
        objects.append(placed)
    return tuple(objects)


def _draw_kinds(rng: np.random.Generator) -> list[Kind]:
    """Return a kind per place; a kind comes at most once on the table and once on the floor."""
    kinds: list[Kind] = []
    for place in _PLACES:
        taken = [k for k, p in zip(kinds, _PLACES, strict=False) if (p == "table") == (place == "table")]
        free = [k for k in CATALOGUE if place in k.places and k not in taken]
        kinds.append(free[int(rng.integers(len(free)))])
    return kinds


def _spots(rng: np.random.Generator, place: str, half_x: float, half_y: float) -> list[Array]:
    """World points [3] where an object of a place may stand, in random order."""
    if place == "table":
        turns = rng.uniform(0.0, 2.0 * np.pi) + np.arange(3) * 2.0 * np.pi / 3.0
        return [np.array([0.34 * np.cos(t), 0.34 * np.sin(t), TABLE_HEIGHT]) for t in turns]
    if place == "corner":
        points = [(x * (half_x - 0.45), y * (half_y - 0.45)) for x in (-1, 1) for y in (-1, 1)]
    elif place == "wall":
        points = [(x, y * (half_y - 0.42)) for x in (-0.9, 0.0, 0.9) for y in (-1, 1)]
        points += [(x * (half_x - 0.42), y) for x in (-1, 1) for y in (-0.5, 0.5)]
    else:
        turns = rng.uniform(0.0, 2.0 * np.pi) + np.arange(16) * np.pi / 8.0
        points = [(1.4 * np.cos(t), 1.25 * np.sin(t)) for t in turns]
    order = rng.permutation(len(points))
    return [np.array([*points[i], 0.0]) for i in order]


def _apart(one: SceneObject, other: SceneObject) -> bool:
    """Return whether two objects' boxes leave a gap between them, or one stands on the other."""
    (low, high), (lo, hi) = one.bounds, other.bounds
    reach = np.array([_GAP, _GAP, -1e-6])
    return bool(((low - hi > reach) | (lo - high > reach)).any())
