"""What became of each photo, and what would make the scene better."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vlmgs_ns.prepare.folds import FOLDED, contradicting
from vlmgs_ns.prepare.motion import LEAST, Motion
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError

if TYPE_CHECKING:
    import pycolmap

FEW_FEATURES = 200
"""Features below which a photo is blurred or plain."""
FEW_SHARED = 30
"""Features shared with another photo that are too few to be relied on; half as many place a photo at best."""


@dataclass(frozen=True)
class Outcome:
    """How well the cameras are known."""

    photos: int
    """photos that could be read, or frames of the video"""
    placed: int
    points: int
    reprojection_error: float
    """mean distance, in pixels, between a point in a photo and where its camera sees it"""
    track_length: float
    """mean number of photos that see a point"""
    contradicting: float
    """share of the pairs of photos from nearly the same place that share hardly a point: of a scene that is folded"""
    left_out: dict[str, str] = field(default_factory=dict)
    """photos that are not in the scene, and why"""
    advice: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        with replacing(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def judge(motion: Motion, unreadable: dict[str, str]) -> Outcome:
    """Return what became of the photos.

    Raises:
        InputError: fewer than three could be placed.
    """
    total = len(motion.photos)
    placed = {image.name for image in motion.models[0].images.values() if image.has_pose} if motion.models else set()
    elsewhere = {image.name: k for k, model in enumerate(motion.models) for image in model.images.values() if image.has_pose}
    missing = sorted(motion.photos.keys() - placed)
    left_out = {name: f"cannot be read: {why}" for name, why in unreadable.items()}
    for name in missing:
        left_out[name] = _why(motion, name, elsewhere)
    if len(placed) < LEAST:
        raise InputError(
            f"{len(placed) or 'none'} of {total} photos could be placed, and a scene needs {LEAST}: "
            f"{_cause(motion)}. {_fix(motion)}"
        )
    model = motion.models[0]
    contradictions = contradicting(model)
    # Photos of another group may have found their place in the largest one afterwards.
    groups = Counter(elsewhere[name] for name in missing if name in elsewhere)
    return Outcome(
        photos=total,
        placed=len(placed),
        points=model.num_points3D(),
        reprojection_error=round(model.compute_mean_reprojection_error(), 3),
        track_length=round(model.compute_mean_track_length(), 2),
        contradicting=round(contradictions, 3),
        left_out=left_out,
        advice=tuple(_advice(model, len(placed), total, list(groups.values()), contradictions > FOLDED)),
    )


def _why(motion: Motion, name: str, elsewhere: dict[str, int]) -> str:
    found = motion.photos[name]
    if name in elsewhere:
        others = motion.models[elsewhere[name]].num_reg_images() - 1
        return f"fits {others} other photos, but none of the largest group: it shows another part of the scene"
    if found.features < FEW_FEATURES:
        return f"has {found.features} features only: blurred, dark, or of something plain"
    if found.inliers < FEW_SHARED < found.repeated:
        return f"shares nothing but repeated patterns with others ({found.repeated} features): tiles, bricks, checks"
    if found.inliers < FEW_SHARED:
        return f"shares at most {found.inliers} features with any other photo"
    return "shares features with others, but no camera position explains them: something moved, mirrors, or is repeated"


def _cause(motion: Motion) -> str:
    features = [photo.features for photo in motion.photos.values()]
    if max(features, default=0) < FEW_FEATURES:
        return f"no photo has more than {max(features, default=0)} features"
    if motion.turned_only:
        return "the camera was turned on the spot, which shows no depth"
    shared = max(photo.inliers for photo in motion.photos.values())
    return f"no two photos share more than {shared} features" if shared < FEW_SHARED else "no camera positions explain them"


def _fix(motion: Motion) -> str:
    if motion.turned_only:
        return "Walk around the thing, or sideways, and take a photo at each step"
    return "Take more photos, sharp and well lit, each showing two thirds of what the one before shows"


def _advice(
    model: pycolmap.Reconstruction,
    placed: int,
    total: int,
    others: list[int],  # photos of each other group
    folded: bool,
) -> list[str]:
    advice = []
    if others:
        sizes = ", ".join(f"{size:,}" for size in (placed, *sorted(others, reverse=True)))
        advice.append(
            f"The photos fall into groups that do not fit together ({sizes} photos); the scene is of the first. Photos on the "
            "way from one to the other would join them."
        )
    if folded:
        advice.append(
            "The scene is folded: photos that stand side by side in it show different things. Two of its sides look alike and "
            "came out on top of each other. Photos on the way around, or things that are there once only, tell them apart."
        )
    if placed < total and not others:
        advice.append(
            "Photos taken between those left out and their neighbours, sharing two thirds of the picture, would bring them in."
        )
    error = model.compute_mean_reprojection_error()
    if error > 1.5:
        advice.append(f"Points are {error:.1f} pixels off: something moved, or the zoom changed, between photos.")
    if model.compute_mean_track_length() < 3:
        advice.append("Most points are seen by two or three photos only: take more of them, from closer together.")
    return advice
