"""FastGS against Splatfacto's own strategy, and its ablations, over the same rasteriser and the same iterations.

    python benchmarks/densify.py --out densify [--captures ../shared/data] [--iterations 1500] [--size 300] [--seeds 3]
        [--scenes toy fox ...] [--methods splatfacto fastgs ...] [--starts dense sparse] [--jobs 1]

A dense start has the scene's own points, or 10,000 random ones where it has none; a sparse start has 100 random points. OUT then
holds `results.json`, `results.md` (means ± standard deviations over seeds, and differences to Splatfacto) and `psnr.png`.
Learning rates, rounds and everything else are the same for all methods, but for what belongs to a strategy: see `METHODS`.
"""

from __future__ import annotations

from typing import Any

from training_runs import Run, arguments, execute, report, scenes_of

MODEL = "pipeline.model."
# Splatfacto's strategy with Splatfacto's thresholds, resets and learning rates where they differ from FastGS'.
SPLATFACTO = {
    f"{MODEL}densification": "default", f"{MODEL}cull_alpha_thresh": 0.1, f"{MODEL}densify_grad_thresh": 0.0008,
    f"{MODEL}densify_size_thresh": 0.01, f"{MODEL}cull_scale_thresh": 0.5, f"{MODEL}stop_screen_size_at": 0.13,
    f"{MODEL}reset_alpha_every": 6, "optimizers.features_rest.optimizer.lr": 0.0025 / 20,
}  # fmt: skip
# Lite leaves out FastGS' compact box (β = 0.5) and its schedule of updates, so those two ablations add what the others take away.
METHODS: dict[str, dict[str, Any]] = {
    "splatfacto": SPLATFACTO,
    "fastgs": {},
    "fastgs - VCD": {f"{MODEL}consistent_growth": False},
    "fastgs - VCP": {f"{MODEL}consistent_pruning": False},
    "fastgs + compact box": {f"{MODEL}compact_box": 0.5},
    "fastgs + schedule": {"lazy_updates.enabled": True},
}


def main() -> None:
    args = arguments(__doc__, list(METHODS), ["dense", "sparse"], "densify")
    runs = [
        Run(scene, method, start, seed, args.iterations, args.size, METHODS[method])
        for seed in range(args.seeds)
        for method in args.methods
        for scene in scenes_of(args)
        for start in args.starts
    ]
    report(execute(runs, args.out / "runs", args.jobs), args.methods, "splatfacto", args.out)


if __name__ == "__main__":
    main()
