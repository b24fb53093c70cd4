"""Writes the files of a rendered scene: photos, masks, transforms.json, labels.json, seed points and the COLMAP model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmgs_ns.toy.colmap import write_colmap
from vlmgs_ns.toy.points import Points, write_ply
from vlmgs_ns.toy.raycast import Photo
from vlmgs_ns.toy.room import Room, SceneObject
from vlmgs_ns.toy.solid import Array
from vlmgs_ns.toy.viewpoints import Pinhole, Viewpoint

WRITER = "vlmgs scene"
"""Value of ``writer`` in labels.json, by which a folder made here is recognised."""
_OPENGL = np.diag([1.0, -1.0, -1.0])


def write_files(
    folder: Path,
    seed: int,
    lens: Pinhole,
    room: Room,
    cameras: list[Viewpoint],
    photos: list[Photo],
    cloud: Points,
    depth: bool,
) -> None:
    """Write every file of a scene into the empty ``folder``; ``depth`` adds depth maps."""
    names = [f"frame_{k:05d}.png" for k in range(1, len(cameras) + 1)]
    for sub in ("images", "masks_instance", *(["depth"] if depth else [])):
        (folder / sub).mkdir()
    for name, photo in zip(names, photos, strict=True):
        Image.fromarray(photo.rgb).save(folder / "images" / name, compress_level=6)
        Image.fromarray(photo.instance).save(folder / "masks_instance" / name)
        if depth:
            millimetres = np.round(photo.depth * 1000.0).astype(np.uint16)
            Image.fromarray(millimetres).save(folder / "depth" / name)
    write_ply(folder / "seed_points.ply", cloud)
    write_colmap(folder / "colmap" / "sparse" / "0", lens, cameras, names, cloud)
    _write_json(folder / "transforms.json", _transforms(lens, cameras, names, depth))
    _write_json(folder / "labels.json", _labels(seed, lens, room, cameras, names, photos, depth))
    for split, some in _splits(cameras, names).items():
        (folder / f"{split}_list.txt").write_text("".join(f"{name}\n" for name in some), encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _splits(cameras: list[Viewpoint], names: list[str]) -> dict[str, list[str]]:
    """Image names per nerfstudio split; empty without held-out views, because an empty split cannot be loaded."""
    held_out = [name for name, camera in zip(names, cameras, strict=True) if camera.held_out]
    if not held_out:
        return {}
    return {"train": [n for n in names if n not in held_out], "val": held_out, "test": held_out}


def _transforms(lens: Pinhole, cameras: list[Viewpoint], names: list[str], depth: bool) -> dict[str, Any]:
    """Content of transforms.json."""
    frames = []
    for camera, name in zip(cameras, names, strict=True):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = camera.rotation @ _OPENGL, camera.position
        frame: dict[str, Any] = {"file_path": f"images/{name}", "transform_matrix": pose.tolist()}
        if depth:
            frame["depth_file_path"] = f"depth/{name}"
        frames.append(frame)
    return {
        "camera_model": "OPENCV",
        "w": lens.width,
        "h": lens.height,
        "fl_x": lens.focal,
        "fl_y": lens.focal,
        "cx": lens.cx,
        "cy": lens.cy,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "ply_file_path": "seed_points.ply",
        # Without this key nerfstudio takes the axes of the COLMAP model beside this file for its own old convention.
        "applied_transform": np.eye(4)[:3].tolist(),
        **{f"{split}_filenames": [f"images/{n}" for n in some] for split, some in _splits(cameras, names).items()},
        "frames": frames,
    }


def _labels(
    seed: int,
    lens: Pinhole,
    room: Room,
    cameras: list[Viewpoint],
    names: list[str],
    photos: list[Photo],
    depth: bool,
) -> dict[str, Any]:
    """Content of labels.json."""
    views = {}
    for camera, name, photo in zip(cameras, names, photos, strict=True):
        boxes, pixels = {}, {}
        for k, thing in enumerate(room.objects, start=1):
            rows, columns = np.nonzero(photo.instance == k)
            if len(rows):
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                boxes[thing.name] = [int(edge) for edge in box]
                pixels[thing.name] = len(rows)
        split = "val" if camera.held_out else "train"
        views[f"images/{name}"] = {"split": split, "boxes": boxes, "visible_pixels": pixels}
    return {
        "writer": WRITER,
        "version": 1,
        "seed": seed,
        "width": lens.width,
        "height": lens.height,
        "units": "metres, z up, origin in the middle of the floor",
        "room": {"min": [-room.half_x, -room.half_y, 0.0], "max": [room.half_x, room.half_y, room.height]},
        "objects": [_object_entry(k, thing) for k, thing in enumerate(room.objects, start=1)],
        "background": room.decor.phrases,
        "masks": "masks_instance",
        "depth": {"folder": "depth", "unit": "millimetre", "kind": "z"} if depth else None,
        "views": views,
    }


def _object_entry(number: int, thing: SceneObject) -> dict[str, Any]:
    low, high = thing.bounds
    return {
        "id": number,
        "name": thing.name,
        "phrases": list(thing.phrases),
        "noun": thing.noun,
        "shape": type(thing.parts[0].shape).__name__.lower(),
        "colour": thing.colour,
        "texture": thing.texture,
        "place": thing.place,
        "center": _metres((low + high) / 2),
        "bbox_min": _metres(low),
        "bbox_max": _metres(high),
        "size": _metres(high - low),
    }


def _metres(values: Array) -> list[float]:
    return [round(float(value), 5) for value in values]
