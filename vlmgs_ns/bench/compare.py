"""Differences between two benchmarks: figures of the runs that both have, by scene, method, start and seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from vlmgs_ns.bench.results import Row
from vlmgs_ns.bench.summary import COLUMNS, Column, spread, table

RATIOS = ("gaussians", "seconds", "cpu_seconds", "memory_mb", "gpu_memory_mb")
"""Figures compared by their ratio; all others by their difference."""
Key = tuple[str, str, str]


def differences(a: Sequence[Row], b: Sequence[Row]) -> str:
    """Return a markdown table of B against A, seed by seed; then what was not the same, and runs that only one of them has.

    A difference is the mean ± standard deviation over the seeds of B − A; a ratio the geometric mean of B / A.
    """
    pairs = _pairs(a, b)
    parts = [
        _table(pairs) if pairs else "No run is done in both.",
        _unlike(a, b, pairs),
        _only_in("A", a, b),
        _only_in("B", b, a),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _pairs(a: Sequence[Row], b: Sequence[Row]) -> dict[Key, list[tuple[Row, Row]]]:
    """Runs that are done in both, by scene, method and start."""
    others = {_name(row): row for row in b if row["status"] == "done"}
    found: dict[Key, list[tuple[Row, Row]]] = {}
    for row in a:
        if row["status"] == "done" and _name(row) in others:
            found.setdefault((row["scene"], row["method"], row["start"]), []).append((row, others[_name(row)]))
    return found


def _name(row: Row) -> tuple[str, str, str, int]:
    return row["scene"], row["method"], row["start"], row["seed"]


def _table(pairs: dict[Key, list[tuple[Row, Row]]]) -> str:
    every = [pair for some in pairs.values() for pair in some]
    columns = [column for column in COLUMNS if any(_values(column, [pair]) for pair in every)]
    titles = ["scene", "method", "start", "seeds", *(column.title for column in columns)]
    rows = [[*names, len(some), *(_cell(column, some) for column in columns)] for names, some in pairs.items()]
    return table(titles, rows)


def _values(column: Column, pairs: Sequence[tuple[Row, Row]]) -> list[tuple[float, float]]:
    found = [(column.of(a), column.of(b)) for a, b in pairs]
    return [(x, y) for x, y in found if x is not None and y is not None]


def _cell(column: Column, pairs: Sequence[tuple[Row, Row]]) -> str:
    values = _values(column, pairs)
    if not values:
        return "-"
    means = " → ".join(f"{statistics.mean(side):,.{column.digits}f}" for side in zip(*values, strict=True))
    if column.name in RATIOS:
        positive = all(x > 0 and y > 0 for x, y in values)
        return f"{means} (x {statistics.geometric_mean([y / x for x, y in values]):.2f})" if positive else means
    deltas = [y - x for x, y in values]
    text = spread(deltas, column.digits)
    return f"{means} ({'' if text.startswith('-') else '+'}{text})"


def _unlike(a: Sequence[Row], b: Sequence[Row], pairs: dict[Key, list[tuple[Row, Row]]]) -> str:
    """Settings, code and machines in which compared runs differ."""
    lines: dict[str, None] = {}
    for x, y in [pair for some in pairs.values() for pair in some]:
        for part in ("settings", "versions", "machine"):
            left, right = x.get(part, {}), y.get(part, {})
            for key in sorted({*left, *right}):
                if left.get(key) != right.get(key):
                    lines[f"- {part}, {key}: {left.get(key)} → {right.get(key)}"] = None
    return "Not the same in A and B:\n\n" + "\n".join(lines) if lines else ""


def _only_in(name: str, rows: Sequence[Row], others: Sequence[Row]) -> str:
    there = {_name(row) for row in others if row["status"] == "done"}
    only = [row for row in rows if row["status"] == "done" and _name(row) not in there]
    if not only:
        return ""
    return f"Done in {name} alone: " + "; ".join(f"{s}, {m}, {start}, seed {seed}" for s, m, start, seed in map(_name, only))
