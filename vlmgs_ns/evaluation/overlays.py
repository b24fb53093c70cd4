"""Colours of a relevancy map over its photo, and outlines of masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vlmgs_ns.evaluation.metrics import Floats, Mask

Picture = npt.NDArray[np.uint8]
"""RGB, [H, W, 3]."""

PREDICTION = (255, 64, 200)
"""Colour of what a query found."""
_OPACITY = 0.6


def overlay(
    photo: Picture,
    relevancy: Floats,  # [H, W] in [0, 1]
    opacity: float = _OPACITY,
) -> Picture:
    """Return the photo under matplotlib's "turbo" colours of the relevancy.

    The scale is fixed, 0 blue to 1 red, so that maps of different phrases can be compared.
    """
    from matplotlib import colormaps

    colours = colormaps["turbo"](np.clip(relevancy, 0.0, 1.0))[..., :3] * 255.0
    return (opacity * colours + (1 - opacity) * photo).round().astype(np.uint8)


def outline(mask: Mask) -> Mask:
    """Return the rim of a mask, [H, W]: its pixels with a neighbour, up, down, left or right, outside it or the picture."""
    padded = np.pad(mask, 1)
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~surrounded
