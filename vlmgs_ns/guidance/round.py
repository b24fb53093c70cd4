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
    pictures: list[str] = field(default_factory=list)
    """Files that show it, in the run's guidance folder."""

    @property
    def inverted(self) -> bool:
        """Whether what lies outside of the boxes is meant."""
        return self.phase == "background"

    @property
    def failed(self) -> bool:
        """Whether no question got a reply."""
        return self.regions is not None and all(view.failed for view in self.regions)


def read(answer: Answer, question: Question, backend: Backend) -> ViewRegions:
    """The regions that an answer names, within the limits of its phase.

    Pixels are those of the picture as the model saw it: what the answer's details hold as "seen_size", else the question's.
    """
    if answer.text is None:
        return ViewRegions(answer, notes=(answer.error or "no reply",))
    height, width = question.pictures[0].shape[:2]
    width, height = answer.details.get("seen_size", (width, height))
    reply = parse(answer.text, backend.coordinates, width, height)
    boxes, clipped = limit(reply.boxes, LIMITS[question.phase])
    notes = [f"{reply.dropped} of the boxes were not valid"] if reply.dropped else []
    return ViewRegions(answer, boxes, (*notes, *([clipped] if clipped else [])))


class Worker:
    """Runs rounds one at a time beside training."""

    def __init__(
        self, backend: Backend, memory: ReplyMemory | None = None, finish: Callable[[Round], None] | None = None
    ) -> None:
        """
        Args:
            finish: called with each round once it is answered, on the worker's thread.
        """
        self.backend = backend
        self.memory = memory
        self._finish = finish
        self._thread: threading.Thread | None = None
        self._round: Round | None = None

    @property
    def busy(self) -> bool:
        """Whether a round was begun and not yet collected."""
        return self._round is not None

    @property
    def round(self) -> Round | None:
        """The round that was begun and not yet collected."""
        return self._round

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

    def collect(self, wait: float | None = 0.0) -> Round | None:
        """The round that was begun, once it is done, for which it waits so many seconds (None: as long as it takes).

        None while it runs or where none was begun.
        """
        if self._round is None or self._thread is None:
            return None
        self._thread.join(wait)
        if self._thread.is_alive():
            return None
        done, self._round, self._thread = self._round, None, None
        return done

    def release(self) -> None:
        """Give the backend's memory back, unless a round still runs: it is a daemon, the process may end without it."""
        if not self.busy:
            self.backend.release()

    def _run(self, round_: Round) -> None:
        began = time.perf_counter()
        try:
            answers = self._ask(round_.questions)
            pairs = zip(answers, round_.questions, strict=True)
            round_.regions = [read(answer, question, self.backend) for answer, question in pairs]
        except (Exception, SystemExit) as error:  # a backend must not raise, but a run must not depend on that
            failure = Answer(None, f"{type(error).__name__}: {error}")
            round_.regions = [read(failure, question, self.backend) for question in round_.questions]
        round_.seconds = time.perf_counter() - began
        if self._finish is not None:
            self._finish(round_)

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
