"""``vlmgs demo``: everything once, on the embedded scene."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vlmgs_ns.commands.scene import SceneSettings


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
        """Run it."""
        # torch's OpenMP threads would spin after each operation and take the cores from the rasteriser's: measured on two shared
        # cores, a training step took 1.4 s instead of 0.13 s. libgomp reads this once, when torch is first imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from vlmgs_ns.demo import run_demo

        run_demo(self.out, self.scene, self.max_num_iterations, self.turntable_seconds)
