"""One page that carries a scene: its Gaussians drawn in the reader's browser, its photos' viewpoints, and what phrases find.

The page asks no server for anything. What it draws with is under ``templates/share``, and stands in the page as it is written
there; ``splats.quantised`` says how the Gaussians are encoded.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.pages.embed import embed
from vlmgs_ns.pages.gallery import phrases_of
from vlmgs_ns.pages.held_out import to_bytes
from vlmgs_ns.pages.page import render
from vlmgs_ns.pages.viewpoints import photo_views, training_views
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.semantics.visibility import visibility
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.orbit import nearest_to_lines
from vlmgs_ns.splats.ply import Gaussians
from vlmgs_ns.splats.quantised import Quantised, morton_order, of_degree, quantise, restored
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar, say
from vlmgs_ns.system.spacing import evenly_spaced
from vlmgs_ns.words.place import in_data
from vlmgs_ns.words.query import THRESHOLD, Query
from vlmgs_ns.words.question import Survey, ask

MOST_BYTES = 15_000_000
MOST_PHOTOS = 6
"""Held-out photos, evenly spaced, that the page carries."""


@dataclass(frozen=True)
class Shared:
    """A page, and what it carries."""

    content: bytes
    """The file, UTF-8."""
    gaussians: int
    of: int
    """Gaussians of the run."""
    degree: int
    """Degree of the harmonics."""
    phrases: tuple[str, ...]
    psnr: float
    """In dB, of the Gaussians that the page carries against all of them as they were trained, at the photos' viewpoints."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.content)

    def write(self, out: Path) -> None:
        """Write the file, whole or not at all; one that exists is replaced. Raises an OSError."""
        with replacing(out) as partial:
            partial.write_bytes(self.content)


@dataclass(frozen=True)
class Words:
    """What phrases find."""

    phrases: list[str]
    levels: npt.NDArray[np.uint8]  # [N, P]
    """Relevancy, such that at the threshold exactly the selected Gaussians are above it."""
    boxes: list[dict[str, Any] | None]
    """Around each thing, as ``vlmgs query`` measures it: corners in the scene, and size in the data's units."""


def share_page(
    run: OpenRun,
    phrases: Sequence[str] = (),
    degree: int = 3,
    most_bytes: int = MOST_BYTES,
    among: Tensor | None = None,  # [N] bool
) -> Shared:
    """Return a run's scene as a page.

    Args:
        run: with its checkpoint loaded.
        phrases: to find in it; by default the run's own, or some of its scene's labels.
        degree: of the harmonics, at most.
        most_bytes: the page takes. Harmonics are left out first, then the Gaussians that photos show least.
        among: the Gaussians that may be in it; by default all.

    Raises:
        InputError: photos see no Gaussian, the page is larger even without any, or phrases are given for a run that cannot be
            searched.
    """
    words = _words(run, phrases)
    phrases = words.phrases if words else []
    model, training = run.model, training_views(run)
    cameras = [model.pinhole(view.camera) for view in training]
    seen = visibility(model.splats(), cameras)
    every = model.gaussians()
    shown = seen.photographed & every.drawn()
    if not shown.any():
        raise InputError(f"the photos of {run.folder} see no Gaussian; train it for longer")
    wanted = torch.ones_like(shown) if among is None else among
    kept = torch.nonzero(shown & wanted)[:, 0]
    if len(kept) == 0:
        raise InputError(
            f"no photo of {run.folder} shows any of the {int(wanted.sum()):,} Gaussians selected, and a page holds what photos "
            "show; select more, or take another format"
        )

    eyes, axes = torch.stack([_eye(camera) for camera in cameras]), torch.stack([one.viewmat[:3, :3].cpu() for one in cameras])
    middle = eyes.mean(dim=0)
    unit = float((eyes - middle).norm(dim=1).max()) or float((every.means[kept] - middle).norm(dim=1).median())
    focus = nearest_to_lines(eyes.double(), axes[:, 2].double()).float()
    held = list(_held_out(run))
    scene = {
        "views": [
            *(_view(view.name, camera, focus, unit) for view, camera in zip(training, cameras, strict=True)),
            *({**_view(name, camera, focus, unit), "held": True, "photo": photo} for name, camera, photo in held),
        ],
        "start": seen.fullest, "up": torch.nn.functional.normalize(-axes[:, 1].mean(dim=0), dim=0).tolist(), "unit": unit,
        "antialiased": model.config.rasterize_mode == "antialiased", "threshold": THRESHOLD,
        "phrases": words.phrases if words else [], "boxes": words.boxes if words else [],
    }  # fmt: skip

    def page(which: Tensor, degree: int) -> tuple[bytes, Quantised]:
        """Return the page with these Gaussians, and them."""
        which = which[morton_order(every.means[which])]
        quantised = quantise(of_degree(every[which], degree), middle, unit)
        text = render(
            "share/page.html",
            title=run.data.name,
            caution=run.caution if words else "",
            phrases=words is not None,
            facts=f"{len(which):,} of {len(every):,} Gaussians, harmonics of degree {quantised.degree}",
            scene={**scene, "gaussians": quantised.header(), "farthest": 2 * unit * math.expm1(quantised.reach)},
            gaussians=_packed(quantised.planes.tobytes()),
            relevancies=_packed(words.levels[which].T.tobytes()) if words else "",
        )
        # Names of files need not be text.
        return text.encode(errors="replace"), quantised

    degree = min(degree, every.degree)
    content, quantised = page(kept, degree)
    while len(content) > most_bytes:
        if degree > 0:
            degree -= 1
        else:
            empty = len(page(kept[:1], 0)[0])
            count = int(0.98 * len(kept) * (most_bytes - empty) / (len(content) - empty)) if len(kept) > 1 else 0
            if count < 1:
                raise InputError(f"the page takes {empty / 1e6:.2f} MB without its Gaussians; give more than that, --max-mb")
            kept = kept[seen.weight[kept].argsort(descending=True)[:count]]
        content, quantised = page(kept, degree)
    judges = [camera for _, camera, _ in held] or cameras[:MOST_PHOTOS]
    pictures = [[_picture(some, one, model.config.rasterize_mode) for some in (every, restored(quantised))] for one in judges]
    error = sum(float((full - small).square().mean()) for full, small in pictures) / len(pictures)
    return Shared(content, len(kept), len(every), degree, tuple(phrases), -10 * math.log10(max(error, 1e-10)))


def _words(run: OpenRun, phrases: Sequence[str]) -> Words | None:
    """Return what phrases find; by default the run's own, if it has any and can be searched."""
    semantics = run.model.semantics
    if phrases:
        return _found(run, phrases)
    own = phrases_of(run)[0] if semantics is not None and semantics.complete else []
    try:
        return _found(run, own) if own else None
    except InputError as error:  # the encoder of another machine: the scene is none the worse
        say(f"Without words: {str(error).removeprefix('Error: ')}")
        return None


def _found(run: OpenRun, phrases: Sequence[str]) -> Words:
    question = ask(run.model, Query(tuple(phrases)))
    survey, views = Survey(question), photo_views(run, None, ())
    with bar("Looking", len(views)) as report:
        for number, view in enumerate(views, start=1):
            survey.look(run.model.pinhole(view.camera))
            report(number)
    outputs = run.pipeline.datamanager.train_dataparser_outputs
    transform, scale = outputs.dataparser_transform, float(outputs.dataparser_scale)
    boxes = [
        None if box is None else {"corners": box.corners().tolist(), "size": in_data(box, transform, scale).size.tolist()}
        for box in (place.box for place in survey.places())
    ]
    found = question.select()
    # What cleaning took out of the selection stays at the threshold.
    tie, levels = int(THRESHOLD * 255), (found.relevancy * 255).long()
    levels = torch.where(found.masks, levels.clamp(tie + 1, 255), levels.clamp(0, tie))
    return Words(list(phrases), levels.to(torch.uint8).numpy(), boxes)


def _held_out(run: OpenRun) -> Iterator[tuple[str, Pinhole, str]]:
    """Yield name, camera and picture (a data URI) of some photos that were not trained on; of some that were, where none is
    held out."""
    data, model = run.pipeline.datamanager, run.model
    files = data.eval_dataset.image_filenames
    views = data.fixed_indices_eval_dataloader if files else []
    if not files:
        files = data.train_dataset.image_filenames
        views = [data.training_view(k) if k in evenly_spaced(len(files), MOST_PHOTOS) else None for k in range(len(files))]
    for k in evenly_spaced(len(files), MOST_PHOTOS):
        camera, batch = views[k]
        photo = model.composite_with_background(model.get_gt_img(batch["image"]), model.background_color.to(model.device))
        yield files[k].name, model.pinhole(camera), embed(to_bytes(photo)).source


def _view(name: str, camera: Pinhole, focus: Tensor, unit: float) -> dict[str, Any]:
    """Return a viewpoint: its lens in pixels of the photo, and its pose as rows right, down, forward in the world."""
    eye, turn, K = _eye(camera), camera.viewmat[:3, :3].cpu(), camera.K.cpu()
    lens = {"fx": float(K[0, 0]), "fy": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
    return {
        "name": name,
        "lens": {**lens, "width": camera.width, "height": camera.height},
        "eye": [round(value, 6) for value in eye.tolist()],
        "turn": [[round(value, 6) for value in row] for row in turn.tolist()],
        # As far in front of the camera as what all photos look at.
        "pivot": max(float((focus - eye) @ turn[2]), unit / 4),
    }


def _eye(camera: Pinhole) -> Tensor:  # [3]
    viewmat = camera.viewmat.cpu()
    return -viewmat[:3, :3].T @ viewmat[:3, 3]


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


@torch.no_grad()
def _picture(gaussians: Gaussians, camera: Pinhole, mode: Any) -> Tensor:  # [H, W, 3]
    device = camera.viewmat.device
    parameters = {name: values.to(device) for name, values in vars(gaussians[gaussians.drawn()]).items()}
    image, _, _ = rasterization(
        parameters["means"], parameters["quats"], torch.exp(parameters["scales"]), torch.sigmoid(parameters["opacities"])[:, 0],
        torch.cat([parameters["features_dc"][:, None], parameters["features_rest"]], dim=1), camera.viewmat[None], camera.K[None],
        camera.width, camera.height, sh_degree=gaussians.degree, rasterize_mode=mode,
    )  # fmt: skip
    return image[0].clamp(0, 1).cpu()
