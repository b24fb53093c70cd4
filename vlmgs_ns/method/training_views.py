"""The training photos and their cameras, as the data manager hands them out."""

from __future__ import annotations

from typing import Protocol

from nerfstudio.cameras.cameras import Cameras
from torch import Tensor


class TrainingViews(Protocol):
    """What the model and guidance need of a data manager."""

    def training_cameras(self) -> Cameras:
        """Return the cameras of all photos."""

    def training_view(self, index: int) -> tuple[Cameras, dict[str, Tensor]]:
        """Return one camera with its photo."""
