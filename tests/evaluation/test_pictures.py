from __future__ import annotations

import numpy as np
import pytest

from vlmgs_ns.evaluation.labels import LabelledObject, LabelledView
from vlmgs_ns.evaluation.pictures import PREDICTION, TRUTH, outline, overlay, overview

WIDTH, HEIGHT, TILE = 40, 30, 120
PHOTO = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
DISC = (np.hypot(*np.mgrid[-15:15, -20:20]) < 9).astype(bool)
VIEW = LabelledView(
    "1.jpg",
    WIDTH,
    HEIGHT,
    (LabelledObject("red ball", ((0.25, 0.2, 0.75, 0.8),), lambda: DISC), LabelledObject("a" * 200, ((0.0, 0.0, 0.1, 0.1),))),
)


def tile_of(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """A picture of the grid, by its place."""
    top, left = 8 + row * (90 + 18 + 8) + 18, 8 + column * (TILE + 8)
    return sheet[top : top + 90, left : left + TILE]


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == colour).all(axis=-1)


def test_the_outline_is_the_rim_of_a_mask() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1:5, 1:5] = True
    rim = mask.copy()
    rim[2:4, 2:4] = False
    assert np.array_equal(outline(mask), rim)
    assert np.array_equal(outline(np.ones((3, 3), bool)), np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))
    assert not outline(np.zeros((3, 3), bool)).any()


def test_the_overlay_has_a_fixed_scale() -> None:
    from matplotlib import colormaps

    relevancy = np.array([[0.0, 0.5, 1.0, 7.0]])
    photo = np.zeros((1, 4, 3), np.uint8)
    colours = (255 * np.array(colormaps["turbo"]([0.0, 0.5, 1.0, 1.0]))[:, :3]).round().astype(np.uint8)
    assert np.array_equal(overlay(photo, relevancy, opacity=1.0)[0], colours)
    assert np.array_equal(overlay(PHOTO, np.zeros((HEIGHT, WIDTH)), opacity=0.0), PHOTO)


def test_an_overview_has_a_row_for_each_object() -> None:
    relevancy = DISC * 0.8
    sheet = overview(VIEW, PHOTO, {"red ball": relevancy}, {"red ball": np.roll(DISC, 4, axis=1)}, TILE)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (90 + 18 + 8) + 8, 3 * (TILE + 8) + 8, 3)
    labels, heat, selected = (tile_of(sheet, 0, column) for column in range(3))
    assert has(labels, TRUTH)[18, 30:90].all()  # the box's upper edge: 0.2 of 90, from 0.25 to 0.75 of 120
    assert has(labels, TRUTH)[:, 60].sum() > 4  # and the disc's rim, within it
    assert not has(labels, PREDICTION).any()
    assert has(heat, (255, 255, 255)).any()  # the cross
    rim = has(selected, PREDICTION)
    centre = np.argwhere(rim).mean(axis=0)
    # The disc is around the middle of pixel (20, 15), and the prediction 4 pixels further right; a pixel is 3 wide here.
    assert centre == pytest.approx([15.5 * 3 - 0.5, 24.5 * 3 - 0.5], abs=0.5)
    assert not has(selected, TRUTH).any()


def test_without_a_prediction_the_place_is_empty() -> None:
    sheet = overview(VIEW, PHOTO, {}, {}, TILE)
    for row in range(2):
        assert not (tile_of(sheet, row, 0) == 255).all()
        assert (tile_of(sheet, row, 1) == 255).all()
        assert (tile_of(sheet, row, 2) == 255).all()


def test_a_constant_map_has_no_cross() -> None:
    sheet = overview(VIEW, PHOTO, {"red ball": np.full((HEIGHT, WIDTH), 0.5)}, {}, TILE)
    assert not has(tile_of(sheet, 0, 1), (255, 255, 255)).any()


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the photo is \[30, 41\], but the labels of 1.jpg are \[30, 40\]"):
        overview(VIEW, np.zeros((30, 41, 3), np.uint8), {}, {})
    with pytest.raises(ValueError, match=r"red ball is \[40, 30\]"):
        overview(VIEW, PHOTO, {"red ball": np.zeros((40, 30))}, {})
    with pytest.raises(ValueError, match="no labelled object"):
        overview(LabelledView("1.jpg", 4, 3, ()), PHOTO, {}, {})
