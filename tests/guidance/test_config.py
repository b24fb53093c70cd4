"""When rounds are due, and on which views: the step alone decides."""

from __future__ import annotations

import pytest

from vlmgs_ns.guidance.config import GuidanceConfig, PhaseSchedule, choose_views
from vlmgs_ns.system.schedules import resolve


def due_steps(config: GuidanceConfig, length: int) -> dict[str, list[int]]:
    steps: dict[str, list[int]] = {}
    for step in range(length):
        for phase in config.due(step):
            steps.setdefault(phase, []).append(step)
    return steps


def all_phases() -> GuidanceConfig:
    """Return the default with phase 3, which is off by default."""
    config = GuidanceConfig()
    config.novel.enabled = True
    return config


def test_the_schedule_is_the_table_of_the_method() -> None:
    assert "novel" not in due_steps(resolve(GuidanceConfig(), 20_000), 20_000)
    config = resolve(all_phases(), 20_000)
    assert due_steps(config, 20_000) == {
        "detail": [500, 2000, 3500, 5000, 6500],
        "background": [8000, 10_000, 12_000],
        "novel": [14_000, 16_000],
    }
    assert (config.prune_protection, config.strength) == (2000, 3.0)
    assert (config.detail.max_points, config.background.max_points) == (2000, 8000)
    assert {config.phase(name).views for name in ("detail", "background", "novel")} == {5}
    assert config.last_step() == 18_000


def test_a_model_is_asked_for_words_only_where_there_are_some() -> None:
    off = {name: PhaseSchedule(enabled=False) for name in ("detail", "background", "novel")}
    assert due_steps(resolve(GuidanceConfig(instruct="the cup", **off), 100), 100) == {"ground": [0, 10, 20, 30, 40, 50, 60]}
    assert resolve(GuidanceConfig(instruct="the cup", **off), 100).last_step() == 70
    for config in (GuidanceConfig(instruct=" "), GuidanceConfig(instruct="the cup", enabled=False)):
        assert "ground" not in due_steps(resolve(config, 100), 100)


def test_a_short_run_has_every_phase_too() -> None:
    assert due_steps(resolve(all_phases(), 200), 200) == {
        "detail": [5, 20, 35, 50, 65], "background": [80, 100, 120], "novel": [140, 160],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (PhaseSchedule(start=5, end=20, every=5), [5, 10, 15]),
        (PhaseSchedule(start=0, end=3, every=0), [0, 1, 2]),
        (PhaseSchedule(start=5, end=5, every=1), []),
        (PhaseSchedule(enabled=False, start=0, end=30, every=1), []),
        (PhaseSchedule(start=0, end=30, every=1, views=0), []),
    ],
)
def test_rounds_of_a_phase_by_hand(schedule: PhaseSchedule, steps: list[int]) -> None:
    assert [step for step in range(30) if schedule.is_due(step)] == steps


def test_rounds_that_fall_together_come_in_order_and_none_where_guidance_is_off() -> None:
    always = PhaseSchedule(start=0, end=9, every=3)
    config = GuidanceConfig(detail=always, background=always, novel=always, compare=always)
    assert config.due(3) == ["detail", "background", "novel", "compare"] and config.last_step() == 9
    off = GuidanceConfig(enabled=False, detail=always)
    assert off.due(3) == [] and off.last_step() == 0


def test_the_last_step_is_that_of_a_phase_that_takes_place() -> None:
    short, long = PhaseSchedule(start=0, end=9, every=3), PhaseSchedule(enabled=False, start=0, end=90, every=3)
    assert GuidanceConfig(detail=short, background=short, novel=long, compare=long).last_step() == 9


def test_background_views_are_evenly_strided() -> None:
    assert choose_views("background", 5, 20, 7) == [2, 6, 10, 14, 18] == choose_views("background", 5, 20, 8)
    assert choose_views("background", 9, 3, 0) == [0, 1, 2]


def test_other_views_are_drawn_by_the_step_without_repetition() -> None:
    first = choose_views("detail", 5, 20, 100)
    assert first == choose_views("detail", 5, 20, 100) == sorted(set(first)) and len(first) == 5
    draws = [choose_views("detail", 5, 20, step) for step in range(100)]
    assert len({tuple(draw) for draw in draws}) > 90
    assert {view for draw in draws for view in draw} == set(range(20))
    assert choose_views("detail", 5, 3, 0) == [0, 1, 2]


def test_what_the_user_named_is_looked_for_in_each_photo_once_before_any_is_asked_again() -> None:
    schedule = PhaseSchedule(start=10, every=5)
    turns = [choose_views("ground", 5, 20, step, schedule.turn(step)) for step in (10, 15, 20, 25)]
    assert sorted(view for turn in turns for view in turn) == list(range(20))
    assert choose_views("ground", 5, 20, 30, schedule.turn(30)) == turns[0]
    assert sorted({*choose_views("ground", 5, 8, 10), *choose_views("ground", 5, 8, 15, 1)}) == list(range(8))
