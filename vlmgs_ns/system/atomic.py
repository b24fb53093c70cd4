"""Atomic writing of files."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vlmgs_ns.system.text import format_size

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a write for which there is no room."""
ABANDONED = 600.0
"""Seconds after which a partial file that has not changed is that of a killed process."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside ``path``, with its suffix, that replaces it once the block succeeds and is removed otherwise.

    Every call has a path of its own: of several writers at once, in threads or processes, the last to finish wins.

    Raises:
        OSError: as the block does; where there is no room, its text says how much was written and how much is free.
    """
    # Shortened, so that every name a file can have has room for what is added.
    stem = os.fsdecode(os.fsencode(path.stem)[:150])
    partial = path.with_name(f".{stem}.{secrets.randbits(48)}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in FULL:
            raise
        written = partial.stat().st_size if partial.exists() else 0
        room = f"{format_size(written)} of it were written, {free_space(path)} are free"
        raise OSError(error.errno, f"{error.strerror}: {room}", str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def free_space(path: Path) -> str:
    """Return the bytes free where a path lies, in words."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return format_size(shutil.disk_usage(there).free)


def sweep(folder: Path) -> None:
    """Remove the partial files that killed processes left in a folder and below."""
    for path in folder.rglob(".*.partial*"):
        with suppress(OSError):  # another process may sweep as well
            if path.is_file() and time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
