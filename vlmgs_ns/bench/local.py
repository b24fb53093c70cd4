"""Tasks in processes of this machine, each in its own, forked from one that has imported what they need.

A process ends with the one that ordered it, however that dies: nothing is left running.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from vlmgs_ns.bench.executor import Function, Outcome, Progress, guarded

PRELOAD = ["nerfstudio.scripts.train", "vlmgs_ns.config", "vlmgs_ns.bench.measure", "vlmgs_ns.evaluation.trained"]
SECONDS_BETWEEN_REPORTS = 0.5


class LocalExecutor:
    """`jobs` processes at a time."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        # torch's OpenMP threads would spin after each operation and take the cores from the rasteriser's.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Asking the CUDA driver whether there is a device would spoil it for every process forked afterwards.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
        # What libraries deprecate is news for their developers.
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def describe(self) -> str:
        """Return one line that says where."""
        return f"on this machine, {self.jobs} at a time"

    def close(self) -> None:
        """Nothing is left to let go of."""

    def execute(
        self, function: Function, items: Sequence[Any], progress: Progress, *, alone: bool = True
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield index and outcome of each item, as they end; each is alone, since a fork costs next to nothing."""
        waiting = list(enumerate(items))
        running: dict[Connection, tuple[int, Any]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    index, item = waiting.pop(0)
                    ours, theirs = self._context.Pipe(duplex=False)
                    process = self._context.Process(target=_work, args=(function, item, theirs))
                    process.start()
                    theirs.close()
                    running[ours] = index, process
                for ready in wait(list(running)):
                    assert isinstance(ready, Connection)
                    index, process = running[ready]
                    try:
                        message = ready.recv()
                    except EOFError:
                        process.join()
                        message = Outcome(error=_death(process.exitcode))
                    if isinstance(message, int):
                        progress(index, message)
                        continue
                    del running[ready]
                    ready.close()
                    process.join()
                    yield index, message
        finally:
            for _, process in running.values():
                process.kill()
            for _, process in running.values():
                process.join()


def _work(function: Function, item: Any, connection: Connection) -> None:
    """Carry out a task in the new process."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    last = 0.0

    def report(done: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            connection.send(done)

    connection.send(guarded(function, item, report))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _death(status: int | None) -> str:
    if status is None or status >= 0:
        return f"its process ended with status {status} before it was done"
    name = signal.Signals(-status).name
    hint = "; out of memory, or killed by a user" if name == "SIGKILL" else ""
    return f"its process was killed ({name}{hint})"
