"""Bounds of what regions are worth: runs of configs/guidance.yaml with a stand-in for the vision-language model.

    vlmgs bench configs/guidance.yaml --data-root CAPTURES --out outputs/bench/guidance
    python benchmarks/guidance_bounds.py everywhere [--data-root CAPTURES] [--only scene=room ...]
    vlmgs bench compare outputs/bench/guidance outputs/bench/guidance-everywhere

"everywhere" takes the whole picture for the region of "+ detail"; "masks" boxes the labelled objects for "+ detail + background",
an upper bound of what a model could say about objects, in scenes that have masks over the photos as they were taken (`MASKS`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vlmgs_ns.bench.executor import Function, Outcome, Progress
from vlmgs_ns.bench.local import LocalExecutor
from vlmgs_ns.bench.run_one import Order
from vlmgs_ns.bench.session import run_bench
from vlmgs_ns.guidance.question import Answer
from vlmgs_ns.system.errors import InputError

SPEC = Path(__file__).resolve().parents[1] / "configs" / "guidance.yaml"
METHODS = {"everywhere": "+ detail", "masks": "+ detail + background"}
"""The method of the specification that each stand-in answers for."""
MASKS = {"masks_instance": 0.0, "masks": 0.002, "masks_derived": 0.002}
"""Folders of masks, one id per object, and the least part of a picture that counts as one: masks by colour have specks."""


class StandIn:
    """A guidance backend that needs no model."""

    name = fingerprint = "stand-in"
    coordinates = "thousandths"
    needs_evidence = quick = False

    def check(self) -> None:
        """Nothing can be missing."""

    def release(self) -> None:
        """Nothing is held."""


class Everywhere(StandIn):
    """Boxes the whole picture, whatever the question."""

    name = fingerprint = "everywhere"

    def ask(self, questions: Sequence[Any]) -> list[Answer]:
        return [Answer('[{"bbox_2d": [0, 0, 1000, 1000], "label": "everything"}]') for _ in questions]


class Oracle(StandIn):
    """Boxes the labelled objects, by the mask of the photo that a question shows."""

    name = fingerprint = "masks"
    needs_evidence = True

    def __init__(self, scene: Path) -> None:
        from PIL import Image

        folder = next((name for name in MASKS if (scene / name).is_dir()), None)
        if folder is None:
            raise InputError(f"{scene} has no masks ({', '.join(MASKS)}); leave the scene out with --only")
        self.least = MASKS[folder]
        self.masks, self.thumbnails = [], []
        for path in sorted((scene / "images").iterdir()):
            mask = scene / folder / f"{path.stem}.png"
            if mask.exists():
                self.masks.append(np.array(Image.open(mask)))
                self.thumbnails.append(self._thumbnail(np.array(Image.open(path).convert("RGB")) / 255))

    @staticmethod
    def _thumbnail(picture: Any) -> Any:  # [H, W, 3] → [12 * 16 * 3]
        rows = np.linspace(0, picture.shape[0] - 1, 12).round().astype(int)
        columns = np.linspace(0, picture.shape[1] - 1, 16).round().astype(int)
        return picture[rows][:, columns].ravel()

    def ask(self, questions: Sequence[Any]) -> list[Answer]:
        answers = []
        for question in questions:
            shown = self._thumbnail(question.evidence.photo)
            mask = self.masks[int(np.argmin([np.abs(shown - other).mean() for other in self.thumbnails]))]
            ids = [mask > 0] if question.phase == "background" else [mask == k for k in np.unique(mask) if k]
            boxes = [box for inside in ids for box in self._box(inside)]
            answers.append(Answer(json.dumps([{"bbox_2d": box, "label": "object"} for box in boxes])))
        return answers

    def _box(self, inside: Any) -> list[list[int]]:
        """The box around all parts that count, in thousandths; none where there are none."""
        from vlmgs_ns.guidance.regions import boxes_around

        parts = np.array(boxes_around(inside, self.least, 100)).reshape(-1, 4)
        edges = [*parts[:, :2].min(axis=0), *parts[:, 2:].max(axis=0)] if len(parts) else []
        return [[round(1000 * float(edge)) for edge in edges]] if edges else []


def with_backend(kind: str, function: Function, item: Any, tell: Callable[[int], None]) -> Any:
    """Carry out a task in its process, with the stand-in for the backend that the settings choose."""
    from vlmgs_ns.guidance import regions
    from vlmgs_ns.method import pipeline

    if isinstance(item, Order):
        data = Path(item.run.data)
        if kind == "everywhere":  # no phase allows a region of the whole picture otherwise
            regions.LIMITS["detail"] = regions.Limits(1, 1.0, 1.0)
        choose: Any = lambda settings, scene: (Everywhere() if kind == "everywhere" else Oracle(data), f"Guidance: {kind}")  # noqa: E731
        pipeline.make_backend = choose
    return function(item, tell)


class StandInExecutor(LocalExecutor):
    """Processes of this machine in which the stand-in answers."""

    def __init__(self, kind: str, jobs: int) -> None:
        super().__init__(jobs)
        self.kind = kind

    def execute(
        self, function: Function, items: Sequence[Any], progress: Progress, *, alone: bool = True
    ) -> Iterator[tuple[int, Outcome]]:
        return super().execute(partial(with_backend, self.kind, function), items, progress, alone=alone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=list(METHODS))
    parser.add_argument("--spec", type=Path, default=SPEC, help="a specification with these methods")
    parser.add_argument("--out", type=Path, default=None, help="by default outputs/bench/guidance-KIND")
    parser.add_argument("--data-root", type=Path, default=None, help="folder of the captures")
    parser.add_argument("--only", nargs="*", default=[], help="as that of vlmgs bench")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    out = args.out or Path("outputs") / "bench" / f"guidance-{args.kind}"
    only = [f"method={METHODS[args.kind]}", *args.only]
    run_bench(args.spec, out, StandInExecutor(args.kind, args.jobs), only=only, data_root=args.data_root)
    print((out / "summary.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
