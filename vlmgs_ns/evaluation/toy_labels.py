"""Reader of the embedded scene's own labels: ``labels.json`` and ``masks_instance`` (see `toy.scene.write_scene`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView, build_scene
from vlmgs_ns.evaluation.metrics import Mask
from vlmgs_ns.evaluation.source import Source, file_name, read_grey
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.writer import WRITER

VERSION = 1


def read_toy(folder: Path) -> LabelledScene:
    """Boxes and masks of the held-out views of an embedded scene, by the objects' names.

    Args:
        folder: as `vlmgs scene` writes it.

    Raises:
        InputError: for anything missing, damaged, or not of this writer. Masks are decoded later, when they are asked for, and
            raise then.
    """
    source = Source.read(folder / "labels.json")
    if source.content.get("writer") != WRITER or source.content.get("version") != VERSION:
        raise InputError(f"{source.path} is not of version {VERSION} by {WRITER!r}. Write the scene again with `vlmgs scene`.")
    width, height = source.size("width", "height")
    numbers = _numbers(source)
    masks = source.get("masks")
    if file_name(masks.text()) != masks.text() or masks.text() in {".", ".."}:
        masks.refuse("must be the name of a folder beside labels.json")
    views = [
        _view(entry, folder / masks.text() / file_name(key), numbers, width, height)
        for key, entry in source.get("views").entries()
        if entry.get("split").text() == "val"
    ]
    if not views:
        raise InputError(f"{source.path} has no view of split 'val'. Hold out views when the scene is written.")
    return build_scene(
        folder,
        views,
        "toy",
        phrases=numbers,
        background=[phrase.text() for phrase in source.get("background").items()],
        split="val",
    )


def _numbers(source: Source) -> dict[str, int]:
    """Values in the instance masks by the objects' names."""
    numbers: dict[str, int] = {}
    for entry in source.get("objects").items():
        name = entry.get("name")
        if name.text() in numbers:
            name.refuse("another object has this name", "Write the scene again.")
        numbers[name.text()] = entry.get("id").whole()
    return numbers


def _view(entry: Source, mask: Path, numbers: dict[str, int], width: int, height: int) -> LabelledView:
    if not mask.is_file():
        raise InputError(f"{mask} is missing, but labels.json has a view of this name. Write the scene again.")
    objects: list[LabelledObject] = []
    for name, box in entry.get("boxes").entries():
        if name not in numbers:
            box.refuse(f"{name!r} is none of the objects", "Add it to `objects`, or write the scene again.")
        pixels = entry.get("visible_pixels").get(name).whole()
        pixels_of = partial(_mask, mask, width, height, numbers[name], pixels)
        objects.append(LabelledObject(name, (box.edges(width, height),), pixels_of))
    return LabelledView(mask.name, width, height, tuple(objects))


def _mask(path: Path, width: int, height: int, number: int, pixels: int) -> Mask:
    mask = read_grey(path, width, height) == number
    if mask.sum() != pixels:
        raise InputError(
            f"{path} shows object {number} in {int(mask.sum())} pixels, but labels.json says {pixels}. Write the scene again."
        )
    return mask
