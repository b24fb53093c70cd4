"""Reader of LERF's boxes ("Localization eval dataset"), by which protocol A is measured.

One folder per scene, one labelme file per picture::

    {"imagePath": "rgb_0.jpg", "imageWidth": 994, "imageHeight": 738,
     "shapes": [{"label": "toy elephant", "shape_type": "rectangle", "points": [[x, y], [x, y]]}, ...]}

Points are opposite corners in pixels, in either order. Shapes of one label are one phrase with several boxes. Camera paths, which
lie beside the labels in that data set, are files with the key ``camera_path`` and are passed over.
"""

from __future__ import annotations

from pathlib import Path

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView, build_scene, merged
from vlmgs_ns.evaluation.source import Source, file_name, json_files


def read_lerf(folder: Path) -> LabelledScene:
    """Boxes of one scene of LERF; no masks.

    Raises:
        InputError: for anything missing, damaged, or unlike the format above.
    """
    sources = [Source.read(path) for path in json_files(folder)]
    return build_scene(folder, [_view(source) for source in sources if "camera_path" not in source.content], "lerf")


def _view(source: Source) -> LabelledView:
    width, height = source.size("imageWidth", "imageHeight")
    objects = [_object(shape, width, height) for shape in source.get("shapes").items()]
    return LabelledView(file_name(source.get("imagePath").text()), width, height, merged(objects))


def _object(shape: Source, width: int, height: int) -> LabelledObject:
    kind = shape.get("shape_type")
    if kind.text() != "rectangle":
        kind.refuse("a box must be a rectangle", "Draw it as one, or use the reader of LERF-OVS for polygons.")
    points = shape.get("points")
    corners = points.points(width, height)
    if len(corners) != 2:
        points.refuse("a rectangle has two opposite corners")
    return LabelledObject(shape.get("label").text(), (points.box(corners, width, height),))
