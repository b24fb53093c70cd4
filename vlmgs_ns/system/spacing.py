"""A few of many, evenly spread."""

from __future__ import annotations

import numpy as np


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return indices of at most so many of ``count`` things, the first and the last among them."""
    return sorted({round(float(k)) for k in np.linspace(0, count - 1, min(count, most))}) if count else []
