"""The numbers that a run wrote for TensorBoard."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Curve:
    """One scalar over the iterations of a run."""

    steps: tuple[int, ...]
    values: tuple[float, ...]
    seconds: tuple[float, ...]
    """When each was written, on the clock (since 1970)."""

    def __len__(self) -> int:
        return len(self.steps)


def read_curves(run: Path) -> dict[str, Curve]:
    """Return every scalar of a run's event files by its tag; empty where there are none, or none can be read.

    Values that are not finite are left out, and tags that have no others.
    """
    if not any(run.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # A run that was killed ends in half a record: all before it counts, without a warning.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 1, "images": 1, "histograms": 1})
    try:
        events.Reload()
    except (OSError, ValueError):
        return {}
    curves = {}
    for tag in events.Tags()["scalars"]:
        rows = [event for event in events.Scalars(tag) if abs(event.value) < float("inf")]
        if rows:
            curves[tag] = Curve(
                tuple(row.step for row in rows), tuple(float(row.value) for row in rows), tuple(row.wall_time for row in rows)
            )
    return curves
