"""Neighbouring photos against a render, on a textured plane with a known depth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vlmgs_ns.densify.photo_depth import Neighbour
from vlmgs_ns.guidance.disagreement import disagreement

WALL = 4.0
WIDTH, HEIGHT, FOCAL = 48, 36, 40.0


def colour(x: Tensor, y: Tensor) -> Tensor:
    """A smooth texture on the wall z = WALL."""
    waves = [0.5 + 0.5 * torch.sin(k * x + phase) * torch.cos(2.3 * y + k) for k, phase in ((3.1, 0.0), (2.3, 1.0), (4.0, 2.0))]
    return torch.stack(waves, dim=-1)


def intrinsics(width: int = WIDTH, height: int = HEIGHT, focal: float = FOCAL) -> Tensor:
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, turn: float = 0.0) -> Tensor:
    """An OpenCV camera at (x, y, z), turned by `turn` radians about its y axis; at 0 it looks along the world's z."""
    c, s = math.cos(turn), math.sin(turn)
    return torch.tensor([[c, 0, s, x], [0, 1, 0, y], [-s, 0, c, z], [0, 0, 0, 1.0]])


def look(camera: Tensor, K: Tensor, width: int = WIDTH, height: int = HEIGHT) -> tuple[Tensor, Tensor]:
    """Photo [h, w, 3] and z-depth [h, w] of the wall: ray and plane, in double precision."""
    y, x = torch.meshgrid(torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij")
    local = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], dim=-1)
    ray = local @ camera[:3, :3].double().T
    depth = (WALL - camera[2, 3].double()) / ray[..., 2]
    hit = camera[:3, 3].double() + depth[..., None] * ray
    return colour(hit[..., 0], hit[..., 1]).float(), depth.float()


def neighbour(camera: Tensor, with_depth: bool = True, size: int = 1) -> Neighbour:
    K = intrinsics(WIDTH * size, HEIGHT * size, FOCAL * size)
    photo, depth = look(camera, K, WIDTH * size, HEIGHT * size)
    return Neighbour(photo, K, camera, depth if with_depth else None)


HERE = pose()
RENDER, DEPTH = look(HERE, intrinsics())
COVERED = torch.ones_like(DEPTH)
AROUND = [neighbour(pose(-0.4, 0.1, 0.3)), neighbour(pose(0.5, -0.2, 0.0, -0.15), size=2), neighbour(pose(0.1, 0.3, -0.5, 0.1))]


def compare(
    render: Tensor = RENDER, depth: Tensor = DEPTH, coverage: Tensor = COVERED, neighbours: list[Neighbour] = AROUND
) -> Tensor:
    return disagreement(render, depth, coverage, intrinsics(), HERE, neighbours)


def test_a_true_render_agrees_with_its_neighbours() -> None:
    found = compare()
    assert found.shape == (HEIGHT, WIDTH) and found.isfinite().all()
    assert found.max() < 0.02  # what bilinear interpolation costs


def test_a_half_pixel_shift_would_show() -> None:
    """The bound above is tight enough to tell a neighbour that looks at pixel corners instead of centres."""
    shifted = [Neighbour(n.photo, n.K + torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]), n.camera_to_world) for n in AROUND]
    assert compare(neighbours=shifted).nan_to_num().max() > 0.03


def test_a_false_depth_shows_where_it_is() -> None:
    depth = DEPTH.clone()
    depth[10:20, 15:25] = 1.0  # a floater before the wall, painted with what the wall has behind it
    found = compare(depth=depth)
    inside = torch.zeros_like(DEPTH, dtype=torch.bool)
    inside[10:20, 15:25] = True
    assert found[inside].mean() > 0.15 and found[~inside].max() < 0.02


def test_a_false_colour_shows_by_its_amount() -> None:
    render = RENDER.clone()
    render[5:9, 30:40] = (render[5:9, 30:40] + 0.3).clamp(max=1)
    found = compare(render=render)
    expected = (render - RENDER).abs().mean(dim=-1)
    assert (found - expected).abs().max() < 0.02 and expected.max() > 0.25


def test_nan_where_no_neighbour_looks() -> None:
    """A camera to the right sees only the right part: exactly the pixels whose point projects into its picture."""
    camera = pose(2.0)
    found = compare(neighbours=[neighbour(camera)])
    column = torch.arange(WIDTH) + 0.5
    projected = column - FOCAL * 2.0 / WALL  # by hand: a pure shift
    seen = (projected >= 0) & (projected <= WIDTH)
    assert 0 < seen.sum() < WIDTH
    assert torch.equal(found.isfinite(), seen.expand(HEIGHT, WIDTH))


def test_a_camera_that_looks_away_sees_nothing() -> None:
    assert compare(neighbours=[neighbour(pose(turn=math.pi), with_depth=False)]).isnan().all()


def test_no_neighbours_nothing_known() -> None:
    assert compare(neighbours=[]).isnan().all()


def test_an_occluded_neighbour_does_not_count() -> None:
    """Before the left half of this neighbour stands something red that the view itself does not see."""
    camera = pose(0.2)
    photo, depth = look(camera, intrinsics())
    photo[:, : WIDTH // 2] = torch.tensor([1.0, 0, 0])
    depth[:, : WIDTH // 2] = 1.5
    found = compare(neighbours=[Neighbour(photo, intrinsics(), camera, depth)])
    hidden = (torch.arange(WIDTH) + 0.5 - FOCAL * 0.2 / WALL) < WIDTH / 2
    assert found[:, hidden].isnan().all() and found[:, ~hidden & (torch.arange(WIDTH) > WIDTH // 2 + 3)].max() < 0.02
    without_depth = compare(neighbours=[Neighbour(photo, intrinsics(), camera)])
    assert without_depth[:, 3 : WIDTH // 2].mean() > 0.2  # the depth is what tells


def test_what_stands_before_a_neighbours_surface_counts_as_seen() -> None:
    assert compare(depth=torch.full_like(DEPTH, 2.0), neighbours=[neighbour(pose(0.3))]).nanmean() > 0.1


def test_unknown_depth_of_a_neighbour_hides_nothing() -> None:
    known = neighbour(pose(0.1))
    blind = Neighbour(known.photo, known.K, known.camera_to_world, torch.full_like(DEPTH, math.nan))
    assert torch.equal(compare(neighbours=[blind]).isnan(), compare(neighbours=[known]).isnan())


def test_one_false_photo_of_three_is_outvoted_and_the_median_is_the_middle() -> None:
    false = Neighbour(1 - AROUND[0].photo, AROUND[0].K, AROUND[0].camera_to_world, AROUND[0].depth)
    assert compare(neighbours=[false, *AROUND[1:]]).max() < 0.02
    offsets = [0.1, 0.3, 0.2, 0.7]
    off = [Neighbour(torch.full_like(RENDER, k), intrinsics(), HERE) for k in offsets]
    black = torch.zeros_like(RENDER)
    assert torch.allclose(compare(render=black, neighbours=off[:3]), torch.tensor(0.2))
    assert torch.allclose(compare(render=black, neighbours=off), torch.tensor(0.2))  # of four the lower middle one


def test_what_is_not_covered_is_unknown() -> None:
    coverage = COVERED.clone()
    coverage[:5] = 0.3
    depth = DEPTH.clone()
    depth[5, :3], depth[6, :3], depth[7, :3] = math.nan, 0.0, math.inf
    found = compare(depth=depth, coverage=coverage)
    assert found[:5].isnan().all() and found[5:8, :3].isnan().all() and found[8:].isfinite().all()


def test_moving_the_world_changes_nothing() -> None:
    move = pose(3.0, -1.0, 2.0, 0.7)
    moved = [Neighbour(n.photo, n.K, move @ n.camera_to_world, n.depth) for n in AROUND]
    found = disagreement(RENDER, DEPTH, COVERED, intrinsics(), move @ HERE, moved)
    assert torch.allclose(found, compare(), atol=1e-3)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[36, 47\]"):
        compare(coverage=COVERED[:, 1:])
