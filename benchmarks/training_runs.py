"""Many short training runs, each a process of its own and one JSON file; what benchmarks/densify.py and guidance.py share.

A run is the lite method with overrides. Runs whose file is there are not repeated, so an interrupted benchmark goes on where it
was. Wall seconds mean little where runs share the cores; processor seconds, all threads together, are recorded beside them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKS = 6  # evaluations along a run, for the plot


@dataclass(frozen=True)
class Run:
    """One training run; `overrides` maps dotted paths below the trainer's config to values."""

    scene: Path
    method: str
    start: str
    seed: int
    iterations: int
    size: int
    overrides: dict[str, Any] = field(default_factory=dict, hash=False)
    prepare: Callable[[Any], Callable[[], dict[str, Any]] | None] | None = None
    """Called with the trainer once it is set up; what it returns is called after training, for more entries of the result."""

    @property
    def name(self) -> str:
        return f"{self.scene.name}-{self.method}-{self.start}-{self.seed}-{self.iterations}-{self.size}".replace(" ", "")


def arguments(description: str | None, methods: list[str], starts: list[str], out: str) -> argparse.Namespace:
    """The command line that the benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--captures", type=Path, default=None, help="folder of captures, each a transforms.json or COLMAP scene")
    parser.add_argument("--scenes", nargs="*", default=None, help="names to keep; the embedded scene is called toy")
    parser.add_argument("--methods", nargs="*", default=methods)
    parser.add_argument("--starts", nargs="*", default=starts)
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    return parser.parse_args()


def scenes_of(args: argparse.Namespace) -> list[Path]:
    """The embedded scene, written where it is not there yet, and the captures."""
    toy = args.out.resolve() / "toy"
    if not toy.exists():
        from vlmgs_ns.toy.scene import write_scene

        write_scene(toy)
    scenes = [toy]
    if args.captures is not None:
        scenes += sorted(folder.resolve() for folder in args.captures.iterdir() if (folder / "images").is_dir())
    return [scene for scene in scenes if args.scenes is None or scene.name in args.scenes]


def configure(run: Run, folder: Path) -> Any:
    """The trainer's config: lite, quiet, from a dense start (the scene's points, or 10,000 random ones) or from 100 points."""
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    from vlmgs_ns.config import vlm_fastgs_lite

    config: Any = deepcopy(vlm_fastgs_lite.config)
    config.data, config.output_dir, config.vis = run.scene, folder, "tensorboard"
    config.max_num_iterations, config.machine.seed = run.iterations, run.seed
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.steps_per_save = run.iterations
    config.logging.local_writer.enable = False
    data, model = config.pipeline.datamanager, config.pipeline.model
    data.data, data.max_image_size = run.scene, run.size
    if not (run.scene / "transforms.json").exists():
        data.dataparser = ColmapDataParserConfig(colmap_path=Path("sparse/0"), downscale_factor=1)
    if hasattr(model, "semantics"):
        model.semantics.enabled = False
    model.guidance.enabled = False
    if run.start == "sparse":
        model.random_init, model.num_random, model.random_scale, model.random_opacity = True, 100, 1.0, 0.5
    for path, value in run.overrides.items():
        target: Any = config
        *parents, last = path.split(".")
        for name in parents:
            target = target[name] if isinstance(target, dict) else getattr(target, name)
        assert hasattr(target, last), path
        setattr(target, last, value)
    config.set_timestamp()
    return config


def train(run: Run, out: Path) -> None:
    """Train, evaluate along the way and at the end, write the result."""
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
    from nerfstudio.scripts.train import _set_random_seed  # ns-train seeds before it builds anything

    _set_random_seed(run.seed)
    trainer = configure(run, out.with_suffix("")).setup()
    trainer.setup()
    more = None if run.prepare is None else run.prepare(trainer)
    model = trainer.pipeline.model
    paused, paused_cpu, curve = 0.0, 0.0, []

    def check(step: int) -> None:
        nonlocal paused, paused_cpu
        before, before_cpu = time.perf_counter(), time.process_time()
        metrics = trainer.pipeline.get_average_eval_image_metrics()
        curve.append([step + 1, before - began - paused, float(metrics["psnr"]), len(model.means)])
        paused += time.perf_counter() - before
        paused_cpu += time.process_time() - before_cpu

    steps = tuple(round(run.iterations * (i + 1) / CHECKS) - 1 for i in range(CHECKS - 1))
    where = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
    trainer.callbacks.append(TrainingCallback(where, lambda step: check(step), iters=steps))
    began, began_cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = time.perf_counter() - began - paused, time.process_time() - began_cpu - paused_cpu
    metrics = trainer.pipeline.get_average_eval_image_metrics()
    count = len(model.means)
    result = {
        "scene": run.scene.name, "method": run.method, "start": run.start, "seed": run.seed, "iterations": run.iterations,
        "size": run.size, "psnr": float(metrics["psnr"]), "ssim": float(metrics["ssim"]),
        "background_psnr": background_psnr(trainer), "gaussians": count, "seconds": seconds, "cpu_seconds": cpu,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "curve": [*curve, [run.iterations, seconds, float(metrics["psnr"]), count]],
    }  # fmt: skip
    if model.steering is not None:
        result["guidance"] = dict(vars(model.steering.tally))
    if more is not None:
        result |= more()
    partial = out.with_suffix(".tmp")
    partial.write_text(json.dumps(result))
    partial.rename(out)


def background_psnr(trainer: Any) -> float:
    """Mean held-out PSNR over the background: pixels of no labelled object where the scene has instance masks, else those outside
    of the centred box of half the picture's area."""
    import numpy as np
    import torch
    from PIL import Image

    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    model.eval()
    values = []
    for camera, batch in data.fixed_indices_eval_dataloader:
        outputs = model.get_outputs_for_camera(camera)
        photo = model.composite_with_background(model.get_gt_img(batch["image"]), outputs["background"])
        height, width = photo.shape[:2]
        name = Path(data.eval_dataset.image_filenames[int(batch["image_idx"])]).stem
        mask_file = trainer.config.data / "masks_instance" / f"{name}.png"
        if mask_file.exists():
            ids = np.array(Image.open(mask_file).resize((width, height), Image.Resampling.NEAREST))
            outside = torch.from_numpy(ids == 0)
        else:
            outside = torch.ones(height, width, dtype=torch.bool)
            dy, dx = round(height * (1 - 0.5**0.5) / 2), round(width * (1 - 0.5**0.5) / 2)
            outside[dy : height - dy, dx : width - dx] = False
        error = ((outputs["rgb"] - photo) ** 2)[outside].mean()
        values.append(float(-10 * torch.log10(error.clamp_min(1e-10))))
    model.train()
    return statistics.mean(values)


def _child(run: Run, out: Path) -> None:
    with out.with_suffix(".log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        train(run, out)


def execute(runs: list[Run], folder: Path, jobs: int) -> list[dict[str, Any]]:
    """Every run that has no result yet, `jobs` at a time; the results there are afterwards, in the runs' order."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder.mkdir(parents=True, exist_ok=True)
    import nerfstudio.scripts.train  # noqa: F401  imported once, before the processes fork

    import vlmgs_ns.config  # noqa: F401

    fork = multiprocessing.get_context("fork")
    waiting = [run for run in runs if not (folder / f"{run.name}.json").exists()]
    running: list[tuple[Run, Any]] = []
    began, done = time.perf_counter(), 0
    while waiting or running:
        while waiting and len(running) < jobs:
            run = waiting.pop(0)
            process = fork.Process(target=_child, args=(run, folder / f"{run.name}.json"))
            process.start()
            running.append((run, process))
        time.sleep(0.2)
        for run, process in [pair for pair in running if not pair[1].is_alive()]:
            running.remove((run, process))
            done += 1
            path = folder / f"{run.name}.json"
            left = (time.perf_counter() - began) / done * (len(waiting) + len(running)) / 60
            if path.exists():
                result = json.loads(path.read_text())
                said = f"{result['psnr']:.2f} dB, {result['gaussians']:,}, {result['cpu_seconds']:.0f} processor s"
            else:
                said = f"failed, see {path.with_suffix('.log')}"
            print(f"{run.name}: {said} ({left:.0f} minutes left)", file=sys.stderr, flush=True)
    paths = [folder / f"{run.name}.json" for run in runs]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def spread(values: list[float], digits: int) -> str:
    """Mean ± standard deviation of the sample."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


COLUMNS = {"psnr": 2, "background_psnr": 2, "ssim": 3, "gaussians": 0, "cpu_seconds": 0, "seconds": 0}


def table(results: list[dict[str, Any]], methods: list[str]) -> str:
    """A markdown row per scene, start and method."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[result["scene"], result["start"], result["method"]].append(result)
    names = ["PSNR", "background PSNR", "SSIM", "Gaussians", "processor s", "wall s", "peak MB", "seeds"]
    lines = ["| scene | start | method | " + " | ".join(names) + " |", "|---" * (3 + len(names)) + "|"]
    for (scene, start, method), runs in sorted(groups.items(), key=lambda item: (*item[0][:2], methods.index(item[0][2]))):
        cells = []
        for key, digits in COLUMNS.items():
            values = [run[key] for run in runs]
            cells.append(f"{statistics.mean(values):,.0f}" if digits == 0 else spread(values, digits))
        memory = max(run["memory_mb"] for run in runs)
        lines.append(f"| {scene} | {start} | {method} | " + " | ".join(cells) + f" | {memory:,.0f} | {len(runs)} |")
    return "\n".join(lines) + "\n"


def differences(results: list[dict[str, Any]], methods: list[str], base: str) -> str:
    """What each method changes against `base`, over the runs that both have: PSNR per scene and start, ratios of the rest."""
    by_key = {(r["scene"], r["start"], r["seed"], r["method"]): r for r in results}
    lines = [f"| against {base} | start | scenes | PSNR, dB | Gaussians | processor time |", "|---" * 6 + "|"]
    for method in [m for m in methods if m != base]:
        for start in sorted({r["start"] for r in results}):
            pairs = [
                (r, by_key[key])
                for r in results
                if r["method"] == method
                and r["start"] == start
                and (key := (r["scene"], start, r["seed"], base)) in by_key
            ]  # fmt: skip
            if pairs:
                gain = spread([a["psnr"] - b["psnr"] for a, b in pairs], 2)
                count = len({a["scene"] for a, _ in pairs})
                size, cost = (
                    statistics.geometric_mean([a[key] / b[key] for a, b in pairs]) for key in ("gaussians", "cpu_seconds")
                )
                lines.append(f"| {method} | {start} | {count} | {gain} | x {size:.2f} | x {cost:.2f} |")
    return "\n".join(lines) + "\n"


def plot(results: list[dict[str, Any]], methods: list[str], path: Path) -> None:
    """Held-out PSNR over iterations, one panel per scene and start; the mean over seeds, with their range shaded."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scenes, starts = sorted({r["scene"] for r in results}), sorted({r["start"] for r in results})
    size = (3.2 * len(scenes), 2.9 * len(starts))
    figure, axes = plt.subplots(len(starts), len(scenes), figsize=size, squeeze=False, layout="constrained")
    for row, start in enumerate(starts):
        for column, scene in enumerate(scenes):
            axis = axes[row][column]
            for k, method in enumerate(methods):
                curves = [r["curve"] for r in results if (r["scene"], r["start"], r["method"]) == (scene, start, method)]
                if curves:
                    x = [point[0] for point in curves[0]]
                    y = [[curve[i][2] for curve in curves] for i in range(len(x))]
                    axis.plot(x, [statistics.mean(v) for v in y], color=f"C{k}", label=method)
                    axis.fill_between(x, [min(v) for v in y], [max(v) for v in y], color=f"C{k}", alpha=0.15, linewidth=0)
            axis.set_title(f"{scene}, {start} start", fontsize=9)
            axis.set_xlabel("iterations")
            axis.set_ylabel("held-out PSNR, dB")
            axis.grid(alpha=0.3)
    lines = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), fontsize=8)
    figure.savefig(path, dpi=110)


def report(results: list[dict[str, Any]], methods: list[str], base: str, out: Path) -> None:
    """`results.json`, `results.md` and `psnr.png` in a folder, and the tables on the screen."""
    methods = [m for m in methods if any(r["method"] == m for r in results)]
    text = table(results, methods) + "\n" + differences(results, methods, base)
    (out / "results.json").write_text(json.dumps(results, indent=1))
    (out / "results.md").write_text(text)
    plot(results, methods, out / "psnr.png")
    print(text)
