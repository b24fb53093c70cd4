"""Results on disk: one file for each run, by its address, and all runs of a plan as lines of one file.

OUT/runs/<address>.json   what a run found, or why it did not; written once, whole
OUT/runs/<address>.log    what it printed
OUT/results.jsonl         a line per run of the plan, also of those that failed or have not begun
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmgs_ns.bench.plan import Run
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder
from vlmgs_ns.system.json_text import parse_json

Row = dict[str, Any]
"""A run's names, ``status`` (done, failed, missing or waiting), ``error``, and where it is done what was found."""


class Results:
    """The results in the folder of a benchmark."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def path(self, run: Run) -> Path:
        """Return the file of a run's result, whether it exists or not."""
        return self.out / "runs" / f"{run.address}.json"

    def find(self, run: Run) -> Row | None:
        """Return the result of a run; None where there is none, or a damaged file."""
        try:
            found = parse_json(self.path(run).read_text(encoding="utf-8"), finite=False)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "status" in found else None

    def done(self, run: Run) -> bool:
        """Return whether the run has its result."""
        found = self.find(run)
        return found is not None and found["status"] == "done"

    def keep(self, run: Run, content: Row) -> None:
        """Write what came of a run."""
        _write(self.path(run), json.dumps(content, ensure_ascii=False) + "\n")

    def row(self, run: Run) -> Row:
        """Return a run's names with what is known of it."""
        names = {"scene": run.scene, "method": run.method, "start": run.start, "seed": run.seed}
        if run.problem:
            return {**names, "status": "missing", "error": run.problem, "address": run.address}
        found = self.find(run) or {"status": "waiting", "error": "not run yet"}
        return {**names, **found, "address": run.address, "settings": dict(run.settings)}

    def write_lines(self, runs: Sequence[Run]) -> list[Row]:
        """Write results.jsonl and return its rows."""
        rows = [self.row(run) for run in runs]
        _write(self.out / "results.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return rows


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Be the only benchmark that works in a folder; let go when this process ends, however it does.

    Raises:
        InputError: another one is at work in it.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another benchmark is at work in {out}; wait for it, or give --out another folder") from None
        yield


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a benchmark, given by its folder or its results.jsonl.

    Raises:
        InputError: there are none, or they are damaged.
    """
    file = path / "results.jsonl" if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        rows = [parse_json(line, finite=False) for line in lines]
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}. Give the folder that vlmgs bench wrote.") from None
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}. Run vlmgs bench again, which rewrites it.") from None
    needed = {"scene", "method", "start", "seed", "status"}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or needed - row.keys():
            raise InputError(f"{file}: line {number} is not a run of a benchmark. Give the results.jsonl that vlmgs bench wrote.")
    return rows


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
