"""``vlmgs scene``: write the embedded scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vlmgs_ns.toy.make import SceneSettings, make_scene


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

        from vlmgs_ns.system.progress import say

        scene = make_scene(self.out, self.settings, supersample=self.supersample, depth=self.depth, overwrite=self.overwrite)
        held_out = f", {scene.held_out} held out" if scene.held_out else ""
        say(
            f"Wrote {scene.path}: {scene.train} photos to train on{held_out}, {scene.points:,} seed points, a COLMAP model, "
            f"instance masks{', depth maps' if self.depth else ''}, and labels of {len(scene.objects)} objects:\n"
            f"  {', '.join(scene.objects)}\n"
            f"Next:\n  ns-train vlm-fastgs-lite --data {shlex.quote(str(scene.path))}"
        )
