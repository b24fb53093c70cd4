"""Time of a training step: inside and outside the rasteriser.

    python benchmarks/training_step.py DATA [--iterations 600] [--profile 200]

Trains `vlm-fastgs-lite` on a scene and profiles its last steps (densification rounds included).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--profile", type=int, default=200)
    args = parser.parse_args()

    from vlmgs_ns.config import vlm_fastgs_lite

    config: Any = deepcopy(vlm_fastgs_lite.config)
    config.data = config.pipeline.datamanager.data = args.data
    config.max_num_iterations, config.vis = args.iterations, "tensorboard"
    config.steps_per_eval_image = config.steps_per_eval_all_images = 0
    with tempfile.TemporaryDirectory() as folder:
        config.output_dir = Path(folder)
        config.set_timestamp()
        trainer = config.setup()
        trainer.setup()
        profiler = cProfile.Profile()
        step_of = trainer.train_iteration

        def step(number: int) -> Any:
            if number < args.iterations - args.profile:
                return step_of(number)
            return profiler.runcall(step_of, number)

        trainer.train_iteration = step
        trainer.train()
        count = len(trainer.pipeline.model.means)

    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    rows: dict[str, float] = {}
    for (file, _, function), (_, _, _, cumulative, _) in stats.items():
        name = Path(file).name
        if (name, function) == ("trainer.py", "train_iteration"):
            rows["whole step"] = max(rows.get("whole step", 0.0), cumulative)
        if "rasterize" in file and (function in ("rasterization", "backward")):
            rows[f"rasteriser, {name} {function}"] = rows.get(f"rasteriser, {name} {function}", 0.0) + cumulative
        if (name, function) == ("ssim.py", "forward"):
            rows["SSIM forward"] = max(rows.get("SSIM forward", 0.0), cumulative)
        if (name, function) == ("ssim.py", "backward"):
            rows["SSIM backward"] = cumulative
        if function == "optimizer_scaler_step_some":
            rows["optimisers"] = cumulative
        if function == "next_train":
            rows["data"] = max(rows.get("data", 0.0), cumulative)
    inside = sum(value for name, value in rows.items() if name.startswith("rasteriser"))
    whole = rows.pop("whole step")
    print(f"{count:,} Gaussians; milliseconds per step, mean of {args.profile}")
    print("| part | ms |\n|---|---|")
    for name, value in sorted(rows.items(), key=lambda item: -item[1]):
        print(f"| {name} | {value / args.profile * 1e3:.1f} |")
    print(f"| **inside the rasteriser** | {inside / args.profile * 1e3:.1f} |")
    print(f"| **outside** | {(whole - inside) / args.profile * 1e3:.1f} |")


if __name__ == "__main__":
    main()
