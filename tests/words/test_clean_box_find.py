"""Cleaning, boxes, and from relevancy to a selection: by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from tests.splats.test_connect import chain, cloud
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.shape import mass
from vlmgs_ns.words.box import oriented_box
from vlmgs_ns.words.clean import cleaned
from vlmgs_ns.words.find import find

PARTS = chain(0, 0.9, 1.8, 5.0, 5.9, 9.0)
"""Parts of 3, 2 and 1 Gaussians."""


def test_mass_is_opacity_times_the_largest_cross_section() -> None:
    one = Splats(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[2.0, 0.1, 3.0]]), torch.tensor([0.5]))
    assert mass(one).tolist() == pytest.approx([3.0])


@pytest.mark.parametrize(
    ("share", "kept", "apart"), [(0.0, 6, 0), (0.3, 6, 0), (0.34, 5, 1), (0.66, 5, 1), (0.67, 3, 3), (1.0, 3, 3)]
)
def test_light_parts_go(share: float, kept: int, apart: int) -> None:
    everything = torch.ones(6, dtype=torch.bool)
    assert cleaned(everything, PARTS, Neighbours(PARTS), 0.0, share)[1:] == (0, apart)
    assert int(cleaned(everything, PARTS, Neighbours(PARTS), 0.0, share).mask.sum()) == kept


def test_a_faint_bridge_holds_nothing_together() -> None:
    splats = replace(PARTS, opacities=torch.tensor([1.0, 0.05, 1.0, 1.0, 1.0, 0.05]))
    mask = torch.tensor([True, True, True, True, False, True])
    done = cleaned(mask, splats, Neighbours(splats), 0.1, 0.0)
    assert done.mask.tolist() == [True, False, True, True, False, False] and (done.faint, done.apart) == (2, 0)
    # The three left are parts of equal weight: they all stay.
    assert cleaned(mask, splats, Neighbours(splats), 0.1, 1.0).mask.tolist() == done.mask.tolist()


def test_cleaning_nothing_and_nothing_left() -> None:
    nothing = torch.zeros(6, dtype=torch.bool)
    assert cleaned(nothing, PARTS, Neighbours(PARTS), 0.1, 0.1).faint == 0
    faint = replace(PARTS, opacities=torch.full((6,), 0.05))
    done = cleaned(~nothing, faint, Neighbours(faint), 0.1, 0.1)
    assert not done.mask.any() and (done.faint, done.apart) == (6, 0)
    with pytest.raises(ValueError, match=r"least_share=1\.5"):
        cleaned(nothing, PARTS, Neighbours(PARTS), 0.1, 1.5)


# boxes


def block(turn: Rotation | None = None) -> Splats:
    """A 9 × 5 × 3 grid of points filling 8 × 4 × 2 about (1, 2, 3), without size of their own."""
    grid = torch.cartesian_prod(torch.linspace(-4, 4, 9), torch.linspace(-2, 2, 5), torch.linspace(-1, 1, 3))
    if turn is not None:
        grid = grid @ torch.from_numpy(turn.as_matrix()).float().T
    count = len(grid)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    return Splats(grid + torch.tensor([1.0, 2.0, 3.0]), quats, torch.full((count, 3), 1e-4), torch.full((count,), 0.9))


def same_corners(a: Tensor, b: Tensor) -> bool:
    nearest = torch.cdist(a, b)
    return bool((nearest.amin(0) < 0.01).all() and (nearest.amin(1) < 0.01).all())


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (10, -50, 75)])
def test_the_box_of_a_block_however_it_is_turned(angles: tuple[float, float, float]) -> None:
    turn = Rotation.from_euler("xyz", angles, degrees=True)
    box = oriented_box(block(turn))
    assert torch.allclose(box.centre, torch.tensor([1.0, 2.0, 3.0]), atol=1e-3)
    assert torch.allclose(box.size, torch.tensor([8.0, 4.0, 2.0]), atol=0.01)
    assert torch.allclose(box.axes @ box.axes.T, torch.eye(3), atol=1e-5) and float(torch.linalg.det(box.axes)) == pytest.approx(
        1
    )
    plain = torch.cartesian_prod(*(torch.tensor([-side, side]) for side in (4.0, 2.0, 1.0)))
    assert same_corners(box.corners(), plain @ torch.from_numpy(turn.as_matrix()).float().T + torch.tensor([1.0, 2.0, 3.0]))


def test_corners_count_in_binary() -> None:
    box = oriented_box(block())
    corners = box.corners()
    assert torch.allclose(corners[7] - corners[0], box.size @ box.axes)
    assert torch.allclose(corners[4] - corners[0], box.size[0] * box.axes[0], atol=1e-6)
    assert torch.allclose(corners[1] - corners[0], box.size[2] * box.axes[2], atol=1e-6)


def test_outliers_move_neither_axes_nor_sides() -> None:
    one = block()
    far = Splats(torch.tensor([[500.0, 900.0, -300.0]]), one.quats[:1], one.scales[:1], one.opacities[:1])
    both = Splats(*(torch.cat(pair) for pair in zip(vars(one).values(), vars(far).values(), strict=True)))
    assert torch.allclose(oriented_box(both).axes.abs(), torch.eye(3), atol=0.01)
    assert torch.allclose(oriented_box(both).size, torch.tensor([8.0, 4.0, 2.0]), atol=0.01)


def test_one_gaussian_fills_its_own_box() -> None:
    """A right angle about z lays its longest axis, x, along y. One standard deviation either way."""
    one = Splats(
        torch.tensor([[1.0, 1, 1]]), torch.tensor([[math.cos(math.pi / 4), 0, 0, math.sin(math.pi / 4)]]),
        torch.tensor([[3.0, 2.0, 1.0]]), torch.ones(1),
    )  # fmt: skip
    box = oriented_box(one)
    assert torch.allclose(box.size, torch.tensor([6.0, 4.0, 2.0])) and torch.allclose(box.centre, torch.ones(3))
    assert torch.allclose(box.axes.abs(), torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]), atol=1e-6)


def test_a_heavy_gaussian_and_a_light_one() -> None:
    """The heavy one holds half the mass, and its surroundings are of no extent: the light one still counts."""
    two = replace(chain(0.0, 2.0, size=0.01), opacities=torch.tensor([0.9, 0.3]))
    assert oriented_box(two).axes[0].tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    assert oriented_box(two).size.tolist() == pytest.approx([2.02, 0.02, 0.02])


def test_what_shows_the_thing_decides_its_box() -> None:
    """A wall's large Gaussian outweighs the block by its mass, and hardly shows the thing that was looked for."""
    one = block()
    wall = Splats(torch.tensor([[1.0, 2.0, 40.0]]), one.quats[:1], torch.tensor([[30.0, 30.0, 0.1]]), torch.ones(1))
    both = Splats(*(torch.cat(pair) for pair in zip(vars(one).values(), vars(wall).values(), strict=True)))
    shown = torch.cat([torch.ones(len(one)), torch.tensor([0.5])])
    assert torch.allclose(oriented_box(both, shown).size, torch.tensor([8.0, 4.0, 2.0]), atol=0.01)
    by_mass = oriented_box(both)
    assert by_mass.size[0] > 50
    assert torch.equal(oriented_box(both, torch.zeros(len(both))).size, by_mass.size), "shown nowhere, mass decides"


def test_no_box_around_nothing() -> None:
    with pytest.raises(ValueError, match="no Gaussians"):
        oriented_box(cloud(0, 0))


# from relevancy


def test_averages_close_holes_and_parts_are_cleaned() -> None:
    splats = chain(0, 0.9, 1.8, 5.0, 9.0)
    relevancy = torch.tensor([[0.9], [0.4], [0.9], [0.1], [0.51]])
    neighbours = Neighbours(splats)
    plain = find(relevancy, splats, neighbours, average=False, least_share=0.0)
    assert plain.mask.tolist() == [True, False, True, False, True] and plain.above == (3,)
    closed = find(relevancy, splats, neighbours, least_share=0.5)
    assert closed.mask.tolist() == [True, True, True, False, False] and (closed.above, closed.apart) == ((4,), 1)


def test_what_photos_show_outside_of_the_masks_is_left_out() -> None:
    splats = chain(0, 0.9, 1.8, 5.0)
    relevancy, in_masks = torch.tensor([[0.9], [0.9], [0.9], [0.4]]), torch.tensor([[1.0], [0.5], [0.49], [1.0]])
    found = find(relevancy, splats, Neighbours(splats), average=False, in_masks=in_masks)
    assert found.mask.tolist() == [True, True, False, False] and (found.above, found.outside) == ((3,), 1)
    # What is taken away with its rim is not kept from it.
    with_rim = find(relevancy, splats, Neighbours(splats), average=False, in_masks=in_masks, reach=0.2)
    assert with_rim.mask.tolist() == [True, True, True, False]


def test_reach_grows_over_the_rim_alone() -> None:
    splats = chain(0, 0.9, 1.8, 5.0)
    relevancy = torch.tensor([[0.9], [0.45], [0.3], [0.45]])
    with_rim = find(relevancy, splats, Neighbours(splats), average=False, least_share=0.0, reach=0.1)
    assert with_rim.mask.tolist() == [True, True, False, False]  # the last is as relevant, but touches nothing


def test_each_gaussian_has_the_label_of_the_better_phrase() -> None:
    splats = chain(0, 3, 6, 9)
    relevancy = torch.tensor([[0.9, 0.6], [0.6, 0.9], [0.4, 0.6], [0.4, 0.45]])
    found = find(relevancy, splats, Neighbours(splats), average=False, least_share=0.0)
    assert found.labels().tolist() == [0, 1, 1, -1] and found.mask.tolist() == [True, True, True, False]
    assert find(relevancy[:, :0], splats, Neighbours(splats)).labels().tolist() == [-1] * 4
