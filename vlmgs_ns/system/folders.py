"""Folders that commands write to, looked at before anything slow begins."""

from __future__ import annotations

import os
from pathlib import Path

from vlmgs_ns.system.errors import InputError


def check_folder(out: Path) -> None:
    """Refuse a folder that nothing can be written to.

    Raises:
        InputError: it, or the folder that it would be made in, is a file or not writable.
    """
    place = out.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{place} is a file, where a folder is to be written; choose another")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{place} cannot be written to; choose another folder")
