"""Run a compiled kernel over a range on several plain threads.

The kernels release the GIL, so ordinary Python threads are enough. This avoids numba's own threading layers, whose default
aborts the process when two threads enter parallel code at once (the viewer renders beside training), and it compiles in a
third of the time. Chunks are of a fixed size, whatever the number of threads: a kernel that reduces per chunk gives the
same bits on one core and on sixty-four.

torch's own threads are another team: between operations they wait by spinning, on the cores that these kernels want. Where both
take turns, as in training on a CPU, give torch one thread (`torch.set_num_threads(1)`): steps are several times faster.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_pool_pid = -1
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(count: int) -> None:
    """Threads that kernels use from now on, the calling one included; at first as many as the process may use cores."""
    global _threads, _pool
    if count < 1:
        raise ValueError(f"{count} threads cannot run a kernel: give at least 1")
    with _lock:
        _threads, _pool = count, None


def get_num_threads() -> int:
    """Threads that kernels use."""
    return _threads


def _executor() -> ThreadPoolExecutor:
    """The shared pool; a forked child gets its own, because threads do not survive a fork."""
    global _pool, _pool_pid
    with _lock:
        if _pool is None or _pool_pid != os.getpid():
            _pool = ThreadPoolExecutor(max_workers=max(1, _threads - 1), thread_name_prefix="vlmgs")
            _pool_pid = os.getpid()
        return _pool


def chunk_count(count: int, grain: int) -> int:
    """Number of chunks of `grain` items that cover `count` items."""
    return -(-count // grain)


def parallel_for(kernel: Callable[..., Any], count: int, grain: int, *args: Any) -> None:
    """Call `kernel(begin, end, *args)` for each chunk of `grain` items in [0, count), on `get_num_threads()` threads.

    `begin` is always a multiple of `grain`. The calling thread works too; an exception in any chunk is raised here.
    """
    chunks = chunk_count(count, grain)
    ticket = itertools.count()  # next() is atomic under the GIL: threads take chunks as they become free

    def work() -> None:
        while (chunk := next(ticket)) < chunks:
            kernel(chunk * grain, min((chunk + 1) * grain, count), *args)

    helpers = min(_threads, chunks) - 1
    futures = [_executor().submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        for future in futures:
            future.result()
