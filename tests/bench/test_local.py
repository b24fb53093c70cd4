"""Tasks in real processes: outcomes of those that end well, raise, exit or are killed; none outlives who ordered it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vlmgs_ns.bench import local
from vlmgs_ns.bench.executor import Outcome
from vlmgs_ns.bench.local import LocalExecutor
from vlmgs_ns.system.errors import InputError

Tell = Callable[[int], None]


def square(item: int, tell: Tell) -> int:
    tell(1)
    return item * item


def fails(item: str, tell: Tell) -> None:
    if item == "input":
        raise InputError("the value is bad; give another")
    if item == "bug":
        raise KeyError("hidden")
    if item == "exit":
        raise SystemExit(3)
    os.kill(os.getpid(), getattr(signal, item))


def own_process(item: int, tell: Tell) -> int:
    return os.getpid()


def waits(item: str, tell: Tell) -> None:
    Path(item).write_text(str(os.getpid()))
    time.sleep(300)


@pytest.fixture(autouse=True)
def no_preload(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tasks need nothing of nerfstudio."""
    monkeypatch.setattr(local, "PRELOAD", [])


def outcomes(executor: LocalExecutor, function: Any, items: list[Any]) -> dict[int, Outcome]:
    return dict(executor.execute(function, items, lambda index, done: None))


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_item_has_its_outcome(jobs: int) -> None:
    told: list[tuple[int, int]] = []
    found = dict(LocalExecutor(jobs).execute(square, [2, 3, 4, 5], lambda index, done: told.append((index, done))))
    assert {index: outcome.value for index, outcome in found.items()} == {0: 4, 1: 9, 2: 16, 3: 25}
    assert sorted(told) == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert outcomes(LocalExecutor(jobs), square, []) == {}


def test_each_has_a_process_of_its_own() -> None:
    found = {outcome.value for outcome in outcomes(LocalExecutor(1), own_process, [0, 1]).values()}
    assert len(found) == 2 and os.getpid() not in found


def test_one_that_fails_is_an_outcome_and_the_others_go_on() -> None:
    found = outcomes(LocalExecutor(2), fails, ["input", "bug", "exit", "SIGKILL", "SIGSEGV"])
    errors = {index: outcome.error for index, outcome in found.items()}
    assert errors[0] == "the value is bad; give another" and not found[0].trace
    assert errors[1] == "KeyError: 'hidden'" and "raise KeyError" in found[1].trace
    assert errors[2] == "its process ended with status 3 before it was done"
    assert errors[3] == "its process was killed (SIGKILL; out of memory, or killed by a user)"
    assert errors[4] == "its process was killed (SIGSEGV)"


def test_tasks_end_with_who_no_longer_wants_them(tmp_path: Path) -> None:
    outcomes_of = LocalExecutor(2).execute(either, [str(tmp_path / "pid"), "soon"], lambda index, done: None)
    index, _ = next(outcomes_of)
    assert index == 1
    pid = int(wait_for(tmp_path / "pid"))
    assert isinstance(outcomes_of, Iterator)
    outcomes_of.close()  # type: ignore[attr-defined]
    assert gone(pid)


def either(item: str, tell: Tell) -> None:
    if item != "soon":
        waits(item, tell)
    time.sleep(1)


def test_tasks_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    program = (
        "from tests.bench.test_local import waits\n"
        "from vlmgs_ns.bench import local\n"
        "local.PRELOAD = []\n"
        "if __name__ == '__main__':\n"
        f"    items = [{str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}]\n"
        "    list(local.LocalExecutor(2).execute(waits, items, lambda index, done: None))\n"
    )
    (tmp_path / "order.py").write_text(program)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(tmp_path / "order.py")], env=env)
    pids = [int(wait_for(tmp_path / name)) for name in "ab"]
    process.kill()
    process.wait()
    assert all(gone(pid) for pid in pids)


def wait_for(path: Path) -> str:
    for _ in range(1200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise TimeoutError(path)


def gone(pid: int) -> bool:
    """Whether a process ends within a minute."""
    for _ in range(1200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False
