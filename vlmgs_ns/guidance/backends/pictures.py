"""What a model sees of a picture, and what the numbers in its replies count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmgs_ns.guidance.question import Coordinates

SQUARE = {"pixels": 28, "thousandths": 1}
"""Pixels, by what a model's numbers count: Qwen2.5-VL resizes its pictures to multiples of 28. Given such a picture, it sees what
it was given, and its numbers count what we think. For the others the exact size does not matter."""


def seen_size(width: int, height: int, max_size: int, multiple: int = 1) -> tuple[int, int]:
    """Width and height in pixels of what `shrink` makes of a picture."""
    scale = min(1.0, max_size / max(width, height))
    new_width, new_height = (max(multiple, round(side * scale) // multiple * multiple) for side in (width, height))
    return new_width, new_height


def shrink(
    picture: NDArray[np.uint8],  # [H, W, 3]
    max_size: int,
    multiple: int = 1,
) -> NDArray[np.uint8]:
    """The picture with its longer side at most ``max_size`` pixels, in the same proportions; never enlarged.

    Args:
        multiple: both sides become multiples of it, rounded down; a side that is shorter than it becomes as long.

    Returns:
        [H', W', 3]; the picture itself where nothing changes.

    Raises:
        ValueError: no picture of that shape and type, or an empty one.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or picture.size == 0:
        raise ValueError(f"a picture of shape {picture.shape} and type {picture.dtype}: give uint8 of shape [H, W, 3]")
    height, width = picture.shape[:2]
    size = seen_size(width, height, max_size, multiple)
    if size == (width, height):
        return picture
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def coordinates_of(model: str) -> Coordinates:
    """What a model's numbers count, from its ``model_type`` or its name.

    Qwen2.5-VL answers in pixels of the picture as it saw it; Qwen2-VL and Qwen3-VL, like most others, in thousandths.
    """
    plain = "".join(letter for letter in model.lower() if letter.isalnum())
    return "pixels" if "qwen25vl" in plain else "thousandths"
