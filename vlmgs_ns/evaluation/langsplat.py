"""How LangSplat's published evaluation makes a mask of a relevancy map (``eval/evaluate_iou_loc.py``; arXiv 2312.16084).

The map is averaged with its own mean over 30 x 30 pixels, stretched to its range, cut in the upper half of that, and the mask
smoothed by a vote. As every map is stretched, something is found in every picture, and a threshold means another relevancy in
each. LangSplat does so for each of three maps (its SAM levels) and takes the one with the greatest peak; features here are of one
map, the mean over the tile sizes, so that there is nothing to choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vlmgs_ns.evaluation.metrics import Mask

Floats = npt.NDArray[np.floating[Any]]

WINDOW = 30
"""Side in pixels of the square that a map is averaged over: 15 before a pixel and 14 after it."""
THRESHOLD = 0.4
"""Where the upper half of a map's range is cut, in [0, 1]; of the whole range that is 0.7."""
VOTERS = 3
"""Pixels on each side of one that vote on it."""


def averaged(
    relevancy: Floats,  # [H, W]
) -> Floats:  # [H, W]
    """Return the mean over the window around each pixel, the picture mirrored at its edges."""
    mean: Floats = ndimage.uniform_filter(relevancy.astype(np.float64), WINDOW, mode="mirror")
    return mean


def langsplat_mask(
    relevancy: Floats,  # [H, W]
) -> Mask:  # [H, W]
    """Return the mask that LangSplat's evaluation makes of a relevancy map."""
    blurred = (relevancy + averaged(relevancy)) / 2
    stretched = (blurred - blurred.min()) / (blurred.max() - blurred.min() + 1e-9)
    return voted(2 * stretched - 1 > THRESHOLD)


def voted(
    mask: Mask,  # [H, W]
) -> Mask:  # [H, W]
    """Return which pixels most of their neighbours are in, themselves among these; a tie is lost.

    As in the published code, the last row and column have no vote.
    """
    height, width = mask.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    (top, bottom), (left, right) = (
        (np.clip(np.arange(size) - VOTERS, 0, None), np.clip(np.arange(size) + VOTERS + 1, None, size - 1)) for size in mask.shape
    )
    votes = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    winners: Mask = 2 * votes > (bottom - top)[:, None] * (right - left)
    return winners
