"""Reader of the embedded scene's own labels: ``labels.json`` and ``masks_instance`` (see `toy.scene.write_scene`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from vlmgs_ns.errors import InputError
from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView, Source, build_scene, file_name, read_grey
from vlmgs_ns.evaluation.metrics import Mask
from vlmgs_ns.toy.writer import WRITER

VERSION = 1
Split = Literal["val", "train", "all"]


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
    things = {entry.get("name").text(): entry for entry in source.get("objects").items()}
    phrases = {name: (name,) if wordings == "name" else _phrases(entry) for name, entry in things.items()}
    ids = {name: entry.get("id").whole() for name, entry in things.items()}
    masks = source.get("masks")
    if file_name(masks.text()) != masks.text() or masks.text() in {".", ".."}:
        masks.refuse("must be the name of a folder beside labels.json")

    views = []
    for key, entry in source.get("views").entries():
        if split not in ("all", entry.get("split").text()):
            continue
        pixels = {name: count.whole() for name, count in entry.get("visible_pixels").entries()}
        path = folder / masks.text() / file_name(key)
        if not path.is_file():
            raise InputError(f"{path} is missing, but labels.json has a view of this name. Write the scene again.")
        objects = []
        for name, box in entry.get("boxes").entries():
            if name not in things:
                box.refuse(f"{name!r} is none of the objects", "Add it to `objects`, or write the scene again.")
            if name not in pixels:
                box.refuse(f"visible_pixels has no {name!r}", "Write the scene again.")
            if pixels[name] >= least_pixels:
                mask = partial(_mask, path, width, height, ids[name], pixels[name])
                objects += [LabelledObject(phrase, (box.edges(width, height),), mask) for phrase in phrases[name]]
        views.append(LabelledView(file_name(key), width, height, tuple(objects)))
    background = [phrase.text() for phrase in source.get("background").items()]
    return build_scene(
        folder,
        views,
        "toy",
        phrases=[phrase for wording in phrases.values() for phrase in wording],
        background=background,
        split=split,
        wordings=wordings,
        least_pixels=least_pixels,
    )


def _phrases(entry: Source) -> tuple[str, ...]:
    return tuple(phrase.text() for phrase in entry.get("phrases").items())


def _mask(path: Path, width: int, height: int, number: int, pixels: int) -> Mask:
    mask = read_grey(path, width, height) == number
    if mask.sum() != pixels:
        raise InputError(
            f"{path} shows object {number} in {int(mask.sum())} pixels, but labels.json says {pixels}. Write the scene again."
        )
    return mask
