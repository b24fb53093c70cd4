"""Guidance without a model: pictures whose right answer is known, and pictures that give no reason to answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from vlmgs_ns.guidance.backends.residual import PHASES, ResidualBackend
from vlmgs_ns.guidance.question import Answer, Backend, Evidence, Phase, Question
from vlmgs_ns.guidance.regions import LIMITS, limit
from vlmgs_ns.guidance.reply import Box, parse

H, W = 120, 160
Array = NDArray[Any]


def ask(phase: Phase, *pictures: Array, **evidence: Any) -> Answer:
    shown = tuple(p if p.dtype == np.uint8 else (p * 255 + 0.5).astype(np.uint8) for p in pictures)
    (answer,) = ResidualBackend().ask([Question(phase, "unread", shown, Evidence(**evidence))])
    return answer


def boxes_of(answer: Answer) -> list[Box]:
    assert answer.error is None and answer.text is not None
    reply = parse(answer.text, "thousandths", W, H)
    assert reply.dropped == 0
    return list(reply.boxes)


def look(phase: Phase, *pictures: Array, **evidence: Any) -> list[Box]:
    return boxes_of(ask(phase, *pictures, **evidence))


def plain(value: float = 0.5) -> Array:
    return np.full((H, W, 3), value)


def depth_of(value: float = 4.0) -> Array:
    return np.full((H, W), value, np.float32)


COVERED = np.ones((H, W), np.float32)


def textured(rows: slice, columns: slice, strength: float = 0.3, seed: int = 0) -> Array:
    """A plain picture with a patch of smooth noise."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((H, W, 3)), (1, 1, 0))
    picture = plain()
    picture[rows, columns] += strength * noise[rows, columns] / noise.std() / 2
    return picture.clip(0, 1)


def patch(rows: slice, columns: slice) -> Box:
    return Box(columns.start / W, rows.start / H, columns.stop / W, rows.stop / H)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    inter = max(width, 0) * max(height, 0)
    return inter / (sum((box.right - box.left) * (box.bottom - box.top) for box in (a, b)) - inter)


HERE, THERE = (slice(20, 60), slice(90, 140)), (slice(70, 110), slice(10, 60))


def test_it_is_a_backend() -> None:
    backend: Backend = ResidualBackend()
    backend.check()
    backend.release()
    assert (backend.name, backend.coordinates, backend.fingerprint) == ("residual", "thousandths", "residual 1")
    assert backend.ask([]) == []


def test_answers_come_in_the_order_of_their_questions_and_repeat() -> None:
    shown = (np.zeros((H, W, 3), np.uint8),)
    questions = [Question(phase, "", shown) for phase in ("background", "detail", "compare", "novel", "background")]
    first, again = ResidualBackend().ask(questions), ResidualBackend().ask(questions)
    assert [a.text for a in first] == [a.text for a in again]
    assert [a.text is not None and "main subject" in a.text for a in first] == [True, False, False, False, True]
    assert [a.error is None for a in first] == [True, True, False, True, True]


# detail


@pytest.mark.parametrize("with_photo", [True, False])
def test_texture_that_appeared_is_found_and_what_was_there_is_not(with_photo: bool) -> None:
    earlier = textured(*THERE)
    render = textured(*HERE, strength=0.15)
    render[THERE] = earlier[THERE]
    photo = np.where(render == textured(*HERE, strength=0.15), textured(*HERE, strength=0.4), textured(*THERE, strength=0.4))
    (box,) = look("detail", render, earlier=earlier, photo=photo if with_photo else None)
    assert overlap(box, patch(*HERE)) > 0.6 and box.label == "emerging detail"


def test_detail_that_is_complete_is_left_alone() -> None:
    """Two patches appear; one already has all the detail of the photo."""
    render = textured(*HERE, strength=0.15)
    render[THERE] = textured(*THERE)[THERE]
    photo = textured(*HERE, strength=0.4)
    photo[THERE] = render[THERE]
    (box,) = look("detail", render, earlier=plain(), photo=photo)
    assert overlap(box, patch(*HERE)) > 0.6
    without_photo = look("detail", render, earlier=plain())
    assert any(overlap(box, patch(*THERE)) > 0.6 for box in without_photo)


def test_without_an_earlier_render_detail_is_compared_with_the_photo() -> None:
    photo = textured(*HERE, strength=0.5)
    photo[THERE] = textured(*THERE)[THERE]
    blurred = ndimage.gaussian_filter(photo, (1.2, 1.2, 0))
    blurred[THERE] = 0.5  # nothing has begun there
    (box,) = look("detail", blurred, photo=photo)
    assert overlap(box, patch(*HERE)) > 0.6


def test_no_gain_no_region() -> None:
    render = textured(*HERE)
    assert look("detail", render, earlier=render, photo=textured(*HERE, strength=0.6)) == []
    assert look("detail", plain(), earlier=plain(0.2), photo=render) == []  # darker is not finer
    noise = 1 / 255 * np.random.default_rng(1).standard_normal((H, W, 3))
    assert look("detail", render + noise.clip(-0.02, 0.02), earlier=render) == []
    assert look("detail", ndimage.gaussian_filter(render, (2, 2, 0)), earlier=render) == []  # detail was lost
    assert look("detail", render, photo=render) == []  # nothing is left to win


def test_a_picture_full_of_new_detail_is_split_within_limits() -> None:
    render = textured(slice(0, H), slice(0, W))
    boxes = look("detail", render, earlier=plain())
    assert boxes and limit(boxes, LIMITS["detail"])[1] == ""


def test_one_part_all_around_the_picture_is_split_at_its_high_places() -> None:
    """One part whose box is the whole picture: shrunk about its centre it would mark what is plain."""
    render = plain()
    strength = np.linspace(0.2, 0.6, W)[:, None]
    frame = np.ones((H, W), bool)
    frame[16:-16, 16:-16] = False
    render[frame] += (strength * (textured(slice(0, H), slice(0, W)) - 0.5))[frame]
    answer = ask("detail", render, earlier=plain())
    boxes = boxes_of(answer)
    assert boxes and "limited" not in answer.details


# background


def floor_and_wall() -> Array:
    """z-depth of a floor 1.5 below a level camera and of a wall at 6."""
    below = (np.arange(H) + 0.5 - 0.35 * H) / (0.7 * W)
    return np.minimum(np.divide(1.5, below, where=below > 0, out=np.full(H, 99.0)), 6)[:, None].repeat(W, 1).astype(np.float32)


def test_a_near_square_before_a_far_wall_is_the_subject() -> None:
    depth = depth_of()
    depth[HERE] = 2.0
    (box,) = look("background", plain(), depth=depth, coverage=COVERED, subject=(0.7, 0.4))
    assert overlap(box, patch(*HERE)) > 0.9 and box.label == "main subject"


def test_an_object_on_a_floor_is_told_from_the_floor_before_it() -> None:
    depth = floor_and_wall()
    column = slice(60, 90)
    foot = int(np.argmin(abs(depth[:, 0] - 2.5)))
    rows = slice(foot - 35, foot)
    depth[rows, column] = 2.5
    answer = ask("background", plain(), depth=depth, coverage=COVERED, subject=(0.5, 0.5))
    (box,) = boxes_of(answer)
    # Its foot is as far as the floor that it stands on, and is lost.
    assert overlap(box, patch(rows, column)) > 0.75 and answer.details["subject"] == "depth"
    assert abs(box.left - column.start / W) < 0.01 and abs(box.right - column.stop / W) < 0.01
    (other,) = look("background", plain(), depth=depth[:, ::-1], coverage=COVERED, subject=(0.5, 0.5))
    assert np.allclose(other[:4], (1 - box.right, box.top, 1 - box.left, box.bottom))


def test_of_two_objects_alike_the_one_nearer_to_the_scenes_centre_counts() -> None:
    depth = depth_of()
    depth[40:80, 20:60] = depth[40:80, 100:140] = 2.0
    left, right = (look("background", plain(), depth=depth, subject=(x, 0.5))[0] for x in (0.2, 0.8))
    assert overlap(left, patch(slice(40, 80), slice(20, 60))) > 0.9
    assert overlap(right, patch(slice(40, 80), slice(100, 140))) > 0.9


def test_a_background_that_is_not_there_yet_is_far() -> None:
    """Depth where nothing is covered means nothing, however near it claims to be."""
    depth = depth_of(0.1)
    depth[HERE], depth[:20] = 2.0, 3.0
    coverage = np.zeros((H, W), np.float32)
    coverage[HERE] = coverage[:20] = 1.0
    (box,) = look("background", plain(), depth=depth, coverage=coverage, subject=(0.7, 0.4))
    assert overlap(box, patch(*HERE)) > 0.9


@pytest.mark.parametrize("depth", [None, depth_of(), floor_and_wall(), np.full((H, W), np.nan), np.zeros((H, W))])
def test_where_depth_tells_no_subject_the_box_is_about_the_scenes_centre(depth: Array | None) -> None:
    answer = ask("background", plain(), depth=depth, subject=(0.4, 0.5))
    (box,) = boxes_of(answer)
    assert np.allclose(box[:4], (0.1, 0.2, 0.7, 0.8)) and answer.details["subject"] == "centre"


@pytest.mark.parametrize("subject", [None, (-3.0, 9.0), (float("nan"), float("inf"))])
def test_the_fallback_stays_in_the_picture_and_under_half_of_it(subject: tuple[float, float] | None) -> None:
    (box,) = look("background", plain(), subject=subject)
    assert 0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1
    assert (box.right - box.left) * (box.bottom - box.top) <= 0.5


def test_a_subject_over_half_of_the_picture_is_cut_to_half() -> None:
    depth = depth_of()
    depth[1:-1, 23:137] = 1.0
    answer = ask("background", plain(), depth=depth)
    (box,) = boxes_of(answer)
    assert 0.45 < (box.right - box.left) * (box.bottom - box.top) <= 0.5 and "shrunk" in answer.details["limited"]


# novel


def test_a_hole_is_found() -> None:
    coverage = COVERED.copy()
    coverage[HERE] = 0.1
    disagreement = np.where(coverage < 0.5, np.nan, 0.02)
    (box,) = look("novel", plain(), coverage=coverage, depth=depth_of(), disagreement=disagreement)
    assert np.allclose(box[:4], patch(*HERE)[:4], atol=1e-3) and box.label == "hole"


def test_open_background_is_no_hole() -> None:
    coverage = np.zeros((H, W), np.float32)
    coverage[30:90, 50:110] = 1.0
    coverage[55:65, 75:85] = 0.2
    (box,) = look("novel", plain(), coverage=coverage)
    assert overlap(box, patch(slice(55, 65), slice(75, 85))) > 0.9
    assert look("novel", plain(), coverage=np.zeros((H, W))) == []


FLOATER = (slice(30, 44), slice(100, 118))


def test_a_blob_in_the_air_is_a_floater_unless_photos_confirm_it() -> None:
    depth = floor_and_wall()
    depth[FLOATER] = 0.7
    (box,) = look("novel", plain(), depth=depth, coverage=COVERED)
    assert np.allclose(box[:4], patch(*FLOATER)[:4], atol=1e-3) and box.label == "floater"
    assert look("novel", plain(), depth=depth, coverage=COVERED, disagreement=np.full((H, W), 0.02)) == []
    unseen = np.full((H, W), np.nan)
    assert [b.label for b in look("novel", plain(), depth=depth, coverage=COVERED, disagreement=unseen)] == ["floater"]


def test_what_stands_on_the_floor_is_no_floater() -> None:
    depth = floor_and_wall()
    foot = int(np.argmin(abs(depth[:, 0] - 2.0)))
    depth[foot - 20 : foot, 70:85] = 2.0
    depth[foot - 60 : foot - 20, 76:79] = 2.0  # a thin lamp on a foot
    assert look("novel", plain(), depth=depth, coverage=COVERED) == []


def test_disagreement_that_stands_out_is_inconsistent() -> None:
    rng = np.random.default_rng(0)
    disagreement = 0.03 + 0.02 * rng.random((H, W))
    assert look("novel", plain(), disagreement=disagreement) == []
    disagreement[HERE] += 0.3
    disagreement[:, :5] = np.nan
    (box,) = look("novel", plain(), disagreement=disagreement)
    assert overlap(box, patch(*HERE)) > 0.6 and box.label == "inconsistent"


def test_disagreement_counts_against_what_is_usual_in_the_view() -> None:
    disagreement = np.full((H, W), 0.2)
    disagreement[HERE] = 0.5
    (box,) = look("novel", plain(), disagreement=disagreement)
    assert overlap(box, patch(*HERE)) > 0.6


def test_unknown_places_neither_dilute_nor_take_on_what_is_beside_them() -> None:
    disagreement = np.full((H, W), 0.02)
    disagreement[5:75, 75:155] = np.nan
    disagreement[HERE] = 0.1
    (box,) = look("novel", plain(), disagreement=disagreement)
    assert np.allclose(box[:4], patch(*HERE)[:4], atol=1e-3)


def test_a_floater_that_photos_contradict_is_named_once_and_a_hole_elsewhere_too() -> None:
    depth, coverage, disagreement = floor_and_wall(), COVERED.copy(), np.full((H, W), 0.02)
    depth[FLOATER], disagreement[FLOATER] = 0.7, 0.5
    coverage[THERE], disagreement[THERE] = 0.0, np.nan
    answer = ask("novel", plain(), depth=depth, coverage=coverage, disagreement=disagreement)
    assert [box.label for box in boxes_of(answer)] == ["floater", "hole"]
    assert answer.details["found"] == {"floater": 1, "hole": 1, "inconsistent": 1}
    assert answer.details["evidence"] == ["coverage", "depth", "disagreement"]


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, np.nan])
def test_a_view_that_is_the_same_everywhere_is_fine(value: float) -> None:
    assert look("novel", plain(), disagreement=np.full((H, W), value), coverage=COVERED, depth=depth_of()) == []
    assert look("novel", plain()) == []


# compare


def test_wrong_patches_are_found_the_worst_first() -> None:
    photo = textured(slice(0, H), slice(0, W), strength=0.1)
    render = photo.copy()
    small, worst = (slice(20, 40), slice(20, 45)), (slice(70, 100), slice(100, 140))
    render[small] += 0.25
    render[worst] -= 0.4
    boxes = look("compare", render.clip(0, 1), photo)
    assert len(boxes) == 2 and overlap(boxes[0], patch(*worst)) > 0.7 and overlap(boxes[1], patch(*small)) > 0.6
    assert look("compare", render.clip(0, 1), photo=photo) == boxes  # the photo as evidence instead of a picture


def test_boxes_are_few_small_and_apart_however_much_is_wrong() -> None:
    rng = np.random.default_rng(0)
    wrong = ndimage.gaussian_filter(rng.standard_normal((H, W)), 8)
    boxes = look("compare", (0.5 + 0.4 * wrong / abs(wrong).max())[..., None].repeat(3, 2), plain(0.5))
    assert len(boxes) == 3 and limit(boxes, LIMITS["compare"])[1] == ""
    assert max(overlap(a, b) for k, a in enumerate(boxes) for b in boxes[:k]) == 0


def test_a_ring_around_the_worst_patch_gives_boxes_beside_it() -> None:
    """The best window for the ring would hold the patch that is already named."""
    radius = np.hypot(*(np.mgrid[:H, :W] - np.array([H / 2, W / 2])[:, None, None]))
    render = plain() - 0.5 * (radius < 5)[..., None] + 0.19 * (abs(radius - 19) < 3)[..., None]
    boxes = look("compare", render, plain())
    assert len(boxes) == 3 and overlap(boxes[0], patch(slice(54, 66), slice(74, 86))) > 0.5
    assert max(overlap(a, b) for k, a in enumerate(boxes) for b in boxes[:k]) == 0


def test_equal_pictures_and_a_change_of_exposure_have_nothing_to_show() -> None:
    picture = textured(*HERE)
    assert look("compare", picture, picture) == []
    assert look("compare", plain(0.3), plain(0.6)) == []


def test_a_missing_photo_is_an_error() -> None:
    for answer in (ask("compare", plain()), ask("compare", plain(), np.zeros((5, 5, 3)))):
        assert answer.text is None and answer.error is not None and "the photo is missing or of another size" in answer.error


# any phase


def scene(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def smooth(sigma: float, *shape: int) -> Array:
        values = ndimage.gaussian_filter(rng.standard_normal(shape), [sigma, sigma, 0][: len(shape)])
        return (values - values.min()) / np.ptp(values)

    coverage, disagreement = smooth(6, H, W), smooth(6, H, W) ** 3
    disagreement[coverage < 0.4] = np.nan
    return {
        "render": smooth(3, H, W, 3), "photo": smooth(2, H, W, 3), "earlier": smooth(9, H, W, 3),
        "depth": 1 + 5 * smooth(7, H, W), "coverage": coverage, "disagreement": disagreement, "subject": (0.3, 0.6),
    }  # fmt: skip


def mirrored(maps: dict[str, Any]) -> dict[str, Any]:
    flipped = {name: value[:, ::-1] for name, value in maps.items() if name != "subject"}
    return flipped | {"subject": (1 - maps["subject"][0], maps["subject"][1])}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_picture_gives_mirrored_boxes_within_limits(phase: Phase, seed: int) -> None:
    maps = scene(seed)
    flipped = mirrored(maps)
    boxes = look(phase, maps.pop("render"), **maps)
    assert boxes and limit(boxes, LIMITS[phase])[1] == ""
    found = look(phase, flipped.pop("render"), **flipped)
    assert np.allclose([(1 - b.right, b.top, 1 - b.left, b.bottom) for b in found], [b[:4] for b in boxes], atol=1e-9)
    assert [b.label for b in found] == [b.label for b in boxes]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (2, 3), (9, 9)])
@pytest.mark.parametrize("value", [0.0, 0.5, np.nan, np.inf, -1.0])
def test_tiny_pictures_and_broken_numbers_are_answered(phase: Phase, size: tuple[int, int], value: float) -> None:
    grey, coloured = np.full(size, value), np.full((*size, 3), value)
    answer = ask(
        phase, np.full((*size, 3), 7, np.uint8),
        photo=coloured, earlier=coloured, depth=grey, coverage=grey, disagreement=grey, subject=(value, value),
    )  # fmt: skip
    boxes = boxes_of(answer)
    assert limit(boxes, LIMITS[phase])[1] == ""
    assert json.dumps(answer.details)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("missing", ["photo", "earlier", "depth", "coverage", "disagreement", "subject"])
def test_any_evidence_may_be_missing_or_of_another_size(phase: Phase, missing: str) -> None:
    maps = scene(0)
    render = maps.pop("render")
    without = ask(phase, render, **(maps | {missing: None}))
    assert (without.error is None) == ((phase, missing) != ("compare", "photo"))
    if missing != "subject":
        another = ask(phase, render, **(maps | {missing: maps[missing][:-1]}))
        assert another.text == without.text
        used = missing in ask(phase, render, **maps).details["evidence"]
        assert another.error is not None or another.details["ignored"] == ([missing] if used else [])


@pytest.mark.parametrize("pictures", [(), (np.zeros((0, 5, 3), np.uint8),), (np.zeros((5, 5), np.uint8),)])
def test_a_question_without_a_picture_costs_only_its_own_answer(pictures: tuple[Array, ...]) -> None:
    good = Question("background", "", (np.zeros((H, W, 3), np.uint8),))
    bad, fine = ResidualBackend().ask([Question("detail", "", pictures), good])
    assert bad.text is None and "no picture" in str(bad.error) and fine.text is not None


def test_words_are_beyond_it() -> None:
    answer = ask("ground", np.zeros((H, W, 3), np.uint8))
    assert answer.text is None and "nothing is found by its words" in str(answer.error)


def test_evidence_is_not_changed() -> None:
    maps = scene(1)
    kept = {name: np.array(value) for name, value in maps.items()}
    render = maps.pop("render")
    for phase in PHASES:
        ask(phase, render, **maps)
    assert all(np.array_equal(kept[name], value, equal_nan=True) for name, value in maps.items())


def test_the_reply_is_the_form_that_models_use() -> None:
    depth = depth_of()
    depth[HERE] = 2.0
    answer = ask("background", plain(), depth=depth)
    (region,) = json.loads(answer.text or "")
    assert set(region) == {"bbox_2d", "label"} and all(type(number) is int for number in region["bbox_2d"])
    assert answer.seconds > 0
