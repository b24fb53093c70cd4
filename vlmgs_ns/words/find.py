"""From the relevancy of every Gaussian to the Gaussians of an object.

Features of single Gaussians are noisy: holes open in an object where one falls just short. Relevancy is therefore averaged over
Gaussians that touch before it is held against the threshold, and what passes is cleaned (`clean`). Features of what lies behind
an object or beside it are mixed with the object's; the photos tell these apart, and only what shows mostly where the words fit
passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.words.clean import LEAST_OPACITY, LEAST_SHARE, cleaned
from vlmgs_ns.words.query import THRESHOLD

REACH_TO_REMOVE = 0.1
"""`reach` for an object that is taken out of a scene: its rim, where features mix with what is behind, would stay as a ghost."""

LEAST_IN_MASK = 0.5
"""Share of what a Gaussian shows in training views that lies in the phrase's masks there, from which it may be selected."""


@dataclass(frozen=True)
class Found:
    """What each phrase selects."""

    masks: Tensor  # [N, P] bool
    relevancy: Tensor  # [N, P] in [0, 1], as it was held against the threshold
    above: tuple[int, ...]
    """Gaussians above the threshold, for each phrase, before any was dropped."""
    outside: int
    """Dropped because training views show them outside the phrase's masks for the most part, of all phrases together."""
    faint: int
    """Dropped for their opacity, of all phrases together."""
    apart: int
    """Dropped with the part they belong to."""

    @property
    def mask(self) -> Tensor:  # [N] bool
        """What any phrase selects."""
        return self.masks.any(dim=1)

    def labels(self) -> Tensor:  # [N] int32
        """Return the number of the phrase that selects a Gaussian, the more relevant one of several; −1 for none."""
        if self.masks.shape[1] == 0:
            return torch.full((len(self.masks),), -1, dtype=torch.int32)
        best = self.relevancy.masked_fill(~self.masks, -1.0).argmax(dim=1)
        return torch.where(self.mask, best, -1).int()


def find(
    relevancy: Tensor,  # [N, P] in [0, 1]
    splats: Splats,
    neighbours: Neighbours,
    *,
    threshold: float = THRESHOLD,
    in_masks: Tensor | None = None,  # [N, P] in [0, 1]
    average: bool = True,
    least_opacity: float = LEAST_OPACITY,
    least_share: float = LEAST_SHARE,
    reach: float = 0.0,
) -> Found:
    """Select Gaussians for each phrase.

    Args:
        relevancy: of every Gaussian for every phrase.
        splats: all Gaussians of the scene.
        neighbours: of the same scene.
        threshold: Gaussians more relevant are selected.
        in_masks: as `Question.in_masks`; None: what training views show does not count.
        average: hold the mean over touching Gaussians against the threshold, weighted by opacity.
        least_opacity, least_share: as `cleaned` takes them, for each phrase on its own.
        reach: grow what is left through touching Gaussians of relevancy down to this much below the threshold.

    Raises:
        ValueError: as `cleaned`.
    """
    held = neighbours.averaged(relevancy, splats.opacities).float() if average else relevancy.detach().cpu().float()
    above = held > threshold
    inside = above if in_masks is None else above & (in_masks >= LEAST_IN_MASK)
    parts = [cleaned(column, splats, neighbours, least_opacity, least_share) for column in inside.unbind(1)]
    masks = [part.mask for part in parts]
    if reach > 0:
        masks = [neighbours.grow(mask, held[:, k] > threshold - reach) for k, mask in enumerate(masks)]
    return Found(
        torch.stack(masks, dim=1) if masks else above,
        held,
        tuple(above.sum(dim=0).tolist()),
        int((above & ~inside).sum()),
        sum(part.faint for part in parts),
        sum(part.apart for part in parts),
    )
