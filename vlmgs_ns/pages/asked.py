"""What a query looks for in a run: words, a place on one of its photos, or what looks like a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.pages.viewpoints import photo_views
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer.known import phrases_of
from vlmgs_ns.words.query import At, Query
from vlmgs_ns.words.question import Question, ask, ask_like
from vlmgs_ns.words.thing import Looks, best_name, in_box, under


@dataclass(frozen=True)
class Asked:
    """One of three: `at`, `like`, or else the words of the query, whose phrases name what is looked for in any case."""

    query: Query
    at: At | None = None
    like: Path | None = None
    width: float = 1.0
    """With a place: difference up to which Gaussians belong to the thing; 1 is usual."""

    def ask(self, run: OpenRun) -> tuple[Question, tuple[str, float] | None]:
        """Ask a run; return the question, and for a place the known phrase that fits best, with its relevancy.

        Raises:
            InputError: what is asked for needs semantics and the run has none, an encoder is missing, the run has no such photo,
                nothing is at the place, or the picture cannot be read.
        """
        if self.like is not None:
            return ask_like(run.model, read_picture(self.like), self.query), None
        return self._point(run, self.at) if self.at is not None else (ask(run.model, self.query), None)

    def _point(self, run: OpenRun, at: At) -> tuple[Question, tuple[str, float] | None]:
        model = run.model
        (view,) = photo_views(run, None, (at.photo,), field="--at")
        splats, camera = model.splats(), model.pinhole(view.camera)
        semantics = model.semantics if model.semantics is not None and model.semantics.complete else None
        if len(at.place) == 4:
            mask = in_box(splats, camera, at.place)
        else:
            weights = under(splats, camera, *at.place)
            looks = Looks(splats, model.colors.detach(), Neighbours(splats), semantics)
            mask = looks.thing(weights, self.width)
        name = None
        if semantics is not None and not run.caution:
            name = best_name(semantics, splats, mask, phrases_of(model, run.folder, run.data))
        return Question.of(splats, mask, self.query.phrases[0]), name


def read_picture(path: Path) -> Tensor:  # [3, H, W] in [0, 1]
    """Return a picture's file. Raises an InputError where it cannot be read."""
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as opened:
            pixels = np.asarray(opened.convert("RGB"), dtype=np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"--like {path} cannot be read as a picture ({error}); give a JPEG, PNG or WebP") from None
    return torch.from_numpy(pixels).movedim(-1, 0) / 255
