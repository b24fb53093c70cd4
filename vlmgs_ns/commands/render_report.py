"""``vlmgs render-report``: one page about a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vlmgs_ns.system.errors import InputError


@dataclass
class RenderReport:
    """Write one HTML page about a run: held-out views, curves, guidance, what words find. Everything is inside the file."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run, as ns-train wrote it: its folder, its config.yml, or its scene, for the newest of its runs."""
    out: Path | None = None
    """File to write; by default report.html in the run's folder."""
    prompt: str | None = None
    """Phrases to search the scene for: "red ball; wooden table". By default the run's own, or some of the scene's
    labels."""
    turntable_seconds: float = 4.0
    """Length of the video of one turn, for browsers without WebGL2 or JavaScript, where the photos surround the scene; 0: no
    video."""

    def run(self) -> None:
        """Write it; what cannot work is refused before anything is rendered."""
        if not 0 <= self.turntable_seconds <= 600:
            raise InputError(
                f"--turntable-seconds {self.turntable_seconds:g} is not a length for a video; give a number from 0 to 600"
            )
        from vlmgs_ns.method.finished_run import find_config, open_run
        from vlmgs_ns.words.query import parse_prompt

        phrases, config = parse_prompt(self.prompt), find_config(self.run_folder)
        out = (self.out or config.parent / "report.html").absolute()
        from vlmgs_ns.pages.report import check_output, write_report
        from vlmgs_ns.semantics.cache import format_size
        from vlmgs_ns.system.progress import say

        check_output(out)
        write_report(open_run(config), out, phrases, self.turntable_seconds)
        say(f"Wrote {out}  ({format_size(out.stat().st_size)}; open it in a browser)")
