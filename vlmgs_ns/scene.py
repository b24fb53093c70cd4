"""A trained scene in Python: render it, find things in it by words, export them. `vlmgs_ns.open` returns one.

The commands ``vlmgs query`` and ``vlmgs export`` ask in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.method.model import VlmFastGSModel
from vlmgs_ns.pages.viewpoints import names_of, photo_views
from vlmgs_ns.splats.ply import write_ply
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words.box import OrientedBox
from vlmgs_ns.words.query import THRESHOLD, make_query
from vlmgs_ns.words.question import Question, Survey, ask


class TrainedScene:
    """A finished run.

    Args:
        run: with its checkpoint loaded.
    """

    def __init__(self, run: OpenRun) -> None:
        self.run = run

    @property
    def model(self) -> VlmFastGSModel:
        """The model, in evaluation mode."""
        return self.run.model

    @cached_property
    def cameras(self) -> dict[str, Cameras]:
        """One camera for each photo, by the photo's name without suffix; training views first, then held-out views."""
        photos = dict(self.run.photos())
        return dict(zip(names_of(list(photos)), photos.values(), strict=True))

    @torch.no_grad()
    def render(self, camera: Cameras, outputs: Sequence[str] = ("rgb",)) -> dict[str, Tensor]:
        """Render one camera.

        Args:
            camera: one nerfstudio camera, such as ``scene.cameras["frame_00001"]``.
            outputs: any of the model's: ``rgb`` [H, W, 3] in [0, 1], ``depth`` [H, W, 1] in scene units, ``accumulation``
                [H, W, 1], and ``semantics_pca`` [H, W, 3] where the scene has semantics.

        Raises:
            InputError: an output that the model does not have.
        """
        rendered = self.model.get_outputs(camera.to(self.model.device))
        for name in outputs:
            if name not in rendered:
                raise InputError(f"{name!r} is not an output of this scene; give some of {', '.join(rendered)}")
        return {name: torch.as_tensor(rendered[name]) for name in outputs}

    def find(self, phrase: str, negatives: Sequence[str] = (), threshold: float = THRESHOLD) -> FoundObject:
        """Find what a phrase describes.

        Args:
            negatives: phrases that it has to beat, beside the scene's own.
            threshold: relevancy in [0, 1) above which a pixel or a Gaussian belongs to it.

        Raises:
            InputError: a phrase that cannot be used, a scene without semantics, or no encoder on this machine.

        Example:
            >>> found = scene.find("red ball", negatives=["table"])  # doctest: +SKIP
            >>> found.gaussians.sum(), found.box.centre  # doctest: +SKIP
        """
        return FoundObject(self, ask(self.model, make_query([phrase], negatives, threshold)))


@dataclass(frozen=True)
class FoundObject:
    """What a phrase finds in a scene; nothing may be found."""

    scene: TrainedScene
    question: Question

    @cached_property
    def gaussians(self) -> Tensor:  # [N] bool, on the CPU
        """The Gaussians that the phrase selects, as ``vlmgs export --select`` does."""
        return self.question.select().mask

    def mask(self, camera: Cameras) -> npt.NDArray[np.bool_]:  # [H, W]
        """Return the pixels of a camera that show it."""
        return self.question.look(self.scene.model.pinhole(camera)).sightings[0].mask

    @cached_property
    def box(self) -> OrientedBox | None:
        """The box around it in the scene's coordinates (nerfstudio's), by a handful of held-out views as ``vlmgs query`` has it;
        None where no Gaussian is selected."""
        survey = Survey(self.question)
        for view in photo_views(self.scene.run, None, ()):
            survey.look(self.scene.model.pinhole(view.camera))
        return survey.places()[0].box

    def export(self, path: str | Path) -> int:
        """Write its Gaussians as a .ply, in the run's coordinates, and return how many.

        Raises:
            InputError: nothing is found.
            OSError: the file cannot be written.
        """
        every = self.scene.model.gaussians()
        chosen = every[self.gaussians & every.drawn()]
        if len(chosen) == 0:
            raise InputError(f"{self.question.query.phrases[0]!r} finds no Gaussian; take a lower threshold or other words")
        with replacing(Path(path)) as partial:
            write_ply(partial, chosen)
        return len(chosen)
