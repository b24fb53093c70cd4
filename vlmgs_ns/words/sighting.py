"""What a relevancy map shows: the mask, its connected parts with their boxes, and how clearly it is seen.

Clarity is the relevancy above the threshold summed over the mask, in pictures: 1 would be a whole picture at relevancy 1. It
grows with how sure and how large the find is. A thing that the picture's edge cuts is seen less clearly than its pixels say.
So the view of the greatest clarity is the one to look at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

LEAST_ALPHA = 0.5
"""Opacity from which a pixel counts as covered; others show nothing that could be relevant."""
LEAST_SHARE = 1e-4
"""Share of the picture's pixels, and `LEAST_PIXELS` at least: connected parts that are smaller are specks, and left out."""
LEAST_PIXELS = 4
LEAST_OF_CLEAREST = 0.02
"""Parts that have less than this share of the clearest part's clarity are left out too."""

CUT = 0.5
"""By which clarity is multiplied where the clearest part touches the picture's edge."""


@dataclass(frozen=True)
class Part:
    """A connected part of a mask."""

    box: tuple[int, int, int, int]
    """Edges x1, y1, x2, y2 in pixels from the top left: the first column and row of the part, and those after its last."""
    area: int
    """Pixels of the part, not of its box."""
    peak: float
    """Greatest relevancy in it."""
    clarity: float


@dataclass(frozen=True)
class Sighting:
    """One phrase in one view."""

    mask: Mask  # [H, W]
    parts: tuple[Part, ...]
    """The greatest clarity first."""
    peak: float
    """Greatest relevancy of a covered pixel, in the mask or not; 0 where no pixel is covered."""

    @property
    def clarity(self) -> float:
        """Clarity of all parts together, less where the clearest is cut."""
        if not self.parts:
            return 0.0
        height, width = self.mask.shape
        x1, y1, x2, y2 = self.parts[0].box
        whole = x1 > 0 and y1 > 0 and x2 < width and y2 < height
        return sum(part.clarity for part in self.parts) * (1.0 if whole else CUT)


def least_area(pixels: int) -> float:
    """Pixels from which a part of a picture of so many pixels counts."""
    return max(LEAST_PIXELS, LEAST_SHARE * pixels)


def sight(
    relevancy: Floats,  # [H, W] in [0, 1]
    alpha: Floats,  # [H, W]
    threshold: float,
) -> Sighting:
    """Mask and parts of the covered pixels that are more relevant than the threshold. Pixels touch by edges and corners."""
    covered = alpha >= LEAST_ALPHA
    labels, count = ndimage.label((relevancy > threshold) & covered, structure=np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    peaks = ndimage.maximum(relevancy, labels, numbers) if count else ()
    above = ndimage.sum_labels(relevancy - threshold, labels, numbers) / ((1 - threshold) * relevancy.size) if count else ()
    least = least_area(relevancy.size)
    large = [k for k in range(count) if areas[k] >= least]
    clearest = max((above[k] for k in large), default=0.0)
    kept = [k for k in large if above[k] >= LEAST_OF_CLEAREST * clearest]
    places = ndimage.find_objects(labels)
    parts = []
    for k in kept:
        rows, columns = places[k]
        box = (int(columns.start), int(rows.start), int(columns.stop), int(rows.stop))
        parts.append(Part(box, int(areas[k]), float(peaks[k]), float(above[k])))
    parts.sort(key=lambda part: (-part.clarity, part.box))
    return Sighting(
        mask=np.isin(labels, numbers[kept]),
        parts=tuple(parts),
        peak=float(relevancy[covered].max()) if covered.any() else 0.0,
    )
