"""Decoration of the room: planks, rug, wall finishes, skirting, pictures, a window and a door.

Walls are painted in metres: ``a`` runs along the wall from its middle, ``z`` is the height above the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmgs_ns.toy.solid import Array
from vlmgs_ns.toy.textures import linear, wave_noise

SKIRTING = 0.11
"""Height in metres of the board at the foot of every wall."""
LAMP_HALF = (0.62, 0.42)
"""Half size in metres, x and y, of the light panel in the middle of the ceiling."""
_PASTELS = ("#d9c9a8", "#b9cdb4", "#a9c3d6", "#d8b7a6", "#cfc6da", "#e0d9c8", "#c9b79a", "#b4c9c8")
_BRIGHTS = ("#c9402f", "#e0952b", "#2f6d8f", "#3c8a5a", "#7c4a8d", "#d9b93a", "#2b3a67", "#b8506a")
_RUGS = (("#7c2f36", "#d9b98a"), ("#2d4a6b", "#d6cdb4"), ("#3f6650", "#d9cfa6"), ("#6a4573", "#dbbfae"))
_WOODS = ("#a5733f", "#8a5f3a", "#b98a56", "#9c7650")
_FINISHES = {"plain": "plain wall", "stripes": "striped wallpaper", "brick": "brick wall", "panel": "two-tone wall"}


@dataclass(frozen=True)
class Hanging:
    """A rectangle on a wall: a picture, the window or the door."""

    kind: str
    """hills, circles, blocks, window or door."""
    a: tuple[float, float]
    z: tuple[float, float]
    frame: float
    """Width of the frame, metres."""
    colours: tuple[str, ...]
    """Hex codes: the frame first, then what the kind needs."""


@dataclass(frozen=True)
class Wall:
    """Finish of one wall and what hangs on it."""

    finish: str
    colour: str
    accent: str
    hangings: tuple[Hanging, ...]


@dataclass(frozen=True)
class Decor:
    """All the paint of a room. Walls are in the order of :class:`Box` faces: -x, +x, -y, +y."""

    walls: tuple[Wall, Wall, Wall, Wall]
    floor: str
    skirting: str
    rug_round: bool
    rug_half: tuple[float, float]
    rug: tuple[str, str]

    @property
    def phrases(self) -> list[str]:
        """Phrases for the visible parts of the room itself."""
        finishes = [_FINISHES[wall.finish] for wall in self.walls]
        kinds = {h.kind for wall in self.walls for h in wall.hangings}
        pictures = ["framed picture", "poster on the wall"] if kinds & {"hills", "circles", "blocks"} else []
        openings = [kind for kind in ("window", "door") if kind in kinds]
        rug = "round rug" if self.rug_round else "patterned carpet"
        return [
            "wooden floor",
            rug,
            "ceiling",
            "ceiling light",
            "skirting board",
            *sorted(set(finishes)),
            *openings,
            *pictures,
        ]


def draw_decor(rng: np.random.Generator, half_x: float, half_y: float) -> Decor:
    """Random paint for a room of the given half sizes in metres."""
    finishes = [str(f) for f in rng.permutation(["plain", "stripes", "brick", "panel"])]
    colours = [str(c) for c in rng.permutation(_PASTELS)]
    brights = [str(c) for c in rng.permutation(_BRIGHTS)]
    kinds = [str(k) for k in rng.permutation(["hills", "circles", "blocks"])]
    pictures = [(kind, tuple(brights[2 * i : 2 * i + 3])) for i, kind in enumerate(kinds)]
    window_wall = int(rng.integers(4))
    door_wall = (window_wall + 1 + int(rng.integers(3))) % 4
    walls = []
    for k in range(4):
        half = half_y if k < 2 else half_x
        colour, accent = ("#ad6650", "#d3c6b4") if finishes[k] == "brick" else colours[2 * k : 2 * k + 2]
        shift = float(rng.uniform(-0.15, 0.15))
        hangings: tuple[Hanging, ...]
        if k == window_wall:
            hangings = (Hanging("window", (shift - 0.8, shift + 0.8), (0.95, 2.1), 0.07, ("#f0ece2",)),)
        else:
            kind, paints = pictures.pop()
            frame = str(rng.choice(["#2f2a28", "#e9e2d2", "#7a5a34"]))
            size = (0.8, 0.62) if k == door_wall else (1.3, 0.9)
            side = 0.45 * half * float(rng.choice([-1.0, 1.0])) if k == door_wall else -shift
            hangings = (Hanging(kind, *_centred(-side, 1.5, *size), 0.055, (frame, *paints)),)
            if k == door_wall:
                wood = str(rng.choice(_WOODS))
                hangings += (Hanging("door", (side - 0.43, side + 0.43), (0.0, 2.02), 0.07, ("#f0ece2", wood)),)
        walls.append(Wall(finishes[k], colour, accent, hangings))
    rug_round = bool(rng.integers(2))
    return Decor(
        walls=(walls[0], walls[1], walls[2], walls[3]),
        floor=str(rng.choice(_WOODS)),
        skirting=str(rng.choice(["#efe9dc", "#5b4634"])),
        rug_round=rug_round,
        rug_half=(1.35, 1.35) if rug_round else (1.6, 1.15),
        rug=_RUGS[int(rng.integers(len(_RUGS)))],
    )


def _centred(a: float, z: float, width: float, height: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (a - width / 2, a + width / 2), (z - height / 2, z + height / 2)


def _mix(colour: str, accent: str, weight: Array) -> Array:
    base = linear(colour)[:, None]
    return base + weight * (linear(accent)[:, None] - base)


def paint_floor(decor: Decor, x: Array, y: Array) -> Array:
    """Albedo [3, N] of the floor at world x, y, each [N]."""
    row = np.floor(y / 0.16)
    along = x / 1.3 + 0.37 * (row % 5)
    plank = np.floor(along)
    tone = 0.5 + 0.5 * np.sin(12.9 * row + 78.2 * plank)
    grain = 0.5 + 0.5 * wave_noise(9.0 * x + 3.0 * row, 60.0 * y)
    gap = (y / 0.16 - row < 0.06) | (along - plank < 0.008)
    shade = (0.62 + 0.38 * tone + 0.16 * grain) * np.where(gap, np.float32(0.45), np.float32(1.0))
    out = linear(decor.floor)[:, None] * shade
    a, b = decor.rug_half
    if decor.rug_round:
        reach = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    else:
        reach = np.maximum(np.abs(x) / a, np.abs(y) / b)
    on = np.flatnonzero(reach < 1.0)
    if len(on):
        out[:, on] = _mix(*decor.rug, _rug_weight(decor.rug_round, x[on], y[on], reach[on]))
    return out


def _rug_weight(is_round: bool, x: Array, y: Array, reach: Array) -> Array:
    """Pattern of the rug: rings of wedges when round, diamonds with a border otherwise."""
    border = (reach > 0.86) & (reach < 0.93)
    if is_round:
        wedge = np.floor((np.arctan2(y, x) / np.pi + 1.0) * 12.0) + np.floor(reach * 5.0)
        return np.where(reach > 0.8, border, (wedge % 2 == 0) & (reach > 0.2)).astype(np.float32)
    diamond = np.floor((x + y) / 0.24) + np.floor((x - y) / 0.24)
    return np.where(reach > 0.8, border, diamond % 2 == 0).astype(np.float32)


def paint_ceiling(x: Array, y: Array) -> tuple[Array, Array]:
    """Albedo [3, N] and glow [N] (1 where the panel shines) of the ceiling at world x, y, each [N]."""
    glow = (np.abs(x) < LAMP_HALF[0]) & (np.abs(y) < LAMP_HALF[1])
    rim = ~glow & (np.abs(x) < LAMP_HALF[0] + 0.06) & (np.abs(y) < LAMP_HALF[1] + 0.06)
    albedo = _mix("#efece4", "#8f8a80", rim.astype(np.float32))
    albedo[:, glow] = linear("#fffdf4")[:, None]
    return albedo, glow


def paint_wall(decor: Decor, wall: Wall, a: Array, z: Array) -> tuple[Array, Array]:
    """Albedo [3, N] and glow [N] (1 where daylight comes through) of a wall at ``a``, ``z``, each [N] metres."""
    out = _mix(wall.colour, wall.accent, _finish(wall.finish, a, z))
    if wall.finish == "brick":
        row, column = _brick(a, z)[:2]
        out *= 0.8 + 0.28 * np.sin(7.7 * row + 33.1 * column)[None] ** 2
    glow = np.zeros(len(a), bool)
    board = z < SKIRTING
    out[:, board] = linear(decor.skirting)[:, None]
    for hanging in wall.hangings:
        (a0, a1), (z0, z1) = hanging.a, hanging.z
        on = np.flatnonzero((a > a0) & (a < a1) & (z > z0) & (z < z1))
        if len(on):
            x, y = (a[on] - a0) / (a1 - a0), (z[on] - z0) / (z1 - z0)
            out[:, on], glow[on] = _hang(hanging, x, y)
    return out, glow


def _brick(a: Array, z: Array) -> tuple[Array, Array, Array]:
    """Row, column and mortar mask of a point of a brick wall, [N] each."""
    row = np.floor(z / 0.13)
    across = a / 0.34 + 0.5 * (row % 2)
    column = np.floor(across)
    return row, column, (z / 0.13 - row < 0.16) | (across - column < 0.062)


def _finish(finish: str, a: Array, z: Array) -> Array:
    """Weight of a wall's second colour, [N]."""
    if finish == "plain":
        return np.zeros(len(a), np.float32)
    if finish == "stripes":
        return (np.floor(a / 0.17) % 2).astype(np.float32)
    if finish == "brick":
        return _brick(a, z)[2].astype(np.float32)
    return (z < 0.95).astype(np.float32)


def _hang(hanging: Hanging, x: Array, y: Array) -> tuple[Array, Array]:
    """Albedo [3, N] and glow [N] inside a hanging at its own coordinates in [0, 1], y up."""
    width, height = hanging.a[1] - hanging.a[0], hanging.z[1] - hanging.z[0]
    fx, fy = hanging.frame / width, hanging.frame / height
    inside = (x > fx) & (x < 1 - fx) & (y < 1 - fy) & ((y > fy) | (hanging.kind == "door"))
    x, y = (x - fx) / (1 - 2 * fx), (y - fy) / (1 - 2 * fy)
    glow = np.zeros(len(x), bool)
    if hanging.kind == "window":
        bar = (np.abs(x - 0.5) < 0.018) | (np.abs(y - 0.55) < 0.025)
        art, glow = _view(x, y), inside & ~bar
        art[:, bar] = linear(hanging.colours[0])[:, None]
    elif hanging.kind == "door":
        art = _door(hanging.colours[1], x, y)
    elif hanging.kind == "hills":
        art = _hills(hanging.colours[1:], x, y)
    elif hanging.kind == "circles":
        ring = np.floor(np.hypot((x - 0.5) * width, (y - 0.5) * height) / 0.085)
        art = np.stack([linear(c) for c in (*hanging.colours[1:], "#efe6d2")], axis=1)[:, ring.astype(np.intp) % 4]
    else:
        art = _blocks(hanging.colours[1:], x, y)
    return np.where(inside, art, linear(hanging.colours[0])[:, None]), glow


def _view(x: Array, y: Array) -> Array:
    """Sky, a cloud bank and trees behind the window."""
    out = _mix("#dcebf5", "#7fb2e0", np.clip((y - 0.3) / 0.7, 0.0, 1.0))
    cloud = y + 0.05 * np.sin(17.0 * x + 1.0) < 0.72 + 0.1 * np.sin(5.0 * x)
    cloud &= y > 0.62
    out[:, cloud] = linear("#ffffff")[:, None]
    trees = y < 0.3 + 0.06 * np.sin(9.0 * x) + 0.03 * np.sin(31.0 * x + 2.0)
    out[:, trees] = linear("#6f9a5a")[:, None]
    out[:, y < 0.16] = linear("#a9c27a")[:, None]
    return out


def _door(wood: str, x: Array, y: Array) -> Array:
    """Four sunk panels and a handle."""
    px, py = np.abs(2.0 * x - 1.0), np.abs(y * 2.0 % 1.0 - 0.5)
    panel = (px > 0.14) & (px < 0.78) & (py < 0.38)
    edge = panel & ((px < 0.2) | (px > 0.72) | (py > 0.35))
    out = linear(wood)[:, None] * (0.95 - 0.2 * panel - 0.25 * edge + 0.05 * np.sin(40.0 * x + 3.0 * np.sin(5.0 * y)))
    handle = np.hypot((x - 0.9) * 0.8, (y - 0.47) * 2.0) < 0.035
    out[:, handle] = linear("#e3c35a")[:, None]
    return out


def _hills(colours: tuple[str, ...], x: Array, y: Array) -> Array:
    """A sun above two ridges."""
    out = _mix("#f3dfb4", "#8fc0d8", np.clip(y * 1.2 - 0.1, 0.0, 1.0))
    out[:, np.hypot((x - 0.68) * 1.4, y - 0.72) < 0.13] = linear("#f0b429")[:, None]
    out[:, y < 0.52 + 0.14 * np.sin(6.0 * x + 0.5)] = linear(colours[0])[:, None]
    out[:, y < 0.3 + 0.12 * np.sin(5.0 * x + 3.2)] = linear(colours[1])[:, None]
    out[:, y < 0.12 + 0.03 * np.sin(11.0 * x)] = linear(colours[2])[:, None]
    return out


def _blocks(colours: tuple[str, ...], x: Array, y: Array) -> Array:
    """Coloured rectangles between dark bars."""
    columns, rows = np.array([0.0, 0.28, 0.62, 1.0]), np.array([0.0, 0.36, 0.68, 1.0])
    i = np.clip(np.searchsorted(columns, x) - 1, 0, 2)
    j = np.clip(np.searchsorted(rows, y) - 1, 0, 2)
    table = np.array([[0, 3, 1], [3, 2, 3], [1, 3, 0]])
    out = np.stack([linear(c) for c in (*colours, "#f1ead8")], axis=1)[:, table[j, i]]
    near = np.minimum(np.abs(x - columns[i]), np.abs(x - columns[i + 1])) < 0.018
    near |= np.minimum(np.abs(y - rows[j]), np.abs(y - rows[j + 1])) < 0.026
    out[:, near] = linear("#26242a")[:, None]
    return out
