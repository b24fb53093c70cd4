"""What a run took: seconds of its stages, and bytes of what it left on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmgs_ns.guidance.record import Rounds
from vlmgs_ns.method.checkpoint import newest
from vlmgs_ns.pages.curves import Curve
from vlmgs_ns.semantics.cache import caches_of
from vlmgs_ns.system.json_text import parse_json

TOTAL = "Train Total (time)"
"""nerfstudio's tag for the seconds of a training that came to its end."""


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one run; None for what it did not record."""

    training: float | None
    """Seconds of the iterations, without the semantic stage."""
    guidance: float
    """Seconds until the backend's replies came; training may have gone on meanwhile."""
    semantics: float | None
    checkpoint: int
    """Bytes of the newest."""
    cache: int
    """Bytes of the feature maps kept for the scene, of all its runs."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a run's JSON file; empty where there is none or it is damaged."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def costs_of(run: Path, data: Path, curves: Mapping[str, Curve], rounds: Rounds) -> Costs:
    """Return what a run took, as far as its folder records it."""
    stages = read_json(run / "semantics.json").get("seconds")
    return Costs(
        _training(curves),
        sum(one.seconds for one in rounds.rounds),
        sum(float(value) for value in stages.values()) if isinstance(stages, dict) else None,
        newest(run / "nerfstudio_models").stat().st_size,
        sum(cache.size() for cache in caches_of(data)) if data.exists() else 0,
    )


def _training(curves: Mapping[str, Curve]) -> float | None:
    if TOTAL in curves:
        return curves[TOTAL].values[-1]
    loss = curves.get("Train Loss")  # of a run that was stopped
    return None if loss is None or len(loss) < 2 else loss.seconds[-1] - loss.seconds[0]
