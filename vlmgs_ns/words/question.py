"""A query put to a scene: scored once per Gaussian, then blended for each view.

Scores are inner products, and blending is linear, so that P phrases and M negatives are P + M blended channels however large
the features are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from vlmgs_ns.semantics.blend import MIN_RADIUS, blend
from vlmgs_ns.semantics.relevancy import relevancy_from_scores
from vlmgs_ns.semantics.scene_semantics import SceneSemantics
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.shape import mass
from vlmgs_ns.words.clean import LEAST_OPACITY, LEAST_SHARE
from vlmgs_ns.words.find import Found, find
from vlmgs_ns.words.place import Place, places
from vlmgs_ns.words.query import Parts, Query
from vlmgs_ns.words.sighting import LEAST_ALPHA, Floats, Sighting, sight

MOST_VIEWS, SIDE = 12, 128
"""Training views that decide what shows in masks, and the longer side in pixels of the pictures for that."""


@dataclass(frozen=True)
class Look:
    """What one camera sees of the phrases."""

    relevancy: Floats  # [P, H, W] in [0, 1], 0.5 where nothing is
    alpha: Floats  # [H, W] opacity blended there
    sightings: tuple[Sighting, ...]
    """Mask and parts of each phrase."""


class SearchableScene(Protocol):
    """What a question needs of a trained scene; the model implements it."""

    def searchable(self) -> SceneSemantics:
        """Return the features of the Gaussians. Raises an InputError for a scene without them."""

    def photo_cameras(self, most: int) -> list[Pinhole]:
        """Return the cameras of so many training photos at most, evenly spread; none where the photos are not known."""

    def splats(self) -> Splats:
        """Return the Gaussians after their activation functions, without gradients."""


class Question:
    """What is looked for, and the scores of all Gaussians; `ask` and `ask_like` make one of phrases and of a picture.

    Args:
        query: what to look for; its phrases name it in answers.
        negatives: names of what it has to beat.
        splats: all Gaussians of the scene.
        scores: [N, P + M] of the P phrases, then of the M negatives.
        views: of the training photos, by which Gaussians are told from what lies behind and beside a thing.
    """

    def __init__(
        self, query: Query, negatives: Sequence[str], splats: Splats, scores: Tensor, views: Sequence[Pinhole] = ()
    ) -> None:
        self.query, self.negatives = query, tuple(negatives)
        self.splats, self.scores, self.views = splats, scores, views

    @staticmethod
    def of(
        splats: Splats,
        mask: Tensor,  # [N] bool, on the CPU
        name: str,
    ) -> Question:
        """Return the question whose answer are these Gaussians: relevant are pixels that they cover more than all others do."""
        own = mask.to(splats.means)
        return Question(Query((name,)), ("everything else",), splats, torch.stack([own, 1 - own], dim=1))

    @cached_property
    def neighbours(self) -> Neighbours:
        """Which Gaussians touch."""
        return Neighbours(self.splats)

    @cached_property
    def relevancy(self) -> Tensor:  # [N, P] in [0, 1], on the CPU
        """Relevancy of every Gaussian for every phrase."""
        return relevancy_from_scores(self.scores, len(self.query.phrases)).cpu()

    def select(
        self,
        *,
        average: bool = True,
        least_opacity: float = LEAST_OPACITY,
        least_share: float = LEAST_SHARE,
        reach: float = 0.0,
    ) -> Found:
        """Select the Gaussians of each phrase; the arguments are those of `find`."""
        return find(
            self.relevancy, self.splats, self.neighbours, threshold=self.query.threshold,
            in_masks=self.in_masks(self.query.threshold), average=average, least_opacity=least_opacity,
            least_share=least_share, reach=reach,
        )  # fmt: skip

    def in_masks(self, threshold: float) -> Tensor:  # [N, P] in [0, 1], on the CPU
        """Return the share of what each Gaussian shows in training views that lies in each phrase's masks; 1 where it shows
        nothing."""
        shown = self._shown(threshold)
        return torch.where(shown[:, -1:] > 0, shown[:, :-1] / shown[:, -1:], 1.0)

    def clearest(self, found: Found) -> Found:
        """Leave of what each phrase selects the part that training views show most clearly."""
        shown = self._shown(self.query.threshold)[:, :-1]
        left = places(found, self.splats, self.neighbours, self.query.threshold, shown)
        masks = torch.stack([place.mask for place in left], dim=1)
        return replace(found, masks=masks, apart=found.apart + int((found.masks & ~masks).sum()))

    def _shown(self, threshold: float) -> Tensor:  # [N, P + 1] on the CPU
        """Return what each Gaussian shows in training views, as of `trace`."""
        shown = torch.zeros(len(self.splats), len(self.query.phrases) + 1)
        for view in self.views:
            shown += self.trace(view.within(SIDE), threshold, min_radius=0.0)[1]
        return shown

    @torch.no_grad()
    def look(self, camera: Pinhole) -> Look:
        """Return the relevancy of every pixel, and what is found."""
        return self._seen(*blend(self.splats, camera, self.scores), self.query.threshold)

    def trace(
        self, camera: Pinhole, threshold: float, min_radius: float = MIN_RADIUS
    ) -> tuple[Look, Tensor]:  # [N, P + 1] on the CPU
        """Return the look and what each Gaussian shows in it: its blending weight in the covered pixels above the threshold, by
        phrase, and last in all covered pixels."""
        with torch.enable_grad():
            scores = self.scores.detach().requires_grad_()
            image, alpha = blend(self.splats, camera, scores, min_radius=min_radius)
        look, count = self._seen(image.detach(), alpha, threshold), len(self.query.phrases)
        # Blending is linear: its gradient is the lift of as many maps as there are scores, P + 1 at least.
        maps = torch.zeros_like(image)
        maps[..., :count] = torch.from_numpy(look.relevancy).movedim(0, -1) > threshold
        maps[..., count] = 1
        maps[alpha < LEAST_ALPHA] = 0
        (weights,) = torch.autograd.grad(image, scores, maps)
        return look, weights[:, : count + 1].cpu()

    def _seen(
        self,
        image: Tensor,  # [H, W, P + M] blended scores
        alpha: Tensor,  # [H, W]
        threshold: float,
    ) -> Look:
        maps = relevancy_from_scores(image, len(self.query.phrases)).movedim(-1, 0).cpu().numpy()
        opacity = alpha.cpu().numpy()
        return Look(maps, opacity, tuple(sight(one, opacity, threshold) for one in maps))


def ask(scene: SearchableScene, query: Query, lock: AbstractContextManager[object] | None = None) -> Question:
    """Put a query to a scene in evaluation mode.

    Args:
        lock: held while Gaussians are read, but not while phrases are embedded, which may take seconds.

    Raises:
        InputError: the scene has no semantics, or the encoder of new phrases is not on this machine.
    """
    semantics = scene.searchable()
    own = semantics.about.negatives if query.scene_negatives or not query.negatives else ()
    negatives = tuple(dict.fromkeys([*own, *query.negatives]))
    with torch.no_grad():
        texts = semantics.embed([*query.phrases, *negatives])
    return _scored(scene, query, negatives, texts, lock)


def ask_like(
    scene: SearchableScene,
    picture: Tensor,  # [3, H, W] in [0, 1]
    query: Query,
) -> Question:
    """Ask a scene in evaluation mode for what looks like a picture more than the scene at large does.

    Args:
        query: the picture's name and the threshold.

    Raises:
        InputError: as `ask`.
    """
    semantics = scene.searchable()
    vectors = torch.stack([semantics.embed_picture(picture), semantics.typical()])
    return _scored(scene, query, ("the scene at large",), vectors, None)


def _scored(
    scene: SearchableScene,
    query: Query,
    negatives: Sequence[str],
    vectors: Tensor,  # [P + M, D]
    lock: AbstractContextManager[object] | None,
) -> Question:
    with torch.no_grad(), lock or nullcontext():
        splats = scene.splats()
        scores = scene.searchable().scores(splats.means, vectors)
        return Question(query, negatives, splats, scores, scene.photo_cameras(MOST_VIEWS))


class Survey:
    """A question asked from one view after another: where each phrase is in space, and which view shows it most clearly."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._cameras: list[Pinhole] = []
        self._clarity: list[list[float]] = []  # by view and phrase
        self._shown = torch.zeros(len(question.splats), len(question.query.phrases))

    def look(self, camera: Pinhole) -> Look:
        """Look from one more view."""
        look, shown = self.question.trace(camera, self.question.query.threshold)
        self._cameras.append(camera)
        self._clarity.append([sighting.clarity for sighting in look.sightings])
        self._shown += shown[:, :-1]
        return look

    def places(self, parts: Parts = "clearest") -> list[Place]:
        """Return the place of each phrase, by the views looked from."""
        question = self.question
        return places(question.select(), question.splats, question.neighbours, question.query.threshold, self._shown, parts)

    def clarity(self, found: list[Place]) -> list[list[float]]:
        """Return how clearly each view shows each phrase, by phrase and view; the view of the greatest clarity is the best.

        A sighting's clarity counts by the share of the phrase's Gaussians that lie in the picture: a view that cuts a thing
        shows it less clearly.
        """
        splats = self.question.splats
        rows = []
        for k, place in enumerate(found):
            selected = splats[place.mask.to(splats.means.device)]
            shares = [share_in_picture(selected, camera) for camera in self._cameras]
            rows.append([view[k] * share for view, share in zip(self._clarity, shares, strict=True)])
        return rows


def share_in_picture(splats: Splats, camera: Pinhole) -> float:
    """Share of the Gaussians' mass with centres in front of the camera and inside its picture; 1 where there is no mass."""
    weights = mass(splats)
    if not weights.sum() > 0:
        return 1.0
    inside = camera.shows(splats.means)
    return float(weights[inside].sum() / weights.sum())
