"""Boxes that a user might have drawn around one object, made from instance masks: how much is it worth to say where?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp"}


def write_boxes(masks: Path, wanted: int | None, marks: str, path: Path) -> None:
    """Write a box around the object in every photo that shows it, as `instruct_boxes` takes them.

    Args:
        masks: PNGs named as the photos, which lie in a folder beside, of the photos' aspect.
        wanted: the object's value in the masks; None: all that is not 0.
        marks: "boxes"; or a control, "shuffled boxes": every photo has the box of the one half of the photos away, which is
            almost right where all look at the object; or "moved boxes": at a place drawn at random.

    Raises:
        InputError: no mask shows the object.
    """
    photos = {file.stem: file for file in sorted(masks.parent.rglob("*")) if _is_photo(file, masks)}
    boxes = []
    for file in sorted(masks.glob("*.png")):
        if file.stem in photos:
            inside = object_pixels(file, wanted)
            rows, columns = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
            corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else []
            boxes.append((photos[file.stem], np.array(corners) / [*inside.shape[::-1], *inside.shape[::-1]][: len(corners)]))
    if not any(len(box) for _, box in boxes):
        raise InputError(f"the masks in {masks} show no object {'' if wanted is None else wanted} in any photo; give another")
    content, generator = {}, np.random.default_rng(0)
    for k, (photo, box) in enumerate(boxes):
        if marks == "shuffled boxes":
            box = boxes[(k + len(boxes) // 2) % len(boxes)][1]
        elif marks == "moved boxes" and len(box):
            size = box[2:] - box[:2]
            corner = generator.uniform(0, 1 - size)
            box = np.concatenate([corner, corner + size])
        with Image.open(photo) as image:
            scale = np.array([*image.size, *image.size])
        content[photo.name] = [np.round(box * scale, 2).tolist()] if len(box) else []
    with replacing(path) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def object_pixels(path: Path, wanted: int | None, size: tuple[int, int] | None = None) -> np.ndarray:  # [H, W] bool
    """Return where a mask shows an object, or any; at another (width, height) by nearest pixels.

    Raises:
        InputError: the mask cannot be read.
    """
    try:
        with Image.open(path) as mask:
            values = np.array(mask if size is None else mask.resize(size, Image.Resampling.NEAREST))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"the mask {path} cannot be read: {error}. Give each held-out photo a mask, or none.") from None
    return values != 0 if wanted is None else values == wanted


def _is_photo(file: Path, masks: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS and not any("mask" in part for part in file.relative_to(masks.parent).parts[:-1])
