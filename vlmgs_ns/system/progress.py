"""Progress of long work: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vlmgs_ns.system.text import printable

Report = Callable[..., None]
"""Called with the units done so far and optionally a note about them."""


def say(text: str, style: str = "") -> None:
    """Print ``text`` as it is: paths and commands are neither wrapped nor read as markup, so that they can be copied."""
    Console().print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(label: str, total: int, console: Console | None = None, seconds_between_lines: float = 10.0) -> Iterator[Report]:
    """Show progress through ``total`` units until the block ends.

    Args:
        label: name of the work.
        total: units of work.
        console: where to show it; the standard output by default.
        seconds_between_lines: least time between two lines where the console is not a terminal.

    Yields:
        ``report(done, note="")``.
    """
    console = console or Console()
    if console.is_terminal:
        yield from _bar(label, total, console)
    else:
        yield from _lines(label, total, console, seconds_between_lines)


def _bar(label: str, total: int, console: Console) -> Iterator[Report]:
    columns = (
        *(TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn(compact=True), TextColumn("{task.fields[note]}", style="dim", markup=False)),
    )
    with Progress(*columns, console=console) as shown:
        task = shown.add_task(label, total=total, note="")
        yield lambda done, note="": shown.update(task, completed=done, note=note)


def _lines(label: str, total: int, console: Console, seconds_between_lines: float) -> Iterator[Report]:
    start = last = time.monotonic()

    def report(done: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < seconds_between_lines:
            return
        last = now
        left = (now - start) * (total / done - 1) if done else 0.0
        about = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        line = (
            f"{label} {done}/{total}, {now - start:.0f} s{', ' + note if note else ''}{f', about {about} left' if left else ''}"
        )
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield report
