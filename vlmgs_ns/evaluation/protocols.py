"""The three ways in which a semantic field is measured (docs/methods.md), which must never be mixed.

A   LERF boxes: is the greatest pixel of the relevancy map inside a box of the phrase?
B   LERF-OVS 2-D: IoU of the thresholded relevancy map. Beside it, IoU of the arg max over the label set, as 3D-OVS measures, and
    the average precision of the map, which needs no threshold.
    B-langsplat is LERF-OVS 2-D as LangSplat's published code measures it, for comparison with its table and its successors':
    every map is blurred, stretched to its own range and cut there (`langsplat`).
C   LERF-OVS 3-D: Gaussians above the threshold are rendered alone; IoU of their silhouette, Acc@0.25 and Acc@0.5.
    C-find is the same of the Gaussians that `words.find` selects, which people get: averaged, shown in masks, cleaned.

Each is a function of labels and of a callable that renders, and knows nothing of the model. A pair of view and phrase counts
once. A pair whose mask is empty is not visible and left out; a pair without a prediction counts as 0. Thresholds are arguments,
never searched for, and but for B-langsplat maps are never stretched: figures of codes that stretch each map compare with that
alone.

On "mAP": ``average_precision`` ranks the pixels of one view by their relevancy for one phrase, and its mean is a mAP over pairs;
there are no instances in it as in detection. The public 3D-OVS code measures no AP but the share of pixels that are right; that
is ``argmax_accuracy`` here, except that it counts all pixels and we the labelled ones. FMGS reports
a mAP on 3D-OVS; we found no definition of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView
from vlmgs_ns.evaluation.langsplat import THRESHOLD, WINDOW, averaged, langsplat_mask
from vlmgs_ns.evaluation.metrics import (
    Mask,
    accuracy_at,
    argmax_segmentation,
    average_precision,
    hits_boxes,
    hits_mask,
    iou,
    pixel_accuracy,
)
from vlmgs_ns.evaluation.scores import Report, Row, Scores, Setting

Array = Tensor | npt.NDArray[Any]
RelevancyOf = Callable[[LabelledView, Sequence[str]], Array | None]
"""Relevancy maps [P, H, W] of the phrases in a view; None where there is no prediction. At the labels' size, or at another of
the same aspect: such maps are resized bilinearly."""
SilhouetteOf = Callable[[LabelledView, str], Array | None]
"""Mask [H, W] bool that the Gaussians of the phrase, rendered alone, cover in a view; None where there is no prediction. Another
size of the same aspect is resized to the nearest pixel."""

TITLES = {
    "A": "localisation: the greatest pixel of the relevancy map",
    "B": "2-D segmentation: the relevancy map above one threshold, and its arg max over the label set",
    "B-langsplat": "2-D segmentation as LangSplat measures it: each map blurred, stretched and cut at 0.4",
    "C": "3-D selection: the silhouette of the Gaussians above the threshold rendered alone",
    "C-find": "3-D selection: the silhouette of the Gaussians that export and the viewer select, rendered alone",
}
ACCURACIES = (0.25, 0.5)


def protocol_a(
    scene: LabelledScene,
    relevancy_of: RelevancyOf,
    *,
    inside: Literal["boxes", "mask"] = "boxes",
    settings: Mapping[str, Setting] | None = None,
) -> Report:
    """Localisation (LERF, section 5; FMGS, table 1). Score ``localisation``: 1 for a hit.

    Args:
        scene: labels with boxes.
        relevancy_of: renders; asked once a view, for the phrases that are labelled in it.
        inside: what must be hit. ``mask`` is stricter and not LERF's measure; it is for data sets without boxes.
        settings: what the report should say of the model and the query.

    Raises:
        ValueError: nothing to evaluate, labels without what must be hit, or maps that are damaged or of another aspect.
    """
    rows: list[Row] = []
    hidden = 0
    for view, objects, truths in _labelled(scene, decode=inside == "mask"):
        hidden += len(view.objects) - len(objects)
        if not objects:
            continue
        maps = _maps(relevancy_of, view, [thing.phrase for thing in objects])
        for k, thing in enumerate(objects):
            if inside == "boxes" and not thing.boxes:
                raise ValueError(f"{thing.phrase!r} has no box in {view.image}: give labels with boxes, or inside='mask'")
            hit = maps is not None and (
                hits_boxes(maps[k], thing.boxes) if inside == "boxes" else hits_mask(maps[k], truths[thing.phrase])
            )
            rows.append(Row(view.image, thing.phrase, {"localisation": float(hit)}, maps is None))
    return _report("A", scene, rows, hidden, {"inside": inside}, settings)


def protocol_b(
    scene: LabelledScene,
    relevancy_of: RelevancyOf,
    *,
    threshold: float,
    argmax_floor: float | None = None,
    settings: Mapping[str, Setting] | None = None,
) -> Report:
    """2-D segmentation. Scores of a pair: ``iou`` of relevancy > threshold, ``average_precision``, and ``argmax_iou``; of a view:
    ``argmax_accuracy``.

    In the arg max every pixel goes to one phrase of the scene's label set, or to one of its background phrases.

    Args:
        scene: labels with masks.
        relevancy_of: renders; asked once a view, for the whole label set and then the background.
        threshold: the same for all scenes. At 0.5 a pixel ties with the hardest negative.
        argmax_floor: in the arg max, pixels whose relevancy for every phrase is at or below it go to none. For label sets that do
            not cover the picture.
        settings: what the report should say of the model and the query.

    Raises:
        ValueError: nothing to evaluate, labels without masks, or maps that are damaged or of another aspect.
    """
    rows: list[Row] = []
    views: dict[str, Scores] = {}
    hidden = 0
    index = {phrase: k for k, phrase in enumerate(scene.phrases)}
    for view, objects, truths in _labelled(scene, decode=True):
        hidden += len(view.objects) - len(objects)
        if not objects:
            continue
        maps = _maps(relevancy_of, view, [*scene.phrases, *scene.background])
        if maps is None:
            nothing = {"iou": 0.0, "average_precision": 0.0, "argmax_iou": 0.0}
            rows += [Row(view.image, phrase, nothing, missing=True) for phrase in truths]
            views[view.image] = {"argmax_accuracy": 0.0}
            continue
        winner = argmax_segmentation(maps, len(index), argmax_floor)
        for phrase, truth in truths.items():
            relevancy = maps[index[phrase]]
            scores = {
                "iou": iou(relevancy > np.float32(threshold), truth),
                "average_precision": average_precision(relevancy, truth),
                "argmax_iou": iou(winner == index[phrase], truth),
            }
            rows.append(Row(view.image, phrase, scores))
        views[view.image] = {
            "argmax_accuracy": pixel_accuracy(winner, {index[phrase]: truth for phrase, truth in truths.items()})
        }
    chosen: dict[str, Setting] = {"threshold": threshold, "argmax_floor": argmax_floor}
    return _report("B", scene, rows, hidden, chosen, settings, views)


def protocol_b_langsplat(
    scene: LabelledScene,
    relevancy_of: RelevancyOf,
    *,
    settings: Mapping[str, Setting] | None = None,
) -> Report:
    """2-D segmentation as LangSplat measures it. Scores: ``iou``, and where all labels have boxes ``localisation``, of the
    averaged map's greatest pixel.

    Args:
        scene: labels with masks.
        relevancy_of: renders; asked once a view, for the phrases that it shows.
        settings: what the report should say of the model and the query.

    Raises:
        ValueError: nothing to evaluate, labels without masks, or maps that are damaged or of another aspect.
    """
    rows: list[Row] = []
    hidden = 0
    boxed = all(thing.boxes for view in scene.views for thing in view.objects)
    for view, objects, truths in _labelled(scene, decode=True):
        hidden += len(view.objects) - len(objects)
        if not objects:
            continue
        maps = _maps(relevancy_of, view, [thing.phrase for thing in objects])
        for k, thing in enumerate(objects):
            scores = {"iou": 0.0 if maps is None else iou(langsplat_mask(maps[k]), truths[thing.phrase])}
            if boxed:
                scores["localisation"] = float(maps is not None and hits_boxes(averaged(maps[k]), thing.boxes))
            rows.append(Row(view.image, thing.phrase, scores, maps is None))
    return _report("B-langsplat", scene, rows, hidden, {"window": WINDOW, "threshold": THRESHOLD, "levels": 1}, settings)


def protocol_c(
    scene: LabelledScene,
    silhouette_of: SilhouetteOf,
    *,
    threshold: float,
    least_alpha: float,
    name: Literal["C", "C-find"] = "C",
    settings: Mapping[str, Setting] | None = None,
) -> Report:
    """3-D selection. Scores: ``iou``, and ``acc@0.25`` and ``acc@0.5``, which are 1 where the IoU is greater.

    Args:
        scene: labels with masks.
        silhouette_of: selects and renders; asked once for each pair. One selection must serve all views of a phrase.
        threshold: by which `silhouette_of` selects Gaussians; the same for all scenes. Recorded in the report.
        least_alpha: opacity from which `silhouette_of` counts a pixel as covered. Recorded in the report.
        name: of what `silhouette_of` selects, see above.
        settings: what the report should say of the model and the query.

    Raises:
        ValueError: nothing to evaluate, labels without masks, or silhouettes that are not masks or of another aspect.
    """
    rows: list[Row] = []
    hidden = 0
    for view, objects, truths in _labelled(scene, decode=True):
        hidden += len(view.objects) - len(objects)
        for phrase, truth in truths.items():
            silhouette = silhouette_of(view, phrase)
            overlap = 0.0 if silhouette is None else iou(_fit_mask(silhouette, view), truth)
            scores = {"iou": overlap, **{f"acc@{limit}": accuracy_at([overlap], limit) for limit in ACCURACIES}}
            rows.append(Row(view.image, phrase, scores, silhouette is None))
    return _report(name, scene, rows, hidden, {"threshold": threshold, "least_alpha": least_alpha}, settings)


def _labelled(scene: LabelledScene, decode: bool) -> Iterator[tuple[LabelledView, list[LabelledObject], dict[str, Mask]]]:
    """Every view with the objects that it shows and their masks; not decoded, with all its objects and no masks."""
    for view in scene.views:
        if not decode:
            objects, truths = list(view.objects), {}
        else:
            truths = {thing.phrase: mask for thing in view.objects if (mask := _truth(thing, view)).any()}
            objects = [thing for thing in view.objects if thing.phrase in truths]
        yield view, objects, truths


def _truth(thing: LabelledObject, view: LabelledView) -> Mask:
    if thing.mask is None:
        raise ValueError(f"{thing.phrase!r} has no mask in {view.image}: give labels with masks, or use protocol A")
    mask = thing.mask()
    if mask.shape != (view.height, view.width):
        raise ValueError(
            f"the mask of {thing.phrase!r} is {list(mask.shape)}, but {view.image} is {[view.height, view.width]}:"
            " give masks of the view's size"
        )
    return mask


def _maps(relevancy_of: RelevancyOf, view: LabelledView, phrases: Sequence[str]) -> npt.NDArray[np.float32] | None:
    """Maps [P, H, W] at the labels' size."""
    maps = relevancy_of(view, phrases)
    if maps is None:
        return None
    tensor = torch.as_tensor(maps).detach().float().cpu()
    if tensor.dim() != 3 or len(tensor) != len(phrases):
        raise ValueError(
            f"relevancy of {view.image} has shape {list(tensor.shape)}: it must be [{len(phrases)}, H, W], a map a phrase"
        )
    if _needs_resize(tensor, view):
        size = (view.height, view.width)
        tensor = torch.nn.functional.interpolate(tensor[None], size, mode="bilinear", align_corners=False)[0]
    return tensor.numpy()


def _fit_mask(silhouette: Array, view: LabelledView) -> Mask:
    """Mask [H, W] at the labels' size."""
    tensor = torch.as_tensor(silhouette).detach().cpu()
    if tensor.dim() != 2 or tensor.dtype != torch.bool:
        raise ValueError(
            f"a silhouette in {view.image} is {tensor.dtype} of shape {list(tensor.shape)}: it must be bool, [H, W];"
            " compare the rendered opacity with a threshold"
        )
    if _needs_resize(tensor, view):
        size = (view.height, view.width)
        tensor = torch.nn.functional.interpolate(tensor[None, None].float(), size, mode="nearest-exact")[0, 0] > 0.5
    return tensor.numpy()


def _needs_resize(tensor: Tensor, view: LabelledView) -> bool:
    height, width = tensor.shape[-2:]
    if (height, width) == (view.height, view.width):
        return False
    # Of the same aspect: one scale takes both sides of the labels to within a pixel of these.
    low = max((width - 1) / view.width, (height - 1) / view.height)
    high = min((width + 1) / view.width, (height + 1) / view.height)
    if min(width, height) < 1 or low > high:
        raise ValueError(
            f"a prediction of {width} x {height} pixels for {view.image}, whose labels have {view.width} x {view.height}:"
            " render the whole picture, in the same aspect"
        )
    return True


def _report(
    protocol: str,
    scene: LabelledScene,
    rows: list[Row],
    hidden: int,
    chosen: Mapping[str, Setting],
    more: Mapping[str, Setting] | None,
    views: Mapping[str, Scores] | None = None,
) -> Report:
    if not rows:
        raise ValueError(
            f"no view of scene {scene.name} shows a labelled object: there is nothing to evaluate, give other labels"
        )
    parts = (chosen, scene.settings, more or {})
    keys = [key for part in parts for key in part]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"setting {key!r} is already the protocol's or the labels': give yours another name")
    merged = {key: value for part in parts for key, value in part.items()}
    return Report(protocol, TITLES[protocol], scene.name, merged, tuple(rows), views or {}, hidden)
