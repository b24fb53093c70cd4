"""What guidance needs of training: the photos' cameras, a look at the scene from anywhere, and room for new Gaussians."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Viewpoint:
    """A pinhole camera, undistorted, at the size in which guidance looks at pictures."""

    camera_to_world: Tensor  # [3, 4] OpenGL axes (nerfstudio)
    K: Tensor  # [3, 3] pixels
    width: int
    height: int
    photo: int | None = None
    """Index of the training photo that was taken from here; None for a new viewpoint."""

    @property
    def opencv(self) -> Tensor:  # [4, 4]
        """Camera → world with OpenCV axes (x right, y down, z forward)."""
        bottom = self.camera_to_world.new_tensor([[0.0, 0.0, 0.0, 1.0]])
        flip = self.camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0])
        return torch.cat([self.camera_to_world, bottom]) * flip

    def within(self, max_size: int) -> Viewpoint:
        """The same view with its longer side at most `max_size` pixels."""
        scale = max_size / max(self.width, self.height)
        if scale >= 1:
            return self
        width, height = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        factors = self.K.new_tensor([[width / self.width], [height / self.height], [1.0]])
        return replace(self, K=self.K * factors, width=width, height=height)

    def project(
        self,
        point: Tensor,  # [3] world
    ) -> tuple[float, float] | None:
        """Where a point appears, as a fraction of width and height (x right, y down); None if it is behind or outside."""
        local = self.opencv[:3, :3].T @ (point.to(self.camera_to_world) - self.camera_to_world[:, 3])
        if local[2] <= 0:
            return None
        x, y, z = (self.K @ local).tolist()
        x, y = x / z / self.width, y / z / self.height
        return (x, y) if 0 <= x < 1 and 0 <= y < 1 else None


@dataclass(frozen=True)
class Render:
    """The scene as it is now, from a viewpoint."""

    rgb: Tensor  # [H, W, 3] in [0, 1]
    depth: Tensor  # [H, W] expected z-depth, world units
    coverage: Tensor  # [H, W] accumulated opacity
    info: dict[str, Any]
    """What `rasterization` returned with it."""


class TrainingScene(Protocol):
    """The scene in training, as guidance sees it. All calls are made on the training thread."""

    def begin_step(self) -> None:
        """Start a training step, in which `plant` may use up to half of the room that the budget leaves."""

    def viewpoints(self) -> list[Viewpoint]:
        """Return the viewpoints of all training photos, in their order."""

    def photo(self, viewpoint: Viewpoint) -> Tensor:
        """Return the training photo of a viewpoint, at its size. [H, W, 3] in [0, 1]."""

    def render(self, viewpoint: Viewpoint) -> Render:
        """Render with the present Gaussians."""

    def centre(self) -> Tensor:
        """Return the scene's centre. [3] world."""

    def extent(self) -> float:
        """Return the radius of the cameras around it, world units."""

    def recovering(self) -> bool:
        """Return whether opacities were reset so lately that renders are still dim."""

    def plant(self, means: Tensor, colors: Tensor, sizes: Tensor) -> int:
        """Add round Gaussians ([M, 3] world, [M, 3] in [0, 1], [M] world units) as far as the budget allows; return how many."""


def nearest(
    cameras: list[Viewpoint],
    viewpoint: Viewpoint,
    count: int,
) -> list[Viewpoint]:
    """The cameras that stand nearest to a viewpoint, other than those at its very place."""
    place = viewpoint.camera_to_world[:, 3]
    away = [(float((camera.camera_to_world[:, 3] - place).norm()), k) for k, camera in enumerate(cameras)]
    return [cameras[k] for distance, k in sorted(away) if distance > 0][:count]
