"""What labels of a scene are, whichever data set they come from, and the strict reading that the readers share.

Boxes are shares of the picture (see `metrics.Box`), so that they hold for a photo of any size. Masks are at the labels' own
size and are read when they are asked for: a data set of 12-megapixel masks is never in memory at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from vlmgs_ns.errors import InputError
from vlmgs_ns.evaluation.metrics import Box, Mask

SLACK = 1.0
"""Pixels by which a drawn corner may lie outside its picture; it is moved to the edge. Further out, the size must be wrong."""
MOST_PIXELS = 1 << 28
"""Of one picture. A damaged size must not fill the memory."""


@dataclass(frozen=True)
class LabelledObject:
    """Everything in one view that a phrase names; it may be in several places."""

    phrase: str
    boxes: tuple[Box, ...] = ()
    """Around each place; empty where the data set has masks alone."""
    mask: Callable[[], Mask] | None = None
    """Gives the pixels [H, W] of all places, at the view's size; None where the data set has boxes alone. May raise
    `InputError`, for a file that is damaged."""


@dataclass(frozen=True)
class LabelledView:
    """One picture and what is labelled in it. Phrases of the scene that are not among the objects are not to be seen."""

    image: str
    """File name, without folders."""
    width: int
    """Of the labels, in pixels; the photo may be of another size with the same aspect."""
    height: int
    objects: tuple[LabelledObject, ...]
    """One per phrase."""

    def __post_init__(self) -> None:
        _refuse_twice((thing.phrase for thing in self.objects), f"phrase in view {self.image}")

    @property
    def stem(self) -> str:
        """File name without its suffix, by which a view is matched with a photo."""
        return PurePath(self.image).stem


@dataclass(frozen=True)
class LabelledScene:
    """The labelled views of one scene."""

    name: str
    views: tuple[LabelledView, ...]
    phrases: tuple[str, ...]
    """The label set, over which an arg max is taken: every phrase of any view, and perhaps some that no view shows."""
    background: tuple[str, ...] = ()
    """Phrases of what is nobody's object, for the arg max over the label set to lose pixels to."""
    settings: Mapping[str, str | int] = field(default_factory=dict)
    """Which reader with which choices gave these labels; the same for every scene that is read so."""

    def __post_init__(self) -> None:
        _refuse_twice((view.stem for view in self.views), f"view of scene {self.name}")
        _refuse_twice((*self.phrases, *self.background), f"phrase of scene {self.name}")
        unknown = {thing.phrase for view in self.views for thing in view.objects} - set(self.phrases)
        if unknown:
            raise ValueError(f"phrase {min(unknown)!r} of scene {self.name} is not in its label set: add it to `phrases`")


def phrases_of(views: Iterable[LabelledView]) -> tuple[str, ...]:
    """The phrases of the views, sorted."""
    return tuple(sorted({thing.phrase for view in views for thing in view.objects}))


def merged(objects: Iterable[LabelledObject]) -> tuple[LabelledObject, ...]:
    """Objects of the same phrase made one, with the boxes of all and the union of their masks; in order of appearance."""
    groups: dict[str, list[LabelledObject]] = {}
    for thing in objects:
        groups.setdefault(thing.phrase, []).append(thing)
    return tuple(
        LabelledObject(phrase, tuple(box for thing in group for box in thing.boxes), _union([thing.mask for thing in group]))
        for phrase, group in groups.items()
    )


def _union(masks: list[Callable[[], Mask] | None]) -> Callable[[], Mask] | None:
    known = [mask for mask in masks if mask is not None]
    return (lambda: np.logical_or.reduce([mask() for mask in known])) if known else None


def _refuse_twice(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} is there twice: names must be unique, merge or rename one of them")
        seen.add(name)


class Source:
    """A label file, or a place inside it, that can tell what is wrong with it.

    Every method raises `InputError` with the file, the place, the value, the reason and the fix.
    """

    def __init__(self, path: Path, content: Any, place: str = "") -> None:
        self.path, self.content, self.place = path, content, place

    @classmethod
    def read(cls, path: Path) -> Source:
        """The JSON object in a file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}. Give the folder that holds the labels.") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no JSON: {error}. Download or write it again.") from None
        source = cls(path, content)
        return source if isinstance(content, dict) else source.refuse("must be an object, in braces")

    def refuse(self, reason: str, fix: str = "Correct the file.") -> NoReturn:
        """Raise for this place."""
        value = repr(self.content)
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        raise InputError(f"{self.path}: {self.place or 'content'} is {shown}, but {reason}. {fix}")

    def get(self, key: str) -> Source:
        """The value of a key that must be there."""
        place = f"{self.place}.{key}".lstrip(".")
        if not isinstance(self.content, dict):
            self.refuse("must be an object, in braces")
        if key not in self.content:
            raise InputError(f"{self.path}: {place} is missing. Correct the file, or choose the reader of its data set.")
        return Source(self.path, self.content[key], place)

    def items(self) -> list[Source]:
        """The entries of a list."""
        if not isinstance(self.content, list):
            self.refuse("must be a list, in brackets")
        return [Source(self.path, entry, f"{self.place}[{k}]") for k, entry in enumerate(self.content)]

    def entries(self) -> list[tuple[str, Source]]:
        """The keys of an object with their values."""
        if not isinstance(self.content, dict):
            self.refuse("must be an object, in braces")
        return [(key, self.get(key)) for key in self.content]

    def text(self) -> str:
        """Words, without the spaces around them."""
        if not isinstance(self.content, str) or not self.content.strip():
            self.refuse("must be text that is not empty")
        return str(self.content).strip()

    def number(self) -> float:
        """A finite number."""
        if isinstance(self.content, bool) or not isinstance(self.content, (int, float)) or not abs(self.content) < 1e9:
            self.refuse("must be a number")
        return float(self.content)

    def whole(self) -> int:
        """A whole number ≥ 1."""
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
        """The corner (x, y), moved to the edge of the picture where it lies just outside."""
        if not (-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK):
            self.refuse(
                f"({x:g}, {y:g}) lies outside the picture of {width} x {height} pixels",
                "Correct the corner, or the width and height that the file gives.",
            )
        return min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))

    def edges(self, width: int, height: int) -> Box:
        """The box [x1, y1, x2, y2] in pixels, its corners in either order."""
        values = [edge.number() for edge in self.items()]
        if len(values) != 4:
            self.refuse("a box must be [x1, y1, x2, y2]")
        x1, y1, x2, y2 = values
        return self.box([self.inside(x1, y1, width, height), self.inside(x2, y2, width, height)], width, height)

    def box(self, corners: list[tuple[float, float]], width: int, height: int) -> Box:
        """The box between two opposite corners in pixels, in either order."""
        (xa, ya), (xb, yb) = corners
        if xa == xb or ya == yb:
            self.refuse("a box without any area cannot be hit", "Draw it again, or remove it.")
        x1, x2, y1, y2 = min(xa, xb), max(xa, xb), min(ya, yb), max(ya, yb)
        return x1 / width, y1 / height, x2 / width, y2 / height


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def file_name(path: str) -> str:
    """The last part of a path, written with either kind of slash."""
    return path.replace("\\", "/").rpartition("/")[2]


def json_files(folder: Path) -> list[Path]:
    """The JSON files of a folder in order of their names.

    Raises:
        InputError: the folder is missing or has none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder, so that it holds no labels. Give the folder of one scene's json files.")
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
    """A picture's grey values, [H, W] uint8.

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


def polygon_mask(
    corners: list[tuple[float, float]],
    width: int,
    height: int,
) -> Mask:
    """Pixels of a polygon [H, W]: corners fall to the pixel that holds them, and the outline's pixels are inside.

    This is OpenCV's rule (``fillPoly``), by which published LERF-OVS figures are made; where the outline crosses itself, what it
    surrounds an even number of times is outside. A rule of pixel centres would take about half a pixel all around.

    Raises:
        ValueError: fewer than 3 corners.
    """
    import cv2

    if len(corners) < 3:
        raise ValueError(f"{len(corners)} corners enclose nothing: a polygon has 3 or more")
    filled = np.zeros((height, width), np.uint8)
    cv2.fillPoly(filled, [np.array(corners).astype(np.int32)], 1)  # type: ignore[call-overload]
    return filled.astype(bool)


def scene_name(folder: Path) -> str:
    """The name of a scene in a folder."""
    return folder.resolve().name


def build_scene(
    folder: Path,
    views: Iterable[LabelledView],
    reader: str,
    *,
    phrases: Iterable[str] | None = None,
    background: Iterable[str] = (),
    **settings: str | int,
) -> LabelledScene:
    """A scene of views that were read from ``folder``.

    Raises:
        InputError: nothing is labelled, or names that must be unique are not.
    """
    views = tuple(views)
    if not any(view.objects for view in views):
        raise InputError(
            f"{folder} labels nothing in {len(views)} views, so that there is nothing to evaluate. Give other labels."
        )
    known = phrases_of(views) if phrases is None else tuple(phrases)
    try:
        return LabelledScene(scene_name(folder), views, known, tuple(background), {"labels": reader, **settings})
    except ValueError as error:
        raise InputError(f"{folder}: {error}. Correct the labels.") from None
