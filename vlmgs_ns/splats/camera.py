"""Cameras as the rasteriser takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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

    def within(self, side: int) -> Pinhole:
        """Return the same view with its longer side at most so many pixels."""
        factor = side / max(self.width, self.height)
        return self if factor >= 1 else self.resized(max(1, round(self.width * factor)), max(1, round(self.height * factor)))

    def shows(
        self,
        points: Tensor,  # [N, 3] world
    ) -> Tensor:  # [N] bool
        """Return which points lie in front of the camera and inside its picture."""
        seen = points @ self.viewmat[:3, :3].T + self.viewmat[:3, 3]
        depth = seen[:, 2]
        place = (seen @ self.K.T)[:, :2] / depth.clamp_min(1e-6)[:, None]
        size = place.new_tensor([self.width, self.height])
        return (depth > 0) & (place >= 0).all(dim=1) & (place <= size).all(dim=1)


def world_to_camera(
    camera_to_worlds: Tensor,  # [C, 3, 4]
) -> Tensor:  # [C, 4, 4]
    """Return nerfstudio's camera → world (OpenGL axes) as gsplat's world → camera (OpenCV axes); differentiable."""
    rotation = camera_to_worlds[:, :3, :3] * camera_to_worlds.new_tensor([1.0, -1.0, -1.0])
    inverse = rotation.transpose(1, 2)
    translation = -inverse @ camera_to_worlds[:, :3, 3:4]
    bottom = camera_to_worlds.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([inverse, translation], dim=-1), bottom], dim=1)
