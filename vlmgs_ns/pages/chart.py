"""Line charts as SVG that takes its colours from the page, so that they are readable in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vlmgs_ns.pages.curves import Curve
from vlmgs_ns.pages.html import Html, folded, join, table, tag

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 52
POINTS = 400
"""Most points of a drawn line: more would be closer than a pixel."""
WINDOWS = 60
"""Stretches of a noisy curve over which its mean is drawn."""
ROWS = 25
"""Most rows of the table of numbers below a chart."""


@dataclass(frozen=True)
class Line:
    """One curve of a chart."""

    label: str
    curve: Curve
    noisy: bool = False
    """Draw its mean, and the values themselves pale behind it."""
    dots: bool = False
    """Mark each value: for few of them."""


@dataclass(frozen=True)
class Mark:
    """A thin vertical line at a step."""

    step: int
    kind: str
    """Name of a colour in the page's style: ``mark-KIND``."""


def chart(
    title: str,
    lines: Sequence[Line],
    unit: str,
    *,
    logarithmic: bool = False,
    digits: int = 2,
    note: Html | None = None,
    marks: Sequence[Mark] = (),
) -> Html:
    """A figure of lines over iterations, its legend with each line's last value, and its numbers folded away.

    Args:
        unit: of the values, as the axis says it.
        logarithmic: the axis of the values, where all of them are above 0.
        digits: of the values in words, after the point; 0: they are counts.
        note: stands below the legend.
    """
    values = [value for line in lines for value in line.curve.values]
    logarithmic = logarithmic and min(values) > 0
    steps = [step for line in lines for step in line.curve.steps] + [mark.step for mark in marks]
    across = _Scale(min(0, min(steps)), max(max(steps), 1), LEFT, WIDTH - RIGHT, False)
    up = _Scale(*_bounds(values, logarithmic, digits == 0), HEIGHT - BOTTOM, TOP, logarithmic)
    parts = [_grid(across, up, unit)]
    parts += [
        tag(
            "line",
            x1=_round(across(mark.step)),
            x2=_round(across(mark.step)),
            y1=TOP,
            y2=HEIGHT - BOTTOM,
            class_=f"mark-{mark.kind}",
        )
        for mark in marks
    ]
    parts += [_line(line, number, across, up) for number, line in enumerate(lines)]
    last = "; ".join(f"{line.label} {line.curve.values[-1]:,.{digits}f} at iteration {line.curve.steps[-1]:,}" for line in lines)
    # A picture of text and lines: its label says what matters, its parts are no news for a screen reader.
    svg = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} over iterations: {last}")
    legend = [
        tag("li", tag("span", class_=f"key line-{number}"), f"{line.label} ", tag("b", f"{line.curve.values[-1]:,.{digits}f}"))
        for number, line in enumerate(lines)
    ]
    return tag(
        "figure",
        tag("figcaption", title),
        svg,
        tag("ul", *legend, class_="keys"),
        note,
        folded("Numbers", *(_numbers(line, digits, unit) for line in lines)),
        class_="chart",
    )


class _Scale:
    """From values to pixels of the chart."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool) -> None:
        self.low, self.high, self.start, self.end, self.logarithmic = low, high, start, end, logarithmic

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Round numbers within the scale, about as many as wanted."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [factor * 10.0**power for power in powers for factor in ((1, 2, 5) if len(powers) <= 4 else (1,))]
            return [tick for tick in ticks if self.low * 0.999 <= tick <= self.high * 1.001]
        step = _step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _step(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _bounds(values: list[float], logarithmic: bool, counts: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if logarithmic:
        return (low / 1.1, high * 1.1)
    if counts and low >= 0:
        low = 0.0  # so that heights compare
    room = (high - low) * 0.05 or max(1.0, abs(high)) * 0.05
    return (low if low == 0 else low - room), high + room


def _grid(across: _Scale, up: _Scale, unit: str) -> Html:
    parts: list[Html] = []
    for tick in up.ticks(5):
        y = _round(up(tick))
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", short(tick), x=LEFT - 8, y=y + 4, text_anchor="end"))
    for tick in across.ticks(6):
        parts.append(tag("text", short(tick), x=_round(across(tick)), y=HEIGHT - BOTTOM + 20, text_anchor="middle"))
    parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="axis"))
    parts.append(tag("text", "iteration", x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end"))
    parts.append(tag("text", unit, x=0, y=16))
    return join(*parts)


def _line(line: Line, number: int, across: _Scale, up: _Scale) -> Html:
    pairs = list(zip(line.curve.steps, line.curve.values, strict=True))
    drawn: list[Html] = []
    if line.noisy and len(pairs) > 2 * WINDOWS:
        drawn.append(_polyline(_thinned(pairs, POINTS), across, up, f"line pale line-{number}"))
        pairs = _means(pairs, WINDOWS)
    drawn.append(_polyline(_thinned(pairs, POINTS), across, up, f"line line-{number}"))
    if line.dots or len(pairs) == 1:
        drawn += [
            tag("circle", cx=_round(across(step)), cy=_round(up(value)), r=3.5, class_=f"dot line-{number}")
            for step, value in pairs
        ]
    return join(*drawn)


def _polyline(pairs: list[tuple[int, float]], across: _Scale, up: _Scale, class_: str) -> Html:
    return tag("polyline", points=" ".join(f"{across(step):.1f},{up(value):.1f}" for step, value in pairs), class_=class_)


def _thinned(pairs: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most so many of the pairs, evenly spaced, the first and the last among them."""
    if len(pairs) <= most:
        return pairs
    return [pairs[round(k * (len(pairs) - 1) / (most - 1))] for k in range(most)]


def _means(pairs: list[tuple[int, float]], windows: int) -> list[tuple[int, float]]:
    """Means over stretches of about the same length."""
    edges = [round(k * len(pairs) / windows) for k in range(windows + 1)]
    parts = [pairs[start:end] for start, end in pairwise(edges)]
    return [(round(sum(step for step, _ in part) / len(part)), sum(value for _, value in part) / len(part)) for part in parts]


def _numbers(line: Line, digits: int, unit: str) -> Html:
    pairs = _thinned(list(zip(line.curve.steps, line.curve.values, strict=True)), ROWS)
    return table([(f"{step:,}", f"{value:,.{digits}f}") for step, value in pairs], ("iteration", f"{line.label} [{unit}]"))


def short(value: float) -> str:
    """A number on an axis: 12,000 is 12k, 1,500,000 is 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size * (10 if letter == "k" else 1):
            return f"{value / size:.6g}{letter}"
    return f"{value:.6g}" if abs(value) < 1000 else f"{value:,.0f}"


def _round(value: float) -> float:
    return round(value, 1)
