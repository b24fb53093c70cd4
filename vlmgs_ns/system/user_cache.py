"""The user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """Return the folder `name` of this project in the user's cache (XDG_CACHE_HOME, else ~/.cache); not created here."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlmgs_ns" / name
