"""A trainer that looks at itself: held-out photos along the run and at its end, on clocks that stand still meanwhile."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TRAIN_INTERATION_OUTPUT

from vlmgs_ns.bench.marks import object_pixels
from vlmgs_ns.method.trainer import VlmFastGSTrainer
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import Report

Curve = dict[str, list[float]]
"""``iteration``, ``seconds``, ``psnr``, ``gaussians``, ``loss`` at each check; the loss is the mean since the last one."""


class MeasuredTrainer(VlmFastGSTrainer):
    """Measures after chosen steps; what it draws by chance in between is given back, so that no check changes the run."""

    def measure(self, steps: list[int], report: Report) -> None:
        """Begin, with everything set up; what seeding from photos took counts.

        Args:
            steps: after which to look; the last is the run's last.
            report: called with the number of steps done after each of them.
        """
        self.curve: Curve = {name: [] for name in ("iteration", "seconds", "psnr", "gaussians", "loss")}
        self.metrics: dict[str, float] = {}
        self.seconds, self.cpu_seconds = self._preparation
        self._losses = torch.zeros((), device=self.device)
        self._steps_summed = 0
        self._checks, self._report = set(steps), report
        where = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
        self.callbacks.append(TrainingCallback(where, lambda step: self._after_step(step)))
        self._began, self._began_cpu = self._clocks()

    def _load_checkpoint(self) -> None:
        began = self._clocks()
        super()._load_checkpoint()
        now = self._clocks()
        self._preparation = now[0] - began[0], now[1] - began[1]

    def train_iteration(self, step: int) -> TRAIN_INTERATION_OUTPUT:
        """One step, its loss remembered."""
        result = super().train_iteration(step)
        self._losses += result[0].detach()
        self._steps_summed += 1
        return result

    def _say_what_was_trained(self, seconds: float) -> None:
        """Leave it to the benchmark."""

    def _after_step(self, step: int) -> None:
        self._report(step + 1)
        if step in self._checks:
            now, now_cpu = self._clocks()
            self.seconds += now - self._began
            self.cpu_seconds += now_cpu - self._began_cpu
            devices = [self.device] if torch.device(self.device).type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                self.metrics = {name: float(value) for name, value in self.pipeline.get_average_eval_image_metrics().items()}
            self.curve["iteration"].append(step + 1)
            self.curve["seconds"].append(round(self.seconds, 3))
            self.curve["psnr"].append(self.metrics["psnr"])
            self.curve["gaussians"].append(self.gaussians())
            self.curve["loss"].append(float(self._losses) / self._steps_summed)
            self._losses.zero_()
            self._steps_summed = 0
            self._began, self._began_cpu = self._clocks()

    def gaussians(self) -> int:
        """Return the number of Gaussians."""
        return len(self.pipeline.model.gauss_params["means"])  # type: ignore[arg-type, index]

    def _clocks(self) -> tuple[float, float]:
        """Wall and processor seconds, once the device has done what it was given."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter(), time.process_time()


@torch.no_grad()
def masked_psnr(pipeline: Any, masks: Path, wanted: int | None) -> dict[str, float]:
    """Return `object_psnr` and `background_psnr`: means over held-out photos, inside and outside their instance masks.

    Args:
        pipeline: after training.
        masks: folder of PNGs named as the photos, of any size with the same aspect. Photos without a pixel do not count.
        wanted: the value of the object that is meant; None: all that is not 0.

    Raises:
        InputError: a mask cannot be read, or no photo has a pixel inside, or none outside.
    """
    model, photos = pipeline.model, pipeline.datamanager
    was_training = model.training
    model.eval()
    values: dict[str, list[float]] = {"object_psnr": [], "background_psnr": []}
    for camera, batch in photos.fixed_indices_eval_dataloader:
        outputs = model.get_outputs_for_camera(camera)
        photo = model.composite_with_background(model.get_gt_img(batch["image"]), outputs["background"])
        height, width = photo.shape[:2]
        path = masks / f"{Path(photos.eval_dataset.image_filenames[int(batch['image_idx'])]).stem}.png"
        inside = torch.from_numpy(object_pixels(path, wanted, (width, height))).to(photo.device)
        squared = (outputs["rgb"] - photo) ** 2
        for name, pixels in (("object_psnr", inside), ("background_psnr", ~inside)):
            if pixels.any():
                values[name].append(float(-10 * torch.log10(squared[pixels].mean().clamp_min(1e-10))))
    model.train(was_training)
    for name, of_photos in values.items():
        if not of_photos:
            what = name.removesuffix("_psnr")
            raise InputError(f"the masks in {masks} show no {what} in any held-out photo; give others, or leave out `masks`")
    return {name: statistics.mean(of_photos) for name, of_photos in values.items()}


def check_steps(iterations: int, checks: int) -> list[int]:
    """Steps, counted from 0, after which to look: evenly spread, the last one the run's last."""
    return sorted({round(iterations * (k + 1) / checks) - 1 for k in range(checks)})


def memory_peaks() -> dict[str, Any]:
    """Most memory that this process ever took, in MB; on CUDA that of the device too."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"memory_mb": round(peak / (2**20 if sys.platform == "darwin" else 2**10))}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found
