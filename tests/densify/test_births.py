"""Births that guidance asks for: aligned, smaller, and no brighter than before."""

from __future__ import annotations

import pytest
import torch

from tests.densify.test_strategy import population
from vlmgs_ns.densify.births import append, multiply, relocated_scale, rotate, shared_opacity
from vlmgs_ns.rasterize import rasterization


def coverage(params: dict[str, torch.nn.Parameter]) -> torch.Tensor:  # [H, W]
    """Accumulated opacity from straight above the row of Gaussians."""
    view = torch.eye(4)
    view[2, 3] = 4.0
    K = torch.tensor([[40.0, 0.0, 48.0], [0.0, 40.0, 48.0], [0.0, 0.0, 1.0]])
    _, alpha, _ = rasterization(
        params["means"].detach(), params["quats"].detach(), params["scales"].detach().exp(),
        params["opacities"].detach().sigmoid().flatten(), torch.ones(len(params["means"]), 3), view[None], K[None], 96, 96,
    )  # fmt: skip
    return alpha[0, ..., 0]


def test_opacity_and_size_of_two_copies_by_hand() -> None:
    opacity = torch.tensor([0.75])
    assert torch.allclose(shared_opacity(opacity, 2), torch.tensor([0.5]))  # 1 - 0.5² = 0.75
    # eq. 9 for two: o' + o' - o'²/√2 = 1 - 0.25/√2
    assert torch.allclose(relocated_scale(opacity, 2), 0.75 / torch.tensor([1 - 0.25 / 2**0.5]))
    assert relocated_scale(torch.tensor([0.0]), 2) == 1


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("opacity", [0.05, 0.5, 0.95])
def test_the_picture_does_not_brighten(opacity: float, large: bool, factor: int) -> None:
    torch.manual_seed(0)
    _, params, optimizers, state = population([opacity] * 3, [0.3] * 3)
    before = coverage(params)
    multiply(params, optimizers, state, torch.tensor([True] * 3), torch.tensor([large] * 3), factor)
    after = coverage(params)
    assert after.sum() <= before.sum() * 1.005
    if not large:  # clones keep it
        assert after.sum() > before.sum() * 0.8  # less what falls below 1/255, which no splat draws


@pytest.mark.parametrize("factor", [2, 4])
def test_children_are_smaller_and_near_and_nobody_else_changes(factor: int) -> None:
    torch.manual_seed(0)
    _, params, optimizers, state = population([0.5] * 4, [0.1] * 4)
    state["importance"] += torch.arange(4.0)
    for name, value in params.items():
        optimizers[name].state[value]["exp_avg_sq"] += 1
    old = {name: value.detach().clone() for name, value in params.items()}
    chosen, large = torch.tensor([False, True, False, True]), torch.tensor([False, True, True, False])
    theirs = multiply(params, optimizers, state, chosen, large, factor)
    assert len(params["means"]) == 4 + 2 * (factor - 1) == len(theirs) and theirs.sum() == 2 * factor
    for name, value in params.items():
        assert torch.equal(value[:4][~chosen], old[name][~chosen])
        moments = optimizers[name].state[value]["exp_avg_sq"]
        assert moments.shape == value.shape and not moments[theirs].any() and moments[~theirs].all()
    ancestor = state["importance"]
    split, cloned = theirs & (ancestor == 1), theirs & (ancestor == 3)
    assert torch.allclose(params["scales"][split].exp(), torch.tensor(0.1 / (0.8 * factor)))
    assert (params["scales"][cloned].exp() < 0.1).all() and (params["scales"][cloned].exp() > 0.06).all()
    assert torch.equal(params["means"][cloned][:, 0], torch.full((factor,), 3.0))
    distance = (params["means"][split] - old["means"][1]).norm(dim=-1)
    assert (distance > 0).all() and (distance < 0.6).all()


def test_nothing_chosen_changes_nothing() -> None:
    _, params, optimizers, state = population([0.5] * 2, [0.1] * 2)
    theirs = multiply(params, optimizers, state, torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool))
    assert len(theirs) == len(params["means"]) == 2 and not theirs.any()


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
