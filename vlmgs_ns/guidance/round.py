"""One round: questions go to a backend on a worker thread, answers become regions within their phase's limits.

Nothing here raises while training runs. A reply that is late, broken or missing selects nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vlmgs_ns.guidance.memory import ReplyMemory
from vlmgs_ns.guidance.question import Answer, Backend, Phase, Question
from vlmgs_ns.guidance.regions import LIMITS, limit
from vlmgs_ns.guidance.reply import Box, parse


@dataclass(frozen=True)
class ViewRegions:
    """What was made of one answer."""

    answer: Answer
    boxes: tuple[Box, ...] = ()
    """Valid boxes within the phase's limits; empty where the backend failed or saw nothing."""
    notes: tuple[str, ...] = ()
    """What was wrong with the reply, and what was clipped."""

    @property
    def failed(self) -> bool:
        """Whether there was no reply, as opposed to one that names no region."""
        return self.answer.text is None


@dataclass
class Round:
    """A round that was begun at `step`; `regions` once it is done, one per question."""

    phase: Phase
    step: int
    questions: list[Question]
    views: list[Any] = field(default_factory=list)
    """Whatever the caller needs to find each question's view again."""
    regions: list[ViewRegions] | None = None
    seconds: float = 0.0
    """How long the backend took."""

    @property
    def failed(self) -> bool:
        """Whether no question got a reply."""
        return self.regions is not None and all(view.failed for view in self.regions)


def read(answer: Answer, question: Question, backend: Backend) -> ViewRegions:
    """The regions that an answer names, within the limits of its phase."""
    if answer.text is None:
        return ViewRegions(answer, notes=(answer.error or "no reply",))
    height, width = question.pictures[0].shape[:2]
    reply = parse(answer.text, backend.coordinates, width, height)
    boxes, clipped = limit(reply.boxes, LIMITS[question.phase])
    notes = [f"{reply.dropped} of the boxes were not valid"] if reply.dropped else []
    return ViewRegions(answer, boxes, (*notes, *([clipped] if clipped else [])))


class Worker:
    """Runs rounds one at a time beside training."""

    def __init__(self, backend: Backend, memory: ReplyMemory | None = None) -> None:
        self.backend = backend
        self.memory = memory
        self._thread: threading.Thread | None = None
        self._round: Round | None = None

    @property
    def busy(self) -> bool:
        """Whether a round was begun and not yet collected."""
        return self._round is not None

    def begin(self, round_: Round) -> None:
        """Ask, and return at once.

        Raises:
            RuntimeError: the round before was not collected.
        """
        if self.busy:
            raise RuntimeError("a round is still running: collect it before the next begins")
        self._round = round_
        self._thread = threading.Thread(target=self._run, args=(round_,), daemon=True, name="guidance")
        self._thread.start()

    def collect(self, wait: bool = False) -> Round | None:
        """The round that was begun, once it is done; None while it runs or where none was begun."""
        if self._round is None or self._thread is None:
            return None
        if wait:
            self._thread.join()
        if self._thread.is_alive():
            return None
        done, self._round, self._thread = self._round, None, None
        return done

    def release(self, timeout: float = 5.0) -> None:
        """Give the backend's memory back, after a short wait for a round that still runs; its answer is dropped."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return  # a daemon: the process may end without it
        self._round = self._thread = None
        self.backend.release()

    def _run(self, round_: Round) -> None:
        began = time.perf_counter()
        try:
            answers = self._ask(round_.questions)
        except Exception as error:  # a backend must not raise, but a run must not depend on that
            answers = [Answer(None, f"{type(error).__name__}: {error}")] * len(round_.questions)
        regions = []
        for answer, question in zip(answers, round_.questions, strict=True):
            regions.append(read(answer, question, self.backend))
        round_.seconds = time.perf_counter() - began
        round_.regions = regions

    def _ask(self, questions: list[Question]) -> list[Answer]:
        """Answers from memory where it has them, else from the backend."""
        ask: Callable[[list[Question]], list[Answer]] = self.backend.ask
        memory = self.memory
        known = [None if memory is None else memory.recall(self.backend, question) for question in questions]
        asked = [question for question, answer in zip(questions, known, strict=True) if answer is None]
        fresh = ask(asked) if asked else []
        if len(fresh) != len(asked):
            raise RuntimeError(f"{len(fresh)} answers to {len(asked)} questions")
        if memory is not None:
            for question, answer in zip(asked, fresh, strict=True):
                memory.keep(self.backend, question, answer)
        rest = iter(fresh)
        return [next(rest) if answer is None else answer for answer in known]
