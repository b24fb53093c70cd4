"""Writes the embedded scene: a furnished room as a nerfstudio data set, a COLMAP model, instance masks and labels.

World frame of every file: metres, z up, the origin in the middle of the floor.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmgs_ns.toy.layout import draw_room
from vlmgs_ns.toy.light import bake
from vlmgs_ns.toy.points import sample_points
from vlmgs_ns.toy.raycast import instances, photograph
from vlmgs_ns.toy.room import Room
from vlmgs_ns.toy.viewpoints import Pinhole, Viewpoint, draw_viewpoints
from vlmgs_ns.toy.writer import WRITER, write_files

_ATTEMPTS = 12
_SCOUT = (64, 48)
_SCOUT_PIXELS = 4


@dataclass(frozen=True)
class SceneSummary:
    """Summary of a written scene."""

    path: Path
    seed: int
    train: int
    held_out: int
    points: int
    objects: tuple[str, ...]
    """Names of the labelled objects; the id of ``objects[k]`` in the masks is k + 1."""


def write_scene(
    out: Path,
    *,
    seed: int = 0,
    views: int = 60,
    width: int = 320,
    height: int = 240,
    supersample: int = 2,
    held_out: int = 12,
    arc: bool = False,
    points: int = 10_000,
    depth: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SceneSummary:
    """Draw the room of ``seed`` and write it to the folder ``out``, all of it or nothing.

    For example, 20 small photos of room 3::

        summary = write_scene(Path("room"), seed=3, views=20, held_out=4, width=160, height=120)
        print(summary.objects)  # names of the labelled objects

    The same arguments give the same bytes. The folder holds::

        images/frame_00001.png ...    photos
        masks_instance/...            object id per pixel centre, 0 where the room itself is seen
        depth/...                     with ``depth``: z-depth in millimetres, 16 bit
        transforms.json               nerfstudio: OpenGL camera-to-world; held-out views are both val and test
        seed_points.ply               points on surfaces that at least two training views see
        colmap/sparse/0/*.bin         the same cameras and points with their tracks
        train_list.txt, ...           the same split for nerfstudio's colmap parser
        labels.json                   objects, phrases, world boxes, visible pixel boxes [x1, y1, x2, y2) per view

    Args:
        out: folder to write; must be missing or empty unless ``overwrite``.
        seed: draws objects, colours, places, paint and cameras; ≥ 0.
        views: photos in all, held-out ones included.
        width, height: photo size in pixels, ≥ 16 each.
        supersample: colour samples per pixel and axis.
        held_out: photos kept from training, taken from heights of their own. With 0 there is no split,
            and nerfstudio's own fraction applies.
        arc: hold out one arc of neighbouring cameras instead of cameras all around.
        points: most seed points to write.
        depth: also write depth maps.
        overwrite: replace ``out`` if it is a folder that this function wrote.
        progress: called with (photos done, photos in all) after each photo.

    Raises:
        ValueError: for a bad argument, or where ``out`` may not be written.
    """
    _check(seed, views, width, height, supersample, held_out, points)
    out = Path(out)
    _check_target(out, overwrite)
    lens = Pinhole.wide(width, height)
    room, cameras = plan_scene(seed, views, held_out, arc)
    maps = bake(room)
    photos = []
    for done, camera in enumerate(cameras, start=1):
        photos.append(photograph(room, maps, lens, camera, supersample))
        if progress is not None:
            progress(done, views)
    cloud = sample_points(np.random.default_rng([seed, _ATTEMPTS]), lens, cameras, photos, points)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        draft.chmod(0o755)
        write_files(draft, seed, lens, room, cameras, photos, cloud, depth)
        _swap(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return SceneSummary(out, seed, views - held_out, held_out, len(cloud.xyz), tuple(o.name for o in room.objects))


def plan_scene(seed: int, views: int, held_out: int, arc: bool = False) -> tuple[Room, list[Viewpoint]]:
    """Return room and cameras of a seed: the first draw in which enough cameras see every object, or the best of a dozen."""
    lens = Pinhole.wide(*_SCOUT)
    draws: list[tuple[int, Room, list[Viewpoint]]] = []
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        room = draw_room(rng)
        cameras = draw_viewpoints(rng, room, views, held_out, arc)
        draws.append((_hidden(room, lens, cameras), room, cameras))
        if draws[-1][0] == 0:
            break
    _, room, cameras = min(draws, key=lambda draw: draw[0])
    return room, cameras


def _hidden(room: Room, lens: Pinhole, cameras: list[Viewpoint]) -> int:
    """Objects that fewer than a sixth of the training views (8 at most) see, or none of six or more held-out ones."""
    seen = np.zeros((2, len(room.objects) + 1), int)
    for camera in cameras:
        counts = np.bincount(instances(room, lens, camera).ravel(), minlength=len(room.objects) + 1)
        seen[int(camera.held_out)] += counts >= _SCOUT_PIXELS
    held_out = sum(camera.held_out for camera in cameras)
    need = np.array([[min(8, (len(cameras) - held_out) // 6)], [1 if held_out >= 6 else 0]])
    return int((seen < need)[:, 1:].any(axis=0).sum())


def _check(seed: int, views: int, width: int, height: int, supersample: int, held_out: int, points: int) -> None:
    """Raise ValueError for the first argument out of range."""
    if seed < 0:
        raise ValueError(f"seed is {seed}, but random generators start from whole numbers; use 0 or more")
    if views < 1:
        raise ValueError(f"views is {views}, but a scene needs a photo; use 1 or more")
    if min(width, height) < 16:
        raise ValueError(f"size is {width} x {height} pixels, too small to show an object; use 16 or more for each")
    if not 1 <= supersample <= 8:
        raise ValueError(f"supersample is {supersample} samples per pixel and axis; use 1 to 8")
    if not 0 <= held_out < views:
        raise ValueError(f"held_out is {held_out}, which leaves no training photo of {views}; use 0 to {views - 1}")
    if points < 1:
        raise ValueError(f"points is {points}, but seed_points.ply must not be empty; use 1 or more")


def _check_target(out: Path, overwrite: bool) -> None:
    """Raise ValueError where ``out`` holds anything that may not be replaced."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, but a scene is a folder; choose another path")
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"{out} exists and is not empty; choose another path, or pass overwrite=True to replace a scene")
    if not is_scene(out):
        raise ValueError(f"{out} is not empty and was not written by this function; remove it yourself or choose another path")


def is_scene(folder: Path) -> bool:
    """Return whether ``folder`` holds a scene that :func:`write_scene` wrote."""
    try:
        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(labels, dict) and labels.get("writer") == WRITER


def _swap(draft: Path, out: Path) -> None:
    """Put the finished ``draft`` in the place of ``out``; an old folder goes only once the new one stands."""
    if not out.exists():
        draft.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent)) / "scene"
    out.rename(old)
    try:
        draft.rename(out)
    except OSError:
        old.rename(out)
        raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)
