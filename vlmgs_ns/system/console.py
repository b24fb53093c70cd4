"""Standard output reserved for one answer; all other output goes to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def kept_for_answer() -> Iterator[Callable[[str], None]]:
    """Send everything printed in the block to standard error, also by libraries in C and child processes.

    Yields:
        ``answer(text)``, which writes a line to the real standard output.

    Raises:
        BrokenPipeError: by ``answer``, where the reader of a pipe has closed it.
    """
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)

    def answer(text: str) -> None:
        rest = memoryview(f"{text}\n".encode())
        while rest:
            rest = rest[os.write(real, rest) :]

    try:
        # Python's own stream may be another than descriptor 1.
        with redirect_stdout(sys.stderr):
            yield answer
    finally:
        os.dup2(real, 1)
        os.close(real)
