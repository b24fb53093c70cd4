"""What the viewer needs of the scene that it shows; the model implements it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from vlmgs_ns.semantics.scene_semantics import SceneSemantics
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.ply import Gaussians


class ShownScene(Protocol):
    """A scene of N Gaussians, trained or in training."""

    prompts: list[str]
    """Phrases whose relevancy the scene renders."""

    @property
    def gauss_params(self) -> Mapping[str, Tensor]:
        """The Gaussians before their activation functions. Adding or removing Gaussians replaces the tensors."""

    @property
    def colors(self) -> Tensor:  # [N, 3]
        """Red, green and blue of the Gaussians as seen from any direction."""

    @property
    def semantics(self) -> SceneSemantics | None:
        """Features of the Gaussians, complete or not; None where there are none."""

    has_semantic_stage: bool
    """Whether training ends with a stage that makes the scene searchable."""

    @property
    def focus(self) -> Tensor | None:  # [N] in [0, 1]
        """Where Gaussians are added sooner, for guidance or the user; None: nowhere."""

    def want_detail(self, camera: Cameras, box: tuple[float, float, float, float]) -> None:
        """Add Gaussians sooner where a box (left, top, right, bottom, as fractions of the picture) shows the scene.

        Raises an InputError where none are added: not in training, without guidance, or too late in the run.
        """

    def splats(self) -> Splats:
        """Return the Gaussians after their activation functions, without gradients."""

    def pinhole(self, camera: Cameras) -> Pinhole:
        """One nerfstudio camera at its full size."""

    def photo_cameras(self, most: int) -> list[Pinhole]:
        """Cameras of so many training photos at most, evenly spread."""

    def searchable(self) -> SceneSemantics:
        """Complete semantics. Raises an InputError that says how to add them, where there are none."""

    def gaussians(self) -> Gaussians:
        """Return a copy of the Gaussians as files hold them, on the CPU."""
