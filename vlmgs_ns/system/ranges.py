"""Ranges of settings: configs annotate their numbers with what is allowed, and `check_ranges` holds every value to it."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, get_args, get_type_hints

from vlmgs_ns.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from `least` (but above it, if `above`) to `most`."""

    least: float = 0.0
    most: float = math.inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        least = f"more than {self.least:g}" if self.above else f"{self.least:g} or more"
        return least if math.isinf(self.most) else f"{least}, and at most {self.most:g}"


Fraction = Annotated[float, Range(most=1)]
Share = Annotated[float, Range(most=1, above=True)]
"""A fraction that is not 0."""
Amount = Annotated[float, Range()]
Positive = Annotated[float, Range(above=True)]
Count = Annotated[int, Range()]
Some = Annotated[int, Range(1)]
"""A count that is not 0."""


def check_ranges(config: Any, flag: str) -> None:
    """Hold the annotated fields of a config dataclass, and of those inside it, to their ranges; None is always allowed.

    Args:
        flag: what stands before a field's name on the command line, as "--pipeline.model.".

    Raises:
        InputError: a value is out of its range.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), flag + item.name.replace("_", "-")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check_ranges(value, f"{name}.")
        allowed = range_of(hints[item.name])
        if allowed is not None and value is not None and value not in allowed:
            raise InputError(f"{name} {value} is out of range; give {allowed}")


def range_of(hint: Any) -> Range | None:
    """Return the range that a type hint carries, also in a union with None."""
    marks = [mark for part in (hint, *get_args(hint)) for mark in getattr(part, "__metadata__", ())]
    return next((mark for mark in marks if isinstance(mark, Range)), None)
