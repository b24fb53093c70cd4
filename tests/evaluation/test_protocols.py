"""Protocols on scenes small enough to count by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledScene, LabelledView
from vlmgs_ns.evaluation.protocols import protocol_a, protocol_b, protocol_c

Grid = Sequence[Sequence[float]]


def mask(*rows: str) -> np.ndarray:
    """``#`` is inside."""
    return np.array([[letter == "#" for letter in row] for row in rows])


BALL, CUBE, NOTHING = mask("##..", "##.."), mask("...#", "...#"), mask("....", "....")
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.75, 0.0, 1.0, 1.0)


def thing(phrase: str, truth: np.ndarray | None, *boxes: tuple[float, float, float, float]) -> LabelledObject:
    return LabelledObject(phrase, boxes, None if truth is None else lambda: truth)


def room(*views: LabelledView, name: str = "room", background: tuple[str, ...] = ()) -> LabelledScene:
    return LabelledScene(name, views, ("ball", "cube"), background, {"labels": "hand"})


BOTH = LabelledView("1.jpg", 4, 2, (thing("ball", BALL, LEFT), thing("cube", CUBE, RIGHT)))
BALL_ALONE = LabelledView("2.jpg", 4, 2, (thing("ball", BALL, LEFT), thing("cube", NOTHING)))


def answers(table: Mapping[str, Grid]):
    """The same map of a phrase in every view."""
    return lambda view, phrases: torch.tensor([table[phrase] for phrase in phrases])


PERFECT = {"ball": BALL.astype(float).tolist(), "cube": CUBE.astype(float).tolist()}
FLAT = {phrase: np.full((2, 4), 0.5).tolist() for phrase in ("ball", "cube")}


def test_a_counts_hits() -> None:
    wrong_ball = {**PERFECT, "ball": PERFECT["cube"]}
    report = protocol_a(room(BOTH), answers(wrong_ball), settings={"encoder": "none"})
    assert [(row.view, row.phrase, row.scores) for row in report.rows] == [
        ("1.jpg", "ball", {"localisation": 0.0}),
        ("1.jpg", "cube", {"localisation": 1.0}),
    ]
    assert report.protocol == "A"
    assert report.scores == {"localisation": 0.5}
    assert report.phrases == {"ball": {"localisation": 0.0}, "cube": {"localisation": 1.0}}
    assert report.settings == {"inside": "boxes", "labels": "hand", "encoder": "none"}


def test_a_asks_only_for_what_is_labelled_in_the_view() -> None:
    asked = []

    def relevancy_of(view: LabelledView, phrases: Sequence[str]) -> torch.Tensor:
        asked.append((view.image, list(phrases)))
        return torch.tensor([PERFECT[phrase] for phrase in phrases])

    scene = room(LabelledView("1.jpg", 4, 2, (thing("cube", None, RIGHT),)), LabelledView("2.jpg", 4, 2, ()))
    assert protocol_a(scene, relevancy_of).scores == {"localisation": 1.0}
    assert asked == [("1.jpg", ["cube"])]


def test_a_takes_any_of_several_boxes() -> None:
    scene = room(LabelledView("1.jpg", 4, 2, (thing("ball", None, RIGHT, LEFT),)))
    assert protocol_a(scene, answers(PERFECT)).scores == {"localisation": 1.0}


def test_a_may_ask_for_the_mask_instead() -> None:
    ring = LabelledView("1.jpg", 4, 2, (thing("ball", mask("#.##", "####"), (0.0, 0.0, 1.0, 1.0)),))
    hole = answers({"ball": [[0, 1, 0, 0], [0, 0, 0, 0]]})
    assert protocol_a(room(ring), hole).scores == {"localisation": 1.0}
    inside = protocol_a(room(ring), hole, inside="mask")
    assert inside.scores == {"localisation": 0.0}
    assert inside.settings["inside"] == "mask"


def test_a_leaves_out_masks_that_are_empty_and_needs_boxes_otherwise() -> None:
    report = protocol_a(room(BALL_ALONE), answers(PERFECT), inside="mask")
    assert ([row.phrase for row in report.rows], report.not_visible) == (["ball"], 1)
    with pytest.raises(ValueError, match=r"'cube' has no box in 2\.jpg"):
        protocol_a(room(BALL_ALONE), answers(PERFECT))


def test_constant_maps_in_every_protocol() -> None:
    assert protocol_a(room(BOTH), answers(FLAT)).scores == {"localisation": 0.0}
    scores = protocol_b(room(BOTH), answers(FLAT), threshold=0.5).scores
    # Nothing is above the threshold; AP is each object's share of the picture; the arg max gives all to the first phrase.
    assert scores == pytest.approx(
        {"iou": 0.0, "average_precision": (4 / 8 + 2 / 8) / 2, "argmax_iou": (4 / 8 + 0) / 2, "argmax_accuracy": 4 / 6}
    )


def test_b_by_hand() -> None:
    maps = {"ball": [[0.9, 0.6, 0.6, 0.1], [0.9, 0.4, 0.1, 0.1]], "cube": [[0.1, 0.1, 0.1, 0.8], [0.1, 0.5, 0.3, 0.5]]}
    report = protocol_b(room(BOTH), answers(maps), threshold=0.5)
    ball, cube = report.rows
    # ball > 0.5 is ###. / #...: 3 right, 1 wrong, 1 missed. Ranked: two of 0.9 right, then of two 0.6 one right, then 0.4 right.
    assert ball.scores["iou"] == pytest.approx(3 / 5)
    assert ball.scores["average_precision"] == pytest.approx(0.5 * 1 + 0.25 * 3 / 4 + 0.25 * 4 / 5)
    # cube > 0.5 is its upper pixel alone: the lower one ties with the threshold.
    assert cube.scores["iou"] == pytest.approx(1 / 2)
    assert cube.scores["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # The arg max is BBBC / BCCC.
    assert ball.scores["argmax_iou"] == pytest.approx(3 / 5)
    assert cube.scores["argmax_iou"] == pytest.approx(2 / 4)
    assert report.views == {"1.jpg": {"argmax_accuracy": pytest.approx(5 / 6)}}
    assert report.settings == {"threshold": 0.5, "argmax_floor": None, "labels": "hand"}


def test_b_loses_pixels_to_the_background_or_the_floor() -> None:
    maps = {**PERFECT, "wall": np.full((2, 4), 0.5).tolist()}
    bare, papered = room(BOTH), room(BOTH, background=("wall",))
    # Without a background the two pixels between are the ball's, by the order of a tie.
    assert protocol_b(bare, answers(maps), threshold=0.5).rows[0].scores["argmax_iou"] == pytest.approx(4 / 6)
    assert protocol_b(papered, answers(maps), threshold=0.5).rows[0].scores["argmax_iou"] == 1.0
    assert protocol_b(bare, answers(maps), threshold=0.5, argmax_floor=0.2).rows[0].scores["argmax_iou"] == 1.0


def test_b_asks_for_the_whole_label_set_in_each_view() -> None:
    asked = []

    def relevancy_of(view: LabelledView, phrases: Sequence[str]) -> torch.Tensor:
        asked.append(tuple(phrases))
        return torch.zeros(len(phrases), 2, 4)

    protocol_b(room(BOTH, BALL_ALONE, background=("wall",)), relevancy_of, threshold=0.5)
    assert asked == [("ball", "cube", "wall")] * 2


def test_an_object_that_is_not_visible_is_left_out() -> None:
    report = protocol_b(room(BOTH, BALL_ALONE), answers(PERFECT), threshold=0.5)
    assert [(row.view, row.phrase) for row in report.rows] == [("1.jpg", "ball"), ("1.jpg", "cube"), ("2.jpg", "ball")]
    assert report.not_visible == 1
    assert report.scores["iou"] == 1.0
    unseen = LabelledView("3.jpg", 4, 2, (thing("cube", NOTHING),))
    assert set(protocol_b(room(BOTH, unseen), answers(PERFECT), threshold=0.5).views) == {"1.jpg"}
    with pytest.raises(ValueError, match="no view of scene room shows a labelled object"):
        protocol_b(room(unseen), answers(PERFECT), threshold=0.5)


def test_a_missing_prediction_counts_as_nothing_found() -> None:
    def only_first(view: LabelledView, phrases: Sequence[str]) -> torch.Tensor | None:
        return answers(PERFECT)(view, phrases) if view is BOTH else None

    other = LabelledView("2.jpg", 4, 2, (thing("ball", BALL, LEFT),))
    for report in (
        protocol_a(room(BOTH, other), only_first),
        protocol_b(room(BOTH, other), only_first, threshold=0.5, argmax_floor=0.5),
        protocol_c(
            room(BOTH, other), lambda v, p: {"ball": BALL, "cube": CUBE}[p] if v is BOTH else None, threshold=0.5, least_alpha=0.5
        ),
    ):
        assert [row.missing for row in report.rows] == [False, False, True]
        assert set(report.rows[2].scores.values()) == {0.0}
        for key, value in report.scores.items():
            assert value == pytest.approx(1 / 2 if key == "argmax_accuracy" else 2 / 3)
        assert report.to_json()["missing"] == 1


def test_c_by_hand() -> None:
    # ball: 2 of 4 pixels and 1 beside: 2/5. cube: half of it, 1/2, which is not above 0.5.
    shapes = {"ball": mask("##..", "..#."), "cube": mask("...#", "....")}
    report = protocol_c(room(BOTH, BALL_ALONE), lambda view, phrase: shapes[phrase], threshold=0.6, least_alpha=0.5)
    assert [row.scores for row in report.rows] == [
        {"iou": pytest.approx(0.4), "acc@0.25": 1.0, "acc@0.5": 0.0},
        {"iou": pytest.approx(0.5), "acc@0.25": 1.0, "acc@0.5": 0.0},
        {"iou": pytest.approx(0.4), "acc@0.25": 1.0, "acc@0.5": 0.0},
    ]
    assert report.settings == {"threshold": 0.6, "least_alpha": 0.5, "labels": "hand"}
    assert report.protocol == "C"


def test_c_of_nothing_selected_is_0() -> None:
    report = protocol_c(room(BOTH), lambda view, phrase: NOTHING, threshold=0.5, least_alpha=0.5)
    assert report.scores == {"iou": 0.0, "acc@0.25": 0.0, "acc@0.5": 0.0}
    assert report.to_json()["missing"] == 0


@pytest.mark.parametrize("scale", [2, 5])
def test_predictions_of_another_size_and_the_same_aspect_are_resized(scale: int) -> None:
    def large(view: LabelledView, phrases: Sequence[str]) -> torch.Tensor:
        return answers(PERFECT)(view, phrases).repeat_interleave(scale, 1).repeat_interleave(scale, 2)

    for protocol in (
        lambda: protocol_a(room(BOTH), large),
        lambda: protocol_b(room(BOTH), large, threshold=0.5, argmax_floor=0.5),
    ):
        assert set(protocol().scores.values()) == {1.0}
    silhouettes = {name: truth.repeat(scale, 0).repeat(scale, 1) for name, truth in (("ball", BALL), ("cube", CUBE))}
    assert protocol_c(room(BOTH), lambda view, phrase: silhouettes[phrase], threshold=0.5, least_alpha=0.5).scores["iou"] == 1.0


def test_maps_are_resized_about_the_centres_of_pixels() -> None:
    half = LabelledView("1.jpg", 4, 2, (thing("ball", mask("..##", "..##")),))
    # Between the centres of its two pixels a map of [0, 1] rises as 0, 0.25, 0.75, 1.
    relevancy = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])
    assert protocol_b(room(half), lambda v, p: relevancy, threshold=0.7).scores["iou"] == 1.0
    assert protocol_b(room(half), lambda v, p: relevancy, threshold=0.3).scores["iou"] == 1.0
    assert protocol_b(room(half), lambda v, p: relevancy, threshold=0.2).scores["iou"] == pytest.approx(4 / 6)


def test_rounded_sizes_are_of_the_same_aspect() -> None:
    view = LabelledView("1.jpg", 986, 728, (thing("ball", np.ones((728, 986), bool)),))
    silhouette = np.ones((243, 328), bool)  # a third of it: 242.67 x 328.67
    assert protocol_c(room(view), lambda v, p: silhouette, threshold=0.5, least_alpha=0.5).scores["iou"] == 1.0


@pytest.mark.parametrize("size", [(4, 2), (2, 8), (4, 4), (40, 22)])
def test_a_prediction_of_another_aspect_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[1]} x {size[0]} pixels for 1.jpg, whose labels have 4 x 2"):
        protocol_a(room(LabelledView("1.jpg", 4, 2, (thing("ball", None, LEFT),))), lambda v, p: torch.rand(1, *size))


def test_what_a_caller_got_wrong_is_told() -> None:
    with pytest.raises(ValueError, match=r"has shape \[1, 2, 4\]: it must be \[2, H, W\]"):
        protocol_a(room(BOTH), lambda v, p: torch.rand(1, 2, 4))
    with pytest.raises(ValueError, match="it must be bool"):
        protocol_c(room(BOTH), lambda v, p: torch.rand(2, 4), threshold=0.5, least_alpha=0.5)
    with pytest.raises(ValueError, match="NaN or infinite"):
        protocol_a(room(BOTH), lambda v, p: torch.full((2, 2, 4), torch.nan))
    with pytest.raises(ValueError, match="setting 'labels' is already"):
        protocol_a(room(BOTH), answers(PERFECT), settings={"labels": "mine"})
    boxes = room(LabelledView("1.jpg", 4, 2, (thing("ball", None, LEFT),)))
    with pytest.raises(ValueError, match=r"'ball' has no mask in 1\.jpg"):
        protocol_b(boxes, answers(PERFECT), threshold=0.5)
    small = room(LabelledView("1.jpg", 8, 4, (thing("ball", BALL),)))
    with pytest.raises(ValueError, match=r"mask of 'ball' is \[2, 4\], but 1\.jpg is \[4, 8\]"):
        protocol_c(small, lambda v, p: BALL, threshold=0.5, least_alpha=0.5)


def test_gradients_and_half_precision_are_no_obstacle() -> None:
    maps = lambda view, phrases: answers(PERFECT)(view, phrases).half().requires_grad_()  # noqa: E731
    assert protocol_a(room(BOTH), maps).scores == {"localisation": 1.0}


def test_reports_are_written_as_json(tmp_path: Path) -> None:
    scene = protocol_b(room(BOTH), answers(PERFECT), threshold=0.5, settings={"encoder": "ViT-B-16"})
    path = tmp_path / "eval" / "room.json"
    scene.write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content == scene.to_json()
    assert (content["protocol"], content["scene"], content["pairs"], content["not_visible"]) == ("B", "room", 2, 0)
    assert content["settings"] == {"threshold": 0.5, "argmax_floor": None, "labels": "hand", "encoder": "ViT-B-16"}
    assert content["rows"][1] == {
        "view": "1.jpg",
        "phrase": "cube",
        "missing": False,
        "trained_on": False,
        "iou": 1.0,
        "average_precision": 1.0,
        "argmax_iou": 1.0,
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["room.json"]
