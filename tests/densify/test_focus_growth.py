"""What guidance wishes for, fulfilled by the strategy: within the budget, protected, aligned, and no brighter than before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.densify.test_births import coverage
from tests.densify.test_strategy import densify, population, scorer
from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.densify.wishes import Wishes
from vlmgs_ns.rasterize import rasterization

SMALL, LARGE = 0.0005, 0.01


def wish(state: dict[str, Any], focus: list[float], doomed: list[float] | None = None) -> None:
    Wishes(torch.tensor(focus), torch.tensor(doomed or [0.0] * len(focus)) > 0, 0).add_to(state)


def born(params: dict[str, torch.nn.Parameter], count: int) -> list[int]:
    """Which ones have a copy or became two: ancestors are told by a quaternion that nothing changes."""
    ancestors = params["quats"][:, 1].round().int().tolist()
    return sorted(k for k in range(count) if ancestors.count(k) == 2)


def tell_apart(params: dict[str, torch.nn.Parameter]) -> None:
    params["quats"].data[:, 1] = torch.arange(len(params["quats"])).float()


def test_those_in_focus_take_the_place_of_births_elsewhere() -> None:
    """FastGS alone would clone 0 to 3. Of the four places those in focus, 4 and 5, take two; the most important get the rest."""
    strategy, params, optimizers, state = population([0.5] * 8, [SMALL] * 8, focus_growth=1.0)
    tell_apart(params)
    state["grad2d"][:4] += 0.001
    wish(state, [0, 0, 0, 0, 0.9, 0.8, 0, 0])
    report = densify(strategy, params, optimizers, state, [6, 7, 9, 8, 3, 1, 0, 0])
    assert born(params, 8) == [2, 3, 4, 5]
    assert (report.focused, report.cloned, report.count, report.refused) == (2, 2, 12, 0)
    assert state["focus"] is None and state["doomed"] is None
    # kept to be looked at, still one per Gaussian
    assert torch.equal(state["guided"] > 0, torch.isin(params["quats"][:, 1].round(), torch.tensor([4.0, 5.0])))


@pytest.mark.parametrize(("growth", "births"), [(0.0, 0), (0.5, 2), (1.0, 4), (2.0, 8), (100.0, 10)])
def test_births_in_focus_are_a_multiple_of_what_fastgs_would_have_had(growth: float, births: int) -> None:
    strategy, params, optimizers, state = population([0.5] * 14, [SMALL] * 14, focus_growth=growth)
    tell_apart(params)
    state["grad2d"][:4] += 0.001
    wish(state, [0.0] * 4 + [0.9 - 0.01 * k for k in range(10)])
    report = densify(strategy, params, optimizers, state, [9.0] * 14)
    assert report.focused == births and report.refused == 10 - births
    assert [k for k in born(params, 14) if k >= 4] == list(range(4, 4 + births))  # those of greatest focus
    assert report.cloned == max(0, 4 - births) and report.count == 14 + max(4, births)


def test_where_no_error_confirms_the_wish_nothing_is_born() -> None:
    strategy, params, optimizers, state = population([0.5] * 6, [SMALL] * 6, focus_growth=10.0)
    tell_apart(params)
    state["grad2d"][:2] += 0.001
    wish(state, [0, 0, 1.0, 1.0, 0.8, 0.8])
    report = densify(strategy, params, optimizers, state, [9, 9, 0, 2, 0, 1])
    assert report.focused == 2 and [k for k in born(params, 6) if k >= 2] == [3, 5]
    plain, params, optimizers, state = population([0.5] * 6, [SMALL] * 6, focus_growth=10.0, consistent_growth=False)
    state["grad2d"][:2] += 0.001
    wish(state, [0, 0, 1.0, 1.0, 0.8, 0.8])
    assert densify(plain, params, optimizers, state, [9, 9, 0, 2, 0, 1]).focused == 4


@pytest.mark.parametrize("settings", [dict(max_gaussians=23), dict(max_new_per_round=3), dict(max_gaussians=10)])
@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("planted", [0, 2])
def test_the_budget_holds(settings: dict[str, int], factor: int, planted: int) -> None:
    """Whatever is wished for: 20 Gaussians may become 23 at most, where some of the 3 new ones were planted before."""
    count = 20 + planted if settings.get("max_gaussians", 23) > 20 else 20
    strategy, params, optimizers, state = population(
        [0.5] * count, [SMALL, LARGE] * (count // 2), focus_factor=factor, focus_growth=50.0, **settings
    )
    state["planted"] = count - 20
    state["grad2d"] += 0.001
    state["absgrad2d"] += 0.01
    wish(state, [0.9] * count)
    report = densify(strategy, params, optimizers, state, [9.0] * count)
    assert report.count <= 23 and report.focused + report.cloned + report.split + report.planted <= 3
    assert report.focused % (factor - 1) == 0
    if settings == {"max_gaussians": 10}:
        assert report.count == 10  # a start above the budget is cut
    for p in params.values():
        assert len(p) == report.count
    assert state["planted"] is None


def test_scores_stay_with_their_gaussian() -> None:
    torch.manual_seed(0)
    n = 40
    strategy, params, optimizers, state = population([0.5] * 30 + [0.001] * 10, [SMALL, LARGE] * 20, focus_growth=1.0)
    tell_apart(params)
    state["grad2d"] += 0.001
    state["absgrad2d"] += 0.01
    wish(state, [0.9 if k % 3 == 0 else 0.0 for k in range(n)], [1.0 if k % 7 == 1 else 0.0 for k in range(n)])
    importance = [float(k) for k in range(n)]
    report = densify(strategy, params, optimizers, state, importance, [k / n for k in range(n)], step=100)
    assert report.focused and report.cloned and report.split and report.pruned and report.doomed
    ancestor = params["quats"][:, 1].round().detach()
    assert torch.equal(state["importance"], ancestor) and torch.allclose(state["pruning"], ancestor / n)
    assert torch.equal(state["guided"] > 0, ancestor % 3 == 0) and not ((ancestor % 7 == 1) & (ancestor % 3 != 0)).any()
    for name, p in params.items():
        assert len(p) == report.count == len(state["protected_until"])
        assert optimizers[name].state[p]["exp_avg"].shape == p.shape


def test_what_a_focus_added_is_not_pruned_before_its_time() -> None:
    """All are transparent; those that were born of a focus at step 10 live until step 60."""
    strategy, params, optimizers, state = population([0.001] * 12, [SMALL] * 12, focus_protection=50, consistent_pruning=False)
    tell_apart(params)
    state["grad2d"] += 0.001
    wish(state, [0.9] * 3 + [0.0] * 9)
    densify(strategy, params, optimizers, state, [9.0] * 3 + [0.0] * 9)

    def theirs() -> int:
        return int((params["quats"][:, 1].round() < 3).sum())

    assert theirs() == 6
    for step, left in ((20, 6), (59, 6), (60, 3)):  # half of what there is stays at each round
        densify(strategy, params, optimizers, state, [0.0] * len(params["means"]), step=step)
        assert theirs() == left, step


def test_what_guidance_judged_false_is_removed_unless_protected() -> None:
    strategy, params, optimizers, state = population([0.5] * 10, [SMALL] * 10)
    state["protected_until"][1] = 100
    wish(state, [0.0] * 10, [1, 1, 0, 0, 0, 0, 0, 0, 0, 1])
    report = densify(strategy, params, optimizers, state, [0.0] * 10)
    assert params["means"][:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8] and (report.doomed, report.pruned) == (2, 2)
    assert state["doomed"] is None


def test_the_picture_does_not_brighten() -> None:
    torch.manual_seed(0)
    strategy, params, optimizers, state = population([0.6] * 4, [0.3] * 4, focus_growth=10.0, opacity_ceiling=1.0)
    state["absgrad2d"][0] += 0.01
    wish(state, [0.9] * 4)
    before = coverage(params)
    report = densify(strategy, params, optimizers, state, [9.0] * 4)
    after = coverage(params)
    assert report.focused == 4
    assert after.max() <= before.max() and after.sum() <= before.sum() * 1.005


# after births have ended


def late(strategy: Any, params: Any, optimizers: Any, state: Any, step: int, importance: float = 5.0) -> Densification | None:
    rounds = len(strategy.history)
    n = len(params["means"])
    strategy.step_post_backward(params, optimizers, state, step, {}, scorer=scorer([importance] * n))
    return strategy.history[-1] if len(strategy.history) > rounds else None


def test_late_births_only_fill_the_places_of_the_dead() -> None:
    strategy, params, optimizers, state = population(
        [0.05] * 4 + [0.5] * 16, [SMALL] * 20, final_prune_every=100, focus_protection=0
    )
    tell_apart(params)
    late(strategy, params, optimizers, state, 1000)  # the first step after births have ended: there are 20
    wish(state, [0.9] * 20)
    report = late(strategy, params, optimizers, state, 1010)
    assert report is not None and (report.focused, report.refused, report.count) == (0, 20, 20)
    report = late(strategy, params, optimizers, state, 1100)
    assert report is not None and (report.pruned, report.count) == (4, 16)
    wish(state, [0.0] * 13 + [0.9] * 3)
    report = late(strategy, params, optimizers, state, 1110)
    assert report is not None and (report.focused, report.count) == (3, 19)
    wish(state, [0.9] * 19)
    report = late(strategy, params, optimizers, state, 1120)
    assert report is not None and (report.focused, report.refused, report.count) == (1, 18, 20)
    assert late(strategy, params, optimizers, state, 1130) is None  # nothing is due and nothing is wished for


def test_a_late_round_that_is_due_also_takes_what_was_doomed_first() -> None:
    strategy, params, optimizers, state = population([0.5] * 20, [SMALL] * 20)
    late(strategy, params, optimizers, state, 1000)
    wish(state, [0.9] * 20, [1.0] * 2 + [0.0] * 18)
    report = late(strategy, params, optimizers, state, 1003)
    assert report is not None and (report.doomed, report.pruned, report.focused, report.count) == (2, 2, 2, 20)


def test_a_run_that_continues_knows_how_many_there_were() -> None:
    """The strategy is made anew, only its state is in the checkpoint."""
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
        grow_grad2d=0.0, grow_absgrad2d=0.0, importance_threshold=3.0, focus_growth=3.0, focus_protection=6, final_prune_every=4,
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
            state["focus"] = torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) < 0.5)
            state["doomed"] = (torch.rand(n, generator=generator) < 0.05).float()
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
