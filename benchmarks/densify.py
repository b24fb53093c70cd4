"""FastGS against Splatfacto's own strategy, and its ablations, over the same rasteriser and the same iterations.

    python benchmarks/densify.py --out densify [--captures ../shared/data] [--iterations 1500] [--size 300] [--seeds 3]
        [--scenes toy fox ...] [--methods splatfacto fastgs ...] [--starts dense sparse] [--jobs 1]

Every run is a process of its own and leaves one JSON file in OUT/runs; runs that are there already are not repeated. Afterwards
OUT holds `results.json`, `results.md` (held-out PSNR and SSIM mean ± std over seeds, Gaussians, seconds, peak memory) and
`psnr_over_time.png`. Seconds are those of training alone, without set-up and evaluation. A dense start has the scene's own
points, or 10,000 random ones where it has none; a sparse start has 100 random points.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

# method → overrides of the lite model's settings ("lazy_updates" is the trainer's). Lite leaves out FastGS' compact box (β = 0.5)
# and its schedule of updates, so those two ablations add what the others take away. Resets and rounds are the same for all.
SPLATFACTO = {
    "densification": "default", "cull_alpha_thresh": 0.1, "densify_grad_thresh": 0.0008, "densify_size_thresh": 0.01,
    "cull_scale_thresh": 0.5, "stop_screen_size_at": 0.13, "compact_box": None, "random_opacity": 0.1, "lazy_updates": False,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "splatfacto": SPLATFACTO,
    "fastgs": {},
    "fastgs - VCD": {"consistent_growth": False},
    "fastgs - VCP": {"consistent_pruning": False},
    "fastgs + compact box": {"compact_box": 0.5},
    "fastgs + schedule": {"lazy_updates": True},
}
STARTS = ("dense", "sparse")
CHECKS = 8  # evaluations along a run, for the plot


def trainer_config(scene: Path, method: str, start: str, seed: int, iterations: int, size: int, folder: Path) -> Any:
    """The lite method with a method's overrides, quiet."""
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    from vlmgs_ns.config import vlm_fastgs_lite

    config: Any = deepcopy(vlm_fastgs_lite.config)
    config.data, config.output_dir, config.vis = scene, folder, "tensorboard"
    config.max_num_iterations, config.machine.seed = iterations, seed
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    config.steps_per_save = iterations
    config.logging.local_writer.enable = False
    data, model = config.pipeline.datamanager, config.pipeline.model
    data.data, data.max_image_size = scene, size
    if not (scene / "transforms.json").exists():
        data.dataparser = ColmapDataParserConfig(colmap_path=Path("sparse/0"), downscale_factor=1)
    if start == "sparse":
        model.random_init, model.num_random, model.random_scale, model.random_opacity = True, 100, 1.0, 0.5
    for key, value in METHODS[method].items():
        if key == "lazy_updates":
            config.lazy_updates.enabled = value
        else:
            assert hasattr(model, key), key
            setattr(model, key, value)
    if method == "splatfacto":
        config.optimizers["opacities"]["optimizer"].lr = 0.05
        config.optimizers["features_rest"]["optimizer"].lr = 0.0025 / 20
    config.set_timestamp()
    return config


def run_one(scene: Path, method: str, start: str, seed: int, iterations: int, size: int, out: Path) -> None:
    """Train, evaluate along the way and at the end, write the result."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
    from nerfstudio.scripts.train import _set_random_seed  # ns-train seeds before it builds anything

    folder = out.with_suffix("")
    _set_random_seed(seed)
    trainer = trainer_config(scene, method, start, seed, iterations, size, folder).setup()
    trainer.setup()
    paused, curve = 0.0, []

    def check(step: int) -> None:
        nonlocal paused
        before = time.perf_counter()
        metrics = trainer.pipeline.get_average_eval_image_metrics()
        model = trainer.pipeline.model
        curve.append([step + 1, before - began - paused, float(metrics["psnr"]), len(model.means)])
        paused += time.perf_counter() - before

    steps = tuple(round(iterations * (i + 1) / CHECKS) - 1 for i in range(CHECKS - 1))
    where = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
    trainer.callbacks.append(TrainingCallback(where, lambda step: check(step), iters=steps))
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began - paused
    metrics = trainer.pipeline.get_average_eval_image_metrics()
    count = len(trainer.pipeline.model.means)
    result = {
        "scene": scene.name, "method": method, "start": start, "seed": seed, "iterations": iterations, "size": size,
        "psnr": float(metrics["psnr"]), "ssim": float(metrics["ssim"]), "gaussians": count, "seconds": seconds,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "curve": [*curve, [iterations, seconds, float(metrics["psnr"]), count]],
    }  # fmt: skip
    partial = out.with_suffix(".tmp")
    partial.write_text(json.dumps(result))
    partial.rename(out)


def spread(values: list[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def table(results: list[dict[str, Any]]) -> str:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        groups[result["scene"], result["start"], result["method"]].append(result)
    order = {method: i for i, method in enumerate(METHODS)}
    lines = ["| scene | start | method | PSNR | SSIM | Gaussians | seconds | peak MB | seeds |", "|---" * 9 + "|"]
    for (scene, start, method), runs in sorted(groups.items(), key=lambda item: (*item[0][:2], order[item[0][2]])):
        column = {key: [run[key] for run in runs] for key in ("psnr", "ssim", "gaussians", "seconds", "memory_mb")}
        lines.append(
            f"| {scene} | {start} | {method} | {spread(column['psnr'], 2)} | {spread(column['ssim'], 3)} "
            f"| {statistics.mean(column['gaussians']):,.0f} | {spread(column['seconds'], 0)} "
            f"| {max(column['memory_mb']):,.0f} | {len(runs)} |"
        )
    return "\n".join(lines) + "\n"


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """PSNR over training time, one panel per scene and start, one line per run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scenes = sorted({r["scene"] for r in results})
    figure, axes = plt.subplots(len(STARTS), len(scenes), figsize=(3.4 * len(scenes), 6), squeeze=False, layout="constrained")
    colors = {method: f"C{i}" for i, method in enumerate(METHODS)}
    for row, start in enumerate(STARTS):
        for column, scene in enumerate(scenes):
            axis, named = axes[row][column], set()
            for result in results:
                if (result["scene"], result["start"]) == (scene, start):
                    method = result["method"]
                    label = None if method in named else method
                    named.add(method)
                    x, y = [p[1] for p in result["curve"]], [p[2] for p in result["curve"]]
                    axis.plot(x, y, color=colors[method], alpha=0.7, label=label)
            axis.set_title(f"{scene}, {start} start")
            axis.set_xlabel("seconds of training")
            axis.set_ylabel("held-out PSNR, dB")
            axis.grid(alpha=0.3)
            if named:
                axis.legend(fontsize=6)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("densify"))
    parser.add_argument("--captures", type=Path, default=None, help="folder of captures, each a transforms.json or COLMAP scene")
    parser.add_argument("--scenes", nargs="*", default=None, help="names to keep; the embedded scene is called toy")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--starts", nargs="*", default=list(STARTS))
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; more than one disturbs the seconds")
    parser.add_argument("--one", nargs=4, metavar=("SCENE", "METHOD", "START", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    runs = args.out.resolve() / "runs"
    runs.mkdir(parents=True, exist_ok=True)

    def result_of(scene: Path, method: str, start: str, seed: int) -> Path:
        name = f"{scene.name}-{method}-{start}-{seed}-{args.iterations}-{args.size}".replace(" ", "")
        return runs / f"{name}.json"

    if args.one:
        scene, method, start, seed = Path(args.one[0]), args.one[1], args.one[2], int(args.one[3])
        run_one(scene, method, start, seed, args.iterations, args.size, result_of(scene, method, start, seed))
        return

    toy = args.out.resolve() / "toy"
    if not toy.exists():
        from vlmgs_ns.toy.scene import write_scene

        write_scene(toy)
    scenes = [toy]
    if args.captures is not None:
        scenes += sorted(folder.resolve() for folder in args.captures.iterdir() if (folder / "images").is_dir())
    if args.scenes is not None:
        scenes = [scene for scene in scenes if scene.name in args.scenes]
    plan = [
        (scene, method, start, seed)
        for seed in range(args.seeds)
        for scene in scenes
        for start in args.starts
        for method in args.methods
    ]

    def execute(run: tuple[Path, str, str, int]) -> None:
        path = result_of(*run)
        if not path.exists():
            command = [sys.executable, __file__, "--out", str(args.out)]
            command += ["--iterations", str(args.iterations), "--size", str(args.size)]
            with path.with_suffix(".log").open("w") as log:
                subprocess.run([*command, "--one", *map(str, run)], stdout=log, stderr=subprocess.STDOUT, check=False)
        if path.exists():
            result = json.loads(path.read_text())
            print(f"{path.stem}: {result['psnr']:.2f} dB, {result['gaussians']:,}, {result['seconds']:.0f} s", flush=True)
        else:
            print(f"{path.stem}: failed, see {path.with_suffix('.log')}", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(execute, plan))
    results = [json.loads(path.read_text()) for path in map(lambda run: result_of(*run), plan) if path.exists()]
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    (args.out / "results.md").write_text(table(results))
    plot(results, args.out / "psnr_over_time.png")
    print(table(results))


if __name__ == "__main__":
    main()
