"""``vlmgs prepare``: a scene with camera poses from photos or a video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vlmgs_ns.prepare.settings import Preparation


@dataclass
class Prepare:
    """Find where photos, or the frames of a video, were taken, and write the scene that ns-train reads.

    It needs neither COLMAP nor ffmpeg nor a GPU, but pip install "vlmgs-ns[prepare]". Ctrl-C stops it; the same command goes on.
    """

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PHOTOS|VIDEO")]
    """Folder of photos, or a video."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write; missing, empty, or of a run that was stopped."""
    settings: Annotated[Preparation, tyro.conf.arg(name="")] = field(default_factory=Preparation)

    def run(self) -> None:
        """Write it, and say what to do next."""
        import shlex

        from vlmgs_ns.method.machine import suited_method
        from vlmgs_ns.system.progress import say

        write_prepared_scene(self.source, self.out, self.settings)
        say(f"Next:\n  ns-train {suited_method()} --data {shlex.quote(str(self.out))}")


def write_prepared_scene(source: Path, out: Path, settings: Preparation) -> None:
    """Write a scene and its page, and say what became of the photos."""
    from vlmgs_ns.pages.prepared import PAGE, write_prepared
    from vlmgs_ns.prepare.run import prepare
    from vlmgs_ns.system.progress import say

    outcome = prepare(source, out, settings, write_prepared)
    say(
        f"Wrote {out}: {outcome.placed} of {outcome.photos} photos with their cameras, and {outcome.points:,} points that "
        f"are {outcome.reprojection_error:.2f} pixels off on average; {out / PAGE} shows them from above"
    )
    for name, why in outcome.left_out.items():
        say(f"Left out: {name} {why}", "yellow")
    for line in outcome.advice:
        say(line, "yellow")
