"""The rounds of guidance that a run recorded, each with its pictures, and which of them the report shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHASES = {
    "detail": "regions that begin to show detail",
    "background": "everything but the main subject, which the box leaves out",
    "novel": "what looks wrong from viewpoints of which there is no photo",
    "compare": "where render and photo differ most",
}
"""What each phase of guidance asks for."""
EFFECTS = {
    "selected": "chosen",
    "planted": "planted",
    "added": "added",
    "refused": "refused",
    "floaters": "floaters found",
    "doomed": "floaters pruned",
    "targeted": "views targeted",
}
"""What a round does to Gaussians: names in the record, and in words."""
MOST_PICTURES = 120
"""On the page; those of more rounds stay in the run's folder."""


@dataclass(frozen=True)
class ViewReply:
    """What was answered about one view of a round."""

    view: str
    reply: str
    error: str
    labels: tuple[str, ...]
    """Of the boxes that were taken from the reply."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Recorded:
    """One round; nothing in it is more than text and numbers, whoever wrote the file."""

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

    rounds: tuple[Recorded, ...] = ()
    damaged: int = 0
    """Lines of the record that could not be read."""


def read_rounds(guidance: Path) -> Rounds:
    """Return the rounds in a run's guidance folder, in the order of the file; none where there is no record."""
    record = guidance / "rounds.jsonl"
    if not record.is_file():
        return Rounds()
    rounds, damaged = [], 0
    for line in record.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            rounds.append(_round(json.loads(line), guidance))
        except (ValueError, TypeError, KeyError, AttributeError):
            damaged += 1  # the run was killed as it wrote, or somebody edited the file
    return Rounds(tuple(rounds), damaged)


def pictures_on_page(rounds: Sequence[Recorded]) -> set[Path]:
    """Return the pictures that a page has room for: those of the first and last round of each phase come first."""
    by_phase = [[one for one in rounds if one.phase == phase] for phase in dict.fromkeys(one.phase for one in rounds)]
    ends = {id(end) for of_phase in by_phase for end in (of_phase[0], of_phase[-1])}
    ordered = sorted(rounds, key=lambda one: id(one) not in ends)
    return set([path for one in ordered for path in one.pictures][:MOST_PICTURES])


def _round(record: dict[str, Any], guidance: Path) -> Recorded:
    step, phase = int(record["step"]), str(record["phase"])
    names = record.get("pictures")
    if names is None:
        found = sorted(guidance.glob(f"{step:06d}_{_plain(phase)}_*.jpg"))
    else:
        found = [guidance / str(name) for name in names]
    return Recorded(
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
        tuple(str(box.get("label", "")) for box in view.get("boxes", [])),
        tuple(str(note) for note in view.get("notes", [])),
    )


def _plain(name: str) -> str:
    """Return the name without what a pattern of file names would read as more than a name."""
    return "".join(letter for letter in name if letter.isalnum() or letter in "-_")


def _inside(path: Path, folder: Path) -> bool:
    """Whether it is a file of that folder: a record names its pictures, never other files of the machine."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())
