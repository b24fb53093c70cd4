"""Regions: limits, masks of pixels and back, and pictures for people."""

from __future__ import annotations

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlmgs_ns.guidance.question import Phase
from vlmgs_ns.guidance.regions import COLOURS, DIMMED, LIMITS, Limits, boxes_around, limit, mask, picture, union_area
from vlmgs_ns.guidance.reply import Box

WIDE = Limits(max_boxes=100, max_area=1.0, max_union=1.0)


def intervals() -> st.SearchStrategy[list[float]]:
    return st.lists(st.integers(0, 97), min_size=2, max_size=2, unique=True).map(lambda pair: [k / 97 for k in sorted(pair)])


BOXES = st.lists(st.builds(lambda x, y: Box(x[0], y[0], x[1], y[1], "thing"), intervals(), intervals()), max_size=12)


def area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def union_twin(boxes: list[Box]) -> Fraction:
    """Exact area by inclusion and exclusion of every subset."""
    total = Fraction(0)
    for chosen in range(1, 1 << len(boxes)):
        some = [box for k, box in enumerate(boxes) if chosen >> k & 1]
        width = Fraction(min(box.right for box in some)) - Fraction(max(box.left for box in some))
        height = Fraction(min(box.bottom for box in some)) - Fraction(max(box.top for box in some))
        total += (-1) ** (len(some) + 1) * max(width, Fraction(0)) * max(height, Fraction(0))
    return total


def mask_twin(boxes: list[Box], width: int, height: int) -> NDArray[np.bool_]:
    """Pixel by pixel; only for boxes that hold some pixel's centre."""
    marked = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = (column + 0.5) / width, (row + 0.5) / height
            marked[row, column] = any(box.left <= x < box.right and box.top <= y < box.bottom for box in boxes)
    return marked


def test_every_phase_has_limits_of_the_method() -> None:
    assert set(LIMITS) == set(get_args(Phase))
    assert LIMITS["background"] == Limits(1, 0.5, 0.5)
    assert (LIMITS["compare"].max_boxes, LIMITS["compare"].max_area) == (3, 1 / 8)
    assert all(limits.max_area <= limits.max_union < 1 for phase, limits in LIMITS.items() if phase != "ground")
    assert LIMITS["ground"].max_union == 1  # what the user names may fill the picture


def test_what_is_within_limits_stays() -> None:
    boxes = [Box(0.1, 0.2, 0.3, 0.4, "a"), Box(0.0, 0.0, 0.5, 0.1, "b")]
    assert limit(boxes, LIMITS["detail"]) == (tuple(boxes), "")
    assert limit([], LIMITS["detail"]) == ((), "")
    assert limit([Box(0.0, 0.0, 0.5, 1.0)], LIMITS["background"]) == ((Box(0.0, 0.0, 0.5, 1.0),), "")


def test_a_box_around_everything_shrinks_about_its_centre() -> None:
    kept, told = limit([Box(0.0, 0.0, 1.0, 1.0, "room"), Box(0.1, 0.1, 0.2, 0.2)], LIMITS["background"])
    half = 0.5**0.5 / 2
    assert len(kept) == 1 and kept[0].label == "room"
    assert np.allclose(kept[0][:4], (0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half))
    assert told == "1 box shrunk to 0.5 of the picture; 1 box dropped beyond the first 1"


def test_a_shrunk_box_keeps_centre_and_aspect() -> None:
    (kept,), told = limit([Box(0.2, 0.0, 1.0, 0.4)], Limits(3, 0.08, 1.0))
    assert np.allclose(kept[:4], (0.4, 0.1, 0.8, 0.3)) and told == "1 box shrunk to 0.08 of the picture"


def test_a_box_too_many_for_the_union_is_dropped_and_a_smaller_one_still_fits() -> None:
    first, large, inside, small = Box(0, 0, 0.5, 1), Box(0.5, 0, 0.7, 1), Box(0.1, 0.1, 0.4, 0.9), Box(0.9, 0, 1, 1)
    kept, told = limit([first, large, inside, small], LIMITS["detail"])
    assert kept == (first, inside, small)
    assert told == "1 box dropped because together they would cover more than 0.6 of the picture"


def test_boxes_beyond_the_count_are_dropped_from_the_end() -> None:
    boxes = [Box(0, k / 10, 0.1, (k + 1) / 10) for k in range(10)]
    assert limit(boxes, LIMITS["novel"]) == (tuple(boxes[:8]), "2 boxes dropped beyond the first 8")


@given(boxes=BOXES, phase=st.sampled_from(sorted(LIMITS)))
def test_laws_of_limits(boxes: list[Box], phase: str) -> None:
    limits = LIMITS[phase]
    kept, told = limit(boxes, limits)
    assert len(kept) <= limits.max_boxes and bool(told) == (kept != tuple(boxes))
    assert all(area(box) <= limits.max_area + 1e-8 and box.left < box.right and box.top < box.bottom for box in kept)
    assert union_area(kept) <= limits.max_union + 1e-8
    assert limit(kept, limits) == (kept, "")
    if boxes:
        assert kept, "the first box always fits"
    assert limit(boxes, WIDE) == (tuple(boxes), "")


@given(boxes=BOXES.filter(lambda boxes: len(boxes) <= 6))
def test_union_against_its_twin(boxes: list[Box]) -> None:
    assert abs(union_area(boxes) - float(union_twin(boxes))) < 1e-12


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        (Box(0, 0, 1, 1), (0, 4), (0, 8)),
        (Box(0.25, 0.5, 0.5, 1), (2, 4), (2, 4)),
        (
            Box(1 / 16, 1 / 8, 3 / 16, 3 / 8),
            (0, 1),
            (0, 1),
        ),  # from centre to centre: the first is in, the last is the neighbour's
        (Box(0.07, 0.13, 0.93, 0.87), (1, 3), (1, 7)),
        (Box(0.51, 0.51, 0.52, 0.52), (2, 3), (4, 5)),  # no centre inside
        (Box(0.999, 0.999, 1, 1), (3, 4), (7, 8)),
        (Box(0, 0, 1e-12, 1), (0, 4), (0, 1)),
    ],
)
def test_masks_by_hand(box: Box, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    expected = np.zeros((4, 8), bool)
    expected[slice(*rows), slice(*columns)] = True
    assert (mask([box], 8, 4) == expected).all()


def test_a_mask_of_no_box_is_empty() -> None:
    assert mask([], 8, 4).shape == (4, 8) and not mask([], 8, 4).any()


@given(boxes=BOXES, width=st.integers(1, 40), height=st.integers(1, 40))
def test_masks_against_their_twin(boxes: list[Box], width: int, height: int) -> None:
    found = mask(boxes, width, height)
    holding = [box for box in boxes if mask_twin([box], width, height).any()]
    assert found.dtype == bool and (found >= mask_twin(boxes, width, height)).all()
    assert (mask(holding, width, height) == mask_twin(holding, width, height)).all()
    assert all(mask([box], width, height).any() for box in boxes)
    parts = np.zeros_like(found)
    for box in boxes:
        parts |= mask([box], width, height)
    assert (found == parts).all()


def test_boxes_around_parts_largest_first() -> None:
    marked = np.zeros((10, 20), bool)
    marked[1, 1] = True
    marked[0:2, 10:20] = True  # 20 pixels
    marked[4:9, 2:10] = True  # 40 pixels, minus a hole
    marked[5:7, 4:6] = False
    assert boxes_around(marked, 0.0, 9) == ((0.1, 0.4, 0.5, 0.9), (0.5, 0.0, 1.0, 0.2), (0.05, 0.1, 0.1, 0.2))
    assert len(boxes_around(marked, 0.1, 9)) == 2 and len(boxes_around(marked, 0.101, 9)) == 1
    assert len(boxes_around(marked, 0.0, 1)) == 1
    assert boxes_around(np.zeros((3, 3), bool), 0.0, 9) == ()


def test_pixels_that_touch_at_a_corner_are_one_part() -> None:
    assert boxes_around(np.eye(4, dtype=bool), 0.0, 9) == ((0, 0, 1, 1),)


@given(boxes=BOXES, width=st.integers(1, 40), height=st.integers(1, 40))
def test_boxes_around_a_mask_cover_it(boxes: list[Box], width: int, height: int) -> None:
    marked = mask(boxes, width, height)
    around = [Box(*edges) for edges in boxes_around(marked, 0.0, 1000)]
    assert (mask(around, width, height) >= marked).all()
    for box in boxes:  # a rectangle is its own bounding box
        alone = mask([box], width, height)
        assert (mask([Box(*edges) for edges in boxes_around(alone, 0.0, 1)], width, height) == alone).all()


def test_a_picture_outlines_two_pixels_inside_the_box_and_changes_nothing_else() -> None:
    render = np.full((500, 600, 3), 100, np.uint8)
    drawn = picture(render, [Box(0.1, 0.2, 0.5, 0.6), Box(0.7, 0.7, 0.9, 0.9)])
    inside, inner = mask([Box(0.1, 0.2, 0.5, 0.6)], 600, 500), np.zeros((500, 600), bool)
    inner[102:298, 62:298] = True
    assert drawn.dtype == np.uint8 and drawn.shape == render.shape and (render == 100).all()
    assert (drawn[inside & ~inner] == COLOURS[0]).all() and (drawn[inner] == 100).all()
    assert (drawn[350:450, 420:422] == COLOURS[1]).all() and (drawn[0] == 100).all()


def test_a_label_is_drawn_in_its_colour_and_stays_in_the_picture() -> None:
    render = np.zeros((480, 480, 3), np.uint8)
    for box in (Box(0.2, 0.5, 0.4, 0.6), Box(0.98, 0.0, 1.0, 0.01), Box(0.0, 0.0, 0.1, 0.1)):
        with_label, without = picture(render, [box._replace(label="chair 猫 é")]), picture(render, [box])
        changed = (with_label != without).any(axis=2)
        assert changed.sum() > 300 and (with_label[changed] == COLOURS[0]).all(axis=1).mean() > 0.3
    assert not (
        picture(render, [Box(0.2, 0.5, 0.4, 0.6, "chair")])[242:] != picture(render, [Box(0.2, 0.5, 0.4, 0.6)])[242:]
    ).any()
    assert picture(render, [Box(0.2, 0.5, 0.4, 0.6, "x" * 80)]).shape == render.shape


def test_what_is_outside_the_mask_is_dimmed() -> None:
    render, chosen = np.full((480, 480, 3), 200, np.uint8), np.zeros((480, 480), bool)
    chosen[:, :100] = True
    drawn = picture(render, [], chosen)
    assert (drawn[:, :100] == 200).all() and (drawn[:, 100:] == int(200 * DIMMED)).all()


def test_small_pictures_are_enlarged_and_floats_are_read_as_fractions() -> None:
    render = np.zeros((60, 100, 3), np.float32)
    render[0, 0], render[1, 1], render[2, 2] = (0.0, 0.5, 1.0), (-3.0, 7.0, np.nan), (1 / 255, 2 / 255, 3 / 255)
    drawn = picture(render, [])
    assert drawn.shape == (240, 400, 3) and (drawn[0:4, 0:4] == (0, 128, 255)).all()
    assert (drawn[4:8, 4:8] == (0, 255, 0)).all() and (drawn[8:12, 8:12] == (1, 2, 3)).all()
    assert picture(np.zeros((1, 1, 3)), [Box(0, 0, 1, 1, "a")], np.ones((1, 1), bool)).shape == (480, 480, 3)


def test_pictures_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn on"):
        picture(np.zeros((4, 4)), [])
    with pytest.raises(ValueError, match="same size"):
        picture(np.zeros((4, 6, 3)), [], np.ones((6, 4), bool))
