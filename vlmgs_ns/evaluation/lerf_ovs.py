"""Reader of LERF-OVS, the polygons that LangSplat released for LERF's scenes; protocols B and C are measured by them.

One folder per scene (``label/<scene>``), one ISAT file per picture::

    {"info": {"name": "frame_00041.jpg", "width": 986, "height": 728},
     "objects": [{"category": "egg", "bbox": [x1, y1, x2, y2], "segmentation": [[x, y], [x, y], [x, y], ...]}, ...]}

Everything is in pixels; a box may give its corners in either order. Objects of one category in a picture are one phrase, with
several boxes and the union of their polygons (`polygon_mask` says which pixels those are).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView, build_scene, merged
from vlmgs_ns.evaluation.metrics import Mask
from vlmgs_ns.evaluation.source import Source, file_name, json_files


def read_lerf_ovs(folder: Path) -> LabelledScene:
    """Boxes and masks of one scene of LERF-OVS.

    Raises:
        InputError: for anything missing, damaged, or unlike the format above.
    """
    return build_scene(folder, [_view(Source.read(path)) for path in json_files(folder)], "lerf-ovs")


def _view(source: Source) -> LabelledView:
    info = source.get("info")
    width, height = info.size("width", "height")
    objects = [_object(entry, width, height) for entry in source.get("objects").items()]
    return LabelledView(file_name(info.get("name").text()), width, height, merged(objects))


def _object(entry: Source, width: int, height: int) -> LabelledObject:
    box = entry.get("bbox").edges(width, height)
    outline = entry.get("segmentation")
    polygon = outline.points(width, height)
    if len(polygon) < 3:
        outline.refuse(f"{len(polygon)} corners enclose nothing", "A polygon has 3 or more corners.")
    return LabelledObject(entry.get("category").text(), (box,), partial(polygon_mask, polygon, width, height))


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
