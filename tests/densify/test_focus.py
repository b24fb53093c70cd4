"""What guidance wishes for, and what the strategy makes of it: sooner, not more; within the budget, lasting and aligned."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.densify.test_strategy import densify, population, scorer
from vlmgs_ns.densify import wishes
from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.densify.wishes import FADE, Wishes
from vlmgs_ns.rasterize import rasterization

SMALL, LARGE = 0.0005, 0.01


def wish(state: dict[str, Any], focus: list[float], doomed: list[float] | None = None) -> None:
    Wishes(torch.tensor(focus), torch.tensor(doomed or [0.0] * len(focus)) > 0).add_to(state)


def born(params: dict[str, torch.nn.Parameter], count: int) -> list[int]:
    """Which ones have a copy or became two: ancestors are told by a quaternion that nothing changes."""
    ancestors = params["quats"][:, 1].round().int().tolist()
    return sorted(k for k in range(count) if ancestors.count(k) == 2)


def tell_apart(params: dict[str, torch.nn.Parameter]) -> None:
    params["quats"].data[:, 1] = torch.arange(len(params["quats"])).float()


@pytest.mark.parametrize(("strength", "chosen"), [(1.0, [6, 7]), (1.2, [5, 7]), (3.0, [4, 5])])
def test_candidates_in_focus_come_first_by_its_strength(strength: float, chosen: list[int]) -> None:
    """All are candidates, of importance 6 to 13; 0 to 5 are in focus; there are two places."""
    strategy, params, optimizers, state = population(
        [0.5] * 8, [SMALL] * 8, focus_strength=strength, focus_background=0.0, max_new_per_round=2
    )
    tell_apart(params)
    state["grad2d"] += 0.001
    wish(state, [1.0] * 6 + [0.0] * 2)
    report = densify(strategy, params, optimizers, state, [6.0, 7, 8, 9, 10, 11, 12, 13])
    assert born(params, 8) == chosen and report.focused == sum(k < 6 for k in chosen)
    assert (report.cloned, report.refused, report.count) == (2, 6, 10)


@pytest.mark.parametrize(("kept", "outside"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_the_rest_keeps_its_share_of_the_births(kept: float, outside: int) -> None:
    """FastGS alone would have cloned 4 to 7, which are out of focus."""
    strategy, params, optimizers, state = population(
        [0.5] * 8, [SMALL] * 8, focus_strength=1e6, focus_background=kept, max_new_per_round=4
    )
    tell_apart(params)
    state["grad2d"] += 0.001
    wish(state, [1.0] * 4 + [0.0] * 4)
    report = densify(strategy, params, optimizers, state, [6.0, 7, 8, 9, 10, 11, 12, 13])
    assert report.focused == 4 - outside
    assert born(params, 8) == [*range(outside, 4), *range(8 - outside, 8)]  # the most important of either


def test_focus_makes_no_candidate_and_adds_no_birth() -> None:
    """4 has no gradient, 5 no importance: a wish alone bears nothing."""
    counts = []
    for focus in ([0.0] * 6, [0.0, 0, 0, 0, 1, 1], [1.0] * 6):
        strategy, params, optimizers, state = population([0.5] * 6, [SMALL] * 6)
        tell_apart(params)
        state["grad2d"][[0, 1, 5]] += 0.001
        wish(state, focus)
        counts.append(densify(strategy, params, optimizers, state, [9.0, 9, 0, 0, 9, 2]).count)
        assert born(params, 6) == [0, 1]
    assert counts == [8, 8, 8]


@pytest.mark.parametrize("settings", [dict(max_gaussians=23), dict(max_new_per_round=3), dict(max_gaussians=10)])
def test_the_budget_holds_whatever_is_wished_for(settings: dict[str, int]) -> None:
    strategy, params, optimizers, state = population([0.5] * 20, [SMALL, LARGE] * 10, focus_strength=50.0, **settings)
    state["grad2d"] += 0.001
    state["absgrad2d"] += 0.01
    wish(state, [0.9] * 10 + [0.0] * 10)
    report = densify(strategy, params, optimizers, state, [9.0] * 20)
    assert report.count == (10 if settings == {"max_gaussians": 10} else 23)  # a start above the budget is cut
    assert all(len(p) == report.count for p in params.values())


def test_at_the_budget_what_pruning_frees_goes_to_what_is_in_focus() -> None:
    """There are as many as there may be; half of the four faint ones go in each round, and the places are filled in the next."""
    strategy, params, optimizers, state = population(
        [0.001] * 4 + [0.5] * 16, [SMALL] * 20, max_gaussians=20, focus_background=0.0, relocation=0.0
    )
    tell_apart(params)
    state["instructed"] = torch.tensor([0.0] * 18 + [1.0] * 2)
    for k, (count, cloned) in enumerate(((18, 0), (19, 2))):  # the second round prunes one of the two that are left
        n = len(params["means"])
        state["grad2d"] += 0.001
        report = densify(strategy, params, optimizers, state, [0.0] * (n - 16) + [9.0] * 16, step=10 * (k + 1))
        assert (report.count, report.cloned, report.focused) == (count, cloned, cloned)
    assert born(params, 20) == [18, 19]


def test_at_the_budget_what_is_in_focus_keeps_its_place_longer() -> None:
    """0 to 2 want births, for which 3 to 5 are the faintest; 3 is in focus, and counts as three times as opaque."""
    strategy, params, optimizers, state = population(
        [0.5] * 3 + [0.2, 0.25, 0.3, 0.55, 0.65], [SMALL] * 8, max_gaussians=8, relocation=0.4, focus_strength=3.0
    )
    state["grad2d"][:3] += 0.001
    wish(state, [0.0, 0, 0, 1, 0, 0, 0, 0])
    report = densify(strategy, params, optimizers, state, [9.0] * 8)
    assert set(range(8)) - {int(x) for x in params["means"][:, 0]} == {4, 5, 6} and report.relocated == 3 == report.cloned


def test_a_focus_lasts_and_fades_and_its_children_have_it() -> None:
    strategy, params, optimizers, state = population([0.5] * 4, [SMALL, LARGE] * 2)
    tell_apart(params)
    wish(state, [1.0, 0.5, 0.0, 0.0])
    for k in range(1, 4):
        n = len(params["means"])
        state["grad2d"][:2] += 0.001
        state["absgrad2d"][:2] += 0.01
        densify(strategy, params, optimizers, state, [9.0] * n, step=10 * k)
        ancestors = params["quats"][:, 1].round().int()
        expected = torch.tensor([1.0, 0.5, 0.0, 0.0])[ancestors] * FADE**k
        assert len(params["means"]) == n + 2 and torch.allclose(state["focus"], expected)
    wish(state, [0.4] * len(params["means"]))
    assert torch.equal(state["focus"], expected.clamp_min(0.4))  # the stronger wish counts
    for _ in range(20):
        wishes.fade(state)
    assert not state["focus"].any()  # and then it is over


def test_what_the_user_instructed_does_not_fade() -> None:
    strategy, params, optimizers, state = population([0.5] * 4, [SMALL] * 4, max_new_per_round=1, focus_background=0.0)
    tell_apart(params)
    state["instructed"] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    for k in range(1, 4):
        state["grad2d"][:4] += 0.001
        n = len(params["means"])
        densify(strategy, params, optimizers, state, [12.0, 9, 8, 9] + [0.0] * (n - 4), step=10 * k)
        assert state["instructed"].sum() == k + 1
    assert (params["quats"][:, 1].round() == 2).sum() == 4
    wish(state, [0.2] * 7)
    assert torch.equal(wishes.in_force(state), state["instructed"].clamp_min(0.2))


def test_scores_stay_with_their_gaussian() -> None:
    n = 40
    strategy, params, optimizers, state = population([0.5] * 30 + [0.001] * 10, [SMALL, LARGE] * 20)
    tell_apart(params)
    state["grad2d"] += 0.001
    state["absgrad2d"] += 0.01
    wish(state, [0.9 if k % 3 == 0 else 0.0 for k in range(n)], [1.0 if k % 7 == 1 else 0.0 for k in range(n)])
    importance = [float(k) for k in range(n)]
    report = densify(strategy, params, optimizers, state, importance, [k / n for k in range(n)], step=100)
    assert report.focused and report.cloned and report.split and report.pruned and report.doomed
    ancestor = params["quats"][:, 1].round().detach()
    assert torch.equal(state["importance"], ancestor) and torch.allclose(state["pruning"], ancestor / n)
    assert torch.equal(state["focus"] > 0, ancestor % 3 == 0) and not (ancestor % 7 == 1).any()
    for name, p in params.items():
        assert len(p) == report.count == len(state["protected_until"])
        assert optimizers[name].state[p]["exp_avg"].shape == p.shape


def test_what_guidance_judged_false_is_removed_unless_protected() -> None:
    strategy, params, optimizers, state = population([0.5] * 10, [SMALL] * 10)
    state["protected_until"][1] = 100
    wish(state, [0.0] * 10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 1])
    report = densify(strategy, params, optimizers, state, [0.0] * 10)
    assert params["means"][:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8] and (report.doomed, report.pruned) == (2, 2)
    assert state["doomed"] is None


# after births have ended


def late(strategy: Any, params: Any, optimizers: Any, state: Any, step: int, importance: float = 9.0) -> Densification | None:
    rounds = len(strategy.history)
    n = len(params["means"])
    strategy.step_post_backward(params, optimizers, state, step, {}, scorer=scorer([importance] * n))
    return strategy.history[-1] if len(strategy.history) > rounds else None


def test_late_births_only_fill_the_places_of_the_dead() -> None:
    strategy, params, optimizers, state = population([0.05] * 4 + [0.5] * 16, [SMALL] * 20, final_prune_every=100)
    tell_apart(params)
    late(strategy, params, optimizers, state, 1000)  # the first step after births have ended: there are 20
    wish(state, [0.9] * 4 + [0.0] * 16)
    report = late(strategy, params, optimizers, state, 1010)
    assert report is not None and (report.focused, report.refused, report.count) == (0, 4, 20)
    report = late(strategy, params, optimizers, state, 1100)
    assert report is not None and (report.pruned, report.count) == (4, 16)
    wish(state, [0.0] * 13 + [0.9] * 3)
    report = late(strategy, params, optimizers, state, 1110)
    assert report is not None and (report.focused, report.count) == (3, 19)
    wish(state, [0.9] * 19)
    report = late(strategy, params, optimizers, state, 1120)
    assert report is not None and (report.focused, report.refused, report.count) == (1, 18, 20)  # one place is left
    assert late(strategy, params, optimizers, state, 1130) is None  # nothing is due and nothing is wished for


def test_a_late_round_that_is_due_also_takes_what_was_doomed_first() -> None:
    strategy, params, optimizers, state = population([0.5] * 20, [SMALL] * 20)
    late(strategy, params, optimizers, state, 1000)
    wish(state, [0.9] * 20, [1.0] * 2 + [0.0] * 18)
    report = late(strategy, params, optimizers, state, 1003)
    assert report is not None and (report.doomed, report.pruned, report.focused, report.count) == (2, 2, 2, 20)


def test_a_run_that_continues_knows_how_many_there_were() -> None:
    """A new strategy; only its state is in the checkpoint."""
    counts = []
    for stop in (False, True):
        strategy, params, optimizers, state = population([0.05] * 4 + [0.5] * 16, [SMALL] * 20, final_prune_every=100)
        late(strategy, params, optimizers, state, 1000)
        late(strategy, params, optimizers, state, 1100)
        if stop:
            strategy = population([0.5], [SMALL], final_prune_every=100)[0]
        wish(state, [0.9] * 16)
        late(strategy, params, optimizers, state, 1110)
        counts.append(len(params["means"]))
    assert counts == [20, 20]


@pytest.mark.parametrize("seed", range(3))
def test_under_any_wishes_the_count_stays_within_its_bounds(seed: int) -> None:
    """Real renders and gradients; focus and doom drawn at random at every third step."""
    generator = torch.Generator().manual_seed(seed)
    from tests.rasterize.scenes import random_scene
    from vlmgs_ns.densify.scores import Scores
    from vlmgs_ns.densify.strategy import FastGSStrategy

    strategy = FastGSStrategy(
        refine_start_iter=0, refine_every=2, refine_stop_iter=24, max_gaussians=120, max_new_per_round=9, min_gaussians=8,
        grow_grad2d=0.0, grow_absgrad2d=0.0, importance_threshold=3.0, focus_strength=9.0, final_prune_every=4,
    )  # fmt: skip
    scene = random_scene(seed, 60, 32, 32, colors=3)
    params = {
        "means": scene.means, "scales": scene.scales.log(), "quats": scene.quats, "opacities": scene.opacities.logit()[:, None],
        "features": scene.colors,
    }  # fmt: skip
    params = {k: torch.nn.Parameter(v.clone()) for k, v in params.items()}
    optimizers = {k: torch.optim.Adam([p], lr=1e-3) for k, p in params.items()}
    state = strategy.initialize_state(scene_scale=1.0)
    ended, previous, focused = 0, 60, 0
    for step in range(40):
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid().squeeze(-1),
            params["features"], scene.viewmats, scene.Ks, 32, 32, absgrad=True,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        (image - 0.5).square().mean().backward()
        n = len(params["means"])
        if step % 3 == 1:
            focus = torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) < 0.5)
            Wishes(focus, torch.rand(n, generator=generator) < 0.05).add_to(state)
        own = Scores(torch.rand(n, generator=generator) * 20, torch.rand(n, generator=generator))
        rounds = len(strategy.history)
        strategy.step_post_backward(params, optimizers, state, step, info, scorer=lambda scores=own: scores)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        n = len(params["means"])
        if step == 24:
            ended = previous
        assert 8 <= n <= (ended or 120) and n <= previous + 9, step
        assert all(len(value) == n for value in state.values() if isinstance(value, torch.Tensor))
        focused += sum(report.focused for report in strategy.history[rounds:])
        previous = n
    assert focused > 10 and ended > 0 and all(torch.isfinite(p).all() for p in params.values())
