"""What scoring and guidance take of a short run, in processor seconds.

    python benchmarks/rounds.py DATA [--iterations 500] [--size 160]

One run of vlm-fastgs-lite without words, guided without a model, on one thread, so that every second is its caller's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--size", type=int, default=160, help="longer side of the photos in pixels")
    args = parser.parse_args()

    import torch
    from nerfstudio.scripts.train import _set_random_seed

    from vlmgs_ns.bench.configure import configure
    from vlmgs_ns.guidance.steering import Steering
    from vlmgs_ns.method import model as method

    torch.set_num_threads(1)
    spent: Counter[str] = Counter()

    def timed(owner: Any, name: str, part: str) -> None:
        work = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return work(*given, **named)
            finally:
                spent[part] += time.thread_time() - began

        setattr(owner, name, call)

    timed(method, "add_view", "scoring")
    timed(method, "take_scores", "scoring")
    for name in ("step", "before_densification", "densified"):
        timed(Steering, name, "guidance")
    settings = {"base": "vlm-fastgs-lite", "dataparser": "auto", "start": "points", "seed": 0, "words": None}
    settings |= {"iterations": args.iterations, "resolution": args.size}
    guidance = {"backend": "residual", "save_regions": False}
    settings["overrides"] = {f"pipeline.model.guidance.{name}": value for name, value in guidance.items()}
    _set_random_seed(0)
    with tempfile.TemporaryDirectory() as out:
        trainer = configure(settings, args.data, Path(out)).setup()
        trainer.setup()
        timed(trainer.pipeline.model.steering.worker, "_run", "guidance")
        began = time.process_time()
        trainer.train()
        training = time.process_time() - began
    whole = time.process_time()
    print(f"{args.data.name}: {whole:.1f} processor s, {training:.1f} of them training; " + ", ".join(
        f"{part} {seconds:.1f} ({seconds / whole:.1%} of all)" for part, seconds in spent.items()
    ))  # fmt: skip


if __name__ == "__main__":
    main()
