"""Run a compiled kernel over a range on several plain threads.

The kernels release the GIL, so ordinary Python threads are enough. This avoids numba's own threading layers, whose default
aborts the process when two threads enter parallel code at once (the viewer renders beside training), and it compiles in a
third of the time. Chunks are of a fixed size, whatever the number of threads: a kernel that reduces per chunk gives the
same bits on one core and on sixty-four.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import torch

_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_pool_pid = -1


def _executor() -> ThreadPoolExecutor:
    """The shared pool; a forked child gets its own, because threads do not survive a fork."""
    global _pool, _pool_pid
    with _lock:
        if _pool is None or _pool_pid != os.getpid():
            _pool = ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="vlmgs")
            _pool_pid = os.getpid()
        return _pool


def chunk_count(count: int, grain: int) -> int:
    """Number of chunks of `grain` items that cover `count` items."""
    return -(-count // grain)


def parallel_for(kernel: Callable[..., Any], count: int, grain: int, *args: Any) -> None:
    """Call `kernel(begin, end, *args)` for each chunk of `grain` items in [0, count), on `torch.get_num_threads()` threads.

    `begin` is always a multiple of `grain`. The calling thread works too; an exception in any chunk is raised here.
    """
    chunks = chunk_count(count, grain)
    ticket = itertools.count()  # next() is atomic under the GIL: threads take chunks as they become free

    def work() -> None:
        while (chunk := next(ticket)) < chunks:
            kernel(chunk * grain, min((chunk + 1) * grain, count), *args)

    helpers = min(torch.get_num_threads(), chunks) - 1
    futures = [_executor().submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        for future in futures:
            future.result()
