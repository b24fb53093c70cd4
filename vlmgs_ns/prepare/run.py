"""A scene from photos or a video: read, placed, judged, written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from vlmgs_ns.prepare.layout import stand_upright, write_scene
from vlmgs_ns.prepare.motion import LEAST, reconstruct
from vlmgs_ns.prepare.outcome import Outcome, judge
from vlmgs_ns.prepare.photos import SUFFIXES as PHOTO_SUFFIXES
from vlmgs_ns.prepare.photos import copy_photos, jpeg_names, photo_files
from vlmgs_ns.prepare.settings import Preparation
from vlmgs_ns.prepare.video import SUFFIXES as VIDEO_SUFFIXES
from vlmgs_ns.prepare.video import write_frames
from vlmgs_ns.system.atomic import free_space, replacing
from vlmgs_ns.system.console import errors_to_file
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder
from vlmgs_ns.system.text import format_size, one_line

WORK = ".prepare"
"""Folder inside the scene's that holds what is found so far; gone when the scene is written."""

ABOUT = "source.json"
"""Name of the file that says from what, and with which settings, a scene is made."""

BYTES_PER_PHOTO = 5_000_000
"""What is found in a photo takes at most, with the copies that are made of the database: 1.8 MB with 2,200 features."""
MODEL_BYTES_PER_PHOTO = 500_000
"""What of it is written at the end, twice: 170 kB with 2,200 features."""


def prepare(
    source: Path, out: Path, settings: Preparation, write_page: Callable[[Path, Outcome], object] | None = None
) -> Outcome:
    """Write the scene of a folder of photos, or of a video, to a folder.

    A run that was stopped goes on with the same command.

    Args:
        source: folder of photos, or a video.
        out: folder to write.
        settings: how.
        write_page: given ``out`` and what became of the photos, writes what else belongs there; only then the run is finished.

    Returns:
        What became of the photos; it is also in ``out/prepare.json``.

    Raises:
        InputError: there is nothing to work with, or too little of it fits together.
    """
    _check(source, out, settings)
    work = out / WORK
    _begin(source, work, settings)
    images = work / "images"
    images.mkdir(exist_ok=True)
    for partial in images.glob(".*"):  # of a run that was killed
        partial.unlink()
    files = photo_files(source) if source.is_dir() else []
    unreadable: dict[str, str] = {}
    if source.is_dir():
        unreadable = copy_photos(files, images, settings.max_image_size)
    elif not (work / "frames").is_file():
        written = write_frames(source, images, settings.frames, settings.max_image_size)
        (work / "frames").write_text(str(written), encoding="utf-8")
    count = len(list(images.iterdir()))
    if count < LEAST:
        first = next((f"; {name}: {why}" for name, why in unreadable.items()), "")
        raise InputError(
            f"{source} gives {count} photo{'' if count == 1 else 's'} that can be used, but a scene needs {LEAST}{first}; "
            "give photos from several sides"
        )
    masks = None if settings.masks is None else _masks(settings.masks, dict(zip(jpeg_names(files), files, strict=True)), work)
    copies = sum(path.stat().st_size for path in images.iterdir())
    _check_room(work, count * BYTES_PER_PHOTO + 2 * copies - sum(path.stat().st_size for path in work.glob("*.db*")))
    try:
        with errors_to_file(work / "pycolmap.log"):
            motion = reconstruct(images, work, masks, settings.seed)
            outcome = judge(motion, unreadable)
            _check_room(work, count * MODEL_BYTES_PER_PHOTO + 2 * copies)
            stand_upright(motion.models[0])
            write_scene(motion.models[0], images, work, out)
    except RuntimeError as error:  # pycolmap's, for all that a disk refuses
        raise InputError(
            f"pycolmap could not go on in {work} ({one_line(str(error))}), where {free_space(work)} are free; make room, or read "
            "pycolmap.log there; the same command goes on"
        ) from None
    outcome.write(out / "prepare.json")
    if write_page is not None:
        write_page(out, outcome)
    os.replace(work / ABOUT, out / ABOUT)
    shutil.rmtree(work)
    return outcome


def _check(source: Path, out: Path, settings: Preparation) -> None:
    if find_spec("pycolmap") is None:
        raise InputError('pycolmap, which finds the cameras, is not installed; pip install "vlmgs-ns[prepare]"')
    if not source.exists():
        raise InputError(f"{source} does not exist; give a folder of photos, or a video")
    check_folder(out)
    if settings.frames < LEAST:
        raise InputError(f"--frames {settings.frames}: a scene needs {LEAST} or more")
    if settings.max_image_size < 64:
        raise InputError(f"--max-image-size {settings.max_image_size}: too little to find features in; give 64 or more")
    if source.is_dir():
        number = len(photo_files(source))
        if number < LEAST:
            raise InputError(
                f"the folder {source} has {number or 'no'} photo{'' if number == 1 else 's'} "
                f"({', '.join(sorted(PHOTO_SUFFIXES))}), and a scene needs {LEAST} or more"
            )
    elif source.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputError(f"{source} is neither a folder of photos nor a video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    elif settings.masks is not None:
        raise InputError("--masks names files by photos, and a video has none; give its frames as a folder of photos")
    if settings.masks is not None and not settings.masks.is_dir():
        raise InputError(f"--masks {settings.masks} is not a folder; give one of PNGs named as the photos")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and a scene is a folder; choose another path")
    if out.is_dir() and any(out.iterdir()) and not (out / WORK).is_dir():
        raise InputError(f"{out} is not empty; choose a new folder")


def is_prepared(out: Path, source: Path, settings: Preparation) -> bool:
    """Whether a folder holds the finished scene of these photos with these settings."""
    about = out / ABOUT
    return about.is_file() and about.read_text(encoding="utf-8") == _about(source, settings)


def _about(source: Path, settings: Preparation) -> str:
    return json.dumps({"source": str(source.absolute()), **{key: str(value) for key, value in vars(settings).items()}})


def _begin(source: Path, work: Path, settings: Preparation) -> None:
    """Make the folder of what is found so far, empty where it is of other photos or settings."""
    about = _about(source, settings)
    if work.is_dir() and not ((work / ABOUT).is_file() and (work / ABOUT).read_text(encoding="utf-8") == about):
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    with replacing(work / ABOUT) as partial:
        partial.write_text(about, encoding="utf-8")


def _check_room(work: Path, needed: int) -> None:
    """Refuse to begin what will not fit: where a disk is full, pycolmap ends the process without a word.

    Raises:
        InputError: says how many bytes it takes and how many are free.
    """
    free = shutil.disk_usage(work).free
    if free < needed:
        raise InputError(
            f"{work} takes about {format_size(needed)} more, and {format_size(free)} are free; make room, then the same command "
            "goes on"
        )


def _masks(folder: Path, photos: dict[str, Path], work: Path) -> Path:
    """Return a folder in which each mask has the name that pycolmap looks for.

    Raises:
        InputError: no file there is named as a photo.
    """
    from PIL import Image

    named = work / "masks"
    shutil.rmtree(named, ignore_errors=True)
    named.mkdir()
    for name, photo in photos.items():
        mask = next((path for path in (folder / f"{photo.stem}.png", folder / f"{photo.name}.png") if path.is_file()), None)
        if mask is not None and (work / "images" / name).is_file():
            with Image.open(mask) as image, Image.open(work / "images" / name) as copy:
                image.convert("L").resize(copy.size, Image.Resampling.NEAREST).save(named / f"{name}.png")
    if not any(named.iterdir()):
        raise InputError(f"--masks {folder} has no PNG named as a photo, such as {next(iter(photos.values())).stem}.png")
    return named
