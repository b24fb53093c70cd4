"""What a training run says in a terminal: a line that follows it, its figures at the end, and nothing of nerfstudio's own."""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from vlmgs_ns.system.progress import bar

SECONDS = 0.5
"""Least time between two looks at the figures of training, which CUDA would have to wait for."""
MEMORY = 0.95
"""Share of the past in the PSNR that is shown: a step's own hangs on its photo."""


@contextmanager
def hushed() -> Iterator[None]:
    """Keep back what nerfstudio logs, and what libraries tell nerfstudio's developers of their future."""
    was, CONSOLE.quiet = CONSOLE.quiet, True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"nerfstudio\.")
            yield
    finally:
        CONSOLE.quiet = was


class TrainingLine:
    """Steps, loss, PSNR of the last views, Gaussians and the time left, until it is closed."""

    def __init__(self, steps: int) -> None:
        self._open, self._steps, self._done = ExitStack(), steps, 0
        self._report = self._open.enter_context(bar("Training", steps))
        self._psnr: torch.Tensor | float | None = None
        self._looked = 0.0

    def step(self, loss: torch.Tensor, metrics: Mapping[str, torch.Tensor], gaussians: int) -> None:
        """Show one more step, with nerfstudio's metrics of it."""
        self._done += 1
        psnr = torch.as_tensor(metrics["psnr"]).detach()
        self._psnr = psnr if self._psnr is None else MEMORY * self._psnr + (1 - MEMORY) * psnr
        now = time.monotonic()
        if now - self._looked > SECONDS or self._done == self._steps:
            self._looked = now
            self._report(self._done, f"loss {float(loss):.3f}, PSNR {float(self._psnr):.1f}, {gaussians:,} Gaussians")

    def close(self) -> None:
        """Leave the line as it is."""
        self._open.close()


def ending(config: Path, seconds: float, gaussians: int, held_out: Mapping[str, float], phrases: list[str] | None) -> str:
    """Return the figures of a finished run and three commands to go on with.

    Args:
        config: the run's config.yml.
        seconds: that training took.
        held_out: metrics of held-out photos; empty where there are none.
        phrases: what may be looked for; None where the scene does not answer to words.
    """
    measured = f"; held out: PSNR {held_out['psnr']:.2f} dB, SSIM {held_out['ssim']:.3f}" if held_out else ""
    run, load = str(config.parent), ["--load-config", str(config)]
    commands = [
        ["ns-viewer", *load, "--viewer.websocket-host", "127.0.0.1"],
        ["ns-export", "gaussian-splat", *load, "--output-dir", f"{run}/export"]
        if phrases is None
        else ["vlmgs", "query", run, *(phrases or ["what to look for"])[:1]],
        ["vlmgs", "render-report", run],
    ]
    listed = "\n".join(f"  {shlex.join(command)}" for command in commands)
    return f"Trained {gaussians:,} Gaussians in {seconds:.0f} s{measured}\nWrote {run}\nNext:\n{listed}"
