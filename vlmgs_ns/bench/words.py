"""How well words find things in a model that has just been trained: labels are read before training, protocols run after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vlmgs_ns.bench.spec import Thresholds
from vlmgs_ns.errors import InputError
from vlmgs_ns.evaluation import protocols
from vlmgs_ns.evaluation.labels import LabelledScene, LabelledView
from vlmgs_ns.evaluation.lerf import read_lerf
from vlmgs_ns.evaluation.lerf_ovs import read_lerf_ovs
from vlmgs_ns.evaluation.report import Report
from vlmgs_ns.evaluation.threed_ovs import read_3d_ovs
from vlmgs_ns.evaluation.toy_labels import read_toy
from vlmgs_ns.runs import OpenRun

READERS = {"toy": read_toy, "lerf": read_lerf, "lerf-ovs": read_lerf_ovs, "3d-ovs": read_3d_ovs}
BOXES_ALONE = "lerf"
"""Labels that serve protocol A and no other."""
MASKS_ALONE = "3d-ovs"
"""Labels by which protocol A asks for the mask, not for a box."""


def read_labels(kind: str, folder: Path, wanted: tuple[str, ...]) -> LabelledScene:
    """The labels of a scene.

    Raises:
        InputError: they cannot be read, or lack what a wanted protocol measures by.
    """
    lacking = [name for name in wanted if name != "A" and kind == BOXES_ALONE]
    if lacking:
        raise InputError(f"protocol {lacking[0]} needs masks, which {kind} labels do not have; give the scene protocols: [A]")
    return READERS[kind](folder)


def measure(run: OpenRun, scene: LabelledScene, wanted: tuple[str, ...], kind: str, thresholds: Thresholds) -> dict[str, Report]:
    """The report of each wanted protocol.

    Args:
        run: with its semantics built.
        scene: labels; views are told by the names of photos.
        wanted: A, B, C.
        kind: whose format the labels have.
        thresholds: fixed.
    """
    from vlmgs_ns.semantics.blend import blend
    from vlmgs_ns.semantics.query import select

    model = run.model
    model.set_prompts([])
    cameras = {file.stem: camera for file, camera in run.photos()}
    assert model.semantics is not None  # or there were no prompts to set
    about = model.semantics.about
    settings: Mapping[str, Any] = {
        "mode": about.mode, "encoder": about.clip_fingerprint, "negatives": "; ".join(about.negatives)
    }  # fmt: skip

    def maps(view: LabelledView, phrases: Any) -> Any:  # [P, H, W]
        camera = cameras.get(view.stem)
        return None if camera is None else model.relevancy_of(camera, list(phrases)).cpu()

    def silhouette(view: LabelledView, phrase: str) -> Any:  # [H, W] bool
        camera = cameras.get(view.stem)
        if camera is None:
            return None
        splats = model.splats()
        chosen = splats[select(model.gaussian_relevancy([phrase])[:, 0], thresholds.relevancy)]
        _, alpha = blend(chosen, model.pinhole(camera), chosen.means.new_zeros(len(chosen), 1))
        return (alpha >= thresholds.least_alpha).cpu()

    found = {}
    for name in wanted:
        if name == "A":
            inside: Literal["boxes", "mask"] = "mask" if kind == MASKS_ALONE else "boxes"
            found[name] = protocols.protocol_a(scene, maps, inside=inside, settings=settings)
        elif name == "B":
            # Where labels cover the picture, or say what the rest is called, every pixel is somebody's.
            floor = None if scene.background or kind == MASKS_ALONE else thresholds.relevancy
            found[name] = protocols.protocol_b(
                scene, maps, threshold=thresholds.relevancy, argmax_floor=floor, settings=settings
            )  # fmt: skip
        else:
            found[name] = protocols.protocol_c(
                scene, silhouette, threshold=thresholds.relevancy, least_alpha=thresholds.least_alpha, settings=settings
            )
    return found
