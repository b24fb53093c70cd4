"""Regions without a model, from what training measures anyway: photos, earlier renders, depth, coverage and disagreement.

The backend where no vision-language model is available, and the baseline for one. Each phase computes a map of evidence over the
picture, large where the answer to the phase's question is yes; its connected parts become boxes. Where nothing stands out the
reply is the empty list, except that a subject without depth is assumed where the scene's centre projects.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmgs_ns.guidance.question import Answer, Coordinates, Phase, Question
from vlmgs_ns.guidance.regions import LIMITS, Limits, boxes_around, limit, mask
from vlmgs_ns.guidance.relief import before_surroundings, isolated
from vlmgs_ns.guidance.reply import Box

Map = NDArray[np.float64]
Details = dict[str, Any]

VERSION = 1
"""Part of the fingerprint: raised with every change that changes replies."""
BLUR = 0.02
"""Standard deviation of the window in which evidence is gathered, as a fraction of the picture's diagonal."""
MIN_AREA = 0.002
"""Smallest part that becomes a box, as a fraction of the picture."""
SPLITS = 8
"""Number of times that the threshold is raised inside a part whose box is too large."""
MIN_DETAIL = 0.01
"""Least gain in local detail (RMS gradient, colour per pixel) above noise."""
MIN_DIFFERENCE = 0.05
"""Least excess of disagreement or error over the picture's median above noise."""
DEVIATIONS = 3.0
"""The same in robust standard deviations of the map."""
COVERED = 0.5
"""Accumulated opacity from which on a place is covered and its depth means something."""
OPEN = 0.5
"""An uncovered part with a box larger than this fraction of the picture is open background, not a hole."""
NEARER = 0.06
"""Least log-depth by which a subject stands out before what is beside it."""
WIDEST = 0.75
"""Widest subject, as a fraction of the picture's width."""
CENTRED = 0.6
"""Width and height, as fractions of the picture's, of the box where depth shows no subject."""
REACH = 0.25
"""Distance, as a fraction of the picture's sides, over which a part away from the scene's centre counts less."""
FLOATER = math.log(2.0)
"""Log-depth by which a floater is nearer than all around it."""
FLOATER_SIZE = 0.2
"""Largest width of a floater, as a fraction of the picture's longer side."""


class ResidualBackend:
    """Names regions by image residuals and rendered depth; deterministic, milliseconds per picture.

    An answer's details: ``evidence`` (maps used), ``ignored`` (maps of another size than the picture), ``limited`` (what
    `regions.limit` clipped, where it did), and per phase ``threshold``, ``found`` (boxes per label) or ``subject`` (how the
    subject was found: "depth", or "centre" where depth shows none).
    """

    name = "residual"
    fingerprint = f"residual {VERSION}"
    coordinates: Coordinates = "thousandths"
    needs_evidence = quick = True

    def check(self) -> None:
        """Do nothing: this backend needs no model."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one answer per question: a JSON list in thousandths of the picture, or the reason for a failure."""
        return [_answer(question) for question in questions]

    def release(self) -> None:
        """Do nothing: this backend holds no model."""


def _answer(question: Question) -> Answer:
    start = time.perf_counter()
    try:
        if question.phase not in PHASES:
            raise ValueError("without a model nothing is found by its words")
        view = _View(question)
        found, details = PHASES[question.phase](view)
        boxes, limited = limit(found, LIMITS[question.phase])
    except Exception as fault:  # whatever is wrong with one question must not cost the others, nor the run
        return Answer(None, f"{type(fault).__name__}: {fault}", time.perf_counter() - start)
    details |= {"evidence": sorted(view.used), "ignored": sorted(view.ignored)} | ({"limited": limited} if limited else {})
    text = json.dumps([{"bbox_2d": _thousandths(box), "label": box.label} for box in boxes])
    return Answer(text, None, time.perf_counter() - start, details)


def _thousandths(box: Box) -> list[int]:
    """Corners in whole thousandths, rounded inwards so that no limit is passed, or outwards where nothing would be left."""
    numbers = []
    for low, high in ((box.left, box.right), (box.top, box.bottom)):
        inner = math.ceil(1000 * low - 1e-6), math.floor(1000 * high + 1e-6)
        numbers.append(inner if inner[0] < inner[1] else (math.floor(1000 * low), math.ceil(1000 * high)))
    (left, right), (top, bottom) = numbers
    return [left, top, right, bottom]


class _View:
    """A question's maps as double precision, each None where it is missing or does not fit; remembers which were used."""

    def __init__(self, question: Question) -> None:
        if not question.pictures or question.pictures[0].ndim != 3 or 0 in question.pictures[0].shape:
            raise ValueError("the question has no picture; give a render of shape [H, W, 3]")
        self.question = question
        self.render = question.pictures[0][..., :3] / 255.0  # [H, W, 3]
        self.shape = self.render.shape[:2]
        self.sigma = max(0.5, BLUR * math.hypot(*self.shape))
        self.used: set[str] = set()
        self.ignored: set[str] = set()

    def get(self, name: str) -> Map | None:
        values = getattr(self.question.evidence, name)
        if name == "photo" and values is None and len(self.question.pictures) > 1:
            values = self.question.pictures[1][..., :3] / 255.0
        if values is None:
            return None
        values = np.asarray(values, np.float64)
        if values.shape != (self.render.shape if name in ("photo", "earlier") else self.shape):
            self.ignored.add(name)
            return None
        self.used.add(name)
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if name in ("photo", "earlier", "coverage") else values

    def blur(self, values: Map) -> Map:
        from scipy import ndimage

        return np.asarray(ndimage.gaussian_filter(values, self.sigma, mode="reflect"))

    def depth_over_far(self) -> Map | None:
        """Log-depth, with the farthest depth where nothing is covered: a background not yet there. None if depth is unknown."""
        depth, coverage = self.get("depth"), self.get("coverage")
        if depth is None:
            return None
        valid = np.isfinite(depth) & (depth > 0)
        if coverage is not None:
            valid &= coverage >= COVERED
        return np.log(np.where(valid, depth, depth[valid].max())) if valid.any() else None


def _detail(view: _View) -> tuple[list[Box], Details]:
    """Find where the render has gained detail and the photo has still more: the geometric mean of gain and rest.

    Without an earlier render the gain is all the detail there is; without a photo the gain alone counts.
    """
    earlier, photo = view.get("earlier"), view.get("photo")
    now = _local_detail(view, view.render)
    score = np.maximum(now - _local_detail(view, earlier), 0) if earlier is not None else now
    if photo is not None:
        score = np.sqrt(score * np.maximum(_local_detail(view, photo) - now, 0))
    threshold = max(MIN_DETAIL, _otsu(score))
    return _boxes(score, threshold, "detail", "emerging detail"), {"threshold": round(threshold, 4)}


def _local_detail(view: _View, picture: Map) -> Map:
    """RMS gradient of the colours in a window around each pixel. [H, W]."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(picture, (0.7, 0.7, 0), mode="nearest")
    squares = sum(ndimage.correlate1d(smooth, [-0.5, 0, 0.5], axis=axis, mode="nearest") ** 2 for axis in (0, 1))
    return np.sqrt(np.maximum(view.blur(squares.sum(axis=2)), 0))


def _background(view: _View) -> tuple[list[Box], Details]:
    """Return one box around the main subject: what stands, in its rows of the picture, before the depth to its left and right.

    A floor or a wall that recedes does not stand out, however near it is. Of the parts that do, the largest counts, the less the
    farther it is from where the scene's centre projects.
    """
    from scipy import ndimage

    x, y = view.question.evidence.subject or (0.5, 0.5)
    x, y = (min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.5 for value in (x, y))
    depth = view.depth_over_far()
    if depth is not None:
        standing = before_surroundings(ndimage.median_filter(depth, 3), 1, WIDEST * view.shape[1])
        parts = boxes_around(standing > max(NEARER, _otsu(standing) / 2), MIN_AREA, 8)
        if parts:
            best = max(parts, key=lambda part: _area(part) * _nearness(part, x, y))
            return [Box(*best, "main subject")], {"subject": "depth"}
    left, top = (min(max(value - CENTRED / 2, 0.0), 1 - CENTRED) for value in (x, y))
    return [Box(left, top, left + CENTRED, top + CENTRED, "main subject")], {"subject": "centre"}


def _novel(view: _View) -> tuple[list[Box], Details]:
    """Find places where neighbouring photos disagree ("inconsistent"), empty places ("hole"), and small parts less than half as
    far as all around them and not confirmed by the photos ("floater"); in turns, the strongest of each first.
    """
    found: dict[str, list[Box]] = {"floater": [], "hole": [], "inconsistent": []}
    confirmed = np.zeros(view.shape, bool)
    disagreement, coverage, depth = view.get("disagreement"), view.get("coverage"), view.depth_over_far()
    if disagreement is not None and (known := np.isfinite(disagreement)).any():
        # Blurred over known places only.
        weight = np.maximum(view.blur(known.astype(float)), 1e-6)
        mean = view.blur(np.where(known, disagreement, 0.0)) / weight
        excess = mean - np.median(mean[known])
        threshold = max(MIN_DIFFERENCE, DEVIATIONS * 1.4826 * float(np.median(np.abs(excess[known]))))
        found["inconsistent"] = _boxes(np.where(known, excess, -np.inf), threshold, "novel", "inconsistent")
        confirmed = known & (excess <= threshold)
    if coverage is not None:
        holes = boxes_around(coverage < COVERED, MIN_AREA, 2 * LIMITS["novel"].max_boxes)
        found["hole"] = [Box(*hole, "hole") for hole in holes if _area(hole) <= OPEN]
    if depth is not None:
        size = FLOATER_SIZE * max(view.shape)
        near = (before_surroundings(depth, size, size) > FLOATER) & ~confirmed
        blobs = boxes_around(isolated(depth, near, FLOATER / 2), MIN_AREA, LIMITS["novel"].max_boxes)
        found["floater"] = [Box(*blob, "floater") for blob in blobs]
    boxes: list[Box] = []
    for box in filter(None, itertools.chain.from_iterable(itertools.zip_longest(*found.values()))):
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        if not any(other.left < x < other.right and other.top < y < other.bottom for other in boxes):
            boxes.append(box)
    return boxes, {"found": {label: len(some) for label, some in found.items()}}


def _compare(view: _View) -> tuple[list[Box], Details]:
    """Find where render and photo differ most: the windows of largest error, one after the other, trimmed to the error."""
    photo = view.get("photo")
    if photo is None:
        raise ValueError("the photo is missing or of another size than the render; give one of the render's size")
    error = view.blur(np.abs(view.render - photo).mean(axis=2))
    excess: Map = np.maximum(error - np.median(error), 0)
    excess[excess < MIN_DIFFERENCE] = 0
    (H, W), limits = view.shape, LIMITS["compare"]
    h, w = (max(1, math.floor(side * math.sqrt(limits.max_area))) for side in (H, W))
    halo = math.ceil(2 * view.sigma)  # error that the blur has spread around a box does not count again
    boxes: list[Box] = []
    while len(boxes) < limits.max_boxes:
        taken = _window_sums(mask(boxes, W, H).astype(float), h, w) > 0
        sums = np.where(taken, 0, _window_sums(excess**2, h, w))
        y, x = np.unravel_index(sums.argmax(), sums.shape)
        window = excess[y : y + h, x : x + w]
        if taken[y, x] or not window.any():
            break
        rows, columns = (window >= window.max() / 2).nonzero()
        top, bottom, left, right = y + rows.min(), y + rows.max() + 1, x + columns.min(), x + columns.max() + 1
        boxes.append(Box(left / W, top / H, right / W, bottom / H, "differs from the photo"))
        excess[max(0, top - halo) : bottom + halo, max(0, left - halo) : right + halo] = 0
    return boxes, {"median_error": round(float(np.median(error)), 4)}


PHASES = {"detail": _detail, "background": _background, "novel": _novel, "compare": _compare}


def _window_sums(values: Map, h: int, w: int) -> Map:
    """Sums over all windows of h by w pixels, from an integral image. [H - h + 1, W - w + 1]."""
    integral = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return integral[h:, w:] - integral[:-h, w:] - integral[h:, :-w] + integral[:-h, :-w]


def _otsu(values: Map) -> float:
    """The threshold between two classes of values, by Otsu's method; a constant's own value."""
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values))


def _boxes(score: Map, threshold: float, phase: Phase, label: str) -> list[Box]:
    """Boxes around the parts of a map above a threshold, the largest sum first; too large a part is split at its high places."""
    height, width = score.shape
    boxes = [Box(*corners, label) for corners in _split(score, threshold, LIMITS[phase], SPLITS)]
    return sorted(boxes, key=lambda box: -float(score[mask([box], width, height) & (score > threshold)].sum()))


def _split(score: Map, threshold: float, limits: Limits, splits: int) -> list[tuple[float, float, float, float]]:
    from scipy import ndimage

    found = []
    parts, _ = ndimage.label(score > threshold, np.ones((3, 3), bool))
    largest = np.argsort(-np.bincount(parts.ravel())[1:], kind="stable")[: limits.max_boxes] + 1
    for inside in (parts == part for part in largest):
        for corners in boxes_around(inside, MIN_AREA, 1):
            higher: list[tuple[float, float, float, float]] = []
            if splits and _area(corners) > limits.max_area:
                higher = _split(np.where(inside, score, -np.inf), float(np.median(score[inside])), limits, splits - 1)
            found += higher or [corners]
    return found


def _area(corners: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = corners
    return (right - left) * (bottom - top)


def _nearness(corners: tuple[float, float, float, float], x: float, y: float) -> float:
    """1 for a box centred at a place, falling off with the distance of its centre."""
    left, top, right, bottom = corners
    return math.exp(-(((left + right) / 2 - x) ** 2 + ((top + bottom) / 2 - y) ** 2) / (2 * REACH**2))
