"""``vlmgs demo``: make the embedded scene, train on it through nerfstudio's trainer, and show what came of it."""

from __future__ import annotations

import json
import random
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.method.trainer import VlmFastGSTrainer, VlmFastGSTrainerConfig
from vlmgs_ns.pages.held_out import held_out
from vlmgs_ns.pages.report import VIEWS_SHOWN, DemoResults, write_report
from vlmgs_ns.pages.share import share_page
from vlmgs_ns.pages.turntable import write_turntable
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.progress import say
from vlmgs_ns.toy.make import SceneSettings, make_scene

TITLE = "vlm-fastgs on its embedded scene"
INTRO = (
    "A room that exists only as formulas, photographed by ray casting, learned as Gaussians. "
    "PSNR and SSIM are means over photos that training never saw."
)


def run_demo(out: Path, scene: SceneSettings, iterations: int, turntable_seconds: float) -> None:
    """Write the scene, the run and its report to the folder ``out``::

        scene/          the embedded scene
        outputs/        the run, as ns-train writes it
        index.html      the report of the run, everything in it
        scene.html      the room itself, to turn, walk through and ask
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
    seeds, before = _gaussians(trainer), held_out(trainer.pipeline, VIEWS_SHOWN)
    trained_in = _train(trainer)
    gaussians = _gaussians(trainer)

    say(f"3/4 Evaluating {summary.held_out} held-out photos")
    trained = held_out(trainer.pipeline, VIEWS_SHOWN)
    height, width, _ = trained.shown[0].photo.shape
    metrics: dict[str, Any] = {
        "psnr": trained.mean("psnr"),
        "ssim": trained.mean("ssim"),
        "psnr_before_training": before.mean("psnr"),
        "ssim_before_training": before.mean("ssim"),
        "gaussians": gaussians,
        "gaussians_before_training": seeds,
        "training_seconds": round(trained_in, 1),
    }
    folder = config.get_base_dir()
    machine = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    settings = {
        "method": config.method_name,
        "iterations": iterations,
        "photos": f"{summary.train} to train on, {summary.held_out} held out",
        "photo size": f"{width} by {height} pixels",
        "scene seed": summary.seed,
        "machine": f"{machine['device']} ({machine['device_name']}), {machine['threads']} threads",
        "rasteriser": machine["rasterizer"],
    }

    say("4/4 The turntable and the pages")
    write_turntable(trainer.pipeline, out / "turntable.mp4", turntable_seconds)
    run = OpenRun(folder / "config.yml", trainer.pipeline.eval())
    film = (out / "turntable.mp4").read_bytes()
    page = share_page(run)
    results = DemoResults(TITLE, INTRO, trained, before, seeds, film, page, beside=out)
    commands = write_report(run, out / "index.html", demo=results)
    page.write(out / "scene.html")
    with replacing(out / "metrics.json") as partial:
        report = {**metrics, "settings": settings, "config": str(run.config)}
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    listed = "\n".join(f"  {command}" for some in commands.values() for command in some)
    say(
        f"Trained {gaussians:,} Gaussians in {trained_in:.0f} s; {time.monotonic() - start:.0f} s in all.\n"
        f"Held out: PSNR {metrics['psnr']:.2f} dB, {metrics['psnr_before_training']:.2f} before training; "
        f"SSIM {metrics['ssim']:.3f}, {metrics['ssim_before_training']:.3f} before training\n"
        f"Wrote:\n  {out / 'index.html'}  (open it in a browser)\n  {out / 'scene.html'}  (the room itself)\n"
        f"  {out / 'turntable.mp4'}\n  {out / 'metrics.json'}\n"
        f"  {out / 'scene'}\n  {folder}\nNext:\n{listed}"
    )


class DemoTrainer(VlmFastGSTrainer):
    """Trains, and lets the demo say what came of it."""

    def _say_what_was_trained(self, seconds: float) -> None:
        """Nothing."""


def _config(out: Path, iterations: int) -> VlmFastGSTrainerConfig:
    """vlm-fastgs-lite on the demo's scene, without a server."""
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
    return config


def _start(config: VlmFastGSTrainerConfig) -> VlmFastGSTrainer:
    """Seed and build the trainer as ns-train does."""
    seed = config.machine.seed
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  nerfstudio draws from the global generators
    torch.manual_seed(seed)
    config.save_config()
    trainer = DemoTrainer(config)
    trainer.setup()
    return trainer


def _train(trainer: VlmFastGSTrainer) -> float:
    """Train; the seconds it took."""
    start = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start
    from nerfstudio.utils import writer  # not before nerfstudio's configurations: they import each other

    for events in writer.EVENT_WRITERS:
        if isinstance(events, writer.TensorboardWriter):
            events.tb_writer.flush()  # the page reads what was written
    return seconds


def _gaussians(trainer: VlmFastGSTrainer) -> int:
    return len(trainer.pipeline.model.gauss_params["means"])  # type: ignore[arg-type, index]
