"""A trained model measured by a protocol: labels are read and checked first, then every labelled view is rendered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vlmgs_ns.evaluation import protocols
from vlmgs_ns.evaluation.labels import LabelledScene, LabelledView
from vlmgs_ns.evaluation.lerf import read_lerf
from vlmgs_ns.evaluation.lerf_ovs import read_lerf_ovs
from vlmgs_ns.evaluation.scores import Report, Setting
from vlmgs_ns.evaluation.threed_ovs import read_3d_ovs
from vlmgs_ns.evaluation.toy_labels import read_toy
from vlmgs_ns.method.default_frame import DefaultFrame
from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.semantics.relevancy import select
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words.query import Query
from vlmgs_ns.words.question import ask

Kind = Literal["toy", "lerf", "lerf-ovs", "3d-ovs"]
"""Format of the labels."""
Protocol = Literal["A", "B", "B-langsplat", "C", "C-find"]

READERS: dict[str, Callable[[Path], LabelledScene]] = {
    "toy": read_toy, "lerf": read_lerf, "lerf-ovs": read_lerf_ovs, "3d-ovs": read_3d_ovs
}  # fmt: skip


def read_labels(kind: Kind, folder: Path, wanted: Iterable[Protocol]) -> LabelledScene:
    """Return the labels of a scene.

    Raises:
        InputError: they cannot be read, or are boxes alone where a wanted protocol compares masks.
    """
    scene = READERS[kind](folder)
    masked = all(thing.mask is not None for view in scene.views for thing in view.objects)
    for protocol in wanted:
        if protocol != "A" and not masked:
            raise InputError(f"protocol {protocol} compares masks, but the labels in {folder} are boxes alone; ask for A")
    return scene


class Trained:
    """A finished run, asked about labelled views: by the names of its photos, or from the keyframes that they were rendered from.

    Raises:
        InputError: the scene has no semantics.
    """

    def __init__(self, run: OpenRun) -> None:
        run.model.searchable()
        self.model = run.model
        self.photos = {file.stem: camera for file, camera in run.photos()}
        self.training = {file.stem for file in run.training_photos}
        self.default_frame = DefaultFrame(run)

    def camera(self, view: LabelledView) -> Pinhole | None:
        """Return the camera of a labelled view; None where it is none of the photos. Raises as `DefaultFrame.camera`."""
        if view.keyframe is not None:
            pose = torch.tensor(view.keyframe.camera_to_world)
            return self.model.pinhole(self.default_frame.camera(pose, view.keyframe.fov, view.width, view.height))
        photo = self.photos.get(view.stem)
        return None if photo is None else self.model.pinhole(photo)

    def knows(self, scene: LabelledScene) -> bool:
        """Return whether any labelled view can be rendered."""
        return any(view.keyframe is not None or view.stem in self.photos for view in scene.views)

    def measure(
        self,
        scene: LabelledScene,
        protocol: Protocol,
        *,
        threshold: float,
        least_alpha: float,
        report: Callable[[LabelledView], None] = lambda view: None,
        **settings: str,
    ) -> Report:
        """Return the report of one protocol.

        Args:
            scene: labels; photos that the run does not have count as missing.
            threshold: of B, C and C-find, relevancy above which a pixel or a Gaussian belongs to a phrase.
            least_alpha: C and C-find, opacity from which a pixel counts as covered.
            report: called with every view after it was measured.
            settings: more values for the report.

        Raises:
            ValueError: labels in another shape than the photos, or nothing to evaluate.
        """
        assert self.model.semantics is not None  # or there were no prompts to set
        about = self.model.semantics.about
        metadata: dict[str, Setting] = {
            **settings,
            "mode": about.mode,
            "encoder": about.clip_fingerprint,
            "negatives": "; ".join(about.negatives),
        }

        def maps(view: LabelledView, phrases: Sequence[str]) -> Tensor | None:
            found = self.maps(view, phrases)
            report(view)
            return found

        @cache
        def selected(phrase: str) -> Tensor:  # [N] bool
            question = ask(self.model, Query((phrase,), threshold=threshold))
            return question.select().mask if protocol == "C-find" else select(question.relevancy[:, 0], threshold)

        def silhouette(view: LabelledView, phrase: str) -> Tensor | None:
            found = self.silhouette(view, selected(phrase), least_alpha)
            report(view)
            return found

        found = self._report(protocol, scene, maps, silhouette, threshold, least_alpha, metadata)
        trained_on = {view.image for view in scene.views if view.keyframe is None and view.stem in self.training}
        return replace(found, rows=tuple(replace(row, trained_on=row.view in trained_on) for row in found.rows))

    @staticmethod
    def _report(
        protocol: Protocol,
        scene: LabelledScene,
        maps: protocols.RelevancyOf,
        silhouette: protocols.SilhouetteOf,
        threshold: float,
        least_alpha: float,
        metadata: dict[str, Setting],
    ) -> Report:
        boxed = all(thing.boxes for view in scene.views for thing in view.objects)
        if protocol == "A":
            # Labels without boxes are asked whether the pixel is in the mask, which is stricter; the report says so.
            return protocols.protocol_a(scene, maps, inside="boxes" if boxed else "mask", settings=metadata)
        if protocol == "B-langsplat":
            return protocols.protocol_b_langsplat(scene, maps, settings=metadata)
        if protocol == "B":
            # Where labels say what the rest is called, or cover the picture (no boxes: 3D-OVS), every pixel belongs to a phrase.
            floor = None if scene.background or not boxed else threshold
            return protocols.protocol_b(scene, maps, threshold=threshold, argmax_floor=floor, settings=metadata)
        return protocols.protocol_c(
            scene, silhouette, threshold=threshold, least_alpha=least_alpha, name=protocol, settings=metadata
        )

    def maps(self, view: LabelledView, phrases: Sequence[str]) -> Tensor | None:  # [P, H, W]
        """Return the relevancy of phrases; None where the view is none of the photos."""
        camera = self.camera(view)
        if camera is None:
            return None
        look = ask(self.model, Query(tuple(phrases))).look(camera)
        return torch.from_numpy(look.relevancy)

    def silhouette(
        self,
        view: LabelledView,
        mask: Tensor,  # [N] bool
        least_alpha: float,
    ) -> Tensor | None:  # [H, W] bool
        """Return the silhouette of these Gaussians, rendered alone; None where the view is none of the photos."""
        camera = self.camera(view)
        if camera is None:
            return None
        splats = self.model.splats()
        chosen = splats[mask.to(splats.means.device)]
        _, alpha = blend(chosen, camera, chosen.means.new_zeros(len(chosen), 1))
        return (alpha >= least_alpha).cpu()
