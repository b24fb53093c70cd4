"""From a place on a picture to Gaussians: the thing under a pointer, or what a box shows. No words are needed.

A thing is what the pointer shows, with all that hangs together with it and looks like it. Colours are compared after they were
averaged with those of touching Gaussians, so that small patterns blur, and brightness counts for less than hue, as light and
shade change it. Where the scene has CLIP features they count too, and colours for less: a thing may be striped. Along the
direction that tells the feature under the pointer from the scene's mean feature, 0 is as under the pointer and 1 is as far from
it as what the pointer shows is from the mean, whatever the encoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import normalize

from vlmgs_ns.semantics.blend import shown
from vlmgs_ns.semantics.relevancy import relevancy_from_scores
from vlmgs_ns.semantics.scene_semantics import SceneSemantics
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.shape import EXTENT, mass
from vlmgs_ns.system.errors import InputError

WINDOW = 2
"""Pixels on each side of the pointer that it shows as well."""
COLOUR, COLOUR_BESIDE_FEATURES, FEATURE = 0.2, 0.4, 0.4
"""Differences at which a Gaussian is no longer like the thing: in colour, without features and with, and in features."""
AVERAGED = 3
"""Times that colours are averaged with those of touching Gaussians."""
REGION = 1 << 13
"""Gaussians that a click looks at first."""
LEAST_IN_BOX = 0.5
"""Share of what a Gaussian shows in the picture that lies in a box, from which the box selects it."""
LEAST_SEEN = 0.1
"""Share of what a Gaussian could show if nothing hid it, face on, from which a box selects it."""


def under(
    splats: Splats,
    camera: Pinhole,
    x: float,
    y: float,
) -> Tensor:  # [N] on the CPU
    """Return what each Gaussian shows within `WINDOW` pixels of a place, in pixels from the top left: its blending weight.

    Raises:
        InputError: the place is outside the picture, or nothing is there.
    """
    if not (0 <= x < camera.width and 0 <= y < camera.height):
        raise InputError(f"({x:g}, {y:g}) is outside the picture, which has {camera.width} x {camera.height} pixels")
    side = 2 * WINDOW + 1
    K = camera.K.clone()
    K[:2, 2] -= K.new_tensor([int(x) - WINDOW, int(y) - WINDOW])
    # Only these pixels are drawn.
    weights = shown(splats, Pinhole(camera.viewmat, K, side, side), torch.ones(side, side, 1), min_radius=0.0)[:, 0].cpu()
    if not weights.any():
        raise InputError(f"there is nothing at ({x:g}, {y:g}); take another place")
    return weights


def in_box(
    splats: Splats,
    camera: Pinhole,
    box: tuple[float, float, float, float],
) -> Tensor:  # [N] bool, on the CPU
    """Return the Gaussians that a picture shows in a box (left, top, right, bottom in pixels) for the most part.

    Raises:
        InputError: nothing of the scene is in the box.
    """
    left, top, right, bottom = (round(edge) for edge in box)
    maps = torch.zeros(camera.height, camera.width, 2)
    maps[max(0, top) : max(0, bottom), max(0, left) : max(0, right), 0] = 1
    maps[..., 1] = 1
    inside, whole = shown(splats, camera, maps, min_radius=0.0).cpu().unbind(1)
    depth = (splats.means @ camera.viewmat[2, :3] + camera.viewmat[2, 3]).clamp_min(1e-6)
    could = (2 * math.pi * mass(splats) * camera.K[0, 0] * camera.K[1, 1] / depth**2).cpu()
    mask = (inside > 0) & (inside >= LEAST_IN_BOX * whole) & (inside >= LEAST_SEEN * could)
    if not mask.any():
        raise InputError(f"there is nothing in the box ({left}, {top}, {right}, {bottom}); drag another")
    return mask


class Region(NamedTuple):
    """M Gaussians around what a pointer shows."""

    ids: Tensor  # [M] increasing
    neighbours: Neighbours
    """Of these alone."""
    tones: Tensor  # [M, 3]
    unsure: Tensor  # [M] bool: with more of the scene their tones, or whom they touch, may be others


class Looks:
    """How alike the Gaussians of one scene look.

    A click looks at a region of the scene, and at more of it until what is left out cannot change the thing.

    Args:
        splats: all Gaussians of the scene.
        colours: [N, 3] red, green and blue from 0 to 1, as seen from any direction.
        neighbours: of the same scene.
        semantics: features of the same Gaussians, where there are any.
    """

    def __init__(self, splats: Splats, colours: Tensor, neighbours: Neighbours, semantics: SceneSemantics | None = None) -> None:
        self._splats, self._neighbours, self._semantics = splats.detached(), neighbours, semantics
        # Brightness; red against green; both against blue. The two latter are orthonormal, the first counts for less.
        axes = torch.tensor([[1 / 6, 1 / 6, 1 / 6], [0.5**0.5, -(0.5**0.5), 0], [6**-0.5, 6**-0.5, -2 * 6**-0.5]])
        self._tones = colours.cpu().clamp(0, 1) @ axes.T.to(colours.dtype)
        self._region: Region | None = None

    @torch.no_grad()
    def thing(
        self,
        weights: Tensor,  # [N] on the CPU, as of `under`
        width: float = 1.0,
    ) -> Tensor:  # [N] bool, on the CPU
        """Return the thing: what differs from what is shown by less than `width`, in one part with most of it."""
        shown, mask = weights > 0, torch.zeros(len(weights), dtype=torch.bool)
        region, away, count = self._region, None, REGION
        while True:
            # What was looked at last will do for a click beside the last one.
            if region is not None and int(shown[region.ids].sum()) == int(shown.sum()):
                found, sure = self._thing(region, weights[region.ids], width)
                if sure:
                    self._region = region
                    mask[region.ids[found]] = True
                    return mask
            if away is None:
                centres = self._splats.means.cpu().double()
                away = torch.from_numpy(cKDTree(centres[shown]).query(centres)[0])
            region = self._around(away, count)
            count = 4 * count

    def _around(
        self,
        away: Tensor,  # [N] distance from the nearest that is shown
        count: int,
    ) -> Region:
        """Return so many Gaussians that reach nearest to what is shown; all, where that is more than half of them."""
        extents = EXTENT * self._splats.scales.cpu().amax(dim=1)
        radius = float((away - extents).kthvalue(count)[0]) if 2 * count < len(away) else math.inf
        ids = (away - extents <= radius).nonzero()[:, 0]
        neighbours, tones = self._neighbours.part(ids), self._tones[ids]
        # Whatever touches the others is in the region.
        unsure = (away + extents > radius)[ids]
        for _ in range(AVERAGED):
            tones = neighbours.averaged(tones, self._splats.opacities[ids]).to(tones.dtype)
            unsure = neighbours.ring(unsure, torch.ones_like(unsure))
        return Region(ids, neighbours, tones, unsure)

    def _thing(
        self,
        region: Region,
        weights: Tensor,  # [M]
        width: float,
    ) -> tuple[Tensor, bool]:
        """Return the thing in a region [M] bool, and whether it is the same in the whole scene."""
        alike = self._unlike(region, weights) < width
        shown = weights > 0
        if not (alike & shown).any():
            alike[weights.argmax()] = True
        labels = region.neighbours.components(alike)
        parts = torch.zeros(int(labels.max()) + 1).index_add_(0, labels[alike], weights[alike])
        reached = shown | (alike & (parts > 0)[labels])
        return labels == parts.argmax(), not bool((reached & region.unsure).any())

    def _unlike(
        self,
        region: Region,
        weights: Tensor,  # [M]
    ) -> Tensor:  # [M]
        """Return how much each Gaussian of a region differs from what is shown; from 1 on it does not belong to it."""
        share = weights / weights.sum()
        colour = (region.tones - share @ region.tones).norm(dim=1)
        if self._semantics is None:
            return colour / COLOUR
        means, typical = self._splats.means, self._semantics.typical()
        shown = share.nonzero()[:, 0]
        here = normalize(share[shown].to(means) @ self._semantics.clip(means, region.ids[shown].to(means.device)), dim=0)
        along = self._semantics.scores(means, (here - typical)[None], region.ids.to(means.device)).cpu()
        along = region.neighbours.averaged(along, self._splats.opacities[region.ids])[:, 0].to(share)
        feature = 1 - along / (share @ along).clamp_min(1e-6)
        return ((colour / COLOUR_BESIDE_FEATURES) ** 2 + (feature.clamp_min(0) / FEATURE) ** 2).sqrt()


@torch.no_grad()
def best_name(
    semantics: SceneSemantics,
    splats: Splats,
    mask: Tensor,  # [N] bool, on the CPU
    phrases: list[str],
) -> tuple[str, float] | None:
    """Return the phrase that fits these Gaussians best, with its relevancy for their mean feature; None without phrases or
    Gaussians. Where the encoder is not on this machine, of the phrases that the scene holds."""
    try:
        texts = semantics.embed([*phrases, *semantics.about.negatives])
    except InputError:
        phrases = [phrase for phrase in phrases if phrase in semantics.texts]
        texts = semantics.embed([*phrases, *semantics.about.negatives])
    if not phrases or not mask.any():
        return None
    chosen = mask.to(splats.means.device)
    weights = mass(splats[chosen])
    scores = weights @ semantics.scores(splats.means, texts)[chosen] / weights.sum()
    relevancy = relevancy_from_scores(scores, len(phrases))
    best = int(relevancy.argmax())
    return phrases[best], float(relevancy[best])
