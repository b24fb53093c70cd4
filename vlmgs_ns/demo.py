"""``vlmgs demo``: make the embedded scene, train on it through nerfstudio's trainer, and show what came of it."""

from __future__ import annotations

import json
import random
import shlex
import time
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

from vlmgs_ns.atomic import replacing
from vlmgs_ns.commands.scene import SceneSettings, make_scene
from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.datamanager import VlmFastGSDatamanager
from vlmgs_ns.page import Picture, View, write_page
from vlmgs_ns.progress import bar, say
from vlmgs_ns.trainer import VlmFastGSTrainer, VlmFastGSTrainerConfig
from vlmgs_ns.turntable import orbit
from vlmgs_ns.video import write_mp4

FPS = 20
"""Frames per second of the turntable."""
VIEWS_SHOWN = 6
"""Most held-out views on the page."""


@dataclass(frozen=True)
class Render:
    """One held-out photo beside the render of its camera, and how near they are."""

    name: str
    photo: Picture
    render: Picture
    psnr: float
    ssim: float


def run_demo(out: Path, scene: SceneSettings, iterations: int, turntable_seconds: float) -> None:
    """Do it all in the folder ``out``::

        scene/          the embedded scene
        outputs/        the run, as ns-train writes it
        index.html      before and after, with everything in it but the video
        turntable.mp4   one turn around the room
        metrics.json    what the page says, for programs

    Raises:
        InputError: for a setting of the scene out of range.
        SystemExit: with status 130, after training was stopped with Ctrl-C and its checkpoint written.
    """
    start = time.monotonic()
    out = out.absolute()  # config.yml holds these paths, and shall work from any folder
    say(f"1/4 The scene → {out / 'scene'}")
    summary = make_scene(out / "scene", scene, overwrite=True)

    say(f"2/4 Training vlm-fastgs-lite, {iterations:,} steps on {summary.train} photos; Ctrl-C stops and keeps a checkpoint")
    config = _config(out, iterations)
    trainer = _start(config)
    seeds, first = _gaussians(trainer), held_out(trainer)
    trained_in = _train(trainer)
    gaussians = _gaussians(trainer)

    say(f"3/4 Evaluating {summary.held_out} held-out photos")
    trained = held_out(trainer)
    height, width, _ = trained[0].photo.shape
    metrics: dict[str, Any] = {
        "psnr": _mean(view.psnr for view in trained),
        "ssim": _mean(view.ssim for view in trained),
        "psnr_before_training": _mean(view.psnr for view in first),
        "ssim_before_training": _mean(view.ssim for view in first),
        "gaussians": gaussians,
        "gaussians_before_training": seeds,
        "training_seconds": round(trained_in, 1),
    }
    run = config.get_base_dir()
    machine = json.loads((run / "machine.json").read_text(encoding="utf-8"))
    settings = {
        "method": config.method_name,
        "iterations": iterations,
        "photos": f"{summary.train} to train on, {summary.held_out} held out",
        "photo size": f"{width} by {height} pixels",
        "scene seed": summary.seed,
        "machine": f"{machine['device']} ({machine['device_name']}), {machine['threads']} threads",
        "rasteriser": machine["rasterizer"],
    }

    say("4/4 The turntable and the page")
    write_turntable(trainer, out / "turntable.mp4", turntable_seconds)
    shown = np.unique(np.linspace(0, len(trained) - 1, VIEWS_SHOWN).round().astype(int))
    pairs = [(first[k].render, trained[k]) for k in shown]
    views = [View(view.name, view.photo, before, view.render, view.psnr, view.ssim) for before, view in pairs]
    commands = next_commands(run / "config.yml", out)
    write_page(out / "index.html", views, metrics, settings, commands, video="turntable.mp4")
    with replacing(out / "metrics.json") as partial:
        report = {**metrics, "settings": settings, "config": str(run / "config.yml")}
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    listed = "\n".join(f"  {command}" for command in commands)
    say(
        f"Trained {gaussians:,} Gaussians in {trained_in:.0f} s; {time.monotonic() - start:.0f} s in all.\n"
        f"Held out: PSNR {metrics['psnr']:.2f} dB, {metrics['psnr_before_training']:.2f} before training; "
        f"SSIM {metrics['ssim']:.3f}, {metrics['ssim_before_training']:.3f} before training\n"
        f"Wrote:\n  {out / 'index.html'}  (open it in a browser)\n  {out / 'turntable.mp4'}\n  {out / 'metrics.json'}\n"
        f"  {out / 'scene'}\n  {run}\nNext:\n{listed}"
    )


def _config(out: Path, iterations: int) -> VlmFastGSTrainerConfig:
    """vlm-fastgs-lite on the demo's scene, without a server and with our progress bar in place of nerfstudio's table."""
    config = deepcopy(vlm_fastgs_lite.config)
    assert isinstance(config, VlmFastGSTrainerConfig)
    config.max_num_iterations = iterations
    # config.yml is written before the trainer fills this in, and schedules of the loaded model hang on it.
    config.pipeline.model.run_length = iterations  # type: ignore[attr-defined]
    config.data = config.pipeline.datamanager.data = out / "scene"
    config.output_dir = out / "outputs"
    config.experiment_name = "scene"
    config.set_timestamp()
    config.vis = "tensorboard"
    config.viewer.quit_on_train_completion = True
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.logging.local_writer.enable = False
    config.logging.profiler = "none"
    return config


def _start(config: VlmFastGSTrainerConfig) -> VlmFastGSTrainer:
    """What ns-train does before the first step."""
    seed = config.machine.seed
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  nerfstudio draws from the global generators
    torch.manual_seed(seed)
    # What torch deprecates in nerfstudio is news for nerfstudio's developers.
    warnings.filterwarnings("ignore", module=r"nerfstudio\.")
    config.save_config()
    trainer = VlmFastGSTrainer(config)
    trainer.setup()
    return trainer


def _train(trainer: VlmFastGSTrainer) -> float:
    """Train with a progress bar; the seconds it took."""
    start = time.monotonic()
    with bar("Training", trainer.config.max_num_iterations) as report:

        def after_step(step: int) -> None:
            report(step + 1, f"{_gaussians(trainer):,} Gaussians")

        trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after_step))
        trainer.train()
    return time.monotonic() - start


def _gaussians(trainer: VlmFastGSTrainer) -> int:
    return len(trainer.pipeline.model.gauss_params["means"])  # type: ignore[arg-type, index]


def _datamanager(trainer: VlmFastGSTrainer) -> VlmFastGSDatamanager:
    datamanager = trainer.pipeline.datamanager
    assert isinstance(datamanager, VlmFastGSDatamanager)
    return datamanager


@torch.no_grad()
def held_out(trainer: VlmFastGSTrainer) -> list[Render]:
    """Every held-out photo with its render and metrics, as ns-eval computes them, in the order of the data set."""
    pipeline = trainer.pipeline.eval()
    datamanager = _datamanager(trainer)
    names = [path.name for path in datamanager.eval_dataset.image_filenames]
    views = []
    with bar("Rendering", len(names)) as report:
        for name, (camera, batch) in zip(names, datamanager.fixed_indices_eval_dataloader, strict=True):
            outputs = pipeline.model.get_outputs_for_camera(camera)
            metrics, pictures = pipeline.model.get_image_metrics_and_images(outputs, batch)
            photo, render = map(_bytes, pictures["img"].chunk(2, dim=1))
            views.append(Render(name, photo, render, metrics["psnr"], metrics["ssim"]))
            report(len(views))
    pipeline.train()
    return views


@torch.no_grad()
def write_turntable(trainer: VlmFastGSTrainer, path: Path, seconds: float) -> None:
    """Render one turn around the scene of a trainer to an mp4 of about the photos' size."""
    cameras = _datamanager(trainer).train_dataset.cameras
    poses = orbit(cameras.camera_to_worlds, max(1, round(seconds * FPS)))
    lens = deepcopy(cameras[:1])
    lens.width, lens.height = lens.width // 2 * 2, lens.height // 2 * 2
    pipeline = trainer.pipeline.eval()

    def frames() -> Iterator[Picture]:
        with bar("Rendering", len(poses)) as report:
            for k, pose in enumerate(poses):
                lens.camera_to_worlds = pose[None]
                yield _bytes(pipeline.model.get_outputs_for_camera(lens)["rgb"])
                report(k + 1)

    write_mp4(path, frames(), int(lens.width.item()), int(lens.height.item()), FPS)


def next_commands(config: Path, out: Path) -> list[str]:
    """nerfstudio's commands that show, render and export the run of ``config``."""
    return [
        shlex.join(command)
        for command in (
            ["ns-viewer", "--load-config", str(config), "--viewer.websocket-host", "127.0.0.1"],
            ["ns-eval", "--load-config", str(config), "--output-path", str(out / "eval.json")],
            ["ns-render", "interpolate", "--load-config", str(config), "--output-path", str(out / "interpolate.mp4")],
            ["ns-export", "gaussian-splat", "--load-config", str(config), "--output-dir", str(out / "export")],
        )
    ]


def _bytes(image: torch.Tensor) -> Picture:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _mean(values: Iterator[float]) -> float:
    return round(float(np.mean(list(values))), 4)
