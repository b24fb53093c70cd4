"""Boxes that a user might have drawn around one object, from its masks or a box in space: how much is it worth to say where?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError


def write_boxes(masks: Path, photos: Iterable[Path], wanted: int | None, marks: str, path: Path) -> None:
    """Write a box around the object in every photo that shows it, as `instruct_boxes` takes them.

    Args:
        masks: PNGs named as the photos, of the photos' aspect.
        photos: to be marked, those of them that have a mask.
        wanted: the object's value in the masks; None: all that is not 0.
        marks: "boxes"; or a control, "shuffled boxes": every photo has the box of the one half of the photos away, which is
            almost right where all look at the object; "moved boxes": at a place drawn at random; or "whole photos".

    Raises:
        InputError: no mask shows the object.
    """
    boxes = []
    for photo in sorted(photos):
        file = masks / f"{photo.stem}.png"
        if file.is_file():
            inside = object_pixels(file, wanted)
            rows, columns = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
            corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else []
            boxes.append((photo, np.array(corners) / [*inside.shape[::-1], *inside.shape[::-1]][: len(corners)]))
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
        elif marks == "whole photos":
            box = np.array([0, 0, 1, 1])
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


def write_masks_of_box(
    cameras: Any,  # nerfstudio's Cameras, one of each photo, in the frame of the box
    photos: Sequence[Path],
    box: Sequence[Sequence[float]],  # two opposite corners, of three numbers each
    folder: Path,
) -> None:
    """Write a PNG of each photo, white where a box in space would be seen if nothing stood before it and lenses were straight.

    It is black where the camera is not wholly before the box.
    """
    import cv2

    corners = np.stack(np.meshgrid(*np.transpose(box)), axis=-1).reshape(-1, 3)
    folder.mkdir(parents=True, exist_ok=True)
    for photo, pose, intrinsics, width, height in zip(
        photos,
        cameras.camera_to_worlds.numpy(),
        cameras.get_intrinsics_matrices().numpy(),
        cameras.width,
        cameras.height,
        strict=True,
    ):
        seen = (corners - pose[:, 3]) @ pose[:, :3] * [1, -1, -1]  # x right, y down, z forwards
        mask = np.zeros((int(height), int(width)), np.uint8)
        if (seen[:, 2] > 1e-6).all():
            pixels = seen @ intrinsics.T
            outline = cv2.convexHull(np.clip(np.round(pixels[:, :2] / pixels[:, 2:]), -(2**14), 2**14).astype(np.int32))
            cv2.fillConvexPoly(mask, outline, (255,))
        Image.fromarray(mask).save(folder / f"{photo.stem}.png")
