"""Compilation of the CPU kernels, with a message where it takes time.

Every kernel has an explicit signature, so importing its module compiles it (or loads it from numba's cache on disk), and an
argument of the wrong type is an error instead of a second compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from numba import njit

from vlmgs_ns.system.progress import say

# No "nnan"/"ninf": inputs are checked, but a kernel must not be undefined on what slips through.
_FASTMATH = {"contract", "nsz", "arcp", "reassoc", "afn"}


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile eagerly for `signature`, cached on disk, without the GIL."""
    return njit(signature, nogil=True, cache=True, error_model="numpy", fastmath=_FASTMATH)


def device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function inlined into kernels of the same file only: numba's cache watches one file per kernel.

    Inlined by numba, before LLVM sees it: inlined later, loops over pixels are no longer vectorised (measured: 2x slower).
    """
    return njit(function, inline="always", error_model="numpy", fastmath=_FASTMATH)


@contextmanager
def announce_compilation(seconds: float = 2.0) -> Iterator[None]:
    """Say that kernels are being compiled, if the block takes longer than `seconds`: from the cache it never does."""
    timer = Timer(seconds, say, ["Compiling the CPU kernels (once; kept on disk for the next run) ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
