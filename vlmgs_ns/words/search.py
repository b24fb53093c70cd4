"""Words → Gaussians of a trained scene, with an answer to whoever asked for something that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words.clean import LEAST_OPACITY, LEAST_SHARE
from vlmgs_ns.words.connect import Neighbours
from vlmgs_ns.words.find import Found, find
from vlmgs_ns.words.query import THRESHOLD

if TYPE_CHECKING:
    from vlmgs_ns.semantics.scene_semantics import SceneSemantics
    from vlmgs_ns.splats.gaussians import Splats


def search(
    semantics: SceneSemantics,
    splats: Splats,
    phrases: Sequence[str],
    negatives: Sequence[str] = (),
    *,
    threshold: float = THRESHOLD,
    average: bool = True,
    least_opacity: float = LEAST_OPACITY,
    least_share: float = LEAST_SHARE,
    reach: float = 0.0,
) -> Found:
    """Find the Gaussians of each phrase.

    Args:
        semantics: of the scene.
        splats: all Gaussians of the scene.
        phrases: what to find.
        negatives: what it is not, beside the scene's own negatives.
        threshold, average, least_opacity, least_share, reach: as `find` takes them.

    Raises:
        InputError: a phrase finds nothing, or the encoder of its text is not on this machine.
    """
    relevancy = semantics.relevancy(splats.means, phrases, [*semantics.about.negatives, *negatives])
    found = find(
        relevancy, splats, Neighbours(splats),
        threshold=threshold, average=average, least_opacity=least_opacity, least_share=least_share, reach=reach,
    )  # fmt: skip
    for k, phrase in enumerate(phrases):
        if found.above[k] == 0:
            # Rounded down, so that what is advised is below it.
            highest = int(float(found.relevancy[:, k].max()) * 100) / 100
            lower = f"take a lower one, --threshold {highest - 0.05:.2f} say, or " if highest >= 0.05 else ""
            raise InputError(
                f"{phrase!r} finds nothing: the highest relevancy of any Gaussian is {highest:.2f}, the threshold {threshold:g}; "
                f"{lower}describe it in other words"
            )
        if not found.masks[:, k].any():
            raise InputError(
                f"{phrase!r} finds {found.above[k]} Gaussians, all fainter than --least-opacity {least_opacity:g}; "
                "take a lower one"
            )
    return found
