"""What each phase of guidance is worth: FastGS from 100 random points, without and with it, at the same iterations.

    python benchmarks/guidance.py --out guidance [--captures ../shared/data] [--iterations 1500] [--size 300] [--seeds 3]
        [--scenes toy fox ...] [--methods fastgs "+ all" ...] [--jobs 1]

"+ everywhere" takes the whole picture for phase 1's region: what regions are worth is the difference of "+ detail" to it.
The residual backend answers, except there and in the oracle's rows, which only scenes with masks have (`MASKS`): there the boxes
come from them, an upper bound for what a model could say about objects; masks lie over the photos as they were taken. Rounds are
blocking, so that a run repeats exactly.

OUT then holds `results.json`, `results.md` (means ± standard deviations over seeds, and differences to FastGS alone) and
`psnr.png`. Background: no labelled object (embedded scene), or outside of the centred box of half the picture's area (captures).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from training_runs import Run, arguments, execute, report, scenes_of

GUIDANCE = "pipeline.model.guidance."
PHASES = ("detail", "background", "novel")


def guided(*phases: str, **more: Any) -> dict[str, Any]:
    """Overrides that switch on these phases alone."""
    settings: dict[str, Any] = {"enabled": True, "blocking": True, "backend": "residual", "save_regions": False}
    settings |= {f"{phase}.enabled": phase in phases for phase in PHASES}
    return {f"{GUIDANCE}{name}": value for name, value in settings.items()} | more


METHODS: dict[str, dict[str, Any]] = {
    "fastgs": {},
    "+ detail": guided("detail"),
    "+ background": guided("background"),
    "+ novel": guided("novel"),
    "+ all": guided(*PHASES),
    "+ all + targeted": guided(*PHASES, **{f"{GUIDANCE}compare.enabled": True}),
    "+ all + shell": guided(*PHASES, **{"pipeline.model.ambient_shell": 1000}),
    "+ detail + background - seeds": guided("detail", "background", **{f"{GUIDANCE}seeds": 0}),
    "+ everywhere": guided("detail"),
    "+ oracle": guided("detail", "background"),
}


MASKS = {"masks_instance": 0.0, "masks": 0.002, "masks_derived": 0.002}
"""Folders of masks, one id per object, and the least part of a picture that counts as one: masks by colour have specks."""


def masks_of(scene: Path) -> str | None:
    """The folder of a scene's masks."""
    return next((name for name in MASKS if (scene / name).is_dir()), None)


class Oracle:
    """Boxes of the labelled objects, by the mask of the photo that a question shows."""

    name = "oracle"
    fingerprint = "oracle"
    coordinates = "thousandths"
    needs_evidence = True

    def __init__(self, scene: Path) -> None:
        from PIL import Image

        folder = masks_of(scene)
        assert folder is not None, scene
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

    def check(self) -> None:
        """Nothing can be missing."""

    def release(self) -> None:
        """Nothing is held."""

    def ask(self, questions: Sequence[Any]) -> list[Any]:
        from vlmgs_ns.guidance.question import Answer

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


class Everywhere:
    """Boxes the whole picture, whatever is asked."""

    name = "everywhere"
    fingerprint = "everywhere"
    coordinates = "thousandths"
    needs_evidence = False

    def check(self) -> None:
        """Nothing can be missing."""

    def release(self) -> None:
        """Nothing is held."""

    def ask(self, questions: Sequence[Any]) -> list[Any]:
        from vlmgs_ns.guidance.question import Answer

        return [Answer('[{"bbox_2d": [0, 0, 1000, 1000], "label": "everything"}]') for _ in questions]


def ask_for_everything(trainer: Any) -> None:
    """Let every region be the whole picture, which no phase's limits allow otherwise."""
    from vlmgs_ns.guidance import regions

    regions.LIMITS["detail"] = regions.Limits(1, 1.0, 1.0)
    trainer.pipeline.start_guidance(Everywhere(), None)


def ask_the_oracle(trainer: Any) -> None:
    """Let the oracle answer in place of the backend that the settings chose."""
    trainer.pipeline.start_guidance(Oracle(trainer.config.data), None)


PREPARE = {"+ oracle": ask_the_oracle, "+ everywhere": ask_for_everything}


def main() -> None:
    args = arguments(__doc__, list(METHODS), ["sparse"], "guidance")
    runs = [
        Run(
            scene,
            method,
            start,
            seed,
            args.iterations,
            args.size,
            METHODS[method],
            PREPARE.get(method),
        )
        for seed in range(args.seeds)
        for method in args.methods
        for scene in scenes_of(args)
        for start in args.starts
        if "oracle" not in method or masks_of(scene) is not None
    ]
    report(execute(runs, args.out / "runs", args.jobs), args.methods, "fastgs", args.out)


if __name__ == "__main__":
    main()
