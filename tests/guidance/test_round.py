"""A round on its thread: late, broken and missing replies select nothing, and nothing raises."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.guidance.small_world import Scripted, says
from vlmgs_ns.guidance.memory import ReplyMemory
from vlmgs_ns.guidance.question import Answer, Phase, Question
from vlmgs_ns.guidance.round import Round, Worker, read


def question(value: int = 0, phase: Phase = "detail") -> Question:
    return Question(phase, "where?", (np.full((30, 40, 3), value, np.uint8),))


def run(backend: Scripted, questions: int = 2, memory: ReplyMemory | None = None) -> Round:
    worker = Worker(backend, memory)
    worker.begin(Round("detail", 7, [question(k) for k in range(questions)]))
    done = worker.collect(wait=10)
    assert done is not None and done.regions is not None and len(done.regions) == questions and not worker.busy
    return done


def test_an_answer_becomes_boxes_within_the_limits_of_its_phase() -> None:
    text = '[{"bbox_2d": [0, 0, 1000, 1000], "label": "all"}, [1, 2, 3]]'
    regions = read(Answer(text), question(phase="background"), Scripted(says(None)))
    (box,) = regions.boxes
    assert (box.right - box.left) * (box.bottom - box.top) == pytest.approx(0.5) and not regions.failed
    assert regions.notes == ("1 of the boxes were not valid", "1 box shrunk to 0.5 of the picture")


def test_pixels_are_those_that_the_model_saw() -> None:
    """The question's picture has 40 x 30 pixels; a model that shrank it to 20 x 15 counts those."""
    backend = Scripted(says(None), coordinates="pixels")
    text = '[{"bbox_2d": [5, 3, 10, 6]}]'
    assert read(Answer(text), question(), backend).boxes[0][:4] == (0.125, 0.1, 0.25, 0.2)
    assert read(Answer(text, details={"seen_size": [20, 15]}), question(), backend).boxes[0][:4] == (0.25, 0.2, 0.5, 0.4)


def test_no_reply_is_a_failure_and_a_reply_without_boxes_is_none() -> None:
    failed, empty = (read(answer, question(), Scripted(says(None))) for answer in (Answer(None, "too slow"), Answer("[]")))
    assert failed.failed and failed.notes == ("too slow",) and failed.boxes == ()
    assert not empty.failed and empty.boxes == ()
    assert read(Answer(None), question(), Scripted(says(None))).notes == ("no reply",)


def test_training_goes_on_while_a_backend_thinks() -> None:
    event = threading.Event()

    def think(questions: Any) -> list[Answer]:
        assert event.wait(10)
        return [Answer('[{"bbox_2d": [0, 0, 500, 500]}]') for _ in questions]

    backend = Scripted(think)
    worker = Worker(backend)
    assert worker.collect() is None and not worker.busy
    worker.begin(Round("detail", 0, [question()]))
    for _ in range(5):
        assert worker.busy and worker.collect() is None
    assert worker.collect(wait=0.05) is None
    with pytest.raises(RuntimeError, match="still running"):
        worker.begin(Round("detail", 1, [question()]))
    worker.release()
    assert backend.released == 0  # it still needs its memory
    event.set()
    done = worker.collect(wait=None)
    assert done is not None and done.regions is not None and len(done.regions[0].boxes) == 1 and done.seconds > 0
    assert worker.collect(wait=None) is None
    worker.release()
    assert backend.released == 1


def raises(error: BaseException) -> Any:
    def script(questions: Any) -> Any:
        raise error

    return script


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (says(None), "on fire"),
        (raises(RuntimeError("out of memory")), "RuntimeError: out of memory"),
        (raises(SystemExit("bye")), "SystemExit: bye"),
        (lambda questions: [Answer("[]")], "1 answers to 2 questions"),
        (lambda questions: [Answer("[]")] * 3, "3 answers to 2 questions"),
        (lambda questions: None, "TypeError"),
        (lambda questions: ["[]"] * 2, "AttributeError"),
        (lambda questions: [Answer(b"[]")] * 2, "TypeError"),  # type: ignore[arg-type]
        (lambda questions: [Answer("[[1, 2, 3, 4]]", details={"seen_size": "large"})] * 2, "ValueError"),
    ],
)
def test_a_broken_backend_fails_the_round_and_says_why(script: Any, reason: str) -> None:
    done = run(Scripted(script, coordinates="pixels"))
    assert done.failed and done.regions is not None
    assert all(reason in view.notes[0] and view.boxes == () for view in done.regions)


def test_babble_is_a_reply_that_names_nothing() -> None:
    done = run(Scripted(says("I see \x00 [1, 2, {{ ]]")))
    assert not done.failed and all(view.boxes == () for view in done.regions or [])


def test_one_question_that_fails_does_not_cost_the_others() -> None:
    script = lambda questions: [Answer(None, "blurred"), Answer("[[0, 0, 500, 500]]")]  # noqa: E731
    done = run(Scripted(script))
    assert not done.failed and [view.failed for view in done.regions or []] == [True, False]


def test_only_what_is_not_remembered_is_asked_and_answers_stay_in_order(tmp_path: Path) -> None:
    memory = ReplyMemory(tmp_path)
    known = Scripted(says(None))
    memory.keep(known, question(1), Answer('[{"bbox_2d": [0, 0, 100, 100], "label": "old"}]'))
    backend = Scripted(
        lambda questions: [Answer(f'[{{"bbox_2d": [0, 0, 9, 9], "label": "{q.pictures[0][0, 0, 0]}"}}]') for q in questions]
    )
    done = run(backend, 3, memory)
    assert [view.boxes[0].label for view in done.regions or []] == ["0", "old", "2"]
    assert [len(questions) for questions in backend.asked] == [2]
    run(backend, 3, memory)
    assert len(backend.asked) == 1  # nothing was left to ask
