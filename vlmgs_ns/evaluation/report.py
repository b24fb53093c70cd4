"""What a protocol found: a row per (view, phrase) pair, and the means that may be taken of them.

Two means are in use and differ, so that both are told: over all pairs, where a scene of many labels counts for much, and over the
scenes' own means. Figures of two protocols, or of one with two settings, are never put together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class Report:
    """One protocol on one scene."""

    protocol: str
    """A, B or C."""
    title: str
    """What the protocol measures, in words."""
    scene: str
    settings: Mapping[str, Setting]
    """Everything that was chosen: thresholds, how labels were read, and what the caller says of its model."""
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
    def phrases(self) -> dict[str, Scores]:
        """For each phrase, in the order of their names, the mean of each score over the views that show it."""
        names = sorted({row.phrase for row in self.rows})
        return {name: mean(row.scores for row in self.rows if row.phrase == name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return {
            "protocol": self.protocol,
            "title": self.title,
            "scene": self.scene,
            "settings": dict(self.settings),
            "scores": self.scores,
            "pairs": len(self.rows),
            "missing": sum(row.missing for row in self.rows),
            "not_visible": self.not_visible,
            "phrases": self.phrases,
            "views": {name: dict(scores) for name, scores in self.views.items()},
            "rows": [{"view": row.view, "phrase": row.phrase, "missing": row.missing, **row.scores} for row in self.rows],
        }

    def write(self, path: Path) -> None:
        """Write :meth:`to_json` to a file, all of it or nothing."""
        write_json(path, self.to_json())


@dataclass(frozen=True)
class Summary:
    """One protocol, with the same settings, on several scenes."""

    reports: tuple[Report, ...]

    @property
    def over_pairs(self) -> Scores:
        """Mean over the (view, phrase) pairs of all scenes together; of a view's scores, over all views."""
        rows = [row.scores for report in self.reports for row in report.rows]
        return {**mean(rows), **mean(scores for report in self.reports for scores in report.views.values())}

    @property
    def over_scenes(self) -> Scores:
        """Mean over the scenes of each scene's own mean."""
        return mean(report.scores for report in self.reports)

    def to_json(self) -> dict[str, Any]:
        """Both means, and every scene's report."""
        return {
            "protocol": self.reports[0].protocol,
            "title": self.reports[0].title,
            "settings": dict(self.reports[0].settings),
            "mean_over_pairs": self.over_pairs,
            "mean_over_scenes": self.over_scenes,
            "scenes": {report.scene: report.to_json() for report in self.reports},
        }

    def write(self, path: Path) -> None:
        """Write :meth:`to_json` to a file, all of it or nothing."""
        write_json(path, self.to_json())


def summarise(reports: Sequence[Report]) -> Summary:
    """The reports of several scenes as one.

    Raises:
        ValueError: none, a scene twice, or reports that differ in protocol or in any setting.
    """
    if not reports:
        raise ValueError("no report to summarise: evaluate at least one scene")
    first = reports[0]
    for report in reports[1:]:
        if report.protocol != first.protocol:
            raise ValueError(
                f"scene {first.scene} was measured by protocol {first.protocol} and {report.scene} by {report.protocol}:"
                " their figures have different meanings, summarise each protocol by itself"
            )
        differing = [
            f"{key} is {first.settings.get(key)!r} in {first.scene} and {report.settings.get(key)!r} in {report.scene}"
            for key in sorted({*first.settings, *report.settings})
            if (key in first.settings, first.settings.get(key)) != (key in report.settings, report.settings.get(key))
        ]
        if differing:
            raise ValueError(f"{'; '.join(differing)}: measure every scene with the same settings")
    names = [report.scene for report in reports]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"scene {name!r} is there twice: give each scene its own name")
    return Summary(tuple(reports))


def mean(scores: Iterable[Scores]) -> Scores:
    """Mean of each score over dictionaries with the same keys; empty for none."""
    every = list(scores)
    return {key: sum(each[key] for each in every) / len(every) for key in every[0]} if every else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of JSON whole, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
