from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vlmgs_ns.evaluation.metrics import (
    NO_PHRASE,
    accuracy_at,
    argmax_segmentation,
    average_precision,
    hits_boxes,
    hits_mask,
    in_boxes,
    iou,
    peak,
    pixel_accuracy,
)

SIZE = (5, 7)
masks = arrays(np.bool_, SIZE)
few_levels = arrays(np.float32, SIZE, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))


def with_peaks(*pixels: tuple[int, int]) -> np.ndarray:
    """A map of 4 x 6 pixels that is 1 at these (x, y) and 0 elsewhere."""
    values = np.zeros((4, 6), np.float32)
    for x, y in pixels:
        values[y, x] = 1.0
    return values


def test_the_peak_is_column_and_row() -> None:
    assert peak(with_peaks((5, 2))) == (5, 2)


def test_of_tied_peaks_the_first_row_by_row_counts() -> None:
    assert peak(with_peaks((0, 3), (4, 1), (2, 2))) == (4, 1)
    assert peak(with_peaks((3, 1), (2, 1))) == (2, 1)


def test_a_tie_between_a_hit_and_a_miss_is_settled_by_order() -> None:
    lower_right = ((0.5, 0.5, 1.0, 1.0),)
    assert not hits_boxes(with_peaks((0, 0), (5, 3)), lower_right)
    assert hits_boxes(with_peaks((3, 2), (0, 3)), lower_right)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_constant_map_has_no_peak_and_misses_even_a_full_box(level: float) -> None:
    flat = np.full((4, 6), level, np.float32)
    assert peak(flat) is None
    assert not hits_boxes(flat, ((0.0, 0.0, 1.0, 1.0),))
    assert not hits_mask(flat, np.ones((4, 6), bool))


def test_any_box_of_the_phrase_is_a_hit() -> None:
    left, right = (0.0, 0.0, 0.4, 1.0), (0.7, 0.0, 1.0, 1.0)
    relevancy = with_peaks((5, 1))
    assert hits_boxes(relevancy, (left, right))
    assert not hits_boxes(relevancy, (left,))
    assert not hits_boxes(relevancy, ())


def test_a_pixel_is_in_a_box_by_its_centre_and_edges_belong_to_the_box() -> None:
    # Pixel (1, 2) of 10 x 10 has its centre at (0.15, 0.25).
    assert in_boxes((1, 2), 10, 10, [(0.15, 0.25, 0.9, 0.9)])
    assert in_boxes((1, 2), 10, 10, [(0.0, 0.0, 0.15, 0.25)])
    assert not in_boxes((1, 2), 10, 10, [(0.16, 0.0, 0.9, 0.9)])
    assert not in_boxes((1, 2), 10, 10, [(0.0, 0.26, 0.9, 0.9)])
    assert not in_boxes((1, 2), 10, 10, [(0.0, 0.0, 0.14, 0.9)])
    assert not in_boxes((1, 2), 10, 10, [(0.0, 0.0, 0.9, 0.24)])


def test_a_box_of_pixels_is_hit_by_those_pixels_and_no_others() -> None:
    box = (1 / 6, 1 / 4, 3 / 6, 3 / 4)  # pixels 1, 2 in x and 1, 2 in y
    hit = {(x, y) for x in range(6) for y in range(4) if hits_boxes(with_peaks((x, y)), (box,))}
    assert hit == {(1, 1), (2, 1), (1, 2), (2, 2)}


@settings(deadline=None)
@given(masks.filter(lambda mask: mask.any() and not mask.all()))
def test_the_truth_itself_hits_and_its_inverse_misses(truth: np.ndarray) -> None:
    assert hits_mask(truth.astype(np.float32), truth)
    assert not hits_mask((~truth).astype(np.float32), truth)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_maps_are_refused(bad: float) -> None:
    damaged = with_peaks((1, 1))
    damaged[0, 0] = bad
    for measure in (peak, lambda m: average_precision(m, np.eye(4, 6, dtype=bool)), lambda m: argmax_segmentation(m[None], 1)):
        with pytest.raises(ValueError, match="1 values of the relevancy are NaN or infinite"):
            measure(damaged)


@pytest.mark.parametrize("shape", [(0, 4), (4,), (1, 4, 4)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is not a picture"):
        peak(np.zeros(shape, np.float32))


def test_iou_by_hand() -> None:
    a, b = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    a[0:2, 0:3] = True  # 6 pixels
    b[1:3, 1:4] = True  # 6 pixels, 2 of them in both
    assert iou(a, b) == pytest.approx(2 / 10)


def test_iou_of_empty_masks() -> None:
    empty, full = np.zeros((4, 6), bool), np.ones((4, 6), bool)
    assert iou(empty, empty) == 1.0
    assert iou(empty, full) == iou(full, empty) == 0.0


@settings(deadline=None)
@given(masks, masks)
def test_iou_is_symmetric_and_1_only_for_equal_masks(a: np.ndarray, b: np.ndarray) -> None:
    assert iou(a, b) == iou(b, a)
    assert 0.0 <= iou(a, b) <= 1.0
    assert (iou(a, b) == 1.0) == np.array_equal(a, b)


def test_iou_takes_masks_alone_and_of_one_size() -> None:
    mask = np.ones((4, 6), bool)
    with pytest.raises(ValueError, match="float32 says not what is inside"):
        iou(mask.astype(np.float32), mask)
    with pytest.raises(ValueError, match=r"\[4, 6\] and \[6, 4\] differ"):
        iou(mask, mask.T)


def test_accuracy_counts_what_is_above_the_threshold() -> None:
    assert accuracy_at([0.1, 0.25, 0.26, 0.9], 0.25) == 0.5
    with pytest.raises(ValueError, match="no IoU"):
        accuracy_at([], 0.25)


def test_average_precision_by_hand() -> None:
    # From the greatest down: hit, miss, hit, miss. P at the hits: 1/1 and 2/3, each worth half of the recall.
    relevancy = np.array([[0.9, 0.8], [0.7, 0.1]], np.float32)
    truth = np.array([[True, False], [True, False]])
    assert average_precision(relevancy, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_average_precision_takes_ties_as_one_step() -> None:
    # One pixel of 0.9, which misses; then three of 0.5 with both hits: everything is recalled at precision 2/4.
    relevancy = np.array([[0.9, 0.5], [0.5, 0.5]], np.float32)
    truth = np.array([[False, True], [True, False]])
    assert average_precision(relevancy, truth) == pytest.approx(2 / 4)


def test_average_precision_of_a_constant_map_is_that_of_guessing() -> None:
    truth = np.zeros((4, 6), bool)
    truth[0, :3] = True
    assert average_precision(np.full((4, 6), 0.5, np.float32), truth) == pytest.approx(3 / 24)


@settings(deadline=None)
@given(few_levels, masks.filter(lambda mask: mask.any()))
def test_average_precision_agrees_with_its_definition(relevancy: np.ndarray, truth: np.ndarray) -> None:
    area, recalled = 0.0, 0.0
    for level in sorted(set(relevancy.ravel().tolist()), reverse=True):
        found = relevancy >= level
        hits = (found & truth).sum()
        recall, precision = hits / truth.sum(), hits / found.sum()
        area, recalled = area + (recall - recalled) * precision, recall
    assert average_precision(relevancy, truth) == pytest.approx(area)


@settings(deadline=None)
@given(few_levels, masks.filter(lambda mask: mask.any()))
def test_average_precision_keeps_under_any_rising_scale(relevancy: np.ndarray, truth: np.ndarray) -> None:
    assert average_precision(relevancy, truth) == average_precision(relevancy**2 * 7 + 3, truth)


def test_average_precision_needs_a_truth() -> None:
    with pytest.raises(ValueError, match="true mask is empty"):
        average_precision(with_peaks((1, 1)), np.zeros((4, 6), bool))


def test_each_pixel_goes_to_the_phrase_of_the_greatest_relevancy() -> None:
    ball, cube, wall = np.array([[0.9, 0.2, 0.4, 0.1]]), np.array([[0.1, 0.8, 0.4, 0.1]]), np.array([[0.3, 0.3, 0.3, 0.6]])
    maps = np.stack([ball, cube, wall])
    assert argmax_segmentation(maps, 3).tolist() == [[0, 1, 0, 2]]  # the tie of the third goes to the first phrase
    assert argmax_segmentation(maps, 2).tolist() == [[0, 1, 0, NO_PHRASE]]
    assert argmax_segmentation(maps, 2, floor=0.4).tolist() == [[0, 1, NO_PHRASE, NO_PHRASE]]


def test_an_object_wins_a_tie_with_the_background() -> None:
    assert argmax_segmentation(np.full((2, 1, 1), 0.5), 1).tolist() == [[0]]


@pytest.mark.parametrize("phrases", [0, 3])
def test_the_arg_max_needs_a_map_for_each_phrase(phrases: int) -> None:
    with pytest.raises(ValueError, match=f"2 maps for {phrases} phrases"):
        argmax_segmentation(np.zeros((2, 3, 3)), phrases)


def test_pixel_accuracy_by_hand() -> None:
    winner = np.array([[0, 0, 1, 1, NO_PHRASE]])
    first, second = np.array([[1, 1, 1, 0, 0]], bool), np.array([[0, 0, 0, 1, 0]], bool)
    assert pixel_accuracy(winner, {0: first, 1: second}) == 3 / 4  # the last pixel is not labelled
    assert pixel_accuracy(winner, {0: first, 1: second | first}) == 4 / 4  # where masks overlap either is right
    with pytest.raises(ValueError, match="no pixel is labelled"):
        pixel_accuracy(winner, {0: np.zeros_like(first)})
