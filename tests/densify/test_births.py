"""Gaussians that become two: aligned, near, smaller, and the picture of them stays as it is."""

from __future__ import annotations

import pytest
import torch
from gsplat.strategy import ops

from tests.densify.test_strategy import population
from vlmgs_ns.densify.births import SCATTERED, SHRINK, VAST, append, clone, rotate, shared_opacity, shared_scale, split
from vlmgs_ns.rasterize import rasterization

OPACITIES = [0.1, 0.3, 0.5, 0.7, 0.95]


def picture(params: dict[str, torch.nn.Parameter]) -> torch.Tensor:  # [H, W]
    """White Gaussians on black from straight above."""
    view = torch.eye(4)
    view[2, 3] = 4.0
    K = torch.tensor([[40.0, 0.0, 48.0], [0.0, 40.0, 48.0], [0.0, 0.0, 1.0]])
    _, alpha, _ = rasterization(
        params["means"].detach(), params["quats"].detach(), params["scales"].detach().exp(),
        params["opacities"].detach().sigmoid().flatten(), torch.ones(len(params["means"]), 3), view[None], K[None], 96, 96,
    )  # fmt: skip
    return alpha[0, ..., 0]


def long_ones(opacity: float) -> tuple:
    """Three Gaussians, each three times as long as it is wide, turned every which way, none of them vast in its scene."""
    world = population([opacity] * 3, [0.1] * 3)
    params = world[1]
    world[3]["scene_scale"] = 10.0
    params["means"].data[:, 0] -= 1
    params["scales"].data[:, 1] += torch.tensor(3.0).log()
    params["quats"].data[:] = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0, 0, 0.1], [1, 0, 0, 0.5], [1, 0.2, 0, -0.7]]), dim=-1
    )
    return world


ALL = torch.ones(3, dtype=torch.bool)


def test_opacity_and_size_of_two_copies_by_hand() -> None:
    opacity = torch.tensor([0.75])
    assert torch.allclose(shared_opacity(opacity), torch.tensor([0.5]))  # 1 - 0.5² = 0.75
    # eq. 9 for two: o' + o' - o'²/√2 = 1 - 0.25/√2
    assert torch.allclose(shared_scale(opacity), 0.75 / torch.tensor([1 - 0.25 / 2**0.5]))
    assert shared_scale(torch.tensor([0.0])) == 1


@pytest.mark.parametrize("opacity", OPACITIES)
def test_a_clone_leaves_the_picture_as_it_is(opacity: float) -> None:
    """gsplat's stacks a second Gaussian of the same opacity: the picture becomes brighter by up to a quarter of it."""
    _, params, optimizers, state = long_ones(opacity)
    before = picture(params)
    clone(params, optimizers, state, ALL)
    change = (picture(params) - before).abs().mean()
    _, params, optimizers, state = long_ones(opacity)
    ops.duplicate(params, optimizers, state, ALL)
    assert change < 1e-3 and change < (picture(params) - before).abs().mean() / 4


@pytest.mark.parametrize("opacity", OPACITIES)
def test_a_split_changes_the_picture_less_than_gsplats(opacity: float) -> None:
    _, params, optimizers, state = long_ones(opacity)
    before = picture(params)
    split(params, optimizers, state, ALL)
    after = picture(params)
    theirs, mass = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        _, params, optimizers, state = long_ones(opacity)
        ops.split(params, optimizers, state, ALL)
        theirs.append(float((picture(params) - before).abs().mean()))
        mass.append(float(picture(params).sum()))
    assert float((after - before).abs().mean()) < min(theirs) / 3
    assert abs(float(after.sum()) - before.sum()) < abs(sum(mass) / 8 - before.sum())


def test_children_are_near_and_smaller_and_all_others_stay() -> None:
    _, params, optimizers, state = population([0.5] * 4, [0.01] * 4)
    params["scales"].data[:, 1] += 1  # y is the longest axis
    state["importance"] += torch.arange(4.0)
    for name, value in params.items():
        optimizers[name].state[value]["exp_avg_sq"] += 1
    old = {name: value.detach().clone() for name, value in params.items()}
    clone(params, optimizers, state, torch.tensor([False, False, False, True]))
    split(params, optimizers, state, torch.tensor([False, True, False, False, False]))
    assert state["importance"].tolist() == [0, 1, 2, 3, 3, 1] and len(params["means"]) == 6
    for name, value in params.items():
        assert torch.equal(value[[0, 2]], old[name][[0, 2]])
        moments = optimizers[name].state[value]["exp_avg_sq"]
        # a clone's first keeps what its optimiser knows, so that the two come apart; both halves of a split start without
        assert moments.flatten(1).all(dim=1).tolist() == [True, False, True, True, False, False]
    first, second = params["means"][1], params["means"][5]
    assert torch.allclose((first + second) / 2, old["means"][1])
    apart = (first - second).abs()
    assert apart[0] == apart[2] == 0 and 0.01 * 2.718 < float(apart[1]) < 2 * 0.01 * 2.718
    assert torch.allclose(params["scales"][[1, 5]].exp(), old["scales"][1].exp() * torch.tensor([1.0, SHRINK, 1.0]))
    assert (params["opacities"][[1, 5]] < old["opacities"][1]).all()
    assert torch.equal(params["means"][4], old["means"][3]) and torch.equal(params["means"][3], old["means"][3])


def test_what_is_vast_can_be_scattered_as_gsplat_does() -> None:
    """How 2,000 children of Gaussians of one size move, just below the bound and above it, in standard deviations."""
    for factor, scatter, scattered in ((0.99, True, False), (1.01, True, True), (1.01, False, False)):
        extent, size, count = 3.0, VAST * 3.0 * factor, 1000
        _, params, optimizers, state = population([0.5] * count, [size] * count)
        state["scene_scale"] = extent
        old = params["means"].detach().clone()
        torch.manual_seed(0)
        split(params, optimizers, state, torch.ones(count, dtype=torch.bool), scatter)
        moved = (params["means"].detach() - torch.cat([old, old])) / size
        shrunk, opacity = params["scales"].exp() / size, params["opacities"].sigmoid()
        if scattered:
            assert torch.allclose(moved.std(dim=0), torch.ones(3), atol=0.05) and moved.mean(dim=0).abs().max() < 0.07
            assert torch.allclose(shrunk, torch.full_like(shrunk, SCATTERED)) and torch.allclose(opacity, torch.tensor(0.5))
        else:
            assert moved.norm(dim=-1).max() < 1 and (opacity < 0.5).all() and (shrunk.amax(dim=-1) > 0.99).all()


@pytest.mark.parametrize("birth", [clone, split])
def test_nothing_chosen_changes_nothing(birth) -> None:
    _, params, optimizers, state = population([0.5] * 2, [0.1] * 2)
    old = {name: value.detach().clone() for name, value in params.items()}
    birth(params, optimizers, state, torch.zeros(2, dtype=torch.bool))
    assert all(torch.equal(value, old[name]) for name, value in params.items())


@pytest.mark.parametrize("count", [0, 1, 7])
def test_appended_gaussians_have_their_values_and_no_history(count: int) -> None:
    _, params, optimizers, state = population([0.5] * 2, [0.1] * 2)
    state["importance"] += 5
    values = {name: torch.full((count, *value.shape[1:]), 0.25) for name, value in params.items()}
    new = append(params, optimizers, state, values)
    assert new.tolist() == [False, False] + [True] * count
    for name, value in params.items():
        assert (value[new] == 0.25).all() and not optimizers[name].state[value]["exp_avg"][new].any()
    assert state["importance"].tolist() == [5.0, 5.0] + [0.0] * count


def test_rotation_by_hand() -> None:
    quarter = torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]])  # a quarter turn around z
    assert torch.allclose(rotate(quarter, torch.tensor([[1.0, 0.0, 0.0]])), torch.tensor([[0.0, 1.0, 0.0]]), atol=1e-6)
