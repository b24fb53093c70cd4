"""What every round asked, heard and did, in the run's folder: `rounds.jsonl` and one picture per view.

A line names its pictures: of each view the render that was asked about, with its boxes, and of one view also the render once
what the round did has settled. A round that did not take place has a line with the reason. `read_rounds` reads it all back.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmgs_ns.guidance.question import Phase
from vlmgs_ns.guidance.regions import mask, picture, union_area
from vlmgs_ns.guidance.round import Round
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.json_text import parse_json

ROUNDS = "rounds.jsonl"
CANNOT = (OSError, ValueError, TypeError)
"""What a full or read-only disk raises, and values that a file cannot hold."""

EFFECTS = {
    "selected": "chosen",
    "planted": "planted",
    "added": "added",
    "refused": "refused",
    "floaters": "floaters found",
    "doomed": "floaters pruned",
    "targets": "views targeted",
}
"""What a round does to Gaussians: names in the record, and in words."""


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
        "pictures": round_.pictures,
        **effect,
    }


class Record:
    """Writes rounds into a folder; a full or read-only disk costs a warning, never the run."""

    def __init__(self, folder: Path, pictures: bool) -> None:
        self.folder = folder
        self.pictures = pictures
        self._fault: Exception | None = None

    def draw(self, round_: Round) -> None:
        """Write a picture of every answer and note their names in the round; on the worker's thread, so `write` warns."""
        for k in range(len(round_.regions or []) if self.pictures else 0):
            regions, render = (round_.regions or [])[k].boxes, round_.questions[k].pictures[0]
            marked = None
            if regions:
                inside = mask(regions, render.shape[1], render.shape[0])
                marked = ~inside if round_.inverted else inside
            self._save(round_, f"{round_.step:06d}_{round_.phase}_{k}.jpg", picture(render, regions, marked), None)

    def widest(self, round_: Round) -> int | None:
        """The view of a round whose boxes cover most, the one to look at again; None: nothing was boxed, or none is drawn."""
        areas = [union_area(regions.boxes) for regions in round_.regions or []]
        return areas.index(max(areas)) if self.pictures and any(areas) else None

    def draw_after(
        self,
        round_: Round,
        view: int,
        render: NDArray[np.uint8],  # [H, W, 3]
    ) -> None:
        """Write how a view looks after the round, with its boxes; the name follows that of the picture from before."""
        boxes = (round_.regions or [])[view].boxes
        before = f"{round_.step:06d}_{round_.phase}_{view}"
        self._save(round_, f"{before}_after.jpg", picture(render, boxes), f"{before}.jpg")

    def write(self, round_: Round, backend: str, effect: dict[str, Any]) -> None:
        """Add one round."""
        self._append(summary(round_, backend, effect))

    def leave_out(self, phase: Phase, step: int, backend: str, reason: str) -> None:
        """Add a round that was due and did not take place, or was not answered."""
        self._append({**summary(Round(phase, step, []), backend, {"selected": 0}), "left_out": reason})

    def _append(self, line: dict[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ROUNDS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str, allow_nan=False) + "\n")
            fault, self._fault = self._fault, None
        except CANNOT as error:
            fault = error
        if fault is not None:
            warnings.warn(
                f"{self.folder}: this round of guidance could not be recorded ({fault}); training goes on", stacklevel=2
            )

    def _save(self, round_: Round, name: str, drawn: NDArray[np.uint8], after: str | None) -> None:
        from PIL import Image

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / name) as partial:
                Image.fromarray(np.ascontiguousarray(drawn)).save(partial, quality=88)
        except CANNOT as error:
            self._fault = error
            return
        at = round_.pictures.index(after) + 1 if after in round_.pictures else len(round_.pictures)
        round_.pictures.insert(at, name)


@dataclass(frozen=True)
class ViewReply:
    """The reply about one view of a round."""

    view: str
    reply: str
    error: str
    labels: tuple[str, ...]
    """Labels of the boxes that were taken from the reply."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RecordedRound:
    """One round, as plain text and numbers: the file may come from another machine."""

    step: int
    phase: str
    backend: str
    seconds: float
    prompt: str
    views: tuple[ViewReply, ...]
    effect: dict[str, int]
    """Numbers of Gaussians by the keys of `EFFECTS`."""
    pictures: tuple[Path, ...]
    left_out: str = ""
    """Why a round that was due did not take place."""

    def caption(self, picture: Path) -> str:
        """Return the view of a picture STEP_PHASE_NUMBER.jpg with its boxes; of …_after.jpg, that it shows the effect."""
        number, _, after = picture.stem.removeprefix(f"{self.step:06d}_{self.phase}_").partition("_")
        if not number.isdecimal() or int(number) >= len(self.views):
            return picture.stem
        view = self.views[int(number)]
        boxes = f"{len(view.labels)} box{'' if len(view.labels) == 1 else 'es'}"
        return f"{view.view} · {f'{after} the round' if after else boxes}"


@dataclass(frozen=True)
class Rounds:
    """All rounds of a run."""

    rounds: tuple[RecordedRound, ...] = ()
    damaged: int = 0
    """Lines of the record that could not be read."""


def read_rounds(guidance: Path) -> Rounds:
    """Return the rounds in a run's guidance folder, in the order of the file; none where there is no record."""
    try:
        lines = (guidance / ROUNDS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Rounds()
    rounds, damaged = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            rounds.append(_round(parse_json(line), guidance))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError):
            damaged += 1  # the run was killed as it wrote, or the file was edited
    return Rounds(tuple(rounds), damaged)


def _round(record: dict[str, Any], guidance: Path) -> RecordedRound:
    step, phase = int(record["step"]), str(record["phase"])
    names = record.get("pictures")
    if names is None:
        found = sorted(guidance.glob(f"{step:06d}_{_plain(phase)}_*.jpg"))
    else:
        found = [guidance / str(name) for name in names]
    return RecordedRound(
        step,
        phase,
        str(record.get("backend", "")),
        float(record.get("seconds") or 0),
        str(record.get("prompt", "")),
        tuple(_view_reply(view) for view in record.get("views", [])),
        {name: int(record[name]) for name in EFFECTS if isinstance(record.get(name), int | float)},
        tuple(path for path in found if _inside(path, guidance)),
        str(record.get("left_out") or ""),
    )


def _view_reply(view: dict[str, Any]) -> ViewReply:
    return ViewReply(
        str(view.get("view", "")),
        str(view.get("reply") or ""),
        str(view.get("error") or ""),
        tuple(str(box.get("label") or "") for box in view.get("boxes", [])),
        tuple(str(note) for note in view.get("notes", [])),
    )


def _plain(name: str) -> str:
    """Return the name without what a pattern of file names would read as more than a name."""
    return "".join(letter for letter in name if letter.isalnum() or letter in "-_")


def _inside(path: Path, folder: Path) -> bool:
    """Return whether it is a file of that folder: a record names its pictures, never other files of the machine."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())
