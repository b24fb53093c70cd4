"""Frames of a camera path kept on the disk until every one is drawn, so that each phrase gets its video from one pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from vlmgs_ns.evaluation.overlays import Picture
from vlmgs_ns.pages.query_pictures import even, relevancy_picture
from vlmgs_ns.words.question import Floats


class Film:
    """Frames in a folder: a render, and relevancy in 256 levels, as many as its colours have.

    Args:
        folder: an empty one, which the caller removes.
        threshold: for the scale below each frame.
    """

    def __init__(self, folder: Path, threshold: float) -> None:
        self._folder, self._threshold = folder, threshold
        self._count = 0

    def add(
        self,
        render: Picture,
        relevancy: Floats,  # [P, H, W] in [0, 1]
    ) -> None:
        """Add the next frame."""
        Image.fromarray(render).save(self._folder / f"{self._count}.jpg", quality=95, subsampling=0)
        for k, one in enumerate(relevancy):
            levels = (one * 255).round().astype(np.uint8)
            Image.fromarray(levels).save(self._folder / f"{self._count}_{k}.png", compress_level=1)
        self._count += 1

    def frames(self, phrase: int) -> Iterator[Picture]:
        """Relevancy of the phrase of this number over the renders, with its scale; sides are even."""
        for frame in range(self._count):
            with Image.open(self._folder / f"{frame}.jpg") as picture:
                render = np.asarray(picture)
            with Image.open(self._folder / f"{frame}_{phrase}.png") as picture:
                relevancy = np.asarray(picture, dtype=np.float32) / 255
            yield even(relevancy_picture(render, relevancy, self._threshold))
