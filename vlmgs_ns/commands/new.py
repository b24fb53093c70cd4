"""``vlmgs new``: from photos or a video to a trained scene and its page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vlmgs_ns.prepare.settings import Preparation
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder


@dataclass
class New:
    """Prepare photos or a video, train on them and write the report: vlmgs prepare, ns-train and vlmgs render-report in a row.

    Ctrl-C stops it; the same command goes on, with a new training where the scene was prepared.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PHOTOS|VIDEO")]
    """Folder of photos, or a video."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write: scene/, outputs/ and index.html."""
    method: Literal["vlm-fastgs", "vlm-fastgs-big", "vlm-fastgs-cpu", "vlm-fastgs-lite"] | None = None
    """Method of ns-train; by default the one that suits this machine."""
    max_num_iterations: int | None = None
    """Training steps; by default the method's."""
    prompt: str | None = None
    """Phrases to search the scene for: "red ball; wooden table"."""
    settings: Annotated[Preparation, tyro.conf.arg(name="")] = field(default_factory=Preparation)

    def run(self) -> None:
        """Do one after the other; the first that fails ends it."""
        import subprocess
        import sys

        from vlmgs_ns.commands.prepare import write_prepared_scene
        from vlmgs_ns.commands.render_report import RenderReport
        from vlmgs_ns.method.machine import suited_method
        from vlmgs_ns.prepare.run import is_prepared

        if self.max_num_iterations is not None and self.max_num_iterations < 1:
            raise InputError(f"--max-num-iterations {self.max_num_iterations} trains nothing; give 1 or more")
        check_folder(self.out)
        scene, outputs = self.out / "scene", self.out / "outputs"
        if not is_prepared(scene, self.source, self.settings):
            write_prepared_scene(self.source, scene, self.settings)
        train = [sys.executable, "-m", "nerfstudio.scripts.train", self.method or suited_method(), "--data", str(scene)]
        train += ["--output-dir", str(outputs), "--experiment-name", "scene", "--vis", "tensorboard"]
        if self.max_num_iterations is not None:
            train += ["--max-num-iterations", str(self.max_num_iterations)]
        if self.prompt is not None:
            train += ["--prompt", self.prompt]
        status = subprocess.run(train, check=False).returncode
        if status:
            raise SystemExit(status)  # what went wrong is on the screen
        RenderReport(outputs / "scene", out=self.out / "index.html", prompt=self.prompt).run()
