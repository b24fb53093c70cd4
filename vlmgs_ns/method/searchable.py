"""SearchableModel: a Splatfacto whose Gaussians may carry features that answer to words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.models.splatfacto import SplatfactoModel
from torch import Tensor

from vlmgs_ns.method.training_views import TrainingViews
from vlmgs_ns.semantics.scene_semantics import SceneSemantics
from vlmgs_ns.splats.camera import Pinhole, world_to_camera
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.ply import Gaussians, trained_gaussians
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.spacing import evenly_spaced
from vlmgs_ns.viewer.interrupts import uninterrupted


class SearchableModel(SplatfactoModel):
    """What words, the viewer and exports need of a scene: its Gaussians as they are drawn, and their features."""

    semantics: SceneSemantics | None
    """Features of the Gaussians, complete or not; None where there are none."""

    prompts: list[str]
    """Phrases shown in evaluation, as ``relevancy_0``, ``relevancy_1``, …"""

    training_views: TrainingViews | None
    """The photos that it is trained on."""

    def splats(self) -> Splats:
        """Return the Gaussians after their activation functions, without gradients."""
        parameters = {name: values.detach() for name, values in self.gauss_params.items()}
        opacities = torch.sigmoid(parameters["opacities"]).squeeze(-1)
        return Splats(parameters["means"], parameters["quats"], torch.exp(parameters["scales"]), opacities)

    def gaussians(self) -> Gaussians:
        """Return a copy of the Gaussians as files hold them, on the CPU."""
        return trained_gaussians(dict(self.gauss_params.items()), self.config.sh_degree)

    def pinhole(self, camera: Cameras) -> Pinhole:
        """Return one nerfstudio camera at its full size, as the semantic field takes it."""
        pose = world_to_camera(camera.camera_to_worlds.to(self.device))[0]
        K = camera.get_intrinsics_matrices()[0].to(self.device)
        return Pinhole(pose, K, int(camera.width.item()), int(camera.height.item()))

    def photo_cameras(self, most: int) -> list[Pinhole]:
        """Return the cameras of so many training photos at most, evenly spread; none where the photos are not known."""
        if self.training_views is None:
            return []
        cameras = self.training_views.training_cameras()
        return [self.pinhole(cameras[k : k + 1]) for k in evenly_spaced(len(cameras), most)]

    def searchable(self) -> SceneSemantics:
        """Return the scene's semantics. Raises an InputError that says how to add them, where there are none."""
        if self.semantics is None or not self.semantics.complete:
            raise InputError(
                "this scene cannot be searched with words yet: add the semantic stage with ns-train vlm-fastgs --data DATA "
                "--load-dir RUN/nerfstudio_models --max-num-iterations 0"
            )
        return self.semantics

    def semantic_outputs(
        self,
        camera: Cameras,
        inside: Tensor | None,  # [N] bool: which Gaussians are drawn; None: all
    ) -> dict[str, Tensor]:
        """Return relevancy maps of the prompts and the picture of the features, in evaluation of a scene that has them."""
        if self.training or self.semantics is None or not self.semantics.complete:
            return {}
        with uninterrupted():
            maps, colours = self.semantics.pictures(self.splats(), self.pinhole(camera), self.prompts, inside)
        return {**{f"relevancy_{k}": maps[..., k : k + 1] for k in range(len(self.prompts))}, "semantics_pca": colours}

    def load_state_dict(self, dict: Mapping[str, Any], **kwargs: Any) -> None:  # type: ignore[override]
        """Load a checkpoint of any number of Gaussians, with semantics or without."""
        kept = {name.removeprefix("semantics."): value for name, value in dict.items() if name.startswith("semantics.")}
        self.semantics = SceneSemantics.from_state(kept).to(self.device) if kept else None
        super().load_state_dict(dict, **kwargs)
