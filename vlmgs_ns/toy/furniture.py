"""The catalogue of objects: shape × colour × texture × place, and the words for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlmgs_ns.toy.room import Part, SceneObject, yaw
from vlmgs_ns.toy.shapes import Box, Cone, Cylinder, Ellipsoid, Torus
from vlmgs_ns.toy.solid import Array, Shape
from vlmgs_ns.toy.textures import DARK, LIGHT, PALETTE, Material

ADJECTIVES = {
    "plain": "",
    "stripes": "striped",
    "segments": "striped",
    "checker": "checkered",
    "dots": "spotted",
    "wood": "wooden",
    "marble": "marble",
}
"""Pattern → the word that names it."""

PLACES = {
    "table": "on the table",
    "corner": "in the corner",
    "wall": "by the wall",
    "floor": "on the floor",
    "middle": "in the middle of the room",
}
"""Place → the words that follow a name."""

Builder = Callable[[float, Material, Array, float, str], "tuple[Part, ...]"]
"""(size in metres, material, foot position [3], yaw in radians, place) → parts."""


@dataclass(frozen=True)
class Kind:
    """One entry of the catalogue."""

    noun: str
    synonym: str
    textures: tuple[str, ...]
    places: tuple[str, ...]
    build: Builder


def stand(shape: Shape, material: Material, foot: Array, rotation: Array | None = None, lift: float = 0.0) -> Part:
    """Return a part whose lowest point is ``lift`` metres above ``foot`` (world, [3])."""
    turn = np.eye(3) if rotation is None else rotation
    up = shape.support(-turn[2]) + lift
    return Part(shape, material, foot + np.array([0.0, 0.0, up]), turn)


def _single(shape_of: Callable[[float, str], Shape]) -> Builder:
    """Builder of an object that is one upright solid turned about z."""

    def build(size: float, material: Material, foot: Array, angle: float, place: str) -> tuple[Part, ...]:
        return (stand(shape_of(size, place), material, foot, yaw(angle)),)

    return build


def _ring(size: float, material: Material, foot: Array, angle: float, place: str) -> tuple[Part, ...]:
    """Flat on a table, upright on the floor."""
    upright = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    turn = yaw(angle) if place == "table" else yaw(angle) @ upright
    return (stand(Torus(0.82 * size, 0.3 * size), material, foot, turn),)


def _stool(size: float, material: Material, foot: Array, angle: float, place: str) -> tuple[Part, ...]:
    leg = Material("#6e4a2c")
    radius, height = 0.72 * size, 1.45 * size
    parts = [stand(Cylinder(radius, 0.12 * size), material, foot, yaw(angle), lift=height)]
    for k in range(4):
        turn = angle + np.pi / 4 + k * np.pi / 2
        at = foot + 0.72 * radius * np.array([np.cos(turn), np.sin(turn), 0.0])
        parts.append(stand(Cylinder(0.11 * size, height / 2), leg, at))
    return tuple(parts)


def _lamp(size: float, material: Material, foot: Array, angle: float, place: str) -> tuple[Part, ...]:
    metal = Material("#3a3a40", gloss=0.25)
    return (
        stand(Cylinder(0.55 * size, 0.02), metal, foot),
        stand(Cylinder(0.028, 0.6), metal, foot),
        stand(Cone(0.95 * size, 0.5 * size), material, foot, yaw(angle), lift=1.0),
    )


CATALOGUE = (
    Kind(
        "ball",
        "sphere",
        ("plain", "stripes", "segments", "dots", "marble"),
        ("table", "wall", "floor"),
        _single(lambda s, _: Ellipsoid(s, s, s)),
    ),
    Kind(
        "egg",
        "ellipsoid",
        ("plain", "stripes", "dots"),
        ("table",),
        _single(lambda s, _: Ellipsoid(0.8 * s, 0.8 * s, 1.1 * s)),
    ),
    Kind("can", "tin", ("plain", "stripes", "checker", "dots"), ("table",), _single(lambda s, _: Cylinder(0.68 * s, s))),
    Kind(
        "cone",
        "pointed cone",
        ("plain", "stripes", "dots"),
        ("table", "wall", "corner", "floor"),
        _single(lambda s, place: Cone(0.85 * s, (1.15 if place == "table" else 1.0) * s)),
    ),
    Kind(
        "box",
        "cube",
        ("plain", "checker", "dots", "stripes", "wood"),
        ("table", "corner", "wall", "floor"),
        _single(lambda s, _: Box(0.88 * s, 0.78 * s, 0.78 * s)),
    ),
    Kind("ring", "torus", ("plain", "segments"), ("table", "wall", "floor"), _ring),
    Kind(
        "cushion",
        "pouf",
        ("plain", "segments", "dots"),
        ("wall", "floor"),
        _single(lambda s, _: Ellipsoid(1.2 * s, 1.05 * s, 0.6 * s)),
    ),
    Kind(
        "drum",
        "barrel",
        ("plain", "stripes", "checker", "wood"),
        ("corner", "wall"),
        _single(lambda s, _: Cylinder(0.85 * s, 0.9 * s)),
    ),
    Kind("stool", "round seat", ("plain", "dots"), ("corner", "wall"), _stool),
    Kind("lamp", "floor lamp", ("plain", "stripes"), ("corner",), _lamp),
    Kind(
        "column",
        "pillar",
        ("plain", "stripes", "marble"),
        ("corner",),
        _single(lambda s, _: Cylinder(0.5 * s, 2.4 * s)),
    ),
)
"""Every kind of object besides the table."""

_PERIODS = {"stripes": 0.5, "segments": 0.75, "checker": 0.7, "dots": 0.62, "marble": 0.9, "wood": 0.35}
"""Pattern period as a fraction of an object's size."""


def make_object(
    kind: Kind,
    colour: str,
    texture: str,
    place: str,
    size: float,
    angle: float,
    foot: Array,  # [3]
) -> SceneObject:
    """Return an object of a kind.

    ``size`` is roughly its half width in metres, ``angle`` its turn about z in radians, ``foot`` the world point it
    stands on.
    """
    accent = {"black": LIGHT, "white": DARK, "yellow": DARK, "brown": "#5d3a1e"}.get(colour, LIGHT)
    gloss = 0.35 if kind.noun == "ball" and texture == "plain" else 0.0
    material = Material(PALETTE[colour], accent, texture, _PERIODS.get(texture, 1.0) * size, gloss)
    words = [word for word in (colour, ADJECTIVES[texture]) if word]
    name = " ".join([*words, kind.noun])
    plain = f"{colour} {kind.noun}"
    phrases = dict.fromkeys([name, plain, f"{colour} {kind.synonym}", f"{plain} {PLACES[place]}"])
    if gloss:
        phrases[f"shiny {colour} {kind.synonym}"] = None
    parts = kind.build(size, material, foot, angle, place)
    return SceneObject(name, tuple(phrases), kind.noun, colour, texture, place, parts)


def make_table(rng: np.random.Generator, height: float = 0.62) -> SceneObject:
    """Return the table in the middle of the room, round or rectangular; its top is at ``height`` metres."""
    wood = Material("#9a6a3c", "#80552e", "wood", 0.14)
    leg = Material("#5f4027")
    foot = np.zeros(3)
    if rng.integers(2):
        parts = [
            stand(Cylinder(0.66, 0.025), wood, foot, lift=height - 0.05),
            stand(Cylinder(0.07, (height - 0.08) / 2), leg, foot, lift=0.03),
            stand(Cylinder(0.3, 0.015), leg, foot),
        ]
        shape = "round"
    else:
        turn = yaw(float(rng.uniform(-0.3, 0.3)))
        parts = [stand(Box(0.74, 0.5, 0.025), wood, foot, turn, lift=height - 0.05)]
        corners = [turn @ np.array([x, y, 0.0]) for x in (-0.66, 0.66) for y in (-0.42, 0.42)]
        parts += [stand(Cylinder(0.038, (height - 0.05) / 2), leg, corner) for corner in corners]
        shape = "rectangular"
    phrases = ("wooden table", f"{shape} wooden table", f"{shape} table", "brown table in the middle of the room")
    return SceneObject("wooden table", phrases, "table", "brown", "wood", "middle", tuple(parts))
