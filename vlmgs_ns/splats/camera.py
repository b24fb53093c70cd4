"""A pinhole camera as the rasteriser takes it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pinhole:
    """One camera."""

    viewmat: Tensor  # [4, 4] world → OpenCV camera (x right, y down, z forward)
    K: Tensor  # [3, 3] pixels, pixel centres at half integers
    width: int
    height: int

    def resized(self, width: int, height: int) -> Pinhole:
        """Return the same view in another number of pixels."""
        factor = self.K.new_tensor([[width / self.width], [height / self.height], [1.0]])
        return Pinhole(self.viewmat, self.K * factor, width, height)
