"""Where output goes: standard output kept for one answer, or what a library writes to standard error kept in a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path


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


@contextmanager
def errors_to_file(path: Path) -> Iterator[None]:
    """Append what is written to standard error in the block to a file, also by libraries in C, which know no other silence."""
    sys.stderr.flush()
    real = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        os.close(real)
