"""The training photos and their cameras, as the data manager hands them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from nerfstudio.cameras.cameras import Cameras
from torch import Tensor


class TrainingViews(Protocol):
    """What the model and guidance need of a data manager."""

    def sample_training_views(self, count: int) -> Iterator[tuple[Cameras, dict[str, Tensor]]]:
        """Yield `count` different cameras with their photos, at random; all of them where there are fewer."""

    def training_cameras(self) -> Cameras:
        """Return the cameras of all photos."""

    def training_view(self, index: int) -> tuple[Cameras, dict[str, Tensor]]:
        """Return one camera with its photo."""
