"""Pictures as they stand in the page: inside it, of a size that a screen shows."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmgs_ns.pages.html import Html, tag

Picture = npt.NDArray[np.uint8]
"""RGB, [H, W, 3]."""

ERROR_AT_WHITE = 0.25
"""Mean absolute error of a pixel's colours, in [0, 1], that the error map shows brightest."""
LONGER_SIDE = 800
"""Pixels of the longer side to which larger pictures are scaled down."""
QUALITY = 85


def error_map(photo: Picture, render: Picture) -> Picture:
    """Mean absolute error over a pixel's colours, black where there is none, brightest from ``ERROR_AT_WHITE`` on."""
    from matplotlib import colormaps

    error = np.abs(photo.astype(np.float32) - render.astype(np.float32)).mean(axis=-1) / 255.0
    coloured = colormaps["inferno"](np.clip(error / ERROR_AT_WHITE, 0.0, 1.0))[..., :3]
    return (coloured * 255).round().astype(np.uint8)


def colour_bar(colours: str, low: str, high: str) -> Html:
    """The scale of one of matplotlib's colour maps, with words at its ends."""
    from matplotlib import colormaps

    bar = (colormaps[colours](np.linspace(0, 1, 64))[None, :, :3] * 255).round().astype(np.uint8).repeat(4, axis=0)
    return tag("p", low, " ", image(bar, f"colours from {low} to {high}", class_="scale"), " ", high, class_="legend")


def image(picture: Picture, alt: str, kind: str | None = None, class_: str | None = None) -> Html:
    """An element that holds the picture as a JPEG, scaled down to ``LONGER_SIDE``; ``kind`` says what it shows, for programs."""
    shown = Image.fromarray(np.ascontiguousarray(picture))
    shown.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    return _element(buffer.getvalue(), shown.size, alt, kind, class_)


def image_file(path: Path, alt: str, longer_side: int) -> Html | None:
    """The same of a picture's file, scaled down to ``longer_side``; None where it cannot be read as a picture."""
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as opened:
            shown = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    shown.thumbnail((longer_side, longer_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=QUALITY)
    return _element(buffer.getvalue(), shown.size, alt, None, None)


def _element(jpeg: bytes, size: tuple[int, int], alt: str, kind: str | None, class_: str | None) -> Html:
    # Width and height keep the text from jumping while a long page is laid out.
    return tag(
        "img",
        src=_uri("image/jpeg", jpeg),
        alt=alt,
        width=size[0],
        height=size[1],
        decoding="async",
        data_kind=kind,
        class_=class_,
    )


def video(mp4: bytes, alt: str) -> Html:
    """An element that plays the video over and over."""
    source = _uri("video/mp4", mp4)
    return tag("video", src=source, autoplay=True, loop=True, muted=True, playsinline=True, controls=True, aria_label=alt)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(content).decode("ascii")
