"""Schedules relative to the length of a run.

A schedule value is either a whole number of iterations or a fraction of the run: ``500`` is iteration 500 of any run, ``0.025``
is iteration 500 of 20,000 and 38 of 1,500. Configs annotate such fields with ``Steps``; ``resolve`` is the one place that turns
them into iterations.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypeVar, get_type_hints

from vlmgs_ns.system.errors import InputError

Steps = Annotated[int | float, "iterations, or a fraction of the run"]
"""An int counts iterations; a float in [0, 1] is a fraction of the run."""

C = TypeVar("C")


def steps(value: int | float, run_length: int) -> int:
    """Convert ``value`` to iterations of a run of ``run_length`` iterations.

    A fraction above 0 gives at least 1, so that "every so often" never becomes "every 0 iterations".

    Raises:
        ValueError: the value is negative, or a fraction above 1.
    """
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} iterations: a schedule cannot be negative; give 0 or more, or a fraction of the run")
        return value
    if not 0.0 <= value <= 1.0:
        raise ValueError(
            f"{value} is not a fraction of the run: give a whole number of iterations, or a fraction between 0.0 and 1.0"
        )
    return max(1, round(value * run_length)) if value > 0 else 0


def resolve(config: C, run_length: int, path: str = "") -> C:
    """Return a copy of a config dataclass in which every ``Steps`` field, at any depth of nested dataclasses, counts iterations.

    Raises:
        InputError: a value is out of range; `path` stands before the field's name.
        ValueError: the run has no iterations.
    """
    if run_length < 1:
        raise ValueError(f"a run of {run_length} iterations has no schedule; give --max-num-iterations 1 or more")
    hints = get_type_hints(type(config), include_extras=True)
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if hints[item.name] == Steps:
            try:
                changes[item.name] = steps(value, run_length)
            except ValueError as error:
                raise InputError(f"{path}{item.name}: {error}") from None
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[item.name] = resolve(value, run_length, f"{path}{item.name}.")
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]
