"""An answer in files: pictures, masks and boxes of every phrase in every view, a page to look at first, and all of it as JSON.

Every file is whole or not there; the page and ``query.json`` come last. Paths in the answer are relative to its folder.
"""

from __future__ import annotations

import io
import itertools
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vlmgs_ns.evaluation.overlays import Picture
from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.pages.asked import Asked
from vlmgs_ns.pages.held_out import to_bytes
from vlmgs_ns.pages.query_film import Film
from vlmgs_ns.pages.query_pictures import found_picture, relevancy_picture
from vlmgs_ns.pages.query_summary import page
from vlmgs_ns.pages.viewpoints import View
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar
from vlmgs_ns.system.video import write_mp4
from vlmgs_ns.words.box import OrientedBox
from vlmgs_ns.words.place import Place, in_data
from vlmgs_ns.words.query import Parts, file_stem
from vlmgs_ns.words.question import Look, Survey
from vlmgs_ns.words.sighting import Sighting

VERSION = 1
PAGE, ANSWER, RENDERS = "index.html", "query.json", "renders"
_LONGEST_FOLDER = 60
"""Bytes."""


@dataclass(frozen=True)
class Request:
    """What is looked for, and what to write of the answer."""

    asked: Asked
    parts: Parts = "clearest"
    """Around which parts of a phrase's selection its box in space is."""
    raw: bool = False
    """Whether relevancy is written as numbers too."""
    every_view: bool = True
    """Whether pictures of every view are written, or of each phrase's best alone."""
    fps: float | None = None
    """Frames per second of a video of all views in their order; None for no video."""

    @property
    def threshold(self) -> float:
        """Relevancy above which a pixel belongs to what is looked for."""
        return self.asked.query.threshold


def folders_of(phrases: Sequence[str]) -> list[str]:
    """Return a folder's name for each phrase, as `file_stem` makes it, all different."""
    names: list[str] = []
    for phrase in phrases:
        name = file_stem([phrase], _LONGEST_FOLDER)
        free, number = name, 2
        while free in names or free == RENDERS:
            free, number = f"{name}-{number}", number + 1
        names.append(free)
    return names


def answer(run: OpenRun, views: Sequence[View], request: Request, out: Path) -> dict[str, Any]:
    """Look for what is asked from the views, write what is found, and return what `ANSWER` then holds.

    Args:
        run: with semantics, unless a place is asked for.
        views: one or more.
        request: phrases all different.
        out: folder to write; missing, or with other things in it, of which files of the same names are replaced.

    Raises:
        InputError: the scene cannot be searched, an encoder is missing, or a file cannot be written.
    """
    start = time.perf_counter()
    question, like = request.asked.ask(run)
    survey, query = Survey(question), question.query
    model = run.model
    words = time.perf_counter() - start
    folders = folders_of(query.phrases)
    rows: list[list[dict[str, Any]]] = [[] for _ in query.phrases]
    sizes: list[dict[str, Any]] = []
    with _film(request, out) as film, bar("Looking", len(views)) as report:
        for number, view in enumerate(views, start=1):
            render, look = _render(run, view), survey.look(model.pinhole(view.camera))
            height, width = look.alpha.shape
            sizes.append({"name": view.name, "width": width, "height": height, "render": None})
            if request.every_view:
                sizes[-1]["render"] = _write_picture(out, f"{RENDERS}/{view.name}.png", render)
            for k, sighting in enumerate(look.sightings):
                row = _row(view, sighting)
                if request.every_view:
                    row["files"] = _write_sighting(out, f"{folders[k]}/{view.name}", render, look, k, request)
                rows[k].append(row)
            if film is not None:
                film.add(render, look.relevancy)
            report(number, view.name)
        looked = time.perf_counter() - start - words
        located = survey.places(request.parts)
        for seen, clarities in zip(rows, survey.clarity(located), strict=True):
            for row, clarity in zip(seen, clarities, strict=True):
                row["clarity"] = round(clarity, 6)
        best = [max(seen, key=lambda row: (row["clarity"], row["peak"])) for seen in rows]
        if not request.every_view:
            for name in dict.fromkeys(row["view"] for row in best):
                number = [view.name for view in views].index(name)
                render, look = _render(run, views[number]), survey.question.look(model.pinhole(views[number].camera))
                sizes[number]["render"] = _write_picture(out, f"{RENDERS}/{name}.png", render)
                for k, row in enumerate(best):
                    if row["view"] == name:
                        row["files"] = _write_sighting(out, f"{folders[k]}/{name}", render, look, k, request)
        videos = _write_videos(film, folders, out, request)
    found = [
        {
            "phrase": phrase,
            "like": None if like is None else {"phrase": like[0], "relevancy": round(like[1], 4)},
            "found": any(row["boxes"] for row in rows[k]),
            "score": max(row["peak"] for row in rows[k]),
            "best_view": best[k]["view"],
            "seen_in": sum(bool(row["boxes"]) for row in rows[k]),
            "gaussians": located[k].selected,
            "box_3d": _boxes(run, located[k]),
            "video": videos[k],
            "views": sorted(rows[k], key=lambda row: (-row["clarity"], -row["peak"])),
        }
        for k, phrase in enumerate(query.phrases)
    ]
    whole = {
        "version": VERSION,
        "run": str(run.folder.absolute()),
        "folder": str(out.absolute()),
        "page": PAGE,
        "threshold": query.threshold,
        "caution": "" if request.asked.at else run.caution,
        "negatives": list(survey.question.negatives),
        "all_found": all(one["found"] for one in found),
        "seconds": {"words": round(words, 2), "views": round(looked, 2), "all": round(time.perf_counter() - start, 2)},
        "views": sizes,
        "phrases": found,
    }
    _write(out / PAGE, page(whole).encode())
    _write(out / ANSWER, (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode())
    return whole


@torch.no_grad()
def _render(run: OpenRun, view: View) -> Picture:
    outputs: Any = run.model.get_outputs(view.camera.to(run.model.device))
    return to_bytes(outputs["rgb"])


def _boxes(run: OpenRun, place: Place) -> dict[str, Any] | None:
    """Return the box in both coordinates; None where no Gaussian is selected."""
    if place.box is None:
        return None
    outputs = run.pipeline.datamanager.train_dataparser_outputs
    data = in_data(place.box, outputs.dataparser_transform, float(outputs.dataparser_scale))
    return {"scene": _numbers(place.box), "data": _numbers(data)}


def _numbers(box: OrientedBox) -> dict[str, Any]:
    parts = {"centre": box.centre, "axes": box.axes, "size": box.size, "corners": box.corners()}
    return {name: np.round(values.double().cpu().numpy(), 6).tolist() for name, values in parts.items()}


def _row(view: View, sighting: Sighting) -> dict[str, Any]:
    """Return the entry of one phrase in one view; its clarity is still to be weighed by how much the view cuts off."""
    height, width = sighting.mask.shape
    boxes = []
    for part in sighting.parts:
        x1, y1, x2, y2 = part.box
        normalised = [round(x1 / width, 6), round(y1 / height, 6), round(x2 / width, 6), round(y2 / height, 6)]
        boxes.append(
            {
                "pixels": list(part.box),
                "normalised": normalised,
                "area_pixels": part.area,
                "area": round(part.area / (width * height), 6),
                "peak": round(part.peak, 4),
            }
        )
    return {"view": view.name, "clarity": 0.0, "peak": round(sighting.peak, 4), "boxes": boxes, "files": None}


def _write_sighting(out: Path, stem: str, render: Picture, look: Look, phrase: int, request: Request) -> dict[str, str]:
    relevancy, sighting = look.relevancy[phrase], look.sightings[phrase]
    files = {
        "relevancy": _write_picture(out, f"{stem}_relevancy.png", relevancy_picture(render, relevancy, request.threshold)),
        "mask": _write_picture(out, f"{stem}_mask.png", np.where(sighting.mask, np.uint8(255), np.uint8(0))),
        "found": _write_picture(out, f"{stem}_found.png", found_picture(render, sighting)),
    }
    if request.raw:
        buffer = io.BytesIO()
        np.save(buffer, relevancy, allow_pickle=False)
        files["values"] = f"{stem}_relevancy.npy"
        _write(out / files["values"], buffer.getvalue())
    return files


def _write_picture(out: Path, name: str, picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    _write(out / name, buffer.getvalue())
    return name


def _write(path: Path, content: bytes) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_bytes(content)


@contextmanager
def _film(request: Request, out: Path) -> Iterator[Film | None]:
    """Yield a film whose frames are gone afterwards; None where no video is asked for."""
    if request.fps is None:
        yield None
        return
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".frames-") as folder:
            yield Film(Path(folder), request.threshold)


def _write_videos(film: Film | None, folders: list[str], out: Path, request: Request) -> list[str | None]:
    if film is None or request.fps is None:
        return [None] * len(folders)
    names: list[str | None] = []
    with bar("Encoding", len(folders)) as report:
        for k, folder in enumerate(folders):
            frames = film.frames(k)
            first = next(frames)
            name = f"{folder}/relevancy.mp4"
            with _writing(out / name):
                (out / folder).mkdir(parents=True, exist_ok=True)
                write_mp4(out / name, itertools.chain([first], frames), first.shape[1], first.shape[0], request.fps)
            names.append(name)
            report(k + 1)
    return names


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system says against a file into a message for the user."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path} cannot be written ({reason}); make room or choose another folder with --out") from None
