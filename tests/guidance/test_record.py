"""What a run leaves behind about its rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmgs_ns.guidance.question import Answer, Question
from vlmgs_ns.guidance.record import Record
from vlmgs_ns.guidance.regions import DIMMED
from vlmgs_ns.guidance.reply import Box
from vlmgs_ns.guidance.round import Round, ViewRegions

REPLY = 'Sure: [{"bbox_2d": [250, 250, 750, 750], "label": "a 猫"}]\n\ud800'


def a_round(**details: Any) -> Round:
    picture = np.full((480, 640, 3), 200, np.uint8)
    box = Box(0.25, 0.25, 0.75, 0.75, "a 猫")
    return Round(
        "detail", 500, [Question("detail", "where?", (picture,))] * 2,
        views=[{"name": "photo 3"}, {"name": "new viewpoint"}],
        regions=[ViewRegions(Answer(REPLY, details=details), (box,), ("clipped",)), ViewRegions(Answer(None, "too slow"))],
        seconds=1.23456,
    )  # fmt: skip


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_line_of_json_says_all_of_a_round(tmp_path: Path) -> None:
    record = Record(tmp_path / "run" / "guidance", pictures=False)
    record.write(a_round(tokens=7, place=Path("x")), "scripted", {"selected": 5, "added": 4, "refused": 1}, inverted=False)
    record.write(a_round(), "scripted", {"selected": 0}, inverted=False)
    first, second = (strict(line) for line in (tmp_path / "run" / "guidance" / "rounds.jsonl").read_text().splitlines())
    assert first == {
        "step": 500, "phase": "detail", "backend": "scripted", "seconds": 1.235, "prompt": "where?",
        "views": [
            {
                "view": "photo 3", "reply": REPLY, "error": None, "notes": ["clipped"], "details": {"tokens": 7, "place": "x"},
                "boxes": [{"box": [0.25, 0.25, 0.75, 0.75], "label": "a 猫"}],
            },
            {"view": "new viewpoint", "reply": None, "error": "too slow", "notes": [], "details": {}, "boxes": []},
        ],
        "selected": 5, "added": 4, "refused": 1,
    }  # fmt: skip
    assert second["selected"] == 0
    assert [path.name for path in (tmp_path / "run" / "guidance").iterdir()] == ["rounds.jsonl"]


@pytest.mark.parametrize("inverted", [False, True])
def test_pictures_show_what_was_meant(tmp_path: Path, inverted: bool) -> None:
    Record(tmp_path, pictures=True).write(a_round(), "scripted", {}, inverted)
    boxed, silent = (np.asarray(Image.open(tmp_path / f"000500_detail_{k}.jpg")).astype(int) for k in (0, 1))
    assert boxed.shape == silent.shape == (480, 640, 3)
    bright, dim = (boxed[40, 40], boxed[240, 320]) if inverted else (boxed[240, 320], boxed[40, 40])
    assert abs(bright - 200).max() < 8 and abs(dim - 200 * DIMMED).max() < 8
    assert abs(silent - 200).max() < 8  # nobody named a region: nothing is dimmed, inverted or not
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be recorded .* training goes on"):
        Record(tmp_path / "file" / "guidance", pictures=True).write(a_round(), "scripted", {}, False)


def test_what_json_cannot_say_costs_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="could not be recorded"):
        Record(tmp_path, pictures=False).write(a_round(score=float("nan")), "scripted", {}, False)
    Record(tmp_path, pictures=False).write(a_round(), "scripted", {}, False)
    (line,) = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert strict(line)["step"] == 500
