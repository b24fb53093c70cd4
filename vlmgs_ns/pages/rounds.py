"""Phases of guidance in words, and which rounds' pictures the report shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmgs_ns.guidance.record import RecordedRound

PHASES = {
    "detail": "regions that begin to show detail",
    "background": "everything but the main subject, which the box leaves out",
    "novel": "what looks wrong from viewpoints of which there is no photo",
    "compare": "where render and photo differ most",
}
"""What each phase of guidance asks for."""
MOST_PICTURES = 120
"""On the page; those of more rounds stay in the run's folder."""


def pictures_on_page(rounds: Sequence[RecordedRound]) -> set[Path]:
    """Return the pictures that a page has room for: those of the first and last round of each phase come first."""
    by_phase = [[one for one in rounds if one.phase == phase] for phase in dict.fromkeys(one.phase for one in rounds)]
    ends = {id(end) for of_phase in by_phase for end in (of_phase[0], of_phase[-1])}
    ordered = sorted(rounds, key=lambda one: id(one) not in ends)
    return set([path for one in ordered for path in one.pictures][:MOST_PICTURES])
