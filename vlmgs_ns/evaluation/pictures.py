"""Pictures for a report: what was asked for, what the map says, what was selected."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledView
from vlmgs_ns.evaluation.metrics import Floats, Mask, hits_boxes, iou, peak

Picture = npt.NDArray[np.uint8]
"""RGB, [H, W, 3]."""

TRUTH = (80, 255, 120)
PREDICTION = (255, 64, 200)
_INK, _PAPER = (24, 28, 38), (255, 255, 255)
_GAP = 8
_LINE = 18
_OPACITY = 0.6


def overlay(
    photo: Picture,
    relevancy: Floats,  # [H, W] in [0, 1]
    opacity: float = _OPACITY,
) -> Picture:
    """The photo under matplotlib's "turbo" colours of the relevancy.

    The scale is fixed, 0 blue to 1 red, so that maps of different phrases can be compared.
    """
    from matplotlib import colormaps

    colours = colormaps["turbo"](np.clip(relevancy, 0.0, 1.0))[..., :3] * 255.0
    return (opacity * colours + (1 - opacity) * photo).round().astype(np.uint8)


def outline(mask: Mask) -> Mask:
    """Pixels of the mask that touch one outside it, up, down, left or right; beyond the picture all is outside. [H, W]."""
    padded = np.pad(mask, 1)
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~surrounded


def overview(
    view: LabelledView,
    photo: Picture,
    maps: Mapping[str, Floats],
    masks: Mapping[str, Mask],
    tile: int = 320,
) -> Picture:
    """A row for each object of the view: photo with the labels, relevancy with its greatest pixel, predicted mask.

    Labels are green, predictions pink. Hits and IoUs stand above their pictures. An object without a map or a mask in these
    dictionaries has an empty place.

    Args:
        view: labels; `photo`, maps and masks are of its size.
        photo: RGB uint8, [H, W, 3].
        maps: relevancy [H, W] in [0, 1] by phrase.
        masks: predicted mask [H, W] by phrase.
        tile: width of each picture in pixels.

    Raises:
        ValueError: no objects, or a photo, map or mask of another size.
    """
    if not view.objects:
        raise ValueError(f"{view.image} has no labelled object to draw: choose a view with labels")
    for what, values in [("the photo", photo), *maps.items(), *masks.items()]:
        if values.shape[:2] != (view.height, view.width):
            raise ValueError(
                f"{what} is {list(values.shape[:2])}, but the labels of {view.image} are {[view.height, view.width]}: resize it"
            )
    size = (tile, max(1, round(tile * view.height / view.width)))
    step = (size[0] + _GAP, size[1] + _LINE + _GAP)
    sheet = Image.new("RGB", (3 * step[0] + _GAP, len(view.objects) * step[1] + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, thing in enumerate(view.objects):
        for column, (text, picture) in enumerate(_row(thing, photo, maps.get(thing.phrase), masks.get(thing.phrase), size)):
            corner = _GAP + column * step[0], _GAP + row * step[1]
            draw.text(corner, _fit_text(draw, text, tile), fill=_INK)
            if picture is not None:
                sheet.paste(picture, (corner[0], corner[1] + _LINE))
    return np.asarray(sheet).copy()


def _row(
    thing: LabelledObject,
    photo: Picture,
    relevancy: Floats | None,
    mask: Mask | None,
    size: tuple[int, int],
) -> list[tuple[str, Image.Image | None]]:
    """Heading and picture of the three tiles of an object."""
    truth = None if thing.mask is None else thing.mask()
    labels = _with_boxes(_outlined(photo, size, truth, TRUTH), thing)
    tiles: list[tuple[str, Image.Image | None]] = [(thing.phrase, labels)]
    if relevancy is None:
        tiles.append(("no relevancy map", None))
    else:
        found = peak(relevancy)
        heading = f"relevancy {relevancy.min():.2f} to {relevancy.max():.2f}"
        if thing.boxes:
            heading += ", hit" if hits_boxes(relevancy, thing.boxes) else ", miss"
        picture = _with_boxes(_outlined(overlay(photo, relevancy), size, None, TRUTH), thing)
        if found is not None:
            _cross(picture, (found[0] + 0.5) / photo.shape[1] * size[0], (found[1] + 0.5) / photo.shape[0] * size[1])
        tiles.append((heading, picture))
    if mask is None:
        tiles.append(("no predicted mask", None))
    else:
        heading = "predicted mask" if truth is None else f"predicted mask, IoU {iou(mask, truth):.2f}"
        dimmed = np.where(mask[..., None], photo, photo // 3).astype(np.uint8)
        tiles.append((heading, _outlined(dimmed, size, mask, PREDICTION)))
    return tiles


def _outlined(photo: Picture, size: tuple[int, int], mask: Mask | None, colour: tuple[int, int, int]) -> Image.Image:
    """The photo at the tile's size, with the mask's outline one pixel wide there."""
    pixels = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR)).copy()
    if mask is not None:
        pixels[outline(np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)))] = colour
    return Image.fromarray(pixels)


def _with_boxes(picture: Image.Image, thing: LabelledObject) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    for x1, y1, x2, y2 in thing.boxes:
        corners = (round(x1 * width), round(y1 * height), round(x2 * width) - 1, round(y2 * height) - 1)
        draw.rectangle((corners[0], corners[1], max(corners[0], corners[2]), max(corners[1], corners[3])), outline=TRUTH, width=2)
    return picture


def _cross(picture: Image.Image, x: float, y: float) -> None:
    """Marks a point so that it shows on any colour."""
    draw = ImageDraw.Draw(picture)
    for colour, width in (((0, 0, 0), 4), (_PAPER, 2)):
        draw.line((x - 7, y, x + 7, y), fill=colour, width=width)
        draw.line((x, y - 7, x, y + 7), fill=colour, width=width)


def _fit_text(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, cut to a width in pixels."""
    if draw.textlength(text) <= width:
        return text
    while text and draw.textlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
