"""What labels of a scene are, whichever data set they come from.

Boxes are shares of the picture (see `metrics.Box`), so that they hold for a photo of any size. Masks are at the labels' own
size and are read when they are asked for: a data set of 12-megapixel masks is never in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from vlmgs_ns.evaluation.metrics import Box, Mask
from vlmgs_ns.system.errors import InputError


@dataclass(frozen=True)
class LabelledObject:
    """Everything in one view that a phrase names; it may be in several places."""

    phrase: str
    boxes: tuple[Box, ...] = ()
    """Around each place; empty where the data set has masks alone."""
    mask: Callable[[], Mask] | None = None
    """Gives the pixels [H, W] of all places, at the view's size; None where the data set has boxes alone. May raise
    `InputError`, for a file that is damaged."""


@dataclass(frozen=True)
class Keyframe:
    """The camera of a rendered picture, from a path of nerfstudio's viewer."""

    camera_to_world: tuple[tuple[float, ...], ...]
    """3 rows of 4, OpenGL axes, in the frame that nerfstudio's dataparser gives the scene by default."""
    fov: float
    """Vertical, in degrees."""


@dataclass(frozen=True)
class LabelledView:
    """One picture and what is labelled in it. Phrases of the scene that are not among the objects are not to be seen."""

    image: str
    """File name, without folders."""
    width: int
    """Width of the labels in pixels; the photo may be of another size with the same aspect."""
    height: int
    objects: tuple[LabelledObject, ...]
    """One per phrase; see `merged`."""
    keyframe: Keyframe | None = None
    """Where it was rendered from; None: it is a photo."""

    @property
    def stem(self) -> str:
        """File name without its suffix, by which a view is matched with a photo."""
        return PurePath(self.image).stem


@dataclass(frozen=True)
class LabelledScene:
    """The labelled views of one scene."""

    name: str
    views: tuple[LabelledView, ...]
    phrases: tuple[str, ...]
    """The label set, over which an arg max is taken: every phrase of any view, and perhaps some that no view shows."""
    background: tuple[str, ...] = ()
    """Phrases of what belongs to no object, for the arg max over the label set to lose pixels to."""
    settings: Mapping[str, str | int] = field(default_factory=dict)
    """Which reader with which choices gave these labels; the same for every scene that is read so."""

    def __post_init__(self) -> None:
        _refuse_twice((view.stem for view in self.views), f"view of scene {self.name}")
        for view in self.views:
            _refuse_twice((thing.phrase for thing in view.objects), f"phrase in view {view.image}")
        _refuse_twice((*self.phrases, *self.background), f"phrase of scene {self.name}")
        unknown = {thing.phrase for view in self.views for thing in view.objects} - set(self.phrases)
        if unknown:
            raise ValueError(f"phrase {min(unknown)!r} of scene {self.name} is not in its label set: add it to `phrases`")


def phrases_of(views: Iterable[LabelledView]) -> tuple[str, ...]:
    """Return the phrases of the views, sorted."""
    return tuple(sorted({thing.phrase for view in views for thing in view.objects}))


def merged(objects: Iterable[LabelledObject]) -> tuple[LabelledObject, ...]:
    """Objects of the same phrase made one, with the boxes of all and the union of their masks; in order of appearance."""
    groups: dict[str, list[LabelledObject]] = {}
    for thing in objects:
        groups.setdefault(thing.phrase, []).append(thing)
    return tuple(
        LabelledObject(phrase, tuple(box for thing in group for box in thing.boxes), _union([thing.mask for thing in group]))
        for phrase, group in groups.items()
    )


def _union(masks: list[Callable[[], Mask] | None]) -> Callable[[], Mask] | None:
    known = [mask for mask in masks if mask is not None]
    return (lambda: np.logical_or.reduce([mask() for mask in known])) if known else None


def _refuse_twice(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name!r} is there twice: names must be unique, merge or rename one of them")
        seen.add(name)


def build_scene(
    folder: Path,
    views: Iterable[LabelledView],
    reader: str,
    *,
    phrases: Iterable[str] | None = None,
    background: Iterable[str] = (),
    **settings: str | int,
) -> LabelledScene:
    """Return a scene of views that were read from ``folder``.

    Raises:
        InputError: nothing is labelled, or names that must be unique are not.
    """
    views = tuple(views)
    if not any(view.objects for view in views):
        raise InputError(
            f"{folder} labels nothing in {len(views)} views, so that there is nothing to evaluate. Give other labels."
        )
    known = phrases_of(views) if phrases is None else tuple(phrases)
    try:
        return LabelledScene(folder.resolve().name, views, known, tuple(background), {"labels": reader, **settings})
    except ValueError as error:
        raise InputError(f"{folder}: {error}. Correct the labels.") from None
