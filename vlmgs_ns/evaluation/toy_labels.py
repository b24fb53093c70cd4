"""Reader of the embedded scene's own labels: ``labels.json`` and ``masks_instance`` (see `toy.scene.write_scene`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView, build_scene
from vlmgs_ns.evaluation.metrics import Mask
from vlmgs_ns.evaluation.source import Source, file_name, read_grey
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.writer import WRITER

VERSION = 1
Split = Literal["val", "train", "all"]


@dataclass(frozen=True)
class _Thing:
    number: int
    """Its value in the instance masks."""
    phrases: tuple[str, ...]


def read_toy(
    folder: Path,
    *,
    split: Split = "val",
    wordings: Literal["name", "all"] = "name",
    least_pixels: int = 1,
) -> LabelledScene:
    """Boxes and masks of an embedded scene.

    Args:
        folder: as `vlmgs scene` writes it.
        split: the views to read; ``val`` are those held out from training.
        wordings: ask for each object by its name alone, or by each of its phrases. An arg max over the label set needs ``name``:
            wordings of one object would take each other's pixels.
        least_pixels: objects that show fewer pixels in a view are left out of it.

    Raises:
        InputError: for anything missing, damaged, or not of this writer. Masks are decoded later, when they are asked for, and
            raise then.
    """
    source = Source.read(folder / "labels.json")
    if source.content.get("writer") != WRITER or source.content.get("version") != VERSION:
        raise InputError(f"{source.path} is not of version {VERSION} by {WRITER!r}. Write the scene again with `vlmgs scene`.")
    width, height = source.size("width", "height")
    things = _things(source, wordings)
    masks = source.get("masks")
    if file_name(masks.text()) != masks.text() or masks.text() in {".", ".."}:
        masks.refuse("must be the name of a folder beside labels.json")
    views = [
        _view(entry, folder / masks.text() / file_name(key), things, width, height, least_pixels)
        for key, entry in source.get("views").entries()
        if split in ("all", entry.get("split").text())
    ]
    if not views:
        raise InputError(f"{source.path} has no view of split {split!r}. Read another split, or hold out views.")
    return build_scene(
        folder,
        views,
        "toy",
        phrases=[phrase for thing in things.values() for phrase in thing.phrases],
        background=[phrase.text() for phrase in source.get("background").items()],
        split=split,
        wordings=wordings,
        least_pixels=least_pixels,
    )


def _things(source: Source, wordings: Literal["name", "all"]) -> dict[str, _Thing]:
    """The scene's objects by name."""
    things: dict[str, _Thing] = {}
    for entry in source.get("objects").items():
        name = entry.get("name")
        if name.text() in things:
            name.refuse("another object has this name", "Write the scene again.")
        spoken = [name] if wordings == "name" else entry.get("phrases").items()
        things[name.text()] = _Thing(entry.get("id").whole(), tuple(phrase.text() for phrase in spoken))
    return things


def _view(entry: Source, mask: Path, things: dict[str, _Thing], width: int, height: int, least_pixels: int) -> LabelledView:
    if not mask.is_file():
        raise InputError(f"{mask} is missing, but labels.json has a view of this name. Write the scene again.")
    objects: list[LabelledObject] = []
    for name, box in entry.get("boxes").entries():
        if name not in things:
            box.refuse(f"{name!r} is none of the objects", "Add it to `objects`, or write the scene again.")
        pixels = entry.get("visible_pixels").get(name).whole()
        if pixels >= least_pixels:
            pixels_of = partial(_mask, mask, width, height, things[name].number, pixels)
            boxes = (box.edges(width, height),)
            objects += [LabelledObject(phrase, boxes, pixels_of) for phrase in things[name].phrases]
    return LabelledView(mask.name, width, height, tuple(objects))


def _mask(path: Path, width: int, height: int, number: int, pixels: int) -> Mask:
    mask = read_grey(path, width, height) == number
    if mask.sum() != pixels:
        raise InputError(
            f"{path} shows object {number} in {int(mask.sum())} pixels, but labels.json says {pixels}. Write the scene again."
        )
    return mask
