"""Where tasks are carried out: the interface that processes of this machine and a cluster both have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import Report

Progress = Callable[[int, int], None]
"""Called with an item's index and how far it is."""
Function = Callable[[Any, Report], Any]
"""A function of a module, given one item and where to report how far it is."""


@dataclass(frozen=True)
class Outcome:
    """Result of a task, or the reason why it has none."""

    value: Any = None
    error: str = ""
    """Why there is no value; empty where there is one."""
    trace: str = ""
    """Where it happened, for developers; empty where the user can mend it."""


class Executor(Protocol):
    """Carries out a function on items, several at a time."""

    def execute(
        self, function: Function, items: Sequence[Any], progress: Progress, *, alone: bool = True
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield index and outcome of each item, as they end. A task that fails or dies is an outcome, never an exception.

        Args:
            function: what to do.
            items: one for each task.
            progress: called as tasks report how far they are.
            alone: each task has a process of its own. False where tasks leave no state behind: where a process takes long to
                start, several tasks may then share one, also with the next that is alone.
        """
        ...

    def describe(self) -> str:
        """Return one line that says where."""
        ...

    def close(self) -> None:
        """Let go of everything that was started."""
        ...


def guarded(function: Function, item: Any, report: Report) -> Outcome:
    """Return the outcome of a function, its exceptions included."""
    import traceback

    try:
        return Outcome(function(item, report))
    except InputError as error:
        return Outcome(error=str(error).removeprefix("Error: "))
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())
