"""``vlmgs share``: one file in which anybody can look around a trained scene."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vlmgs_ns.system.errors import InputError


@dataclass
class Share:
    """Write a scene as one HTML file that opens by double click: it turns, goes from photo to photo, and shows what words find.

    The file needs a browser with WebGL2, and neither a server nor a network.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run, as ns-train wrote it: its folder, its config.yml, or its scene, for the newest of its runs."""
    out: Path | None = None
    """File to write; by default scene.html in the run's folder."""
    prompt: str | None = None
    """Phrases that become buttons: "red ball; wooden table". By default the run's own, or some of the scene's labels."""
    sh: Literal[0, 1, 2, 3] = 3
    """Greatest degree of the harmonics, colours that change with the direction one looks from. Less makes a smaller file."""
    max_mb: float = 15.0
    """Most megabytes of the file. Harmonics are left out first, then the Gaussians that photos show least."""

    def run(self) -> None:
        """Write it; what cannot work is refused before anything is rendered."""
        if not 0 < self.max_mb < 1000:
            raise InputError(f"--max-mb {self.max_mb:g} is out of range; give a number of megabytes from 1 to 1000, such as 15")
        from vlmgs_ns.method.finished_run import find_config, open_run
        from vlmgs_ns.words.query import parse_prompt

        phrases, config = parse_prompt(self.prompt), find_config(self.run_folder)
        out = (self.out or config.parent / "scene.html").absolute()
        from vlmgs_ns.pages.report import check_output
        from vlmgs_ns.pages.share import share_page
        from vlmgs_ns.system.progress import say
        from vlmgs_ns.system.text import format_size

        check_output(out)
        run = open_run(config)
        shared = share_page(run, phrases, self.sh, int(self.max_mb * 1e6))
        shared.write(out)
        if shared.phrases and run.caution:
            say(run.caution)
        say(
            f"{shared.gaussians:,} of {shared.of:,} Gaussians, harmonics of degree {shared.degree}; "
            f"{shared.psnr:.1f} dB against all of them as they were trained"
        )
        words = f"; it finds {', '.join(shared.phrases)}" if shared.phrases else ""
        say(f"Wrote {out}  ({format_size(shared.size)}; open it in a browser{words})")
