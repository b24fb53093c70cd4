"""Line plots as SVG that takes its colours from the page's style sheet, so that they are readable in light and in dark."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from vlmgs_ns.pages.curves import Curve
from vlmgs_ns.system.spacing import evenly_spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = npt.NDArray[np.float64]

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 52
"""Margins around the axes."""
POINTS = 400
"""Most points of a drawn line: more would be closer than a pixel."""
WINDOWS = 60
"""Stretches of a noisy curve over which its mean is drawn."""
ROWS = 25
"""Most rows of the table of numbers below a chart."""

_TEXT, _GRID, _PAPER = "#010101", "#020202", "#030303"
_LINES = [f"#0400{number:02x}" for number in range(5)]
_VARIABLES = {
    **{_TEXT: "--soft", _GRID: "--line", _PAPER: "--card"},
    **{colour: f"--c{number}" for number, colour in enumerate(_LINES)},
}
"""Colours that stand for those of the style sheet."""


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    label: str
    curve: Curve
    noisy: bool = False
    """Draw its mean, and the values themselves pale behind it."""
    dots: bool = False
    """Mark each value: for few of them."""

    @property
    def smoothed(self) -> bool:
        """Whether there are values enough for means over stretches."""
        return self.noisy and len(self.curve) > 2 * WINDOWS

    def drawn(self) -> tuple[FloatArray, FloatArray]:
        """Return the steps and values of the points that are drawn, at most ``POINTS``: means over stretches of a noisy curve."""
        steps, values = np.array(self.curve.steps, float), np.array(self.curve.values, float)
        if self.smoothed:
            steps, values = (np.array([part.mean() for part in np.array_split(all_, WINDOWS)]) for all_ in (steps, values))
        few = evenly_spaced(len(steps), POINTS)
        return steps[few], values[few]

    @property
    def last(self) -> float:
        """The value at the last step."""
        return self.curve.values[-1]


@dataclass(frozen=True)
class Mark:
    """A thin vertical line at a step."""

    step: int
    label: str
    """For the legend, where equal labels stand once."""
    colour: int
    """Number of a colour of the style sheet."""


@dataclass(frozen=True)
class Chart:
    """Curves over the iterations with one axis of values."""

    title: str
    lines: Sequence[Line]
    unit: str
    """Label of the axis of values."""
    digits: int = 2
    """After the point, where values are written; 0: they are counts."""
    logarithmic: bool = False
    """Use a logarithmic axis if all values are above 0."""
    marks: Sequence[Mark] = ()
    note: str = ""
    """Stands below the legend."""

    @property
    def description(self) -> str:
        """The chart in words, for readers who do not see it."""
        last = (f"{line.label} {line.last:,.{self.digits}f} at iteration {line.curve.steps[-1]:,}" for line in self.lines)
        return f"{self.title} over iterations: {'; '.join(last)}"

    def curves(self) -> str:
        """Return the points of each line as JSON: steps and values in words, for a script that shows those at the pointer."""
        written = [
            {"steps": [f"{step:,.0f}" for step in steps], "values": [f"{value:,.{self.digits}f}" for value in values]}
            for steps, values in (line.drawn() for line in self.lines)
        ]
        return json.dumps(written)

    def rows(self, line: Line) -> list[tuple[str, str]]:
        """Return steps and values of a line for a table, evenly spaced, at most ``ROWS``."""
        chosen = evenly_spaced(len(line.curve), ROWS)
        return [(f"{line.curve.steps[k]:,}", f"{line.curve.values[k]:,.{self.digits}f}") for k in chosen]


def plot(chart: Chart) -> Markup:
    """Draw a chart; equal charts are equal text, and the element names nothing outside itself."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        **{"svg.fonttype": "none", "svg.hashsalt": "vlmgs", "path.simplify": False, "font.size": 12.5},
        **{"text.color": _TEXT, "axes.labelcolor": _TEXT, "xtick.color": _TEXT, "ytick.color": _TEXT},
        **{"axes.edgecolor": _TEXT, "grid.color": _GRID, "lines.linewidth": 2, "lines.solid_joinstyle": "round"},
        **{
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "ytick.major.size": 0,
            "ytick.minor.size": 0,
        },
    }
    buffer = io.StringIO()
    with rc_context(style):
        # SVG has 72 units to the inch.
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72))
        # Room for the labels of a narrow screen, where the style sheet makes them larger.
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / HEIGHT, 1 - (LEFT + RIGHT) / WIDTH, 1 - (TOP + BOTTOM) / HEIGHT))
        _draw(axes, chart)
        figure.text(0, 1 - 16 / HEIGHT, chart.unit)
        figure.text(1 - RIGHT / WIDTH, 6 / HEIGHT, "iteration", horizontalalignment="right")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _inline(buffer.getvalue(), chart)


def _draw(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    values = [value for line in chart.lines for value in line.curve.values]
    steps = [step for line in chart.lines for step in line.curve.steps] + [mark.step for mark in chart.marks]
    for mark in chart.marks:
        axes.axvline(mark.step, color=_LINES[mark.colour], linewidth=1, linestyle=(0, (3, 3)), gid="mark")
    for number, line in enumerate(chart.lines):
        _draw_line(axes, line, _LINES[number % len(_LINES)], number)
    axes.set_xlim(min(0, *steps), max(1, *steps))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y")
    if chart.logarithmic and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif chart.digits == 0:
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        if min(values) >= 0:
            axes.set_ylim(bottom=0, top=None if max(values) > 0 else 1)  # so that heights compare
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    for artist in axes.findobj():
        artist.set_clip_on(False)  # nothing leaves the axes, and clips would need addresses


def _draw_line(axes: Axes, line: Line, colour: str, number: int) -> None:
    if line.smoothed:
        few = evenly_spaced(len(line.curve), POINTS)
        pale = [np.array(part, float)[few] for part in (line.curve.steps, line.curve.values)]
        axes.plot(*pale, color=colour, alpha=0.3, linewidth=1, gid=f"pale-{number}")
    steps, values = line.drawn()
    marker = "o" if line.dots or len(steps) == 1 else None
    axes.plot(steps, values, color=colour, marker=marker, markersize=6, markerfacecolor=_PAPER, gid=f"line-{number}")


def _inline(text: str, chart: Chart) -> Markup:
    """Return matplotlib's document as an element of a page: no addresses, no identifiers but those of its own markers."""
    body = text[text.index("<svg") :].partition(">")[2]
    body = re.sub(r' id="(?!m[0-9a-f]{10}")([^"]+)"', r' class="\1"', body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    label, curves = escape(chart.description), escape(chart.curves())
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" data-curves="{curves}">{body.strip()}')
