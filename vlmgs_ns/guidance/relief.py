"""What stands out in a depth map: things before their surroundings, and things that touch nothing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RING = 3
"""Pixels from a part at which its surroundings are looked at: past the mixed depths of its edge."""
ISOLATED = 0.97
"""Share of the ring around an isolated part that lies behind it."""


def before_surroundings(
    depth: NDArray[np.float64],  # [H, W] logarithmic
    height: float,
    width: float,
) -> NDArray[np.float64]:
    """How much nearer each place is than what lies around it within a window of pixels, 0 on slopes. [H, W].

    The black top-hat of morphology: closing fills what is nearer and narrower than the window with the depth beside it, and
    leaves slopes as they are. Edges are repeated, so that slopes go on outside of the picture; what the picture's edge cuts off
    therefore never stands out.

    Args:
        depth: log-depth, so that differences are ratios and the unit of the world does not matter.
        height, width: of the window, pixels; with a height of 1 each row is looked at alone.
    """
    from scipy import ndimage

    h, w = (2 * math.ceil(side / 2) + 1 if side > 1 else 1 for side in (height, width))
    padded = np.pad(depth, ((h, h), (w, w)), mode="edge")
    closed = ndimage.minimum_filter(ndimage.maximum_filter(padded, (h, w)), (h, w))
    return np.asarray((closed - padded)[h:-h, w:-w])


def isolated(
    depth: NDArray[np.float64],  # [H, W] logarithmic
    near: NDArray[np.bool_],  # [H, W]
    jump: float,
) -> NDArray[np.bool_]:
    """The parts of a mask that stand on nothing: nearly all around them the depth jumps by at least `jump`. [H, W].

    The log-depth just outside of a part is compared with the part's own next to it. What the picture's edge cuts off goes on
    behind it.
    """
    from scipy import ndimage

    depth, near = np.pad(depth, RING, mode="edge"), np.pad(near, RING)
    parts, count = ndimage.label(near, np.ones((3, 3), bool))
    reach = 2 * RING + 1
    owner = ndimage.maximum_filter(parts, reach)
    own_depth = ndimage.minimum_filter(np.where(near, depth, np.inf), reach)
    ring = (owner > 0) & ~ndimage.binary_dilation(near, np.ones((3, 3), bool), RING - 1)
    free = depth[ring] - own_depth[ring] > jump
    around, behind = (np.bincount(owner[ring], weights, count + 1) for weights in (None, free))
    alone = behind >= ISOLATED * np.maximum(around, 1)
    return np.asarray(alone[parts] & near)[RING:-RING, RING:-RING]
