"""Strict reading of label files: an error names the file, the place, the value, the reason and the fix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from vlmgs_ns.evaluation.metrics import Box
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json

SLACK = 1.0
"""Pixels by which a drawn corner may lie outside its picture; it is moved to the edge. Further out, the size must be wrong."""
MOST_PIXELS = 1 << 28
"""Most pixels of one picture. A damaged size must not fill the memory."""


class Source:
    """A label file, or a place inside it, that can tell what is wrong with it.

    Every method raises `InputError` with the file, the place, the value, the reason and the fix.
    """

    def __init__(self, path: Path, content: Any, place: str = "") -> None:
        self.path, self.content, self.place = path, content, place

    @classmethod
    def read(cls, path: Path) -> Source:
        """Return the JSON object in a file."""
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. Give the folder that holds the labels.") from None
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}. Download or write it again.") from None
        source = cls(path, content)
        return source if isinstance(content, dict) else source.refuse("must be an object, in braces")

    def refuse(self, reason: str, fix: str = "Correct the file.") -> NoReturn:
        """Raise for this place."""
        value = repr(self.content)
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        raise InputError(f"{self.path}: {self.place or 'content'} is {shown}, but {reason}. {fix}")

    def get(self, key: str) -> Source:
        """Return the value of a key that must be there."""
        place = f"{self.place}.{key}".lstrip(".")
        if not isinstance(self.content, dict):
            self.refuse("must be an object, in braces")
        if key not in self.content:
            raise InputError(f"{self.path}: {place} is missing. Correct the file, or choose the reader of its data set.")
        return Source(self.path, self.content[key], place)

    def items(self) -> list[Source]:
        """Return the entries of a list."""
        if not isinstance(self.content, list):
            self.refuse("must be a list, in brackets")
        return [Source(self.path, entry, f"{self.place}[{k}]") for k, entry in enumerate(self.content)]

    def entries(self) -> list[tuple[str, Source]]:
        """Return the keys of an object with their values."""
        if not isinstance(self.content, dict):
            self.refuse("must be an object, in braces")
        return [(key, self.get(key)) for key in self.content]

    def text(self) -> str:
        """Words, without the spaces around them."""
        if not isinstance(self.content, str) or not self.content.strip():
            self.refuse("must be text that is not empty")
        return str(self.content).strip()

    def parsed(self) -> Source:
        """Return what the text holds as JSON."""
        try:
            return Source(self.path, parse_json(self.text()), self.place)
        except ValueError as error:
            self.refuse(f"is not JSON: {error}")

    def number(self) -> float:
        """Return a finite number."""
        if isinstance(self.content, bool) or not isinstance(self.content, (int, float)) or not abs(self.content) < 1e9:
            self.refuse("must be a number")
        return float(self.content)

    def whole(self) -> int:
        """Return a whole number ≥ 1."""
        value = self.number()
        if value < 1 or not value.is_integer():
            self.refuse("must be a whole number, 1 or more")
        return int(value)

    def size(self, width: str, height: str) -> tuple[int, int]:
        """Width and height of a picture from two keys."""
        pair = self.get(width).whole(), self.get(height).whole()
        if math.prod(pair) > MOST_PIXELS:
            self.get(width).refuse(f"a picture of {pair[0]} x {pair[1]} pixels is larger than {MOST_PIXELS:,}")
        return pair

    def points(self, width: int, height: int) -> list[tuple[float, float]]:
        """Corners [x, y] in pixels, inside the picture; those up to :data:`SLACK` outside are moved to its edge."""
        corners = []
        for entry in self.items():
            pair = [part.number() for part in entry.items()]
            if len(pair) != 2:
                entry.refuse("a corner must be [x, y]")
            corners.append(entry.inside(pair[0], pair[1], width, height))
        return corners

    def inside(self, x: float, y: float, width: int, height: int) -> tuple[float, float]:
        """Return the corner (x, y), moved to the edge of the picture where it lies just outside."""
        if not (-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK):
            self.refuse(
                f"({x:g}, {y:g}) lies outside the picture of {width} x {height} pixels",
                "Correct the corner, or the width and height that the file gives.",
            )
        return min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))

    def edges(self, width: int, height: int) -> Box:
        """Return the box [x1, y1, x2, y2] in pixels, its corners in either order."""
        values = [edge.number() for edge in self.items()]
        if len(values) != 4:
            self.refuse("a box must be [x1, y1, x2, y2]")
        x1, y1, x2, y2 = values
        return self.box([self.inside(x1, y1, width, height), self.inside(x2, y2, width, height)], width, height)

    def box(self, corners: list[tuple[float, float]], width: int, height: int) -> Box:
        """Return the box between two opposite corners in pixels, in either order."""
        (xa, ya), (xb, yb) = corners
        if xa == xb or ya == yb:
            self.refuse("a box without any area cannot be hit", "Draw it again, or remove it.")
        x1, x2, y1, y2 = min(xa, xb), max(xa, xb), min(ya, yb), max(ya, yb)
        return x1 / width, y1 / height, x2 / width, y2 / height


def file_name(path: str) -> str:
    """Return the last part of a path, written with either kind of slash."""
    return path.replace("\\", "/").rpartition("/")[2]


def json_files(folder: Path) -> list[Path]:
    """Return the JSON files of a folder in order of their names.

    Raises:
        InputError: the folder is missing or has none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, so that it holds no labels. Give the folder of one scene's json files.")
    found = sorted(path for path in folder.glob("*.json") if path.is_file() and not path.name.startswith("."))
    if not found:
        raise InputError(f"{folder} holds no json file, so that nothing is labelled. Give the folder of one scene's json files.")
    return found


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header.

    Raises:
        InputError: missing, no picture, or too large a one.
    """
    try:
        with Image.open(path) as picture:
            size = picture.size
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture: {error}. Download or write it again.") from None
    if math.prod(size) > MOST_PIXELS:
        raise InputError(f"{path} has {size[0]} x {size[1]} pixels, more than {MOST_PIXELS:,}. Make it smaller.")
    return size


def read_grey(path: Path, width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture's grey values, [H, W] uint8.

    Raises:
        InputError: missing, no picture, truncated, or of another size.
    """
    try:
        with Image.open(path) as picture:
            values = np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture: {error}. Download or write it again.") from None
    if values.shape != (height, width):
        raise InputError(
            f"{path} has {values.shape[1]} x {values.shape[0]} pixels, but its view has {width} x {height}."
            " Give every mask of a view the same size."
        )
    return values
