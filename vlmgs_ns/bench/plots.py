"""Curves of a benchmark: a panel for each scene and start, a line for each method, seeds as a band around their mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmgs_ns.bench.results import Row
from vlmgs_ns.system.atomic import replacing

LABELS = {
    "seconds": "training time, s",
    "iteration": "iterations",
    "gaussians": "Gaussians",
    "psnr": "held-out PSNR, dB",
    "loss": "training loss",
}


@dataclass(frozen=True)
class Plot:
    """One file."""

    file: str
    x: str
    y: str
    final: bool = False
    """A point for each run's end, not a curve."""


PLOTS = (
    Plot("psnr_over_time.png", "seconds", "psnr"),
    Plot("psnr_over_iterations.png", "iteration", "psnr"),
    Plot("loss_over_iterations.png", "iteration", "loss"),
    Plot("gaussians_over_iterations.png", "iteration", "gaussians"),
    Plot("psnr_against_gaussians.png", "gaussians", "psnr", final=True),
)


@dataclass(frozen=True)
class Line:
    """Means over seeds, and the least and greatest y."""

    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]


def line(rows: Sequence[Row], x: str, y: str) -> Line:
    """Return the mean and range over runs of one scene, method and start, which were all looked at after the same iterations."""
    curves = [row["curve"] for row in rows]
    at = [list(values) for values in zip(*(curve[y] for curve in curves), strict=True)]
    where = [statistics.mean(values) for values in zip(*(curve[x] for curve in curves), strict=True)]
    return Line(where, [statistics.mean(values) for values in at], [min(values) for values in at], [max(values) for values in at])


def write_plots(rows: Sequence[Row], out: Path) -> list[Path]:
    """Draw every plot of the runs that are done and have curves; the files. None where no run is."""
    done = [row for row in rows if row["status"] == "done" and isinstance(row.get("curve"), dict)]
    if not done:
        return []
    import matplotlib

    matplotlib.use("Agg")
    methods = list(dict.fromkeys(row["method"] for row in done))
    panels = list(dict.fromkeys((row["scene"], row["start"]) for row in done))
    starts = {start for _, start in panels}
    written = []
    for plot in PLOTS:
        path = out / plot.file
        with replacing(path) as partial:
            _draw(plot, done, methods, panels, len(starts) > 1, partial)
        written.append(path)
    return written


def _draw(
    plot: Plot, rows: Sequence[Row], methods: list[str], panels: list[tuple[str, str]], name_start: bool, path: Path
) -> None:
    import matplotlib.pyplot as plt

    columns = min(len(panels), max(1, math.ceil(math.sqrt(len(panels)))))
    size = (max(4.6, 3.4 * columns), 3.0 * math.ceil(len(panels) / columns) + 0.5)
    figure, axes = plt.subplots(math.ceil(len(panels) / columns), columns, figsize=size, squeeze=False, layout="constrained")
    for axis, (scene, start) in zip(axes.flat, panels, strict=False):
        for k, method in enumerate(methods):
            some = [row for row in rows if (row["scene"], row["start"], row["method"]) == (scene, start, method)]
            if some:
                _draw_method(axis, plot, some, f"C{k}", method)
        if plot.final:
            axis.set_xlim(left=0)  # how many more, at a glance; after all points, as it ends the automatic limits
        axis.set_title(f"{scene}, {start}" if name_start else scene, fontsize=9)
        axis.set_xlabel(LABELS[plot.x], fontsize=8)
        axis.set_ylabel(LABELS[plot.y], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        for name, which in (("gaussians", axis.xaxis), ("gaussians", axis.yaxis)):
            if getattr(plot, "x" if which is axis.xaxis else "y") == name:
                which.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    handles: dict[Any, Any] = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)), fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_method(axis: Any, plot: Plot, rows: Sequence[Row], colour: str, label: str) -> None:
    if plot.final:
        x, y = ([row["curve"][name][-1] for row in rows] for name in (plot.x, plot.y))
        axis.scatter(x, y, color=colour, label=label, s=22)
        return
    drawn = line(rows, plot.x, plot.y)
    axis.plot(drawn.x, drawn.y, color=colour, label=label, marker="o", markersize=2.5, linewidth=1.4)
    axis.fill_between(drawn.x, drawn.low, drawn.high, color=colour, alpha=0.15, linewidth=0)
