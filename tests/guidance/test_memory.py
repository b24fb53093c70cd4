"""Replies on disk: found again for the same question to the same model, and for no other."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.guidance.small_world import Scripted, says
from vlmgs_ns.guidance.memory import ReplyMemory
from vlmgs_ns.guidance.question import Answer, Evidence, Question
from vlmgs_ns.guidance.round import read

PICTURE = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
QUESTION = Question("detail", "where?", (PICTURE,))
BACKEND = Scripted(says(None))
REPLY = Answer("[[1, 2, 3, 4]] ü 猫", details={"seen_size": [20, 16], "finish_reason": "stop"})


def test_a_reply_is_found_again_with_all_its_details(tmp_path: Path) -> None:
    ReplyMemory(tmp_path / "deep" / "folder").keep(BACKEND, QUESTION, REPLY)
    found = ReplyMemory(tmp_path / "deep" / "folder").recall(BACKEND, replace(QUESTION, pictures=(PICTURE.copy(),)))
    assert found is not None and (found.text, found.error) == (REPLY.text, None)
    assert found.details == {**REPLY.details, "remembered": True}
    assert [path.suffix for path in (tmp_path / "deep" / "folder").iterdir()] == [".json"]  # no partial file is left


def test_a_remembered_reply_in_pixels_means_the_same_region(tmp_path: Path) -> None:
    pixels = Scripted(says(None), coordinates="pixels")
    memory = ReplyMemory(tmp_path)
    memory.keep(pixels, QUESTION, REPLY)
    found = memory.recall(pixels, QUESTION)
    assert found is not None
    assert read(found, QUESTION, pixels).boxes == read(REPLY, QUESTION, pixels).boxes != ()


def test_another_question_or_model_is_not_answered(tmp_path: Path) -> None:
    memory = ReplyMemory(tmp_path)
    memory.keep(BACKEND, QUESTION, REPLY)
    changed = PICTURE.copy()
    changed[3, 4, 2] += 1
    others = [
        replace(QUESTION, prompt="where!"),
        replace(QUESTION, phase="novel"),
        replace(QUESTION, pictures=(changed,)),
        replace(QUESTION, pictures=(PICTURE.reshape(5, 4, 3),)),
        replace(QUESTION, pictures=(PICTURE, PICTURE)),
    ]
    assert all(memory.recall(BACKEND, other) is None for other in others)
    assert memory.recall(Scripted(says(None), fingerprint="scripted 2"), QUESTION) is None
    assert memory.recall(Scripted(says(None), coordinates="pixels"), QUESTION) is None
    assert memory.recall(BACKEND, replace(QUESTION, evidence=Evidence(subject=(0.5, 0.5)))) is not None


def test_failures_are_not_kept(tmp_path: Path) -> None:
    memory = ReplyMemory(tmp_path / "folder")
    memory.keep(BACKEND, QUESTION, Answer(None, "no server"))
    assert memory.recall(BACKEND, QUESTION) is None and not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b'{"text": "[[1, 2', b"\xff\xfe", b"[]", b'{"text": 5, "details": {}}', b'{"text": "[]"}', b"[" * 100_000],
)
def test_a_damaged_file_is_discarded_with_a_warning_and_asked_for_again(tmp_path: Path, content: bytes) -> None:
    memory = ReplyMemory(tmp_path)
    memory.keep(BACKEND, QUESTION, REPLY)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged .* asked for again"):
        assert memory.recall(BACKEND, QUESTION) is None
    assert not path.exists()
    memory.keep(BACKEND, QUESTION, REPLY)
    assert memory.recall(BACKEND, QUESTION) is not None


def test_a_folder_that_cannot_be_used_costs_a_warning(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    memory = ReplyMemory(blocked / "replies")
    with pytest.warns(UserWarning, match="cannot be kept"):
        memory.keep(BACKEND, QUESTION, REPLY)
    with pytest.warns(UserWarning, match="damaged"):  # it is no folder: reading fails, and so does discarding
        assert memory.recall(BACKEND, QUESTION) is None
    memory = ReplyMemory(tmp_path)
    with pytest.warns(UserWarning, match="cannot be kept"):
        memory.keep(BACKEND, QUESTION, replace(REPLY, details={"odd": object()}))
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_kept_can_be_read_by_people(tmp_path: Path) -> None:
    ReplyMemory(tmp_path).keep(BACKEND, QUESTION, REPLY)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == {"backend": "scripted", "text": REPLY.text, "details": REPLY.details}
