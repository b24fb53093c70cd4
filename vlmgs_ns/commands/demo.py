"""``vlmgs demo``: everything once, on the embedded scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder
from vlmgs_ns.toy.make import SceneSettings


@dataclass
class Demo:
    """Make the embedded scene, train vlm-fastgs-lite on it, and write a page of pictures and a turntable."""

    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")] = Path("vlmgs-demo")
    """Folder to write; missing, empty, or of an earlier demo."""
    max_num_iterations: int = 1_500
    """Training steps."""
    scene: Annotated[SceneSettings, tyro.conf.arg(name="")] = field(default_factory=SceneSettings)
    turntable_seconds: float = 8.0
    """Length of the turntable video: one turn around the room."""

    def run(self) -> None:
        """Run it; what cannot work is refused before anything is imported or written."""
        self._check()
        from vlmgs_ns.pages.demo_run import run_demo

        run_demo(self.out, self.scene, self.max_num_iterations, self.turntable_seconds)

    def _check(self) -> None:
        from vlmgs_ns.toy.scene import is_scene

        if self.max_num_iterations < 1:
            raise InputError(f"--max-num-iterations {self.max_num_iterations} trains nothing; give 1 or more")
        if not 0 < self.turntable_seconds <= 600:
            raise InputError(
                f"--turntable-seconds {self.turntable_seconds:g} is not a length for a video; give a number up to 600"
            )
        if self.scene.held_out < 1:
            raise InputError(f"--held-out {self.scene.held_out} leaves nothing to compare with; give 1 or more")
        if self.scene.views - self.scene.held_out < 3:
            raise InputError(
                f"--views {self.scene.views} with --held-out {self.scene.held_out} leaves less than 3 photos to train on; "
                f"give --views {self.scene.held_out + 3} or more"
            )
        check_folder(self.out)
        if self.out.is_dir() and any(self.out.iterdir()) and not is_scene(self.out / "scene"):
            raise InputError(f"{self.out} holds something that is not a demo; choose a new folder")
