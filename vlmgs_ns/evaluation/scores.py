"""Scores of a protocol on one scene: a row per (view, phrase) pair, and their means over pairs, views and phrases.

Figures of two protocols, or of one with two settings, are never put together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmgs_ns.system.atomic import replacing

Scores = dict[str, float]
Setting = str | int | float | None


@dataclass(frozen=True)
class Row:
    """One phrase in one view that shows it."""

    view: str
    phrase: str
    scores: Scores
    """Each in [0, 1], the more the better; a protocol's rows all have the same ones."""
    missing: bool = False
    """There was no prediction, so that every score is 0."""
    trained_on: bool = False
    """The scene was trained, or its features were lifted, on the photo of this view."""


@dataclass(frozen=True)
class Report:
    """One protocol on one scene."""

    protocol: str
    """A key of `protocols.TITLES`."""
    title: str
    """What the protocol measures, in words."""
    scene: str
    settings: Mapping[str, Setting]
    """Thresholds, the reader of the labels and its choices, and what the caller says of its model."""
    rows: tuple[Row, ...]
    views: Mapping[str, Scores] = field(default_factory=dict)
    """Scores of a view as a whole, by its name."""
    not_visible: int = 0
    """Labelled pairs left out, because the label's mask in that view is empty."""

    @property
    def scores(self) -> Scores:
        """Mean of each score over the (view, phrase) pairs, and of a view's scores over the views."""
        return {**mean(row.scores for row in self.rows), **mean(self.views.values())}

    @property
    def trained_on(self) -> int:
        """Number of labelled views that were trained or lifted on."""
        return len({row.view for row in self.rows if row.trained_on})

    @property
    def phrases(self) -> dict[str, Scores]:
        """For each phrase, in the order of their names, the mean of each score over the views that show it."""
        names = sorted({row.phrase for row in self.rows})
        return {name: mean(row.scores for row in self.rows if row.phrase == name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "protocol": self.protocol,
            "title": self.title,
            "scene": self.scene,
            "settings": dict(self.settings),
            "scores": self.scores,
            "pairs": len(self.rows),
            "missing": sum(row.missing for row in self.rows),
            "trained_on": self.trained_on,
            "not_visible": self.not_visible,
            "phrases": self.phrases,
            "views": {name: dict(scores) for name, scores in self.views.items()},
            "rows": [
                {"view": row.view, "phrase": row.phrase, "missing": row.missing, "trained_on": row.trained_on, **row.scores}
                for row in self.rows
            ],
        }

    def write(self, path: Path) -> None:
        """Write :meth:`to_json` to a file, all of it or nothing, and make its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def mean(scores: Iterable[Scores]) -> Scores:
    """Return the mean of each score over dictionaries with the same keys; empty for none."""
    every = list(scores)
    return {key: sum(each[key] for each in every) / len(every) for key in every[0]} if every else {}
