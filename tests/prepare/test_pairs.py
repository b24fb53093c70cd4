from __future__ import annotations

import numpy as np
import pytest

from vlmgs_ns.prepare.pairs import distinct
from vlmgs_ns.prepare.refine import epipolar_distance


def test_a_feature_with_a_double_elsewhere_is_not_distinct() -> None:
    """0 and 1 look alike far apart, 2 and 3 alike in one place (two orientations), 4 like nothing."""
    descriptors = np.zeros((5, 128), np.uint8)
    for row, column in enumerate((0, 0, 1, 1, 2)):
        descriptors[row, column] = 200
    descriptors[1, 5] = 60  # 0.29 rad from 0
    places = np.array([[0, 0], [50, 0], [100, 0], [103, 0], [150, 0]], np.float32)
    assert distinct(places, descriptors).tolist() == [False, False, True, True, True]


def test_a_feature_alone_is_distinct() -> None:
    assert distinct(np.zeros((1, 2), np.float32), np.ones((1, 128), np.uint8)).tolist() == [True]


def test_beside_each_other_epipolar_lines_are_rows() -> None:
    """A match d rows off its line is d / sqrt(2) from the nearest pair of points that fit."""
    first = np.array([[0.1, 0.2], [0.3, -0.1]])
    second = np.array([[-0.4, 0.2], [0.0, 0.0]])
    found = epipolar_distance(first, second, np.eye(3), np.array([1.0, 0, 0]))
    assert found == pytest.approx([0, 0.1 / np.sqrt(2)])


def test_true_matches_of_any_two_cameras_fit() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 4), (1, 1, 6), (50, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)) * 0.1 + np.eye(3))
    rotation *= np.sign(np.linalg.det(rotation))
    translation = np.array([1.0, -0.3, 0.5])
    other = points @ rotation.T + translation
    first, second = points[:, :2] / points[:, 2:], other[:, :2] / other[:, 2:]
    assert epipolar_distance(first, second, rotation, translation).max() < 1e-12
    assert np.median(epipolar_distance(first, second[::-1], rotation, translation)) > 1e-3
