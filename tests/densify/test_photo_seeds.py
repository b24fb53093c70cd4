"""Gaussians found in photos: on what they show, within a budget, small where there is detail."""

from __future__ import annotations

import pytest
import torch

from tests.densify.test_depth_maps import EXTENT, photos, plain_in_the_middle
from tests.densify.test_photo_depth import BOARD, FOCAL, HEIGHT, WALL, WIDTH, picture
from vlmgs_ns.densify.photo_seeds import OPACITY, seeds_from_photos
from vlmgs_ns.rasterize.threads import get_num_threads, set_num_threads


def test_they_lie_on_the_surfaces_coloured_by_the_photos() -> None:
    seeds = seeds_from_photos(photos(), EXTENT, 100_000)
    x, y, z = seeds.means.unbind(-1)
    on_board = ((z - BOARD).abs() < 0.05 * BOARD) & (x.abs() < 0.42) & (y.abs() < 0.42)
    on_wall = (z - WALL).abs() < 0.05 * WALL
    assert (on_board | on_wall).float().mean() > 0.9 and on_board.any() and on_wall.any()
    column, row = (x / z * FOCAL + WIDTH / 2).long(), (y / z * FOCAL + HEIGHT / 2).long()
    seen = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    colours = picture(0, 0)[row[seen], column[seen]]
    assert (seeds.colors[seen] - colours).abs().mean() < 0.1 < (seeds.colors[seen] - colours.flip(0)).abs().mean()
    assert (
        (seeds.opacities >= OPACITY[0]).all() and (seeds.opacities <= OPACITY[1]).all() and seeds.opacities.unique().numel() > 2
    )
    assert (seeds.scales[:, 0] == seeds.scales[:, 2]).all() and (seeds.quats == torch.tensor([1.0, 0, 0, 0])).all()


@pytest.mark.parametrize("count", [50, 300])
def test_the_budget_holds_is_used_and_makes_them_larger(count: int) -> None:
    every, few = seeds_from_photos(photos(), EXTENT, 100_000), seeds_from_photos(photos(), EXTENT, count)
    assert count / 2 < len(few.means) <= count < len(every.means)
    assert few.scales.median() > 1.5 * every.scales.median()


def test_plain_areas_have_fewer_and_larger_ones() -> None:
    seeds = seeds_from_photos(plain_in_the_middle(), EXTENT, 100_000)
    plain = (seeds.means[:, :2].abs() < 0.5).all(dim=1) & ((seeds.means[:, 2] - WALL).abs() < 0.3)
    assert plain.sum() > 3
    assert seeds.scales[plain].median() > 2 * seeds.scales[~plain].median()


def test_photos_of_nothing_in_common_give_none() -> None:
    alone = photos(1)
    assert len(seeds_from_photos(alone, EXTENT, 100).means) == 0


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    found, threads = [], get_num_threads()
    try:
        for count in (1, 4):
            set_num_threads(count)
            found.append(seeds_from_photos(photos(), EXTENT, 500))
    finally:
        set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(vars(found[0]).values(), vars(found[1]).values(), strict=True))
