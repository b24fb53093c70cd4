"""``vlmgs scene``: write the embedded scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vlmgs_ns.errors import InputError

if TYPE_CHECKING:
    from vlmgs_ns.toy.scene import SceneSummary


@dataclass
class SceneSettings:
    """What is in the room and how it is photographed."""

    seed: int = 0
    """Draws objects, colours, places, paint and cameras; 0 or more. The same seed gives the same bytes."""
    views: int = 60
    """Photos in all, those held out included."""
    held_out: int = 12
    """Photos kept from training, taken from heights of their own."""
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
    from vlmgs_ns.progress import bar
    from vlmgs_ns.toy.scene import write_scene

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


@dataclass
class Scene:
    """Write a small analytic room with labelled objects: photos, poses, points, masks, labels."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write; missing or empty unless --overwrite."""
    settings: Annotated[SceneSettings, tyro.conf.arg(name="")] = field(default_factory=SceneSettings)
    supersample: int = 2
    """Colour samples per pixel and axis, 1 to 8."""
    depth: bool = False
    """Also write depth maps."""
    overwrite: bool = False
    """Replace a scene that this command wrote."""

    def run(self) -> None:
        """Write it, and say what was written and what to do with it."""
        import shlex

        from vlmgs_ns.progress import say

        scene = make_scene(self.out, self.settings, supersample=self.supersample, depth=self.depth, overwrite=self.overwrite)
        held_out = f", {scene.held_out} held out" if scene.held_out else ""
        say(
            f"Wrote {scene.path}: {scene.train} photos to train on{held_out}, {scene.points:,} seed points, a COLMAP model, "
            f"instance masks{', depth maps' if self.depth else ''}, and labels of {len(scene.objects)} objects:\n"
            f"  {', '.join(scene.objects)}\n"
            f"Next:\n  ns-train vlm-fastgs-lite --data {shlex.quote(str(scene.path))}"
        )
