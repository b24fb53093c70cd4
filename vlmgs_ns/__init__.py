"""vlm-fastgs: a nerfstudio method plugin (see README.md), and its scenes from Python::

import vlmgs_ns

scene = vlmgs_ns.open("outputs/scene/vlm-fastgs/2026-01-31_120000")
found = scene.find("red ball")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmgs_ns.scene import TrainedScene


def open(run: str | Path) -> TrainedScene:
    """Open a finished run, given by its folder, its config.yml, or its scene: then the newest of its runs.

    Raises:
        InputError: the folder is not a run, has no checkpoint, or is of another method.
    """
    from vlmgs_ns.method.finished_run import open_run
    from vlmgs_ns.scene import TrainedScene

    return TrainedScene(open_run(Path(run)))
