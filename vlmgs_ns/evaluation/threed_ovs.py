"""Reader of 3D-OVS, whose masks give every pixel of a few pictures one of the scene's classes.

One folder per scene::

    images/*                          all pictures
    segmentations/classes.txt         one class a line
    segmentations/<frame>/<class>.png a mask for every class, white inside

A frame is a picture's number in order of names, from 0. Pixels of at least half white are inside. An empty mask says that the
picture does not show the class.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView, build_scene
from vlmgs_ns.evaluation.metrics import Mask
from vlmgs_ns.evaluation.source import picture_size, read_grey
from vlmgs_ns.system.errors import InputError

_PHOTOS = {".jpg", ".jpeg", ".png"}


def read_3d_ovs(folder: Path) -> LabelledScene:
    """Masks of one scene of 3D-OVS; no boxes.

    Raises:
        InputError: for anything missing, damaged, or unlike the format above. Masks are decoded later, when they are asked for,
            and raise then.
    """
    root = folder / "segmentations"
    classes = _classes(root / "classes.txt")
    images = folder / "images"
    photos = sorted(path for path in images.glob("*") if path.suffix.lower() in _PHOTOS and not path.name.startswith("."))
    if not photos:
        raise InputError(f"{images} holds no pictures, so that the masks belong to none. Give the folder of a 3D-OVS scene.")
    frames = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return build_scene(folder, [_view(frame, classes, photos) for frame in frames], "3d-ovs", phrases=classes)


def _classes(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Give the folder of a 3D-OVS scene.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8. Write its classes again, one a line.") from None
    classes = tuple(line.strip() for line in lines if line.strip())
    if not classes:
        raise InputError(f"{path} names no class, so that nothing is labelled. Write one class a line.")
    return classes


def _view(frame: Path, classes: tuple[str, ...], photos: list[Path]) -> LabelledView:
    # Looked up among the files that are there: no path is made from a class, which may hold anything.
    masks = {path.stem: path for path in frame.glob("*.png") if not path.name.startswith(".")}
    for name in classes:
        if name not in masks:
            raise InputError(
                f"{frame} has no mask {name}.png, but classes.txt has this class. Add a mask, black if it is not seen."
            )
    unknown = masks.keys() - set(classes)
    if unknown:
        raise InputError(
            f"{masks[min(unknown)]} is of a class that classes.txt does not have. Add the class, or remove the mask."
        )
    width, height = picture_size(masks[classes[0]])
    for path in masks.values():
        size = picture_size(path)
        if size != (width, height):
            raise InputError(
                f"{path} has {size[0]} x {size[1]} pixels, but another mask of this frame has {width} x {height}."
                " Give every mask of a frame the same size."
            )
    objects = tuple(LabelledObject(name, mask=partial(_mask, masks[name], width, height)) for name in classes)
    return LabelledView(_photo(frame, photos).name, width, height, objects)


def _photo(frame: Path, photos: list[Path]) -> Path:
    if not (frame.name.isascii() and frame.name.isdigit()) or int(frame.name) >= len(photos):
        raise InputError(
            f"{frame} is named {frame.name!r}, but a frame is named by its picture's number, 0 to {len(photos) - 1}. Rename it."
        )
    photo = photos[int(frame.name)]
    if photo.stem != frame.name and any(other.stem == frame.name for other in photos):
        raise InputError(
            f"{frame} means picture number {int(frame.name)} in order of names, {photo.name}, but another is called {frame.name}."
            f" Number the pictures in {photo.parent} from 0, without gaps."
        )
    return photo


def _mask(path: Path, width: int, height: int) -> Mask:
    return read_grey(path, width, height) >= 128
