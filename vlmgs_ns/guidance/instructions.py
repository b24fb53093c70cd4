"""What the user wants in detail: pixels of views, marked by hand or found by a model, traced back to Gaussians before each round.

Marks are kept as pixels, never as Gaussians, so that they hold whatever training adds or removes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmgs_ns.guidance.focus import TracedView, focus
from vlmgs_ns.guidance.regions import mask
from vlmgs_ns.guidance.reply import Box
from vlmgs_ns.guidance.training_scene import TrainingScene, Viewpoint
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json
from vlmgs_ns.system.strict import nearest

VIEWS = 8
"""Marked views that are looked at before a densification; all where there are fewer."""

MOST = 0.6
"""Share of a Gaussian's visible mass that must lie inside what is marked in photos: a model finds a thing in one photo and misses
it in the next."""

Size = tuple[int, int]
"""(width, height) in pixels."""
Marks = dict[str, NDArray[np.bool_]]
"""A photo's file name → its pixels on disk, [H, W], that are wanted in detail."""


@dataclass(frozen=True)
class MarkedView:
    """A view and the pixels of it that are wanted in detail."""

    viewpoint: Viewpoint
    mask: Tensor  # [H, W] bool, of the viewpoint's size


class Instructions:
    """The marked views of a run; the viewer may add some while training traces others."""

    def __init__(self) -> None:
        self.views: list[MarkedView] = []

    def add(self, view: MarkedView) -> None:
        """Mark a view, in place of what was marked in the same photo before."""
        photo, views = view.viewpoint.photo, list(self.views)
        photos = [other.viewpoint.photo for other in views]
        if photo is not None and photo in photos:
            views[photos.index(photo)] = view
        else:
            views.append(view)
        self.views = views

    def at(self, step: int) -> list[MarkedView]:
        """Return the views to look at in a step: of many photos a few, others at each step, and the last boxes that were drawn in
        the viewer; none where nothing is marked."""
        views = self.views
        if not any(bool(view.mask.any()) for view in views):
            return []
        photos, drawn = _by_origin(views)
        chosen = torch.randperm(len(photos), generator=torch.Generator().manual_seed(step))[:VIEWS]
        return [photos[k] for k in chosen.tolist()] + drawn[-VIEWS:]


@torch.no_grad()
def trace(views: list[MarkedView], scene: TrainingScene) -> Tensor:  # [N] in [0, 1]
    """Return how much of each Gaussian lies inside the marks, 0 where it is not most of it.

    Photos together single out one wish; each box that was drawn in the viewer is a wish of its own.
    """
    photos, drawn = _by_origin(views)
    wishes = [wish for wish in (photos, *([view] for view in drawn)) if wish]
    seen = ((TracedView(scene.render(view.viewpoint).info, view.mask) for view in wish) for wish in wishes)
    return torch.stack([focus(views, majority=MOST) for views in seen]).amax(dim=0)


def marked_box(viewpoint: Viewpoint, box: Box) -> MarkedView:
    """Return a view in which a box is marked."""
    inside = mask((box,), viewpoint.width, viewpoint.height)
    return MarkedView(viewpoint, torch.from_numpy(inside).to(viewpoint.K.device))


def read_boxes(path: Path, photos: Mapping[str, Size]) -> Marks:
    """Read boxes drawn by hand: JSON, `{"12.jpg": [[left, top, right, bottom], …]}`, in pixels of the photo on disk.

    A photo with an empty list does not show what is wanted; photos left out are not looked at.

    Args:
        photos: the scene's photos by file name, training and held-out ones, with their sizes.

    Raises:
        InputError: the file cannot be read, names an unknown photo or holds a box that is none.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"), finite=False)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give a JSON file of boxes.") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. {_FORM}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, not boxes by photo. {_FORM}")
    return {name: _marked(path, name, boxes, photos) for name, boxes in content.items()}


def read_masks(folder: Path, photos: Mapping[str, Size]) -> Marks:
    """Read masks painted by hand: a PNG by the photo's stem, white where detail is wanted, of any size of the photo's shape.

    Raises:
        InputError: there is no folder, no mask of any photo, a mask that cannot be read, or nothing white in any of them.
    """
    from PIL import Image, UnidentifiedImageError

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give one with a PNG for each marked photo, named as the photo.")
    marks: Marks = {}
    for name, (width, height) in photos.items():
        path = folder / f"{Path(name).stem}.png"
        if not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                wanted = image.convert("L").resize((width, height), Image.Resampling.BOX)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise InputError(f"the mask {path} cannot be read ({error}); save it again as a PNG, or remove it") from None
        marks[name] = np.asarray(wanted) > 127
    if not marks:
        raise InputError(f"{folder} holds no mask of a photo of this scene, such as {Path(next(iter(photos))).stem}.png.")
    if not any(mask.any() for mask in marks.values()):
        raise InputError(f"the masks in {folder} are black everywhere. Paint white what shall be detailed.")
    return marks


def _by_origin(views: list[MarkedView]) -> tuple[list[MarkedView], list[MarkedView]]:
    """Views of photos, and of other viewpoints."""
    return [view for view in views if view.viewpoint.photo is not None], [view for view in views if view.viewpoint.photo is None]


_FORM = 'Write {"12.jpg": [[left, top, right, bottom], …]}, in pixels of the photo.'


def _marked(path: Path, name: str, boxes: object, photos: Mapping[str, Size]) -> NDArray[np.bool_]:  # [H, W]
    if name not in photos:
        raise InputError(f"{path}: the scene has no photo {name!r}. {nearest(name, photos)}")
    width, height = photos[name]
    wanted = np.zeros((height, width), dtype=bool)
    if not isinstance(boxes, list):
        raise InputError(f"{path}: {name} has {boxes!r}, not a list of boxes. {_FORM}")
    for box in boxes:
        numbers = isinstance(box, list) and len(box) == 4 and all(type(edge) in (int, float) for edge in box)
        if not numbers:
            raise InputError(f"{path}: {name} has the box {box!r}, not four numbers. {_FORM}")
        left, top, right, bottom = box
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise InputError(
                f"{path}: {name} has the box {box}, which is not inside the photo of {width} x {height} pixels with left < right "
                "and top < bottom. Correct it."
            )
        wanted[int(top) : max(int(top) + 1, round(bottom)), int(left) : max(int(left) + 1, round(right))] = True
    return wanted
