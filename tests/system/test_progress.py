"""Progress is a bar on a terminal and sparse lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar, say


def shown(terminal: bool, seconds_between_lines: float = 10.0) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with bar("Painting", 4, console, seconds_between_lines) as report:
        for done in range(1, 5):
            report(done, f"{done * 1000:,} [dots]")
    return out.getvalue()


def test_lines_outside_a_terminal_are_few_and_plain() -> None:
    assert shown(False) == "Painting 4/4, 0 s, 4,000 [dots]\n"


def test_lines_come_as_often_as_asked_for() -> None:
    assert [line.partition(",")[0] for line in shown(False, 0.0).splitlines()] == [f"Painting {k}/4" for k in range(1, 5)]


def test_lines_say_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 30.0, 60.0, 90.0, 3600.0])
    monkeypatch.setattr("vlmgs_ns.system.progress.time.monotonic", lambda: next(ticks))
    said = [line.rpartition("[dots]")[2] for line in shown(False).splitlines()]
    assert said == [", about 90 s left", ", about 60 s left", ", about 30 s left", ""]


def test_a_terminal_gets_a_bar_with_the_note() -> None:
    text = shown(True)
    assert "Painting" in text and "━" in text and "4/4" in text and "4,000 [dots]" in text


def test_names_are_printed_as_they_are_but_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("outputs/[red]room[/red]/[/nothing] \x1b[31m\x07 \udcff\nnext", "yellow")
    assert capsys.readouterr().out == "outputs/[red]room[/red]/[/nothing]  [31m   \nnext\n"
    assert str(InputError("no \x1b]0;title\x07 \ud800")) == "Error: no  ]0;title   "
