"""How well a relevancy map or a mask agrees with labels: pure functions of arrays, one view and one phrase at a time.

Pixel (x, y) is column and row from the top left; its centre lies at ((x + 0.5) / width, (y + 0.5) / height) of the picture.

What is decided where words leave room:

- several pixels tie for the arg max: the first, row by row;
- a constant map has no arg max, so that it localises nothing, even where a box covers the whole picture;
- two empty masks agree (IoU 1), an empty and a filled one do not (IoU 0). The protocols never ask for the IoU with an empty
  truth: what a view does not show is left out there;
- equal scores are one step of the precision-recall curve: the order of pixels never counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 with x1 < x2 and y1 < y2, as shares of the picture's width and height, in [0, 1]."""

NO_PHRASE = -1
"""Value of :func:`argmax_segmentation` at pixels of the background."""


def peak(
    relevancy: Floats,  # [H, W]
) -> tuple[int, int] | None:
    """Pixel (x, y) of the greatest relevancy, of equal ones the first row by row; None for a constant map.

    Raises:
        ValueError: no pixels, or some that are NaN or infinite.
    """
    _check_scores(relevancy, 2)
    if relevancy.min() == relevancy.max():
        return None
    y, x = np.unravel_index(int(relevancy.argmax()), relevancy.shape)
    return int(x), int(y)


def in_boxes(
    pixel: tuple[int, int],
    width: int,
    height: int,
    boxes: Iterable[Box],
) -> bool:
    """Return whether the centre of the pixel (x, y) lies in any of the boxes; their edges belong to them."""
    x, y = (pixel[0] + 0.5) / width, (pixel[1] + 0.5) / height
    return any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in boxes)


def hits_boxes(
    relevancy: Floats,  # [H, W]
    boxes: Iterable[Box],
) -> bool:
    """Localisation (LERF, section 5): the map's greatest pixel lies in any box of the phrase. A constant map misses.

    Raises:
        ValueError: as :func:`peak`.
    """
    found = peak(relevancy)
    height, width = relevancy.shape
    return found is not None and in_boxes(found, width, height, boxes)


def hits_mask(
    relevancy: Floats,  # [H, W]
    truth: Mask,  # [H, W]
) -> bool:
    """Return whether the greatest pixel is inside a mask, as :func:`hits_boxes` for labels without boxes.

    Raises:
        ValueError: as :func:`peak`, or for sizes that differ.
    """
    _check_same(relevancy, truth)
    found = peak(relevancy)
    return found is not None and bool(truth[found[1], found[0]])


def iou(
    prediction: Mask,  # [H, W]
    truth: Mask,  # [H, W]
) -> float:
    """Pixels in both masks over pixels in either, in [0, 1]; 1 for two empty masks.

    Raises:
        ValueError: sizes that differ, or masks that are not of booleans.
    """
    for mask in (prediction, truth):
        if mask.dtype != np.bool_:
            raise ValueError(f"a mask of type {mask.dtype} says not what is inside: compare it with a threshold first")
    _check_same(prediction, truth)
    union = int((prediction | truth).sum())
    return int((prediction & truth).sum()) / union if union else 1.0


def accuracy_at(ious: Iterable[float], threshold: float) -> float:
    """Acc@threshold: the share of IoUs *above* the threshold, in [0, 1].

    Raises:
        ValueError: no IoUs.
    """
    values = list(ious)
    if not values:
        raise ValueError("no IoU to take the accuracy of: evaluate at least one object")
    return sum(value > threshold for value in values) / len(values)


def average_precision(
    relevancy: Floats,  # [H, W]
    truth: Mask,  # [H, W]
) -> float:
    """Average precision of telling the object's pixels from the others by their relevancy, in (0, 1].

    AP = Σ_k (R_k - R_{k-1})·P_k over the distinct relevancies from the greatest down, with precision P_k and recall R_k of the
    pixels at or above the k-th. A constant map has the AP of guessing: the object's share of the picture.

    Raises:
        ValueError: as :func:`peak`, for sizes that differ, or for an empty truth, which has no recall.
    """
    _check_scores(relevancy, 2)
    _check_same(relevancy, truth)
    positives = int(truth.sum())
    if positives == 0:
        raise ValueError("the true mask is empty, so that no recall exists: leave out views that do not show the object")
    order = np.argsort(-relevancy, axis=None, kind="stable")
    scores, hits = relevancy.ravel()[order], np.cumsum(truth.ravel()[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of each run of equal relevancies
    recall, precision = hits[last] / positives, hits[last] / (last + 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def argmax_segmentation(
    relevancy: Floats,  # [P + B, H, W]
    phrases: int,
    floor: float | None = None,
) -> npt.NDArray[np.int64]:
    """Return the phrase each pixel belongs to: that of the greatest relevancy. [H, W], 0 … P - 1, or :data:`NO_PHRASE`.

    Args:
        relevancy: a map per phrase, the P that are asked for first, then B phrases of the background.
        phrases: P, at least 1. Pixels that a later map wins belong to none.
        floor: pixels whose greatest relevancy is at or below it belong to none; None: they all belong to someone.

    A tie goes to the first map among the equal ones.

    Raises:
        ValueError: fewer maps than phrases, no phrases, no pixels, or values that are NaN or infinite.
    """
    _check_scores(relevancy, 3)
    if not 1 <= phrases <= len(relevancy):
        raise ValueError(f"{len(relevancy)} maps for {phrases} phrases: give each phrase its map, and at least one phrase")
    winner = relevancy.argmax(axis=0)
    lost = winner >= phrases
    if floor is not None:
        lost |= relevancy.max(axis=0) <= floor
    return np.where(lost, NO_PHRASE, winner)


def pixel_accuracy(
    winner: npt.NDArray[np.int64],  # [H, W]
    truths: dict[int, Mask],  # [H, W] each
) -> float:
    """Share of the labelled pixels that belong to a phrase whose mask contains them, in [0, 1].

    Args:
        winner: as :func:`argmax_segmentation` gives it.
        truths: true mask per index of a phrase; where masks overlap either phrase is right.

    Raises:
        ValueError: no pixel is labelled, or sizes differ.
    """
    labelled, right = np.zeros(winner.shape, bool), np.zeros(winner.shape, bool)
    for index, truth in truths.items():
        _check_same(winner, truth)
        labelled |= truth
        right |= truth & (winner == index)
    if not labelled.any():
        raise ValueError("no pixel is labelled, so that none can be right: leave out views without labels")
    return int(right.sum()) / int(labelled.sum())


def _check_scores(values: Floats, dims: int) -> None:
    if values.ndim != dims or values.size == 0:
        wanted = "[H, W]" if dims == 2 else "[P, H, W]"
        raise ValueError(f"relevancy of shape {list(values.shape)} is not a picture: it must be {wanted} and not empty")
    if not np.isfinite(values).all():
        damaged = int((~np.isfinite(values)).sum())
        raise ValueError(f"{damaged} values of the relevancy are NaN or infinite: its features are damaged")


def _check_same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"sizes {list(a.shape)} and {list(b.shape)} differ: bring the prediction to the size of the labels")
