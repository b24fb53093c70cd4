"""Phrases put to a scene: scored once per Gaussian, then blended for as many views as anyone looks from.

Scores are inner products, and blending is linear, so that P phrases and M negatives are P + M blended channels however large
the features are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.semantics.relevancy import relevancy_from_scores
from vlmgs_ns.semantics.scene_semantics import SceneSemantics
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.words.shape import mass

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """What one camera sees of the phrases."""

    relevancy: Floats  # [P, H, W] in [0, 1], 0.5 where nothing is
    alpha: Floats  # [H, W] opacity blended there


class SearchableScene(Protocol):
    """What a question needs of a trained scene; the model implements it."""

    @property
    def semantics(self) -> SceneSemantics | None:
        """Features of the Gaussians; None where there are none."""

    def set_prompts(self, phrases: Sequence[str]) -> None:
        """Show the relevancy of these phrases. Raises an InputError for a scene without semantics."""

    def splats(self) -> Splats:
        """The Gaussians after their activation functions, without gradients."""


class Question:
    """Phrases and the negatives that they have to beat.

    Args:
        model: in evaluation mode.
        phrases: P ≥ 1.
        negatives: more of them, beside those that the scene was trained with.

    Raises:
        InputError: the scene has no semantics, or the encoder of new phrases is not on this machine.
    """

    def __init__(self, model: SearchableScene, phrases: Sequence[str], negatives: Sequence[str] = ()) -> None:
        model.set_prompts([])  # refuses a scene without semantics
        semantics = model.semantics
        assert semantics is not None
        self.phrases = tuple(phrases)
        self.negatives = tuple(dict.fromkeys([*semantics.about.negatives, *negatives]))
        self.splats: Splats = model.splats()
        texts = semantics.embed([*self.phrases, *self.negatives])
        with torch.no_grad():
            self._scores = semantics.scores(self.splats.means, texts)  # [N, P + M]

    def of_gaussians(self) -> Tensor:  # [N, P] in [0, 1], on the CPU
        """Relevancy of every Gaussian."""
        return self._relevancy(self._scores).cpu()

    @torch.no_grad()
    def look(self, camera: Pinhole) -> Look:
        """Relevancy of every pixel."""
        image, alpha = blend(self.splats, camera, self._scores)
        return Look(self._relevancy(image).movedim(-1, 0).cpu().numpy(), alpha.cpu().numpy())

    def shown(
        self,
        camera: Pinhole,
        masks: npt.NDArray[np.bool_],  # [P, H, W]
    ) -> Tensor:  # [N, P + 1] on the CPU
        """What each Gaussian shows in a view: its blending weight summed over each mask, and last over the whole picture."""
        maps = torch.from_numpy(np.concatenate([masks, np.ones_like(masks[:1])])).float().movedim(0, -1)
        # Blending is linear in the features, so that its gradient is the lift of the maps.
        features = self.splats.means.new_zeros(len(self.splats), len(maps[0, 0]), requires_grad=True)
        image, _ = blend(self.splats, camera, features)
        (weights,) = torch.autograd.grad(image, features, maps.to(image.device))
        return weights.cpu()

    def _relevancy(self, scores: Tensor) -> Tensor:
        return relevancy_from_scores(scores, len(self.phrases))


def share_in_picture(splats: Splats, camera: Pinhole) -> float:
    """Share of the Gaussians' mass with centres in front of the camera and inside its picture; 1 where there is no mass."""
    weights = mass(splats)
    if not weights.sum() > 0:
        return 1.0
    seen = splats.means @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    depth = seen[:, 2]
    place = (seen @ camera.K.T)[:, :2] / depth.clamp_min(1e-6)[:, None]
    size = place.new_tensor([camera.width, camera.height])
    inside = (depth > 0) & (place >= 0).all(dim=1) & (place <= size).all(dim=1)
    return float(weights[inside].sum() / weights.sum())
