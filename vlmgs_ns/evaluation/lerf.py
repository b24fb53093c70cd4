"""Reader of LERF's boxes ("Localization eval dataset"), by which protocol A is measured.

One folder per scene, one labelme file per picture::

    {"imagePath": "rgb_0.jpg", "imageWidth": 480, "imageHeight": 270,
     "shapes": [{"label": "toy elephant", "shape_type": "rectangle", "points": [[x, y], [x, y]]}, ...]}

Points are opposite corners in pixels, in either order. Shapes of one label are one phrase with several boxes.

The pictures are no photos but renders of LERF's own models, from the keyframes of a path of nerfstudio's viewer that lies beside
them (``keyframes.json``): the number in a label file's name, ``0_rgb.json``, is the number of its keyframe. A keyframe has its
pose and properties as text::

    {"keyframes": [{"matrix": "[16 numbers, column by column]", "properties": "[[\\"FOV\\", 50], ...]"}, ...]}

Poses are camera → world with OpenGL axes, in the frame that nerfstudio's dataparser gives the scene by default. Without such a
file the pictures are taken for photos, and other camera paths, files with the key ``camera_path``, are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path

from vlmgs_ns.evaluation.labels import Keyframe, LabelledObject, LabelledScene, LabelledView, build_scene, merged
from vlmgs_ns.evaluation.source import Source, file_name, json_files


def read_lerf(folder: Path) -> LabelledScene:
    """Boxes of one scene of LERF; no masks.

    Raises:
        InputError: for anything missing, damaged, or unlike the format above.
    """
    sources = [Source.read(path) for path in json_files(folder)]
    path = next((source for source in sources if "keyframes" in source.content), None)
    labels = [source for source in sources if not {"keyframes", "camera_path"} & source.content.keys()]
    return build_scene(folder, [_view(source, path) for source in labels], "lerf")


def _view(source: Source, path: Source | None) -> LabelledView:
    width, height = source.size("imageWidth", "imageHeight")
    objects = [_object(shape, width, height) for shape in source.get("shapes").items()]
    image = file_name(source.get("imagePath").text())
    return LabelledView(image, width, height, merged(objects), None if path is None else _keyframe(path, source.path.stem))


def _object(shape: Source, width: int, height: int) -> LabelledObject:
    kind = shape.get("shape_type")
    if kind.text() != "rectangle":
        kind.refuse("a box must be a rectangle", "Draw it as one, or use the reader of LERF-OVS for polygons.")
    points = shape.get("points")
    corners = points.points(width, height)
    if len(corners) != 2:
        points.refuse("a rectangle has two opposite corners")
    return LabelledObject(shape.get("label").text(), (points.box(corners, width, height),))


def _keyframe(path: Source, label: str) -> Keyframe:
    """Return the keyframe of a label file, by the number in its name."""
    frames, numbers = path.get("keyframes"), re.findall(r"\d+", label)
    every = frames.items()
    if len(numbers) != 1 or int(numbers[0]) >= len(every):
        frames.refuse(f"none of its {len(every)} is that of {label}.json", "Name labels by their keyframes, 0_rgb.json first.")
    frame = every[int(numbers[0])]
    matrix = frame.get("matrix").parsed()
    values = [entry.number() for entry in matrix.items()]
    if len(values) != 16 or values[3::4] != [0.0, 0.0, 0.0, 1.0]:
        matrix.refuse("a pose must be 16 numbers, column by column")
    fov = frame.get("fov") if "fov" in frame.content else _property(frame.get("properties").parsed(), "FOV")
    if not 0 < fov.number() < 180:
        fov.refuse("a field of view is between 0 and 180 degrees")
    return Keyframe(tuple(tuple(values[row::4]) for row in range(3)), fov.number())


def _property(properties: Source, name: str) -> Source:
    for entry in properties.items():
        pair = entry.items()
        if len(pair) == 2 and pair[0].content == name:
            return pair[1]
    return properties.refuse(f"has no pair of {name} and its value")
