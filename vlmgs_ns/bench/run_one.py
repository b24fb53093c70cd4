"""One run, in a process of its own: make the data if it is embedded, train, measure, and return everything as plain values."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmgs_ns.bench.code import code_version, hardware, versions
from vlmgs_ns.bench.configure import base_config, configure, override
from vlmgs_ns.bench.plan import Run, thresholds_of
from vlmgs_ns.bench.spec import MethodSpec, SceneSpec, Toy
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import Report


@dataclass(frozen=True)
class Order:
    """A run and how it is carried out here, which changes no figure."""

    run: Run
    toy: Toy | None
    """The embedded scene that its data is."""
    out: str
    """Folder of the benchmark."""
    keep: bool = False
    """Leave the trained scene in the folder."""
    vlm_url: str | None = None
    """Where the vision-language model is served; None: where the method says."""

    @property
    def folder(self) -> Path:
        """Folder of the run: nerfstudio's files, and its log beside it."""
        return Path(self.out) / "runs" / self.run.address


def run_one(order: Order, report: Report) -> dict[str, Any]:
    """Train and measure.

    Args:
        order: what to do.
        report: called with the number of steps done.

    Returns:
        Figures, curves, protocols, versions and hardware: what a line of results.jsonl holds beside the run's names.

    Raises:
        InputError: what a user can mend.
    """
    if code_version() != order.run.settings["code"]:
        raise InputError(
            "the code or a library is another one than when the benchmark began; start it again, and on a cluster install the "
            "same versions on all machines"
        )
    order.folder.parent.mkdir(parents=True, exist_ok=True)
    with order.folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        _write_to(log.fileno())
    shutil.rmtree(order.folder, ignore_errors=True)  # of an attempt that was killed
    try:
        return _train(order, report)
    finally:
        if not order.keep:
            shutil.rmtree(order.folder, ignore_errors=True)


def _train(order: Order, report: Report) -> dict[str, Any]:
    from nerfstudio.scripts.train import _set_random_seed  # ns-train seeds before it builds anything

    from vlmgs_ns.bench.measure import MeasuredTrainer, check_steps, masked_psnr, memory_peaks
    from vlmgs_ns.evaluation.trained import Trained, read_labels
    from vlmgs_ns.method.finished_run import OpenRun
    from vlmgs_ns.method.machine import describe

    run, settings = order.run, order.run.settings
    data = Path(run.data)
    if order.toy is not None:
        make_toy(order.toy, data)
    config = configure(settings, data, order.folder)
    semantic = bool(config.pipeline.model.semantics.enabled)
    wanted = tuple(settings["words"]["protocols"]) if settings["words"] and semantic else ()
    masks = mark(config, settings, order.folder)
    if order.vlm_url is not None:
        config.pipeline.model.guidance.base_url = order.vlm_url
    labels = read_labels(settings["labels"], Path(run.labels or run.data), wanted) if wanted else None
    _set_random_seed(run.seed)
    config._target = MeasuredTrainer
    config.save_config()
    trainer: MeasuredTrainer = config.setup()
    trainer.setup()
    trainer.measure(check_steps(run.iterations, int(settings["checks"])), report)
    trainer.train()
    photos: Any = trainer.pipeline.datamanager
    result: dict[str, Any] = {
        **{name: trainer.metrics[name] for name in ("psnr", "ssim", "lpips") if name in trainer.metrics},
        "gaussians": int(trainer.curve["gaussians"][-1]),
        "seconds": round(trainer.seconds, 3),
        "cpu_seconds": round(trainer.cpu_seconds, 3),
        "curve": trainer.curve,
        "photos": {"train": len(photos.train_dataset), "held_out": len(photos.eval_dataset)},
    }
    if masks is not None:
        result |= masked_psnr(trainer.pipeline, masks, settings["object"])
    base = trainer.base_dir
    model: Any = trainer.pipeline.model
    if model.steering is not None:
        result["guidance"] = dict(vars(model.steering.tally))
    if labels is not None:
        result["semantics"] = json.loads((base / "semantics.json").read_text(encoding="utf-8"))["seconds"]
        trainer.pipeline.eval()
        trained = Trained(OpenRun(base / "config.yml", trainer.pipeline))
        limits = thresholds_of(settings)
        reports = {
            name: trained.measure(labels, name, threshold=limits.relevancy, least_alpha=limits.least_alpha) for name in wanted
        }
        result["words"] = {
            name: {**report.scores, "pairs": len(report.rows), "trained_on": report.trained_on}
            for name, report in reports.items()
        }
        result["words_settings"] = {name: dict(report.settings) for name, report in reports.items()}
    result |= memory_peaks()
    machine = vars(describe(str(trainer.device), photos.cache_place(), str(trainer.pipeline.guidance)))
    names = ("device", "device_name", "threads", "rasterizer", "guidance")
    result["machine"] = {**hardware(), **{name: machine[name] for name in names}}
    result["versions"] = versions()
    if order.keep:
        result["trained"] = str(base)
    return result


def mark(config: Any, settings: Mapping[str, Any], folder: Path) -> Path | None:
    """Tell a method what the user wants in detail, as far as it may know. Masks of the scene's object, where it has any."""
    from vlmgs_ns.bench.marks import write_boxes, write_masks_of_box
    from vlmgs_ns.method.scene_check import prepare
    from vlmgs_ns.semantics.embedded import things_in

    guidance = config.pipeline.model.guidance
    masks = config.data / settings["masks"] if settings["masks"] is not None else None
    if masks is None and settings["box"] is None:
        return None

    def parsed(split: str) -> Any:
        dataparser = prepare(replace(config.pipeline.datamanager.dataparser, data=config.data), photos_needed=True)
        return dataparser.setup().get_dataparser_outputs(split)

    if settings["box"] is not None:
        masks = folder / "masks"
        for outputs in map(parsed, ("train", "val")):
            write_masks_of_box(outputs.cameras, outputs.image_filenames, settings["box"], masks)
    assert masks is not None
    if settings["marks"] == "words":
        guidance.instruct = things_in(config.data)[settings["object"] - 1]
    elif settings["marks"] != "none":
        folder.mkdir(parents=True, exist_ok=True)
        guidance.instruct_boxes = folder / "boxes.json"
        write_boxes(masks, parsed("train").image_filenames, settings["object"], settings["marks"], guidance.instruct_boxes)
    return masks


def make_toy(toy: Toy, folder: Path) -> None:
    """Write an embedded scene where it is not there yet; of several processes that do, one wins with the same bytes."""
    from vlmgs_ns.toy.scene import is_scene, write_scene

    if is_scene(folder):
        return
    try:
        write_scene(folder, **toy.model_dump())
    except ValueError as error:
        if not is_scene(folder):
            raise InputError(str(error)) from None


def check_settings(item: tuple[Mapping[str, MethodSpec], Mapping[str, SceneSpec]], report: Report) -> list[str]:
    """Return what is wrong with the overrides of methods and scenes; nothing is trained."""
    methods, scenes = item
    wrong = []
    for name, method in methods.items():
        for where, overrides in (
            (f"methods.{name}", method.overrides),
            *((f"scenes.{k}", s.overrides) for k, s in scenes.items()),
        ):
            config = base_config(method.base)
            for path, value in overrides.items():
                try:
                    override(config, path, value)
                except InputError as error:
                    wrong.append(f"{where}: {str(error).removeprefix('Error: ')}")
    return list(dict.fromkeys(wrong))


def _write_to(descriptor: int) -> None:
    """Send all output of this process, that of libraries too, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
