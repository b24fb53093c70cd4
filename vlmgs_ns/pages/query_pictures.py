"""Pictures of an answer: relevancy over the render with its scale, and what was found with its boxes."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlmgs_ns.evaluation.overlays import PREDICTION, Picture, outline, overlay
from vlmgs_ns.words.question import Floats
from vlmgs_ns.words.sighting import Sighting

_INK, _PAPER = (24, 28, 38), (255, 255, 255)


def relevancy_picture(
    render: Picture,
    relevancy: Floats,  # [H, W] in [0, 1]
    threshold: float,
) -> Picture:
    """Return the render under the colours of the relevancy, and below it a scale of the colours: [H + strip, W, 3].

    The strip has the colours as they are before they are blended. A line in it marks the threshold.
    """
    width = relevancy.shape[1]
    size = max(11, width // 45)
    font, line = ImageFont.load_default(size=size), round(size * 1.5)
    margin, thick = line // 2, max(6, line // 2)
    strip = Image.new("RGB", (width, thick + line + margin), _PAPER)
    left, right = margin, max(margin + 2, width - margin)
    ramp = np.linspace(0.0, 1.0, right - left, dtype=np.float32)
    bar = overlay(np.zeros((thick, right - left, 3), np.uint8), np.tile(ramp, (thick, 1)), opacity=1.0)
    strip.paste(Image.fromarray(bar), (left, margin))
    draw = ImageDraw.Draw(strip)
    mark = left + round(threshold * (right - left - 1))
    draw.line((mark, margin - 3, mark, margin + thick + 2), fill=_INK, width=max(2, line // 12))
    below = margin + thick + 1
    names = [(left, "relevancy 0", 0.0), (right, "1", 1.0), (mark, f"threshold {threshold:g}", 0.5)]
    taken: list[tuple[float, float]] = []
    for x, text, anchor in names:
        long = draw.textlength(text, font=font)
        start = min(max(x - anchor * long, left), right - long)
        # Where there is no room for all three, the ends of the scale matter most.
        if all(start > end + 4 or start + long < begin - 4 for begin, end in taken):
            draw.text((start, below), text, fill=_INK, font=font)
            taken.append((start, start + long))
    return np.concatenate([overlay(render, relevancy), np.asarray(strip)])


def found_picture(render: Picture, sighting: Sighting) -> Picture:
    """Return the render, dark outside the mask, the mask's outline pink, the box of each part white with its peak: [H, W, 3]."""
    pixels = np.where(sighting.mask[..., None], render, render // 3).astype(np.uint8)
    pixels[outline(sighting.mask)] = PREDICTION
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(11, picture.width // 45))
    for part in reversed(sighting.parts):  # the clearest on top
        x1, y1, x2, y2 = part.box
        draw.rectangle((x1 - 1, y1 - 1, x2, y2), outline=_PAPER, width=max(1, picture.width // 500))
        text = f"{part.peak:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        size = (right - left + 6, bottom - top + 6)
        x = min(max(0, x1 - 1), max(0, picture.width - size[0]))
        y = y1 - 1 - size[1] if y1 - 1 >= size[1] else min(y2 + 1, picture.height - size[1])
        draw.rectangle((x, y, x + size[0], y + size[1]), fill=_PAPER)
        draw.text((x + 3 - left, y + 3 - top), text, fill=_INK, font=font)
    return np.asarray(picture).copy()


def even(picture: Picture) -> Picture:
    """Return the picture with a black column or row more where a side is odd: video needs even sides."""
    return np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)))
