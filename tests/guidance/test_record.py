"""What a run leaves behind about its rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmgs_ns.guidance.question import Answer, Question
from vlmgs_ns.guidance.record import ROUNDS, Record, read_rounds
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
    record.write(a_round(tokens=7, place=Path("x")), "scripted", {"selected": 5, "added": 4, "refused": 1})
    record.write(a_round(), "scripted", {"selected": 0})
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
        "pictures": [], "selected": 5, "added": 4, "refused": 1,
    }  # fmt: skip
    assert second["selected"] == 0
    assert [path.name for path in (tmp_path / "run" / "guidance").iterdir()] == ["rounds.jsonl"]


@pytest.mark.parametrize("inverted", [False, True])
def test_pictures_show_what_was_meant(tmp_path: Path, inverted: bool) -> None:
    round_ = a_round()
    round_.phase = "background" if inverted else "detail"
    Record(tmp_path, pictures=True).draw(round_)
    assert round_.pictures == [f"000500_{round_.phase}_{k}.jpg" for k in (0, 1)]
    boxed, silent = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in round_.pictures)
    assert boxed.shape == silent.shape == (480, 640, 3)
    bright, dim = (boxed[40, 40], boxed[240, 320]) if inverted else (boxed[240, 320], boxed[40, 40])
    assert abs(bright - 200).max() < 8 and abs(dim - 200 * DIMMED).max() < 8
    assert abs(silent - 200).max() < 8  # nobody named a region: nothing is dimmed, inverted or not
    assert len(list(tmp_path.iterdir())) == 2


def test_the_picture_from_after_follows_that_from_before(tmp_path: Path) -> None:
    round_, record = a_round(), Record(tmp_path, pictures=True)
    record.draw(round_)
    assert record.widest(round_) == 0
    record.draw_after(round_, 0, np.full((480, 640, 3), 90, np.uint8))
    record.write(round_, "scripted", {})
    (line,) = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert strict(line)["pictures"] == ["000500_detail_0.jpg", "000500_detail_0_after.jpg", "000500_detail_1.jpg"]
    after = np.asarray(Image.open(tmp_path / "000500_detail_0_after.jpg")).astype(int)
    assert abs(after[40, 40] - 90).max() < 8 and abs(after[240, 320] - 90).max() < 8  # nothing is dimmed
    assert abs(after[120:125, 300] - 90).max() > 50  # the box is outlined


def test_the_widest_view_covers_most_with_its_boxes_together() -> None:
    half, quarter = Box(0, 0, 0.5, 1, ""), Box(0, 0, 0.5, 0.5, "")
    views = [(quarter, quarter), (half,), (), (quarter,)]
    round_ = a_round()
    round_.regions = [ViewRegions(Answer("[]"), boxes) for boxes in views]
    assert Record(Path("x"), pictures=True).widest(round_) == 1
    assert Record(Path("x"), pictures=False).widest(round_) is None
    round_.regions = [ViewRegions(Answer("[]"))] * 2
    assert Record(Path("x"), pictures=True).widest(round_) is None


def test_a_round_that_was_left_out_has_a_line_with_the_reason(tmp_path: Path) -> None:
    Record(tmp_path, pictures=True).leave_out("novel", 70, "scripted", "the one before still runs")
    assert strict((tmp_path / "rounds.jsonl").read_text()) == {
        "step": 70, "phase": "novel", "backend": "scripted", "seconds": 0.0, "prompt": "", "views": [], "pictures": [],
        "selected": 0, "left_out": "the one before still runs",
    }  # fmt: skip


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be recorded .* training goes on"):
        Record(tmp_path / "file" / "guidance", pictures=True).write(a_round(), "scripted", {})


def test_a_picture_that_cannot_be_written_is_not_named_and_told_with_its_round(tmp_path: Path) -> None:
    record, round_ = Record(tmp_path, pictures=True), a_round()
    (tmp_path / "000500_detail_0.jpg").mkdir()
    record.draw(round_)  # on another thread: no warning there
    assert round_.pictures == ["000500_detail_1.jpg"]
    with pytest.warns(UserWarning, match="could not be recorded"):
        record.write(round_, "scripted", {})
    record.write(round_, "scripted", {})  # told once
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 2


def test_what_json_cannot_say_costs_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="could not be recorded"):
        Record(tmp_path, pictures=False).write(a_round(score=float("nan")), "scripted", {})
    Record(tmp_path, pictures=False).write(a_round(), "scripted", {})
    (line,) = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert strict(line)["step"] == 500


@pytest.mark.parametrize(
    "line",
    ['{"step": Infinity, "phase": "detail"}', '{"step": 1, "phase": "detail", "seconds": 1e999}', '{"step": ' + "[" * 100_000,
     '{"step": 1, "phase": "detail", "pictures": ["' + "a" * 5000 + '"]}'],
    ids=["infinite", "too large", "deep", "long name"],
)  # fmt: skip
def test_a_hostile_line_is_a_damaged_one(line: str, tmp_path: Path) -> None:
    (tmp_path / ROUNDS).write_text(line + '\n{"step": 1, "phase": "\\ud800"}\n')
    found = read_rounds(tmp_path)
    assert found.damaged == 1
    assert [one.phase for one in found.rounds] == ["?"]
