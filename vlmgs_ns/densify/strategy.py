"""FastGS' densification and pruning as a gsplat strategy: multi-view consistent, within a budget.

VCD: where gsplat's DefaultStrategy looks only at gradients, a Gaussian must also lie under high-error pixels in many views.
VCP: of the Gaussians that look superfluous, half are removed, those that several views blame first.
Every per-Gaussian score lives in the strategy state, which gsplat's `duplicate`, `split` and `remove` keep aligned with the
parameters; so do checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import remove, reset_opa
from torch import Tensor

from vlmgs_ns.densify import scores, wishes
from vlmgs_ns.densify.births import clone, split
from vlmgs_ns.densify.budget import draw_half, keep_highest
from vlmgs_ns.densify.scores import Scores

Params = Any  # dict or ParameterDict of name → Parameter, as gsplat's strategies take it
Scorer = Callable[[], Scores]

RECOVERY = 300
"""Steps after a reset in which opacities say little and renders are dim: Adam raises a logit by at most its learning rate a step,
which at 0.025 takes 240 steps from 0.01 to 0.8."""
EXPLORATION = 0.2
"""Share of the time of births, its first part, in which vast Gaussians are scattered: from random points most surfaces are
elsewhere. Later there are too few rounds left to remove what then floats where no training view sees it."""


@dataclass
class Densification:
    """What one round of densification or pruning did."""

    step: int
    cloned: int = 0
    split: int = 0
    pruned: int = 0
    focused: int = 0
    """Clones and splits among those in focus."""
    doomed: int = 0
    """Pruned because guidance judged them false."""
    refused: int = 0
    """Candidates that the budget turned away."""
    relocated: int = 0
    """Removed at the budget, so that candidates could be cloned and split in their places."""
    count: int = 0
    """Gaussians afterwards."""


@dataclass
class FastGSStrategy(DefaultStrategy):
    """Thresholds of FastGS; steps count iterations of this run. The running state is a dict that the caller owns.

    Beside gsplat's, the state holds per Gaussian: `absgrad2d` (running sum), `importance` and `pruning` (scores of the last
    round) and `protected_until` (the step before which it is not pruned). Guidance adds its `Wishes`, which
    stay in force, fading. `final_count` is the count after the last birth.
    """

    score_views: int = 10
    """K: steps before a round, those since the last one at most, whose renders score Gaussians."""
    prune_opa: float = 0.005
    """Opacity below which a Gaussian is a candidate for removal."""
    grow_grad2d: float = 0.0002
    """Gradient of the 2-D mean from which small Gaussians may be cloned."""
    grow_absgrad2d: float = 0.0012
    """Absolute gradient (AbsGS) of the 2-D mean from which large Gaussians may be split."""
    grow_scale3d: float = 0.001
    """Size, as a fraction of the scene's extent, up to which a Gaussian is small."""
    prune_scale3d: float = 0.1
    """Size, as a fraction of the extent, above which one is a candidate for removal."""
    prune_scale_start_iter: int = 3000
    """Step after which size, in the world and on the screen, makes candidates for removal; resets of opacities do not matter."""
    absgrad: bool = True
    consistent_growth: bool = True
    """VCD: densify only where the importance is above `importance_threshold`."""
    importance_threshold: float = 5.0
    """Marked pixels per view that a Gaussian must contribute to, averaged over the views."""
    reset_opacity: float = 0.01
    """Opacities above this are brought down to it at each reset."""
    consistent_pruning: bool = True
    """VCP: remove half of the candidates, drawn by their pruning score; else all of them."""
    opacity_ceiling: float = 0.8
    """Opacities are clamped to this after each densification; 1: never."""
    final_prune_every: int = 3000
    """Steps between final prunings after densification has ended; 0: none."""
    final_prune_opa: float = 0.1
    """Opacity below which final pruning removes."""
    final_prune_score: float = 0.9
    """Pruning score above which final pruning removes."""
    max_gaussians: int = 3_000_000
    """The count never grows beyond this; a start with more is cut to it, by opacity, at the first round."""
    max_new_per_round: int = 1 << 30
    """The most Gaussians that one round adds."""
    relocation: float = 0.15
    """At the budget, the share of the Gaussians, the most transparent, that one round removes to make room for births; those in
    focus count as more opaque."""
    min_gaussians: int = 64
    """Pruning leaves at least this many, and at least half of what there is."""
    focus_strength: float = 3.0
    """Factor on the priority of a candidate that is wholly in focus, and on the opacity by which it keeps its place."""
    focus_background: float = 0.5
    """Share of the births which FastGS would have out of focus that stay there whatever is in focus."""
    history: list[Densification] = field(default_factory=list, repr=False, compare=False)

    def initialize_state(self, scene_scale: float = 1.0) -> dict[str, Any]:
        """State with `scene_scale`, the scene's extent in world units; per-Gaussian tensors appear at the first step."""
        state = super().initialize_state(scene_scale=scene_scale)
        ours = ("absgrad2d", "importance", "pruning", "protected_until", *wishes.KEYS, *scores.KEYS)
        return {**state, **dict.fromkeys(ours)}

    def _update_state(self, params: Params, state: dict[str, Any], info: dict[str, Any], packed: bool = False) -> None:
        """Add this step's gradients, in gsplat's units: as if the picture were 2 x 2."""
        self._complete_state(params, state)
        means2d = info[self.key_for_gradient]
        radii = info["radii"].amax(dim=-1) if info["radii"].dim() == 3 else info["radii"]  # gsplat 1.5 has one per axis
        half = torch.tensor([info["width"], info["height"]], device=means2d.device) / 2.0 * info["n_cameras"]
        for camera in range(len(radii)):
            seen = torch.nonzero(radii[camera] > 0).squeeze(1)
            state["grad2d"][seen] += (means2d.grad[camera, seen] * half).norm(dim=-1)
            state["absgrad2d"][seen] += (means2d.absgrad[camera, seen] * half).norm(dim=-1)
            state["count"][seen] += 1
            if state.get("radii") is not None:
                on_screen = radii[camera, seen] / float(max(info["width"], info["height"]))
                state["radii"][seen] = torch.maximum(state["radii"][seen], on_screen)

    def _complete_state(self, params: Params, state: dict[str, Any]) -> None:
        means = params["means"]
        for key in ("grad2d", "absgrad2d", "count", "importance", "pruning", "protected_until", "radii"):
            if state.get(key) is None and (key != "radii" or self.refine_scale2d_stop_iter > 0):
                state[key] = torch.zeros(len(means), device=means.device)

    def step_post_backward(
        self,
        params: Params,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
        scorer: Scorer | None = None,
    ) -> None:
        """To be called after each backward pass; at the steps of a round it densifies and prunes.

        Args:
            scorer: scores the Gaussians by the views of the last steps (`scores.take_scores`); called only in rounds. Without
                one, rounds fall back to gradients alone and candidates are pruned at random.
        """
        if step < self.refine_stop_iter:
            self._update_state(params, state, info)
            if self.is_round(step):
                self._densify(params, optimizers, state, step, scorer)
            if self._is_reset(step):
                reset_opa(params, optimizers, state, value=self.reset_opacity)
            return
        state.setdefault("final_count", len(params["means"]))
        is_scored = state.get(scores.VIEWS) is None or scores.number_of_views(state) >= self.score_views
        if self._is_final_round(step) or (wishes.are_waiting(state) and is_scored):
            self._final_round(params, optimizers, state, step, scorer)

    def is_round(self, step: int) -> bool:
        """Return whether Gaussians are born and die at this step."""
        return (
            self.refine_start_iter < step < self.refine_stop_iter
            and step % self.refine_every == 0
            and step % self.reset_every >= self.pause_refine_after_reset
        )

    def needs_view(self, step: int, state: dict[str, Any]) -> bool:
        """Return whether a round will score Gaussians by the render of this step."""
        if not (self.consistent_growth or self.consistent_pruning):
            return False
        soon = any(self.is_round(k) or self._is_final_round(k) for k in range(step, step + self.score_views))
        return soon or (step >= self.refine_stop_iter and wishes.are_waiting(state))

    def _is_reset(self, step: int) -> bool:
        """Not at the start, and not so late that opacities could not recover while Gaussians are still born."""
        return step > 0 and step % self.reset_every == 0 and step + self.reset_every <= self.refine_stop_iter

    def recovering(self, step: int) -> bool:
        """Return whether opacities were reset within the last `RECOVERY` steps, or within half of the time between two resets."""
        since = (step - 1) % self.reset_every + 1  # a reset of this very step is yet to come
        return self._is_reset(step - since) and since <= min(RECOVERY, self.reset_every // 2)

    def _is_final_round(self, step: int) -> bool:
        since = step - self.refine_stop_iter
        return self.final_prune_every > 0 and since > 0 and since % self.final_prune_every == 0

    @torch.no_grad()
    def _densify(
        self,
        params: Params,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        step: int,
        scorer: Scorer | None,
    ) -> None:
        """One round: score, clone, split, prune, clamp."""
        self._score(state, scorer)
        report = Densification(step)
        self._grow(params, optimizers, state, report, has_scores=scorer is not None)
        wishes.fade(state)
        doomed = self._take_doomed(params, state, step)
        candidates = params["opacities"].flatten().sigmoid() < self.prune_opa
        if step > self.prune_scale_start_iter:
            candidates |= params["scales"].exp().amax(dim=-1) > self.prune_scale3d * state["scene_scale"]
            if step < self.refine_scale2d_stop_iter:
                candidates |= state["radii"] > self.prune_scale2d
        candidates &= state["protected_until"] <= step
        drawn = draw_half(candidates, state["pruning"]) if self.consistent_pruning else candidates
        report.doomed = int((doomed & ~drawn).sum())
        report.pruned = self._remove(params, optimizers, state, drawn | doomed)
        if self.opacity_ceiling < 1:
            reset_opa(params, optimizers, state, value=self.opacity_ceiling)
        for key in ("grad2d", "absgrad2d", "count", "radii"):
            if state.get(key) is not None:
                state[key].zero_()
        report.count = len(params["means"])
        self.history.append(report)

    def _score(self, state: dict[str, Any], scorer: Scorer | None) -> None:
        if scorer is not None and (self.consistent_growth or self.consistent_pruning):
            found = scorer()
            state["importance"], state["pruning"] = found.importance, found.pruning

    def _grow(
        self,
        params: Params,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        report: Densification,
        has_scores: bool,
    ) -> None:
        small, large, priority = self._candidates(params, state, has_scores)
        places = min(self.max_new_per_round, self.max_gaussians - len(small))
        if not self.recovering(report.step):
            superfluous = self._superfluous(params, state, small | large, places, report.step)
            report.relocated = int(superfluous.sum())
            if report.relocated:
                remove(params, optimizers, state, superfluous)
                small, large, priority = small[~superfluous], large[~superfluous], priority[~superfluous]
                places += report.relocated
        self.grow(params, optimizers, state, small, large, priority, places, report)

    def _superfluous(
        self,
        params: Params,
        state: dict[str, Any],
        wanted: Tensor,  # [N] bool
        places: int,
        step: int,
    ) -> Tensor:  # [N] bool
        """Return the most transparent Gaussians, as many as there are candidates for births without a place, within a share.

        3DGS-MCMC (arXiv 2404.09591, section 3.3) relocates dead Gaussians to live ones; here those of least opacity go to where
        several views agree that detail is missing. The count stays.
        """
        short = min(int(wanted.sum()), self.max_new_per_round) - max(places, 0)
        free = ~wanted & (state["protected_until"] <= step)
        worth = self._urged(params["opacities"].flatten().sigmoid(), state)
        return keep_highest(free, -worth, min(short, int(self.relocation * len(free)))) & (short > 0)

    def _urged(
        self,
        values: Tensor,  # [N]
        state: dict[str, Any],
    ) -> Tensor:  # [N]
        """Return values times `focus_strength` where a Gaussian is wholly in focus, by less where less."""
        focus = wishes.in_force(state)
        return values if focus is None else values * (1 + (self.focus_strength - 1) * focus.double())

    def _candidates(self, params: Params, state: dict[str, Any], has_scores: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What FastGS would clone and split, and how urgently. [N] bool, [N] bool, [N]."""
        seen = state["count"].clamp_min(1)
        gradient, absolute = state["grad2d"] / seen, state["absgrad2d"] / seen
        small = self._is_small(params, state)
        clone = (gradient >= self.grow_grad2d) & small
        divide = (absolute >= self.grow_absgrad2d) & ~small
        # importance first, then how far a gradient is above its threshold
        urgency = torch.where(small, gradient / self.grow_grad2d, absolute / self.grow_absgrad2d)
        priority = urgency
        if self.consistent_growth and has_scores:
            wanted = state["importance"] > self.importance_threshold
            clone, divide = clone & wanted, divide & wanted
            priority = state["importance"].double() + urgency / (1 + urgency)
        return clone, divide, priority

    def _is_small(self, params: Params, state: dict[str, Any]) -> Tensor:  # [N] bool
        return params["scales"].exp().amax(dim=-1) <= self.grow_scale3d * state["scene_scale"]

    def _take_doomed(self, params: Params, state: dict[str, Any], step: int) -> Tensor:
        """What guidance judged false and nothing protects; the wish is then fulfilled. [N] bool."""
        doomed = wishes.take_doomed(state)
        if doomed is None:
            return torch.zeros(len(params["means"]), dtype=torch.bool, device=params["means"].device)
        return doomed & (state["protected_until"] <= step)

    @torch.no_grad()
    def grow(
        self,
        params: Params,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        small: Tensor,  # [N] bool: to be cloned
        large: Tensor,  # [N] bool: to be split
        priority: Tensor,  # [N]
        places: int,
        report: Densification,
    ) -> None:
        """Clone and split (each adds one Gaussian) the candidates of highest priority, as many as there are places.

        What is in focus comes sooner, by `focus_strength`; how many are born does not depend on it.
        """
        wanted = small | large
        chosen = keep_highest(wanted, priority, places)
        focus = wishes.in_force(state)
        if focus is not None:
            outside = wanted & (focus == 0)
            kept = keep_highest(outside, priority, int(self.focus_background * int((chosen & outside).sum())))
            chosen = kept | keep_highest(wanted & ~kept, self._urged(priority, state), places - int(kept.sum()))
            report.focused = int((chosen & (focus > 0)).sum())
        small, large = small & chosen, large & chosen & ~small
        report.refused = int(wanted.sum() - chosen.sum())
        report.cloned, report.split = int(small.sum()), int(large.sum())
        clone(params, optimizers, state, small)
        exploring = report.step < self.refine_start_iter + EXPLORATION * (self.refine_stop_iter - self.refine_start_iter)
        split(params, optimizers, state, torch.cat([large, large.new_zeros(report.cloned)]), scatter=exploring)

    @torch.no_grad()
    def _final_round(
        self,
        params: Params,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        step: int,
        scorer: Scorer | None,
    ) -> None:
        """After births have ended: prune when it is time to, and fulfil what guidance asks for."""
        self._complete_state(params, state)
        self._score(state, scorer)
        report = Densification(step)
        doomed = self._take_doomed(params, state, step)
        candidates = torch.zeros_like(doomed)
        if self._is_final_round(step):
            candidates |= params["opacities"].flatten().sigmoid() < self.final_prune_opa
            if self.consistent_pruning and scorer is not None:
                candidates |= state["pruning"] > self.final_prune_score
            candidates &= state["protected_until"] <= step
        report.doomed = int((doomed & ~candidates).sum())
        report.pruned = self._remove(params, optimizers, state, candidates | doomed)
        focus = wishes.in_force(state)
        if focus is not None and wishes.are_waiting(state):
            # births take the places of what was pruned since they ended, so that the count is never above what it was then;
            # gradients are not kept any more: errors that several views confirm must do
            candidates, small = focus > 0, self._is_small(params, state)
            if scorer is not None and self.consistent_growth:
                candidates &= state["importance"] > self.importance_threshold
            places = min(self.max_new_per_round, state["final_count"] - len(focus))
            self.grow(params, optimizers, state, candidates & small, candidates & ~small, state["importance"], places, report)
        wishes.fade(state)
        report.count = len(params["means"])
        self.history.append(report)

    @torch.no_grad()
    def _remove(
        self,
        params: Params,
        optimizers: dict[str, torch.optim.Optimizer],
        state: dict[str, Any],
        doomed: Tensor,  # [N] bool
    ) -> int:
        """Remove the doomed, the most transparent first, as far as the floor allows. A start above the budget is cut here too."""
        opacity = params["opacities"].flatten()
        count = len(opacity)
        floor = min(count, max(self.min_gaussians, (count + 1) // 2))
        doomed = keep_highest(doomed, -opacity, count - floor)
        excess = count - int(doomed.sum()) - self.max_gaussians
        if excess > 0:
            doomed = doomed | keep_highest(~doomed, -opacity, excess)
        if doomed.any():
            remove(params, optimizers, state, doomed)
        return int(doomed.sum())
