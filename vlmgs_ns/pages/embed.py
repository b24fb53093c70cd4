"""Pictures and videos inside a page, of a size that a screen shows."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmgs_ns.evaluation.overlays import Picture

ERROR_AT_WHITE = 0.25
"""Mean absolute error of a pixel's colours, in [0, 1], that the error map shows brightest."""
LONGER_SIDE = 800
"""Pixels of the longer side to which larger pictures are scaled down."""
QUALITY = 85


@dataclass(frozen=True)
class Embedded:
    """A picture as a page holds it; its size keeps the text from jumping while a long page is laid out."""

    source: str
    """A data URI."""
    width: int
    height: int


def embed(picture: Picture) -> Embedded:
    """Return a picture as a JPEG, scaled down to ``LONGER_SIDE``."""
    return _jpeg(Image.fromarray(np.ascontiguousarray(picture)), LONGER_SIDE, subsampling=0)


def embed_file(path: Path, longer_side: int) -> Embedded | None:
    """Return a picture's file as a JPEG, scaled down to ``longer_side``; None where it cannot be read as a picture."""
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return _jpeg(picture, longer_side, subsampling=2)


def _jpeg(picture: Image.Image, longer_side: int, subsampling: int) -> Embedded:
    picture.thumbnail((longer_side, longer_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=QUALITY, subsampling=subsampling)
    return Embedded(data_uri("image/jpeg", buffer.getvalue()), *picture.size)


def data_uri(media_type: str, content: bytes) -> str:
    """Return an address that holds the content itself."""
    return f"data:{media_type};base64," + base64.b64encode(content).decode("ascii")


def error_map(photo: Picture, render: Picture) -> Picture:
    """Return the mean absolute error over a pixel's colours: black where there is none, brightest from ``ERROR_AT_WHITE`` on."""
    error = np.abs(photo.astype(np.float32) - render.astype(np.float32)).mean(axis=-1) / 255.0
    return _coloured("inferno", error / ERROR_AT_WHITE)


def colour_bar(colours: str) -> Picture:
    """Return the scale of one of matplotlib's colour maps, lowest value on the left."""
    return _coloured(colours, np.linspace(0, 1, 64)[None].repeat(4, axis=0))


def _coloured(colours: str, values: npt.NDArray[np.floating]) -> Picture:
    from matplotlib import colormaps

    return (colormaps[colours](np.clip(values, 0.0, 1.0))[..., :3] * 255).round().astype(np.uint8)
