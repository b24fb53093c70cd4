"""The model in training as guidance sees it: cameras, photos, renders of any size, and new Gaussians."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vlmgs_ns.densify.births import append
from vlmgs_ns.densify.seeding import POINT_OPACITY
from vlmgs_ns.guidance.training_scene import Render, Viewpoint
from vlmgs_ns.method.initial_gaussians import base_colour
from vlmgs_ns.method.model import VlmFastGSModel
from vlmgs_ns.method.training_views import TrainingViews
from vlmgs_ns.rasterize import composite


class GuidedScene:
    """`guidance.training_scene.TrainingScene` over a model in training; one per run."""

    def __init__(self, model: VlmFastGSModel, views: TrainingViews, picture_size: int) -> None:
        """
        Args:
            picture_size: longer side of pictures in pixels; photos are never enlarged.
        """
        self.model = model
        self.views = views
        self.picture_size = picture_size
        self._places = 0

    def begin_step(self) -> None:
        """Start a training step, in which `plant` may fill half of the room that the budget leaves, the other half is births'."""
        config = self.model.config
        self._places = min(config.max_new_per_round, (config.max_gaussians - len(self.model.means)) // 2)

    def viewpoints(self) -> list[Viewpoint]:
        """Return the viewpoints of all training photos, poses as they are before camera optimisation."""
        cameras = self.views.training_cameras()
        intrinsics = cameras.get_intrinsics_matrices()
        points = []
        for index in range(len(cameras)):
            width, height = int(cameras.width[index]), int(cameras.height[index])
            pose, K = cameras.camera_to_worlds[index].to(self.model.device), intrinsics[index].to(self.model.device)
            points.append(Viewpoint(pose, K, width, height, photo=index).within(self.picture_size))
        return points

    def photo(self, viewpoint: Viewpoint) -> Tensor:  # [H, W, 3]
        """Return the photo of a viewpoint, averaged down to its size, on the model's background where it is transparent."""
        if viewpoint.photo is None:
            raise ValueError("no photo was taken from a new viewpoint")
        image = self.views.training_view(viewpoint.photo)[1]["image"].to(self.model.device)
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        picture = self.model.composite_with_background(image, self.model.background_color.to(image.device))
        size = (viewpoint.height, viewpoint.width)
        if picture.shape[:2] == size:
            return picture
        return interpolate(picture.movedim(-1, 0)[None], size, mode="bilinear", antialias=True)[0].movedim(0, -1).clamp(0, 1)

    @torch.no_grad()
    def render(self, viewpoint: Viewpoint) -> Render:
        """Render with the present Gaussians."""
        image, alpha, info = self.model.rasterize(
            dict(self.model.gauss_params.items()), viewpoint.camera_to_world[None], viewpoint.K[None],
            viewpoint.width, viewpoint.height, "RGB+ED",
        )  # fmt: skip
        rgb = composite(image[0], alpha[0], self.model.background_color.to(image.device))
        return Render(rgb, image[0, ..., 3], alpha[0, ..., 0], info)

    def centre(self) -> Tensor:  # [3]
        """Return the centre of the scene, world coordinates."""
        return self.model.extent()[0]

    def extent(self) -> float:
        """Return the radius of the scene, world units."""
        return self.model.extent()[1]

    def recovering(self) -> bool:
        """Return whether renders are dim, as opacities were reset a short while ago."""
        return self.model.strategy.recovering(self.model.step)

    @torch.no_grad()
    def plant(
        self,
        means: Tensor,  # [M, 3]
        colors: Tensor,  # [M, 3]
        sizes: Tensor,  # [M]
    ) -> int:
        """Add round, faint Gaussians, protected from pruning, as far as `begin_step` allows; return how many. None after the last
        birth."""
        model, config = self.model, self.model.config
        count = min(len(means), self._places)
        if count <= 0 or model.step >= int(config.stop_split_at):
            return 0
        self._places -= count
        rest = model.gauss_params["features_rest"]
        values: dict[str, Any] = {
            "means": means[:count],
            "scales": sizes[:count, None].clamp_min(1e-7).log().repeat(1, 3),
            "quats": means.new_tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
            "features_dc": base_colour(colors[:count], config.sh_degree),
            "features_rest": rest.new_zeros(count, *rest.shape[1:]),
            "opacities": torch.logit(means.new_full((count, 1), POINT_OPACITY)),
        }
        new = append(model.gauss_params, model.optimizers, model.strategy_state, values)
        protected = model.strategy_state.get("protected_until")
        if protected is not None:
            protected[new] = model.step + int(config.guidance.prune_protection)
        return count
