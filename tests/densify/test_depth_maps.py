"""Depth maps of photos, on pictures that are really rendered: a textured wall, and a nearer board in front of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.densify.test_photo_depth import BOARD, FOCAL, HEIGHT, WALL, WIDTH, K, picture, pose
from vlmgs_ns.densify import depth_maps as module
from vlmgs_ns.densify.depth_maps import PASSES, DepthMap, SeedPhoto, depth_maps, neighbours_of

PLACES = [(0.0, 0.0), (-0.3, 0.0), (0.3, 0.05), (0.0, 0.3), (0.05, -0.3)]
EXTENT = 1.0


def photos(count: int = 5) -> list[SeedPhoto]:
    return [SeedPhoto(picture(*place), K, pose(*place)) for place in PLACES[:count]]


def truth(found: DepthMap, place: tuple[float, float]) -> Tensor:  # [h, w]
    rows, columns = (found.pixels + 0.5).unbind(-1)
    x, y = place[0] + (columns - WIDTH / 2) / FOCAL * BOARD, place[1] + (rows - HEIGHT / 2) / FOCAL * BOARD
    return torch.where((x.abs() < 0.4) & (y.abs() < 0.4), BOARD, WALL)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_wall_and_board_are_found_and_confirmed(count: int) -> None:
    done: list[int] = []
    maps = depth_maps(photos(count), EXTENT, done.append)
    assert len(maps) == count and done == list(range(1, PASSES * count + 1))
    for found, place in zip(maps, PLACES, strict=False):
        confirmed = found.support > 0
        error = (found.depth - truth(found, place)).abs() / truth(found, place)
        assert confirmed.float().mean() > (0.35 if count > 2 else 0.2)
        assert (error[confirmed] < 0.05).float().mean() > 0.95
        assert (error[found.depth.isfinite()] < 0.1).float().mean() > 0.85


def test_what_neighbours_do_not_confirm_is_left_out() -> None:
    """The first photo's own sweep says 3 everywhere, in front of the wall that the others know; a region of it says the truth."""
    views = photos(4)
    pixels = module._cells(views[0].photo)
    flat = DepthMap(pixels, torch.full(pixels.shape[:2], WALL), torch.zeros(pixels.shape[:2]))
    wrong = flat.depth.clone()
    wrong[:, :20] = 3.0
    known = module._confirmed(0, views, [DepthMap(pixels, wrong, flat.support), flat, flat, flat], [1, 2, 3])
    assert not known.depth[:, :20].isfinite().any()
    assert known.depth[8:22, 22:32].isfinite().all() and (known.support[8:22, 22:32] == 1).all()


def test_one_neighbour_of_three_is_not_enough_and_one_of_one_is() -> None:
    views = photos(4)
    pixels = module._cells(views[0].photo)
    agree, nothing = (DepthMap(pixels, torch.full(pixels.shape[:2], z), torch.zeros(pixels.shape[:2])) for z in (WALL, 9.0))
    assert not module._confirmed(0, views, [agree, agree, nothing, nothing], [1, 2, 3]).depth.isfinite().any()
    assert module._confirmed(0, views, [agree, agree], [1]).depth.isfinite().float().mean() > 0.7


def plain_in_the_middle() -> list[SeedPhoto]:
    """The wall alone, grey in a square of the middle."""
    pictures = []
    for x, y in PLACES:
        rows, columns = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
        shown = picture(x + 50, y)  # far from the board
        u, v = x + (columns - WIDTH / 2) / FOCAL * WALL, y + (rows - HEIGHT / 2) / FOCAL * WALL
        inside = (u.abs() < 0.7) & (v.abs() < 0.7)
        pictures.append(SeedPhoto(torch.where(inside[..., None], 0.5, shown), K, pose(x, y)))
    return pictures


def test_plain_areas_get_the_depth_of_their_surroundings() -> None:
    maps = depth_maps(plain_in_the_middle(), EXTENT)
    middle = maps[0].depth[12:18, 17:23]
    assert (maps[0].support[12:18, 17:23] == 0).float().mean() > 0.5  # nothing there to compare
    assert middle.isfinite().float().mean() > 0.8
    assert ((middle[middle.isfinite()] - WALL).abs() < 0.05 * WALL).all()


def test_interpolated_points_do_not_hide_what_a_neighbour_sees() -> None:
    views = plain_in_the_middle()
    pixels = module._cells(views[0].photo)
    near, far = (DepthMap(pixels, torch.full(pixels.shape[:2], z), torch.ones(pixels.shape[:2])) for z in (2.0, WALL))
    near.depth[10:20, 15:25] = torch.nan
    assert module._filled(0, views, [near, near], [1]).depth[10:20, 15:25].isfinite().any()
    assert not module._filled(0, views, [near, far], [1]).depth[10:20, 15:25].isfinite().any()


def test_what_is_masked_has_no_depth() -> None:
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, : WIDTH // 2] = True
    views = [SeedPhoto(view.photo, view.K, view.camera_to_world, mask=mask) for view in photos()]
    found = depth_maps(views, EXTENT)[0]
    assert found.depth[:, WIDTH // 4 :].isnan().all() and found.depth[:, : WIDTH // 4 - 2].isfinite().float().mean() > 0.3


def test_portrait_and_landscape_are_compared() -> None:
    """The second photo is the same view, of its middle columns only."""
    views = photos(3)
    cut = K.clone()
    cut[0, 2] -= 24
    views[1] = SeedPhoto(views[1].photo[:, 24:56].contiguous(), cut, views[1].camera_to_world)
    found = depth_maps(views, EXTENT)
    assert found[1].depth.shape == (HEIGHT // 2, 16)
    error = (found[1].depth - WALL).abs().minimum((found[1].depth - BOARD).abs()) / WALL
    confirmed = found[1].support > 0
    assert confirmed.any() and (error[confirmed] < 0.05).float().mean() > 0.9


def test_neighbours_are_near_look_the_same_way_and_are_apart() -> None:
    turned = pose(0.1, 0.0) @ torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    poses = [pose(0.0, 0.0), pose(0.01, 0.0), pose(0.2, 0.0), turned, pose(0.8, 0.0)]
    views = [SeedPhoto(picture(0, 0), K, at) for at in poses]
    near = neighbours_of(views, EXTENT)
    assert near[0] == [2, 4, 3] and 0 not in near[1]  # 0 and 1 stand at one place: no depth between them
    assert neighbours_of(views[:1], EXTENT) == [[]] and neighbours_of(views[:2], EXTENT) == [[], []]
    assert depth_maps(views[:2], EXTENT)[0].depth.isnan().all()
