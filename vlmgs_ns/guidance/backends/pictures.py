"""Size of a picture as a model sees it, and the unit of the coordinates in its replies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmgs_ns.guidance.reply import Coordinates

SQUARE = {"pixels": 28, "thousandths": 1}
"""Multiple of pixels for both sides, by the unit of a model's coordinates. Qwen2.5-VL resizes pictures to multiples of 28 and
answers in pixels of the resized picture, so it gets pictures of such sizes. For the others the exact size does not matter."""


def seen_size(width: int, height: int, max_size: int, multiple: int = 1) -> tuple[int, int]:
    """Return width and height in pixels of a picture after `shrink`."""
    scale = min(1.0, max_size / max(width, height))
    new_width, new_height = (max(multiple, round(side * scale) // multiple * multiple) for side in (width, height))
    return new_width, new_height


def shrink(
    picture: NDArray[np.uint8],  # [H, W, 3]
    max_size: int,
    multiple: int = 1,
) -> NDArray[np.uint8]:
    """Scale a picture down, in proportion, to at most ``max_size`` pixels on its longer side; never up.

    Args:
        multiple: both sides become multiples of it, rounded down; a side that is shorter than it becomes as long.

    Returns:
        [H', W', 3]; the picture itself where nothing changes.

    Raises:
        ValueError: the array is empty, or its shape or type is not that of a picture.
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
    """Return the unit of a model's coordinates, from its ``model_type`` or its name.

    Qwen2.5-VL answers in pixels of the picture as it saw it; Qwen2-VL and Qwen3-VL, like most others, in thousandths.
    """
    plain = "".join(letter for letter in model.lower() if letter.isalnum())
    return "pixels" if "qwen25vl" in plain else "thousandths"
