"""Unseen viewpoints: laws of poses, and captures that leave little room."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.transform import Rotation
from torch import Tensor

from vlmgs_ns.guidance.novel_views import ALIKE, APART, TURN, clearance_from_depth, novel_viewpoints


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def looking_at(positions: Tensor, target: Tensor) -> Tensor:
    """OpenGL cameras [C, 3, 4], z up in the world."""
    back = torch.nn.functional.normalize(positions - target, dim=1)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([[0.0, 0, 1]]).to(back).expand_as(back), back), dim=1)
    return torch.stack([right, torch.linalg.cross(back, right), back, positions], dim=2)


def orbit(count: int, radius: float = 3.0) -> Tensor:
    angle = torch.arange(count) * (2 * math.pi / count)
    height = 1.0 + 0.4 * torch.sin(3 * angle)
    return looking_at(torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1), torch.zeros(3))


def random_cameras(seed: int, count: int) -> Tensor:
    turned = torch.from_numpy(Rotation.random(count, rng=seed).as_matrix()).float()
    return torch.cat([turned, torch.randn(count, 3, 1, generator=seeded(seed))], dim=2)


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angles of rotation between rotations [..., 3, 3], radians."""
    return (((a * b).sum(dim=(-2, -1)) - 1) / 2).clamp(-1, 1).acos()


def in_hull(point: Tensor, corners: Tensor, slack: float = 1e-5) -> bool:
    """Whether some convex combination of the corners comes within `slack`: a linear programme, for hulls of any dimension."""
    C = len(corners)
    reach = corners.double().T.numpy()
    wanted = point.double().numpy()
    found = linprog(
        np.zeros(C), A_ub=np.concatenate([reach, -reach]), b_ub=np.concatenate([wanted + slack, slack - wanted]),
        A_eq=np.ones((1, C)), b_eq=[1.0],
    )  # fmt: skip
    return bool(found.status == 0)


def assert_poses(views: Tensor) -> None:
    rotations = views[:, :, :3].double()
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand_as(rotations), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(len(views), dtype=torch.float64), atol=1e-5)


def test_the_check_of_hulls_can_fail() -> None:
    corners = torch.eye(3)
    assert in_hull(torch.full((3,), 1 / 3), corners)
    assert not in_hull(torch.full((3,), 0.34), corners) and not in_hull(torch.tensor([1.01, -0.01, 0.0]), corners)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_laws_for_any_cameras(seed: int, count: int) -> None:
    """Cameras turned at random: right-handed rotations, inside the hull, each turned like a training camera."""
    cameras = random_cameras(seed, count)
    views = novel_viewpoints(cameras, 6, seeded(seed))
    assert views.shape == (6, 3, 4) and views.dtype == cameras.dtype
    assert_poses(views)
    for view in views:
        assert in_hull(view[:, 3], cameras[:, :, 3])
        assert angle_between(view[:, :3], cameras[:, :, :3]).min() <= ALIKE + TURN + 1e-3


def test_an_orbit_is_filled_with_cameras_that_look_at_its_centre() -> None:
    cameras = orbit(24)
    views = novel_viewpoints(cameras, 48, seeded())
    assert_poses(views)
    towards = torch.nn.functional.normalize(-views[:, :, 3], dim=1)
    looks = -views[:, :, 2]  # OpenGL
    assert (looks * towards).sum(dim=1).min() > math.cos(math.radians(15))
    assert views[:, 2, 1].min() > 0.8  # upright
    distances = torch.cdist(views[:, :, 3], cameras[:, :, 3])
    spacing = torch.cdist(cameras[:, :, 3], cameras[:, :, 3]).fill_diagonal_(math.inf).amin(dim=1).median()
    assert distances.amin(dim=1).min() >= APART * spacing - 1e-5  # new places
    assert distances.amin(dim=1).max() < spacing  # beside cameras, not across the middle
    assert len(distances.argmin(dim=1).unique()) >= 20  # all around
    assert torch.pdist(views[:, :, 3]).min() > 0


def test_opencv_cameras_give_the_same_viewpoints() -> None:
    """Nothing depends on which way a camera's own axes point."""
    cameras = orbit(9)
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1]))
    a = novel_viewpoints(cameras, 5, seeded())
    b = novel_viewpoints(cameras @ flip, 5, seeded()) @ flip
    assert torch.allclose(a, b, atol=1e-5)


def test_same_generator_same_views_and_another_gives_others() -> None:
    cameras = orbit(12)
    first, again, other = (novel_viewpoints(cameras, 7, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_training_random_numbers_stay_untouched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    novel_viewpoints(orbit(5), 4, seeded())
    assert torch.equal(torch.rand(3), expected)


def test_neighbours_that_look_the_other_way_are_no_parents() -> None:
    """Pairs of cameras close together, back to back: a blend of a pair would look sideways, at what no photo shows."""
    x = torch.arange(6.0)
    north = looking_at(torch.stack([x, torch.zeros(6), torch.zeros(6)], dim=1), torch.tensor([2.5, 50.0, 0.0]))
    south = looking_at(torch.stack([x, torch.full((6,), -0.1), torch.zeros(6)], dim=1), torch.tensor([2.5, -50.0, 0.0]))
    views = novel_viewpoints(torch.cat([north, south]), 30, seeded())
    looks = -views[:, 1, 2]  # along y
    assert (looks.abs() > 0.95).all() and (looks > 0).any() and (looks < 0).any()
    # On a line of their own, those that look north stay on it.
    assert torch.allclose(views[:, 1, 3], torch.where(looks > 0, 0.0, -0.1), atol=1e-5)


def test_one_camera_is_turned_on_the_spot() -> None:
    camera = orbit(1)
    views = novel_viewpoints(camera, 4, seeded())
    assert_poses(views)
    assert torch.allclose(views[:, :, 3], camera[:, :, 3].expand(4, 3), atol=1e-6)
    turned = angle_between(views[:, :, :3], camera[:, :, :3])
    assert (turned > 0).all() and (turned <= TURN + 1e-3).all()


def test_two_cameras_give_points_between_them() -> None:
    cameras = orbit(24)[:2]
    a, b = cameras[:, :, 3]
    views = novel_viewpoints(cameras, 20, seeded())
    part = ((views[:, :, 3] - a) @ (b - a)) / (b - a).norm() ** 2
    assert torch.allclose(views[:, :, 3], a + part[:, None] * (b - a), atol=1e-5)
    assert part.min() >= APART - 1e-4 and part.max() <= 1 - APART + 1e-4 and part.std() > 0.05


def test_cameras_at_one_place_stay_there() -> None:
    cameras = random_cameras(0, 5)
    cameras[:, :, 3] = torch.tensor([1.0, 2.0, 3.0])
    views = novel_viewpoints(cameras, 10, seeded())
    assert_poses(views)
    assert torch.allclose(views[:, :, 3], torch.tensor([1.0, 2.0, 3.0]).expand(10, 3), atol=1e-5)


def test_rigs_of_many_cameras_at_a_place_still_give_new_places() -> None:
    """Four cameras at each stop, turned alike: neighbours at the same place are no reason to stay there."""
    cameras = orbit(16).repeat_interleave(4, dim=0)
    views = novel_viewpoints(cameras, 20, seeded())
    spacing = torch.pdist(orbit(16)[:, :, 3]).min()
    assert torch.cdist(views[:, :, 3], cameras[:, :, 3]).min() > 0.1 * spacing


def test_viewpoints_inside_geometry_are_rejected() -> None:
    """A wall at x = 0.3 with all that is behind it: what comes back stands before it, and nothing is asked in vain."""
    cameras = orbit(16)

    def clearance(view: Tensor) -> float:
        assert view.shape == (3, 4)
        return 0.3 - float(view[0, 3])

    views = novel_viewpoints(cameras, 12, seeded(), clearance, min_clearance=0.5)
    assert len(views) == 12 and views[:, 0, 3].max() <= -0.2
    free = novel_viewpoints(cameras, 12, seeded())
    assert free[:, 0, 3].max() > 1  # without the wall some would stand behind it


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_where_nothing_is_clear_fewer_come_back_after_bounded_attempts(value: float) -> None:
    calls = []

    def clearance(view: Tensor) -> float:
        calls.append(view)
        return 1.0 if len(calls) == 4 else value

    views = novel_viewpoints(orbit(8), 3, seeded(), clearance, min_clearance=0.1, attempts=5)
    assert torch.equal(views, calls[3][None]) and len(calls) == 4 + 5 + 5


def test_count_zero_and_nothing_clear_give_an_empty_stack() -> None:
    assert novel_viewpoints(orbit(3), 0, seeded()).shape == (0, 3, 4)
    assert novel_viewpoints(orbit(3), 2, seeded(), lambda view: -1.0).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("cameras", "count", "told"),
    [
        (torch.zeros(0, 3, 4), 1, "at least one camera"),
        (torch.eye(4)[None], 1, r"\[1, 4, 4\]"),
        (torch.full((2, 3, 4), math.nan), 1, "NaN"),
        (orbit(2), -1, "count=-1"),
    ],
)
def test_bad_input_is_named(cameras: Tensor, count: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        novel_viewpoints(cameras, count, seeded())


def test_clearance_is_a_low_quantile_of_the_covered_depth() -> None:
    depth = torch.arange(1.0, 101.0).view(10, 10)
    covered = torch.ones(10, 10)
    assert clearance_from_depth(depth, covered, share=0.0) == 1.0
    assert clearance_from_depth(depth, covered, share=0.05) == 5.0
    covered[depth < 50] = 0.4  # what is not covered has no depth
    assert clearance_from_depth(depth, covered, share=0.0) == 50.0
    depth[9, 9] = math.nan
    assert clearance_from_depth(depth, covered, share=1.0) == 99.0
    assert clearance_from_depth(depth, torch.zeros(10, 10)) == math.inf
