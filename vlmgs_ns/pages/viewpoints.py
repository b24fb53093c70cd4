"""From where to look: photos of the run by split or by name, or the poses of a camera path."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json
from vlmgs_ns.system.spacing import evenly_spaced

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

HANDFUL = 12
"""Held-out photos to look from where none are chosen."""
MOST_TRAINING_VIEWS = 100
"""Training photos by which it is judged what photos show."""
FPS = 24.0
"""Frames per second of a camera path that gives neither seconds nor a rate, as in nerfstudio's viewer."""
_MOST_SECONDS = 24 * 3600.0

Split = Literal["train", "test", "all"]


@dataclass(frozen=True)
class View:
    """One camera and what it is called in files and answers."""

    name: str
    camera: Cameras
    """One camera, in the scene's coordinates."""


@dataclass(frozen=True)
class CameraPath:
    """A camera path as nerfstudio's viewer saves it."""

    views: tuple[View, ...]
    fps: float


def names_of(photos: Sequence[Path]) -> list[str]:
    """Return a name for each photo: its file's without suffix, with more of the path where several have that.

    Parts of a path are joined by "_". Photos of one folder that differ in their suffix alone keep it.
    """
    alike = Counter(photo.with_suffix("") for photo in photos)
    parts = [(*photo.parent.parts, photo.stem if alike[photo.with_suffix("")] == 1 else photo.name) for photo in photos]
    names = [part[-1] for part in parts]
    for depth in range(2, max((len(part) for part in parts), default=0) + 1):
        count = Counter(names)
        longer = ["_".join(part[-depth:]).replace("/", "") for part in parts]
        names = [more if count[name] > 1 else name for name, more in zip(names, longer, strict=True)]
    return names


def choose(
    photos: Sequence[Path],
    held_out: Sequence[Path],
    split: Split | None,
    names: Sequence[str],
    field: str = "--views",
) -> list[int]:
    """Return the photos to look from, as places in `photos`.

    Args:
        photos: of the run, each once.
        held_out: those of them that were not trained on.
        split: None for a handful of the held-out ones, evenly spread; where none was held out, of all.
        names: where there are any, these alone, in their order: with or without suffix or folder.
        field: where the names were given, for messages.

    Raises:
        InputError: a name of no photo, or of several; a split without photos.
    """
    if names:
        return list(dict.fromkeys(_find(name, photos, field) for name in names))
    tested = set(held_out)
    of_test = [k for k, photo in enumerate(photos) if photo in tested]
    of_train = [k for k, photo in enumerate(photos) if photo not in tested]
    if split is None:
        some = of_test or of_train
        return [some[k * len(some) // HANDFUL] for k in range(HANDFUL)] if len(some) > HANDFUL else some
    chosen = {"train": of_train, "test": of_test, "all": list(range(len(photos)))}[split]
    if not chosen:
        raise InputError(f"--split {split}: the run has no such photos; leave it out, or give --split all")
    return chosen


def _find(name: str, photos: Sequence[Path], field: str) -> int:
    called = names_of(photos)
    wanted = name.strip()
    for spelled in (
        [[one] for one in called],
        [[photo.name, photo.stem] for photo in photos],
        [["/".join(photo.parts[-n:]) for n in range(2, len(photo.parts) + 1)] for photo in photos],
    ):
        found = [k for k, spellings in enumerate(spelled) if wanted in spellings]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(called[k] for k in found[:4])
            raise InputError(f"{field} {name!r}: {len(found)} photos of the run have this name; give one of {several}")
    nearest = difflib.get_close_matches(wanted, called, n=1, cutoff=0.0)
    raise InputError(f"{field} {name!r}: the run has no photo of this name; did you mean {nearest[0]!r}? It has {len(called)}")


def photo_views(run: OpenRun, split: Split | None, names: Sequence[str], field: str = "--views") -> list[View]:
    """Return the cameras of photos of the run, as `choose` chooses them. Raises like it."""
    cameras: dict[Path, Cameras] = {}
    for photo, camera in run.photos():
        cameras.setdefault(photo, camera)  # a run that holds nothing out has each photo in both splits
    data = run.pipeline.datamanager
    trained = set(data.train_dataset.image_filenames)
    held_out = [photo for photo in data.eval_dataset.image_filenames if photo not in trained]
    photos = list(cameras)
    called = names_of(photos)
    return [View(called[k], cameras[photos[k]]) for k in choose(photos, held_out, split, names, field)]


def training_views(run: OpenRun) -> list[View]:
    """Return the cameras of training photos, evenly spaced, named as their files."""
    training = run.pipeline.datamanager.train_dataset
    chosen = evenly_spaced(len(training), MOST_TRAINING_VIEWS)
    return [View(training.image_filenames[k].name, training.cameras[k : k + 1]) for k in chosen]


def read_camera_path(path: Path) -> CameraPath:
    """Return the frames of a camera path, as ``ns-render camera-path`` takes them: poses in the scene's coordinates.

    A crop in the file is not applied.

    Raises:
        InputError: the file is missing or damaged, or its camera is not a perspective one.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"), finite=False)
    except OSError as error:
        raise InputError(
            f"--camera-path {path} cannot be read ({error.strerror}); give the .json that the viewer saved"
        ) from None
    except ValueError as error:
        raise InputError(f"--camera-path {path} is not JSON ({error}); save the path in the viewer again") from None
    try:
        return _camera_path(content)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise InputError(f"--camera-path {path} is not a camera path ({reason}); save it in the viewer again") from None


def _camera_path(content: dict[str, Any]) -> CameraPath:
    """Return the path; raises ValueError, KeyError or another error for damaged content."""
    from nerfstudio.cameras.camera_paths import get_path_from_json

    frames = content["camera_path"]
    kind = content.get("camera_type", "perspective")
    if kind != "perspective":
        raise ValueError(f"its camera is {kind!r}, but only perspective pictures are drawn here")
    for side in ("render_width", "render_height"):
        if not isinstance(content[side], int) or not 1 <= content[side] <= 1 << 14:
            raise ValueError(f"{side} is {content[side]!r}, which is not a number of pixels")
    if not frames:
        raise ValueError("it has no frames")
    for k, frame in enumerate(frames):
        numbers = np.asarray(frame["camera_to_world"], dtype=np.float64)
        if numbers.size != 16 or not np.isfinite(numbers).all():
            raise ValueError(f"frame {k} has a camera_to_world that is not 16 numbers")
        if not 0 < float(frame["fov"]) < 180:
            raise ValueError(f"frame {k} has a field of view of {frame['fov']!r} degrees")
    seconds = content.get("seconds")
    fps = float(content.get("fps", FPS)) if seconds is None else len(frames) / float(seconds)
    if not math.isfinite(fps) or not 1 / _MOST_SECONDS <= fps <= 1000:
        raise ValueError(f"{len(frames)} frames in {seconds!r} seconds make no video")
    cameras = get_path_from_json({**content, "camera_type": "perspective"})
    digits = max(5, len(str(len(frames))))
    return CameraPath(tuple(View(f"frame_{k:0{digits}d}", cameras[k : k + 1]) for k in range(len(frames))), fps)
