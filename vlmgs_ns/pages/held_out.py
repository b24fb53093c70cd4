"""Held-out photos beside the renders of their cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vlmgs_ns.evaluation.overlays import Picture
from vlmgs_ns.system.progress import bar
from vlmgs_ns.system.spacing import evenly_spaced


@dataclass(frozen=True)
class Score:
    """How near a held-out view's render is to its photo, as ns-eval measures it."""

    name: str
    psnr: float
    ssim: float

    @property
    def row(self) -> tuple[str, str, str]:
        """Cells of a table: name, PSNR in dB and SSIM."""
        return self.name, f"{self.psnr:.2f}", f"{self.ssim:.3f}"


@dataclass(frozen=True)
class View:
    """One view with its pictures."""

    score: Score
    photo: Picture
    render: Picture


@dataclass(frozen=True)
class HeldOut:
    """Every held-out view, in the order of the data set."""

    scores: tuple[Score, ...]
    shown: tuple[View, ...]
    """Some of them, evenly spaced."""

    def mean(self, metric: str) -> float:
        """Return the mean `psnr` or `ssim` over all views."""
        return round(float(np.mean([getattr(score, metric) for score in self.scores])), 4)


@torch.no_grad()
def held_out(pipeline: Any, most_shown: int) -> HeldOut:
    """Render every held-out photo's camera with a pipeline, which is left in the mode it was in."""
    data = pipeline.datamanager
    names = [path.name for path in data.eval_dataset.image_filenames]
    chosen = set(evenly_spaced(len(names), most_shown))
    training = pipeline.training
    pipeline.eval()
    scores: list[Score] = []
    shown: list[View] = []
    with bar("Rendering", len(names)) as report:
        for name, (camera, batch) in zip(names, data.fixed_indices_eval_dataloader, strict=True):
            outputs = pipeline.model.get_outputs_for_camera(camera)
            metrics, pictures = pipeline.model.get_image_metrics_and_images(outputs, batch)
            scores.append(Score(name, metrics["psnr"], metrics["ssim"]))
            if len(scores) - 1 in chosen:
                photo, render = map(to_bytes, pictures["img"].chunk(2, dim=1))
                shown.append(View(scores[-1], photo, render))
            report(len(scores))
    pipeline.train(training)
    return HeldOut(tuple(scores), tuple(shown))


def to_bytes(image: torch.Tensor) -> Picture:
    """Return colours in [0, 1] as bytes, [H, W, 3]."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
