"""Reader of LERF-OVS, the polygons that LangSplat released for LERF's scenes; protocols B and C are measured by them.

One folder per scene (``label/<scene>``), one ISAT file per picture::

    {"info": {"name": "frame_00041.jpg", "width": 986, "height": 728},
     "objects": [{"category": "egg", "bbox": [x1, y1, x2, y2], "segmentation": [[x, y], [x, y], [x, y], ...]}, ...]}

Everything is in pixels; a box may give its corners in either order. Objects of one category in a picture are one phrase, with
several boxes and the union of their polygons (`labels.polygon_mask` says which pixels those are).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vlmgs_ns.evaluation.labels import (
    LabelledObject,
    LabelledScene,
    LabelledView,
    Source,
    build_scene,
    file_name,
    json_files,
    merged,
    polygon_mask,
)


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
