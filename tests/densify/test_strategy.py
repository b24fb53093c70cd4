"""FastGSStrategy: who is cloned, split and pruned, and that the count is always within its bounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.rasterize.scenes import random_scene
from vlmgs_ns.densify.births import SHRINK
from vlmgs_ns.densify.scores import Scores
from vlmgs_ns.densify.strategy import Densification, FastGSStrategy
from vlmgs_ns.rasterize import rasterization


def population(
    opacities: list[float], scales: list[float], **settings: Any
) -> tuple[FastGSStrategy, dict[str, torch.nn.Parameter], dict[str, torch.optim.Optimizer], dict[str, Any]]:
    """Gaussians that can be told apart by their first coordinate: 0, 1, 2, ..."""
    n = len(opacities)
    params = {
        "means": torch.stack([torch.arange(n).float(), torch.zeros(n), torch.zeros(n)], 1),
        "scales": torch.tensor(scales).log()[:, None].repeat(1, 3),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        "opacities": torch.tensor(opacities).logit()[:, None],
    }
    params = {name: torch.nn.Parameter(value) for name, value in params.items()}
    optimizers = {name: torch.optim.Adam([p], lr=1e-3) for name, p in params.items()}
    for name, p in params.items():
        p.grad = torch.zeros_like(p)
        optimizers[name].step()
    defaults = dict(refine_start_iter=0, refine_every=10, refine_stop_iter=1000, reset_every=500, min_gaussians=1)
    strategy = FastGSStrategy(**{**defaults, **settings})
    state = strategy.initialize_state(scene_scale=1.0)
    strategy._complete_state(params, state)
    state["count"] += 1
    return strategy, params, optimizers, state


def scorer(importance: list[float], pruning: list[float] | None = None):
    return lambda: Scores(torch.tensor(importance), torch.tensor(pruning or [0.0] * len(importance)))


def densify(strategy, params, optimizers, state, importance, pruning=None, step=10) -> Densification:
    strategy._densify(params, optimizers, state, step, scorer(importance, pruning))
    return strategy.history[-1]


def test_small_ones_are_cloned_by_gradient_and_large_ones_split_by_absolute_gradient() -> None:
    small, large = 0.0005, 0.01
    strategy, params, optimizers, state = population([0.5] * 6, [small, small, large, large, small, large])
    state["grad2d"] += torch.tensor([0.0003, 0.0001, 0.0003, 0.0001, 0.0003, 0.0])
    state["absgrad2d"] += torch.tensor([0.0, 0.002, 0.0, 0.0013, 0.0, 0.0013])
    report = densify(strategy, params, optimizers, state, [6, 9, 9, 6, 5, 5])
    # 0: cloned; 1: gradient too low; 2: large, but absolute gradient too low; 3: split; 4 and 5: importance not above 5
    assert (report.cloned, report.split, report.count) == (1, 1, 8)
    means = params["means"][:, 0]
    assert (means == 0).sum() == 2 and (means == 3).sum() == 0
    assert torch.isclose(params["scales"].exp().min(1).values, torch.tensor(large * SHRINK)).sum() == 2


@pytest.mark.parametrize(("step", "scattered"), [(210, True), (230, False)])
def test_vast_ones_are_scattered_in_the_first_fifth_of_births(step: int, scattered: bool) -> None:
    strategy, params, optimizers, state = population([0.5], [0.2], refine_start_iter=20, refine_stop_iter=1020)
    state["absgrad2d"] += 1
    strategy._densify(params, optimizers, state, step, None)
    turned_all_ways = (params["means"] != 0).all()
    assert len(params["means"]) == 2 and bool(turned_all_ways) is scattered


def test_without_consistent_growth_importance_is_not_asked() -> None:
    strategy, params, optimizers, state = population([0.5] * 3, [0.0005] * 3, consistent_growth=False)
    state["grad2d"] += 0.001
    assert densify(strategy, params, optimizers, state, [0, 0, 0]).cloned == 3


def test_scores_and_protection_stay_with_their_gaussian() -> None:
    """After clones, splits and removals every Gaussian still carries the scores of the one it came from."""
    torch.manual_seed(0)
    n = 40
    strategy, params, optimizers, state = population([0.5] * 30 + [0.001] * 10, [0.0005, 0.01] * 20)
    # children of a split move away: recognise ancestors by a quaternion that nothing changes
    params["quats"].data[:, 1] = torch.arange(n).float()
    state["grad2d"] += 0.001
    state["absgrad2d"] += 0.01
    state["protected_until"] += torch.arange(n).float()
    importance = [float(i) for i in range(n)]
    pruning = [i / n for i in range(n)]
    report = densify(strategy, params, optimizers, state, importance, pruning, step=100)
    assert report.cloned and report.split and report.pruned
    ancestor = params["quats"][:, 1].round()
    assert torch.equal(state["importance"], ancestor.detach()) and torch.equal(state["protected_until"], ancestor.detach())
    assert torch.allclose(state["pruning"], ancestor.detach() / n)
    for name, p in params.items():
        assert len(p) == report.count and optimizers[name].state[p]["exp_avg"].shape == p.shape


def test_half_of_the_transparent_are_pruned_and_the_protected_are_not() -> None:
    strategy, params, optimizers, state = population([0.001] * 8 + [0.5] * 20, [0.01] * 28)
    state["protected_until"][:2] = 100
    report = densify(strategy, params, optimizers, state, [0.0] * 28, step=10)
    assert report.pruned == 3  # half of the six unprotected
    assert (params["means"][:, 0] < 2).sum() == 2
    plain, params, optimizers, state = population([0.001] * 8 + [0.5] * 20, [0.01] * 28, consistent_pruning=False)
    assert densify(plain, params, optimizers, state, [0.0] * 28).pruned == 8


@pytest.mark.parametrize("reset_every", [20, 100_000])
def test_large_ones_are_pruned_from_their_own_step_on_whatever_is_reset(reset_every: int) -> None:
    for step, pruned in ((100, 0), (110, 2)):
        strategy, params, optimizers, state = population(
            [0.5] * 12, [0.2] * 4 + [0.01] * 8, prune_scale_start_iter=100, reset_every=reset_every
        )
        assert densify(strategy, params, optimizers, state, [0.0] * 12, step=step).pruned == pruned


def test_opacity_is_clamped_after_densification() -> None:
    strategy, params, optimizers, state = population([0.99, 0.5], [0.01, 0.01])
    densify(strategy, params, optimizers, state, [0, 0])
    assert torch.allclose(params["opacities"].flatten().sigmoid(), torch.tensor([0.8, 0.5]), atol=1e-6)


def test_final_pruning_removes_the_transparent_and_the_blamed() -> None:
    strategy, params, optimizers, state = population([0.05, 0.5, 0.5, 0.05, 0.9, 0.9, 0.9], [0.01] * 7, final_prune_every=100)
    state["protected_until"][3] = 5000
    strategy.step_post_backward(params, optimizers, state, 1100, {}, scorer=scorer([0] * 7, [0, 0.95, 0.9, 0, 0, 0, 0]))
    assert params["means"][:, 0].tolist() == [2, 3, 4, 5, 6]
    strategy.step_post_backward(params, optimizers, state, 1150, {}, scorer=scorer([0] * 5, [1.0] * 5))  # not a round
    assert len(params["means"]) == 5


def test_when_a_round_wants_too_much_the_highest_scores_win() -> None:
    strategy, params, optimizers, state = population([0.5] * 10, [0.0005] * 10, max_gaussians=13)
    state["grad2d"] += 0.001
    report = densify(strategy, params, optimizers, state, [6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    assert (report.cloned, report.refused, report.count) == (3, 7, 13)
    assert sorted(params["means"][10:, 0].tolist()) == [7, 8, 9]
    strategy, params, optimizers, state = population([0.5] * 10, [0.0005] * 10, max_new_per_round=2)
    state["grad2d"] += 0.001
    assert densify(strategy, params, optimizers, state, [6.0] * 10).count == 12


@pytest.mark.parametrize(
    ("settings", "step", "gone"),
    [
        ({}, 10, {1, 5, 7}),
        (dict(relocation=0.2), 10, {1, 5}),
        (dict(relocation=0.0), 10, set()),
        (dict(max_new_per_round=2), 10, {1, 5}),
        (dict(max_gaussians=12), 10, {1}),  # two have room
        (dict(max_gaussians=13), 10, set()),
        (dict(reset_every=20), 30, set()),  # ten steps after a reset opacities say nothing
        (dict(reset_every=20), 35, {1, 5, 7}),
    ],
)
def test_at_the_budget_the_most_transparent_make_room_for_births(settings: dict[str, Any], step: int, gone: set[int]) -> None:
    """0, 3 and 9 want to be cloned. Of the rest, 1, 5 and 7 are the faintest, but for 6, which is protected."""
    opacities = [0.1, 0.2, 0.6, 0.7, 0.6, 0.3, 0.15, 0.4, 0.5, 0.7]
    strategy, params, optimizers, state = population(
        opacities, [0.0005] * 10, **{"max_gaussians": 10, "relocation": 0.3, **settings}
    )
    state["grad2d"][[0, 3, 9]] += 0.001
    state["protected_until"][6] = 1000
    report = densify(strategy, params, optimizers, state, [9.0] * 10, step=step)
    assert set(range(10)) - {int(x) for x in params["means"][:, 0]} == gone and report.relocated == len(gone)
    room = strategy.max_gaussians - 10
    assert (
        report.cloned == min(3, strategy.max_new_per_round, len(gone) + room) and report.count == 10 - len(gone) + report.cloned
    )
    assert report.pruned == 0 and report.refused == 3 - report.cloned
    assert all(len(optimizers[name].state[p]["exp_avg"]) == len(p) == report.count for name, p in params.items())
    assert sorted(state["protected_until"].tolist()) == [0.0] * (report.count - 1) + [1000.0]


HOSTILE = {
    "grow everything": dict(grow_grad2d=0.0, grow_absgrad2d=0.0, importance_threshold=-1.0, prune_opa=0.0),
    "prune everything": dict(prune_opa=1.0, prune_scale3d=0.0, prune_scale_start_iter=0, consistent_pruning=False),
    "prune everything at the end": dict(refine_stop_iter=12, final_prune_every=1, final_prune_opa=1.0),
    "both": dict(grow_grad2d=0.0, grow_absgrad2d=0.0, importance_threshold=-1.0, prune_opa=1.0, max_new_per_round=5),
    "a budget below the start": dict(max_gaussians=20),
    "reset all the time": dict(reset_every=3, prune_opa=0.4),
    "relocate everything": dict(grow_grad2d=0.0, importance_threshold=10.0, relocation=1.0, max_gaussians=60),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_neither_explosion_nor_extinction(name: str) -> None:
    """Real renders and gradients under hostile settings: the count never leaves [min_gaussians, max_gaussians]."""
    settings = {"max_gaussians": 150, "min_gaussians": 8, **HOSTILE[name]}
    strategy = FastGSStrategy(refine_start_iter=0, refine_every=2, pause_refine_after_reset=0, **settings)
    scene = random_scene(0, 60, 32, 32, colors=3)
    params = {
        "means": scene.means, "scales": scene.scales.log(), "quats": scene.quats, "opacities": scene.opacities.logit()[:, None],
        "features": scene.colors,
    }  # fmt: skip
    params = {k: torch.nn.Parameter(v.clone()) for k, v in params.items()}
    optimizers = {k: torch.optim.Adam([p], lr=1e-3) for k, p in params.items()}
    state = strategy.initialize_state(scene_scale=1.0)
    rounds = 0
    for step in range(40):
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid().squeeze(-1),
            params["features"], scene.viewmats, scene.Ks, 32, 32, absgrad=True,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        (image - 0.5).square().mean().backward()
        n = len(params["means"])
        own = Scores(torch.rand(n) * 20, torch.rand(n))
        strategy.step_post_backward(params, optimizers, state, step, info, scorer=lambda scores=own: scores)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        if len(strategy.history) > rounds:
            rounds = len(strategy.history)
            assert 8 <= len(params["means"]) <= settings["max_gaussians"], step
    assert rounds > 5
    assert all(torch.isfinite(p).all() for p in params.values())


def test_opacities_are_reset_but_never_too_late_to_recover() -> None:
    """FastGS resets at 3,000, 6,000, 9,000 and 12,000 of 15,000; the odd rest after the last whole period has none."""
    for every, stop, resets in ((3000, 15_000, [3000, 6000, 9000, 12_000]), (222, 1125, [222, 444, 666, 888]), (100, 50, [])):
        strategy = FastGSStrategy(reset_every=every, refine_stop_iter=stop)
        assert [step for step in range(stop) if strategy._is_reset(step)] == resets


def test_no_reset_before_the_first_step() -> None:
    """gsplat's DefaultStrategy resets opacities at step 0, which would dim every start above 0.01."""
    scene = random_scene(1, 20, 32, 32, colors=3)
    params = {k: torch.nn.Parameter(v) for k, v in {"means": scene.means, "opacities": torch.zeros(20, 1)}.items()}
    strategy = FastGSStrategy()
    state = strategy.initialize_state()
    _, _, info = rasterization(
        params["means"], scene.quats, scene.scales, params["opacities"].sigmoid().squeeze(-1), *scene.tensors()[4:], 32, 32,
        absgrad=True,
    )  # fmt: skip
    info["means2d"].retain_grad()
    info["means2d"].sum().backward()
    info["means2d"].absgrad = info["means2d"].grad.abs()
    strategy.step_post_backward(params, {}, state, 0, info)
    assert (params["opacities"] == 0).all()


def test_a_reset_brings_opacities_down_to_its_value_and_no_further() -> None:
    strategy, params, optimizers, state = population([0.9, 0.3, 0.05], [0.01] * 3, reset_every=100, reset_opacity=0.2)
    strategy.refine_every = 10**6
    scene = random_scene(0, 3, 16, 16, colors=3)
    means = torch.nn.Parameter(scene.means)
    _, _, info = rasterization(means, *scene.tensors()[1:], 16, 16, absgrad=True)
    info["means2d"].retain_grad()
    info["means2d"].sum().backward()
    info["means2d"].absgrad = info["means2d"].grad.abs()
    strategy.step_post_backward(params, optimizers, state, 100, info)
    assert torch.allclose(params["opacities"].flatten().sigmoid(), torch.tensor([0.2, 0.2, 0.05]), atol=1e-6)
