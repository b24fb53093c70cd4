"""Settings of the embedded scene, and the scene made from them; light until it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder

if TYPE_CHECKING:
    from vlmgs_ns.toy.scene import SceneSummary


@dataclass
class SceneSettings:
    """Contents of the room, and its photos."""

    seed: int = 0
    """Draws objects, colours, places, paint and cameras; 0 or more. The same seed gives the same bytes."""
    views: int = 60
    """Photos in all, those held out included."""
    held_out: int = 12
    """Photos kept from training, taken from heights of their own."""
    arc: bool = False
    """Hold out one arc of neighbouring cameras instead: views that are really new, which no photo was taken beside."""
    width: int = 320
    """Width of a photo in pixels, 16 or more."""
    height: int = 240
    """Height of a photo in pixels, 16 or more."""
    points: int = 10_000
    """Most seed points to write."""


def make_scene(
    out: Path, settings: SceneSettings, *, supersample: int = 2, depth: bool = False, overwrite: bool = False
) -> SceneSummary:
    """Write the scene with a progress bar.

    Raises:
        InputError: for a setting out of range, or a folder that may not be written.
    """
    from vlmgs_ns.system.progress import bar
    from vlmgs_ns.toy.scene import write_scene

    check_folder(out)
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} exists and is not empty; choose another folder, or replace a scene with --overwrite")
    try:
        with bar("Photographing", settings.views) as report:
            return write_scene(
                out,
                **vars(settings),
                supersample=supersample,
                depth=depth,
                overwrite=overwrite,
                progress=lambda done, _: report(done),
            )
    except ValueError as error:
        raise InputError(str(error)) from None
