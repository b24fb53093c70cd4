"""Atomic writing of files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside ``path``, with its suffix, that replaces it once the block succeeds and is removed otherwise.

    Every call has a path of its own: of several writers at once, in threads or processes, the last to finish wins.
    """
    partial = path.with_name(f".{path.stem}.{secrets.randbits(48)}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
