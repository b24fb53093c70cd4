"""The photos of a trained model as the semantic stage sees them, with the poses that training ended with."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmgs_ns.method.model import VlmFastGSModel
from vlmgs_ns.method.training_views import TrainingViews
from vlmgs_ns.splats.camera import Pinhole


class PhotoViews:
    """`semantics.stage.Views` over a trained model."""

    def __init__(self, model: VlmFastGSModel, views: TrainingViews) -> None:
        self._model = model
        self._views = views
        self._count = len(views.training_cameras())

    def __len__(self) -> int:
        return self._count

    def photo(self, index: int) -> Tensor:  # [H, W, 3] uint8, or in [0, 1]
        """Return a photo as training sees it, on the model's background where it is transparent."""
        image = self._views.training_view(index)[1]["image"].cpu()
        if image.shape[-1] == 3:
            return image
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        return self._model.composite_with_background(image, self._model.background_color.to(image.device))

    @torch.no_grad()
    def camera(self, index: int) -> Pinhole:
        """Return the camera of a photo, at the photo's size."""
        camera, _ = self._views.training_view(index)
        camera.camera_to_worlds = self._model.camera_optimizer.apply_to_camera(camera)
        return self._model.pinhole(camera)

    def mask(self, index: int) -> Tensor | None:  # [H, W] bool
        """Return the pixels of a photo that count; None: all."""
        mask = self._views.training_view(index)[1].get("mask")
        return None if mask is None else mask[..., 0].to(self._model.device) > 0.5
