"""What every round asked, heard and did, in the run's folder: `rounds.jsonl` and one picture per view."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from vlmgs_ns.atomic import replacing
from vlmgs_ns.guidance.regions import mask, picture
from vlmgs_ns.guidance.round import Round


def summary(round_: Round, backend: str, effect: dict[str, Any]) -> dict[str, Any]:
    """A round in plain values, ready for JSON; `effect` is what it did to the Gaussians."""
    return {
        "step": round_.step,
        "phase": round_.phase,
        "backend": backend,
        "seconds": round(round_.seconds, 3),
        "prompt": round_.questions[0].prompt if round_.questions else "",
        "views": [
            {
                "view": view.get("name", ""),
                "reply": regions.answer.text,
                "error": regions.answer.error,
                "boxes": [{"box": [round(float(edge), 4) for edge in box[:4]], "label": box.label} for box in regions.boxes],
                "notes": list(regions.notes),
                "details": regions.answer.details,
            }
            for view, regions in zip(round_.views, round_.regions or [], strict=False)
        ],
        **effect,
    }


class Record:
    """Writes rounds into a folder; a full or read-only disk costs a warning, never the run."""

    def __init__(self, folder: Path, pictures: bool) -> None:
        self.folder = folder
        self.pictures = pictures

    def write(self, round_: Round, backend: str, effect: dict[str, Any], inverted: bool) -> None:
        """Add one round; `inverted`: the Gaussians outside of the boxes were meant."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "rounds.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(summary(round_, backend, effect), default=str, allow_nan=False) + "\n")
            if self.pictures:
                for k, regions in enumerate(round_.regions or []):
                    self._draw(round_, k, regions.boxes, inverted)
        except (OSError, ValueError, TypeError) as error:
            warnings.warn(
                f"{self.folder}: this round of guidance could not be recorded ({error}); training goes on", stacklevel=2
            )

    def _draw(self, round_: Round, k: int, boxes: Any, inverted: bool) -> None:
        from PIL import Image

        render = round_.questions[k].pictures[0]
        marked = mask(boxes, render.shape[1], render.shape[0])
        shown = None
        if len(boxes):
            shown = ~marked if inverted else marked
        path = self.folder / f"{round_.step:06d}_{round_.phase}_{k}.jpg"
        with replacing(path) as partial:
            Image.fromarray(np.ascontiguousarray(picture(render, boxes, shown))).save(partial, quality=88)
