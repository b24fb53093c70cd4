from __future__ import annotations

import numpy as np

from vlmgs_ns.evaluation.overlays import outline, overlay

PHOTO = np.full((30, 40, 3), 128, np.uint8)


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
    assert np.array_equal(overlay(PHOTO, np.zeros((30, 40)), opacity=0.0), PHOTO)
