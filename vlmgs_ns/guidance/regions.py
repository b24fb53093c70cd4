"""Regions of a picture: boxes kept within limits, as masks of pixels, and drawn for people.

Boxes are named tuples `left, top, right, bottom, label` in normalised image coordinates, x right and y down (`reply.Box`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlmgs_ns.guidance.reply import Box

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

TOLERANCE = 1e-9
"""Tolerance of areas, as a fraction of the picture: what is at its limit after rounding is within it."""
COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (67, 99, 216),
    (245, 130, 49),
    (66, 212, 244),
    (240, 50, 230),
    (191, 239, 69),
)
DIMMED = 0.35
LINE = 2
LONGER_SIDE = 480
"""Smaller pictures are enlarged by a whole factor to about this many pixels, so that labels can be read."""


@dataclass(frozen=True)
class Limits:
    """What a reply may claim; areas are fractions of the picture's. A model overestimates, and points follow its boxes."""

    max_boxes: int
    max_area: float
    """Limit of one box."""
    max_union: float
    """Limit of all boxes together, overlaps counted once."""


LIMITS: dict[str, Limits] = {
    "detail": Limits(max_boxes=8, max_area=0.5, max_union=0.6),
    "background": Limits(max_boxes=1, max_area=0.5, max_union=0.5),
    "novel": Limits(max_boxes=8, max_area=0.25, max_union=0.5),
    "compare": Limits(max_boxes=3, max_area=0.125, max_union=0.375),
    "ground": Limits(max_boxes=8, max_area=1.0, max_union=1.0),
}
"""By phase. "background" and "compare" are those of VLM-Instruct-FastGS; a background round densifies what is outside its box, so
that half of the picture remains for it."""


def limit(boxes: Sequence[Box], limits: Limits) -> tuple[tuple[Box, ...], str]:
    """Boxes within limits, in their order, and a sentence about what was clipped ("" if nothing was).

    A box that is too large shrinks about its centre and keeps its aspect. A box that would push the union over its limit is
    dropped; later ones may still fit. Boxes beyond the count are dropped.
    """
    kept: list[Box] = []
    shrunk = surplus = crowded = 0
    for box in boxes:
        if len(kept) == limits.max_boxes:
            surplus += 1
            continue
        smaller = shrink(box, limits.max_area)
        if union_area([*kept, smaller]) > limits.max_union + TOLERANCE:
            crowded += 1
            continue
        kept.append(smaller)
        shrunk += smaller != box
    told = []
    if shrunk:
        told.append(f"{count(shrunk)} shrunk to {limits.max_area:.3g} of the picture")
    if crowded:
        told.append(f"{count(crowded)} dropped because together they would cover more than {limits.max_union:.3g} of the picture")
    if surplus:
        told.append(f"{count(surplus)} dropped beyond the first {limits.max_boxes}")
    return tuple(kept), "; ".join(told)


def count(boxes: int) -> str:
    return "1 box" if boxes == 1 else f"{boxes} boxes"


def shrink(box: Box, max_area: float) -> Box:
    """The box, or a smaller one of the same centre and aspect."""
    area = (box.right - box.left) * (box.bottom - box.top)
    if area <= max_area + TOLERANCE:
        return box
    cut = (1 - math.sqrt(max_area / area)) / 2
    x, y = cut * (box.right - box.left), cut * (box.bottom - box.top)
    return box._replace(left=box.left + x, top=box.top + y, right=box.right - x, bottom=box.bottom - y)


def union_area(boxes: Sequence[Box]) -> float:
    """Exact area of a union, on the grid that its edges make."""
    xs = np.unique([(box.left, box.right) for box in boxes])
    ys = np.unique([(box.top, box.bottom) for box in boxes])
    covered = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), bool)
    for box in boxes:
        (left, right), (top, bottom) = np.searchsorted(xs, (box.left, box.right)), np.searchsorted(ys, (box.top, box.bottom))
        covered[top:bottom, left:right] = True
    return float(np.diff(ys) @ covered @ np.diff(xs))


def mask(boxes: Sequence[Box], width: int, height: int) -> NDArray[np.bool_]:
    """Pixels of the boxes' union, [H, W]: those whose centre lies in a box, and at least one for each box."""
    marked = np.zeros((height, width), bool)
    for box in boxes:
        marked[pixels(box.top, box.bottom, height), pixels(box.left, box.right, width)] = True
    return marked


def pixels(low: float, high: float, size: int) -> slice:
    """Pixels of an axis with their centre in [low, high), or the one that holds its middle."""
    first, last = np.searchsorted((np.arange(size) + 0.5) / size, (low, high))
    if first == last:
        first = min(int((low + high) / 2 * size), size - 1)
        last = first + 1
    return slice(int(first), int(last))


def boxes_around(
    mask: NDArray[np.bool_],  # [H, W]
    min_area: float,
    max_boxes: int,
) -> tuple[tuple[float, float, float, float], ...]:
    """Bounding boxes (left, top, right, bottom), normalised, of a mask's connected parts, the part of most pixels first.

    Pixels that touch at a corner are connected. Parts of less than `min_area`, a fraction of the picture, are left out.
    """
    from scipy import ndimage

    height, width = mask.shape
    parts, _ = ndimage.label(mask, structure=np.ones((3, 3), bool))
    sizes = np.bincount(parts.ravel())[1:]
    largest = np.argsort(-sizes, kind="stable")[:max_boxes]
    slices = ndimage.find_objects(parts)
    return tuple(
        (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
        for rows, columns in (slices[part] for part in largest if sizes[part] >= min_area * mask.size)
    )


def picture(
    render: NDArray[Any],  # [H, W, 3], floats in [0, 1] or bytes
    boxes: Sequence[Box],
    mask: NDArray[np.bool_] | None = None,  # [H, W]
) -> NDArray[np.uint8]:
    """A render with its boxes outlined and labelled, and what is outside the mask dimmed: [H', W', 3], a whole multiple of H, W.

    Raises:
        ValueError: the render is no colour picture, or the mask has another size.
    """
    from PIL import Image, ImageDraw

    if render.ndim != 3 or render.shape[2] != 3:
        raise ValueError(f"a render of shape {render.shape} cannot be drawn on: give [H, W, 3]")
    if mask is not None and mask.shape != render.shape[:2]:
        raise ValueError(f"the mask has shape {mask.shape}, the render {render.shape}: give both in the same size")
    if render.dtype != np.uint8:
        render = (np.nan_to_num(render).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if mask is not None:
        render = np.where(mask[..., None], render, (render * DIMMED).astype(np.uint8))
    factor = max(1, LONGER_SIDE // max(render.shape[:2]))
    image = Image.fromarray(render.repeat(factor, 0).repeat(factor, 1))
    draw = ImageDraw.Draw(image)
    for k, box in enumerate(boxes):
        outline(draw, box, image.size, COLOURS[k % len(COLOURS)])
    for k, box in enumerate(boxes):  # last, so that no line runs through a label
        if box.label:
            write_label(draw, box, image.size, COLOURS[k % len(COLOURS)])
    return np.asarray(image)


def corners(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last column and row of a box: left, top, right, bottom, inclusive."""
    columns, rows = pixels(box.left, box.right, size[0]), pixels(box.top, box.bottom, size[1])
    return columns.start, rows.start, columns.stop - 1, rows.stop - 1


def outline(draw: ImageDraw, box: Box, size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    draw.rectangle(corners(box, size), outline=colour, width=LINE)


def write_label(draw: ImageDraw, box: Box, size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """A box's label above it, or inside where there is no room above, moved left as far as it must to be read."""
    from PIL import ImageFont

    font = ImageFont.load_default(size=13)
    left, top, _, _ = corners(box, size)
    _, _, text_width, text_height = (math.ceil(edge) for edge in draw.textbbox((0, 0), box.label, font=font))
    text_width, text_height = text_width + 4, text_height + 4
    x = max(0, min(left, size[0] - text_width))
    y = top - text_height if top >= text_height else top
    draw.rectangle((x, y, x + text_width - 1, y + text_height - 1), fill=colour)
    bright = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] > 128
    draw.text((x + 2, y + 1), box.label, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)
