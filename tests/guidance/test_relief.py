"""What stands out in a depth map: by hand, and what must not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vlmgs_ns.guidance.relief import before_surroundings, isolated

ROWS, COLUMNS = np.mgrid[:40, :60].astype(float)


def wall_with_box(near: float = 1.0, far: float = 4.0) -> NDArray[np.float64]:
    depth = np.full((40, 60), far)
    depth[10:20, 25:40] = near
    return np.log(depth)


@pytest.mark.parametrize("window", [(1, 17), (11, 17), (11, 61)])
def test_a_box_before_a_wall_stands_out_by_the_ratio_of_depths(window: tuple[int, int]) -> None:
    standing = before_surroundings(wall_with_box(), *window)
    expected = np.zeros((40, 60))
    expected[10:20, 25:40] = np.log(4.0)
    assert np.allclose(standing, expected)


def test_a_box_wider_and_higher_than_the_window_does_not() -> None:
    assert not before_surroundings(wall_with_box(), 1, 13).any()
    assert not before_surroundings(wall_with_box(), 7, 13).any()


@pytest.mark.parametrize("depth", [ROWS, COLUMNS, -COLUMNS, COLUMNS - 2 * ROWS, 30 - abs(COLUMNS - 30)])
@pytest.mark.parametrize("window", [(1, 21), (15, 15)])
def test_slopes_and_corners_of_rooms_do_not_stand_out(depth: NDArray[np.float64], window: tuple[int, int]) -> None:
    assert np.allclose(before_surroundings(depth / 10, *window), 0)


def test_a_hole_in_a_wall_does_not_stand_out() -> None:
    assert not before_surroundings(wall_with_box(near=9.0), 21, 21).any()


def test_unit_of_the_world_and_mirror_change_nothing() -> None:
    depth = np.random.default_rng(0).uniform(1, 5, (30, 50))
    standing = before_surroundings(np.log(depth), 7, 12)
    assert standing.max() > 0.5 and standing.min() >= 0
    assert np.allclose(before_surroundings(np.log(100 * depth), 7, 12), standing)
    assert np.allclose(before_surroundings(np.log(depth[:, ::-1]), 7, 12), standing[:, ::-1])
    assert np.allclose(before_surroundings(np.log(depth.T), 12, 7), standing.T)


def test_what_jumps_all_around_is_isolated_and_what_is_held_is_not() -> None:
    depth = wall_with_box()
    depth[20:, 30:34] = np.log(1.0)  # a stand that carries the box
    depth[5:9, 4:10] = np.log(1.5)  # hangs freely
    near = depth < np.log(2)
    near[20:] = False  # of the stand nothing is marked
    alone = isolated(depth, near, np.log(1.4))
    expected = np.zeros_like(near)
    expected[5:9, 4:10] = True
    assert np.array_equal(alone, expected)
    assert np.array_equal(isolated(wall_with_box(), wall_with_box() < 1, np.log(1.4)), wall_with_box() < 1)


def test_too_small_a_jump_and_the_edge_of_the_picture_are_not_isolated() -> None:
    depth = wall_with_box(near=3.5)
    assert not isolated(depth, depth < np.log(3.7), np.log(1.4)).any()
    depth = np.log(np.full((40, 60), 4.0))
    depth[30:, 20:30] = np.log(1.0)  # cut off below: it may stand on something
    assert not isolated(depth, depth < 1, np.log(1.4)).any()
    assert not isolated(depth, np.zeros((40, 60), bool), np.log(1.4)).any()
