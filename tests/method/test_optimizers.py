"""Lazy updates: which parameters are updated when."""

from __future__ import annotations

import pytest

from vlmgs_ns.config import fastgs, vlm_fastgs_lite
from vlmgs_ns.method.optimizers import GAUSSIANS, LazyUpdates
from vlmgs_ns.system.schedules import resolve


def test_intervals_of_the_full_run_by_hand() -> None:
    """16 for the harmonics while Gaussians are born (to 15,000); then 32 for all, and 64 from 20,000 on."""
    lazy = resolve(LazyUpdates(), 20_000)
    assert [lazy.interval("features_rest", step, 15_000) for step in (0, 14_999, 15_000, 20_000)] == [16, 16, 32, 64]
    for group in set(GAUSSIANS) - {"features_rest"}:
        assert [lazy.interval(group, step, 15_000) for step in (0, 14_999, 15_000, 19_999, 20_000)] == [1, 1, 32, 32, 64]


def test_intervals_shrink_with_the_run_but_not_below_every_step() -> None:
    lazy = resolve(LazyUpdates(), 1500)
    assert [lazy.interval("features_rest", step, 1125) for step in (0, 1125, 1500)] == [1, 2, 5]
    assert resolve(LazyUpdates(), 10).interval("means", 9, 7) == 1


@pytest.mark.parametrize("group", ["camera_opt", "bilateral_grid"])
def test_only_the_gaussians_are_lazy(group: str) -> None:
    assert resolve(LazyUpdates(), 20_000).interval(group, 19_000, 15_000) == 1


def test_switched_off_everything_is_updated_every_step() -> None:
    lazy = resolve(LazyUpdates(enabled=False), 20_000)
    assert {lazy.interval(group, step, 15_000) for group in GAUSSIANS for step in (0, 15_000, 20_000)} == {1}
    assert fastgs.config.lazy_updates.enabled and not vlm_fastgs_lite.config.lazy_updates.enabled  # type: ignore[attr-defined]
