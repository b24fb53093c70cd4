from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vlmgs_ns.prepare.layout import up

Array = npt.NDArray[np.float64]


def looking(directions: Array, roll: float = 0.0) -> Array:
    """Return rotations (camera to world, OpenCV axes) of cameras that look along [N, 3], z up, rolled by radians."""
    found = []
    for ahead in directions / np.linalg.norm(directions, axis=1, keepdims=True):
        right = np.cross(ahead, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(ahead, right)
        found.append(np.stack([np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, ahead], 1))
    return np.stack(found)


def around(tilt: float, count: int = 12) -> Array:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles), np.full(count, tilt)], 1)


@pytest.mark.parametrize("tilt", [0.0, -0.5, -2.0])
def test_around_a_thing_up_is_exact_however_steep_the_look(tilt: float) -> None:
    assert up(looking(around(tilt))) == pytest.approx([0, 0, 1], abs=1e-9)


def test_from_one_side_up_is_at_right_angles_to_what_is_level() -> None:
    """Six cameras within a third of a turn that look down: the mean of their own ups would lean away from them."""
    rotations = looking(around(-1.0, 18)[:6])
    mean = -rotations[:, :, 1].mean(0)
    assert up(rotations) == pytest.approx([0, 0, 1], abs=1e-9) and mean[2] / np.linalg.norm(mean) < 0.85


def test_cameras_that_look_alike_leave_the_mean_of_their_own_up() -> None:
    rotations = looking(np.array([[1.0, 0, 0], [1.0, 0.001, 0], [1.0, 0, 0.001]]))
    assert up(rotations) == pytest.approx([0, 0, 1], abs=2e-3)


def test_portrait_and_landscape_cancel_no_up() -> None:
    rotations = np.concatenate([looking(around(0.0)), looking(around(0.0), np.pi / 2)])
    assert np.linalg.norm(up(rotations)) == pytest.approx(1)
