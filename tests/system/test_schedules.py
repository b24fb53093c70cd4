from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from vlmgs_ns.system.schedules import Steps, resolve, steps


@dataclass
class Inner:
    every: Steps = 0.5


@dataclass
class Outer:
    start: Steps = 0.025
    stop: Steps = 700
    weight: float = 0.2
    inner: Inner = field(default_factory=Inner)


def test_an_int_counts_iterations_and_a_float_is_a_fraction() -> None:
    assert steps(1, 1500) == 1
    assert steps(1.0, 1500) == 1500
    assert steps(500, 1500) == 500
    assert steps(0.025, 20_000) == 500


def test_a_small_fraction_is_never_every_zero_iterations() -> None:
    assert steps(0.0001, 100) == 1
    assert steps(0.0, 100) == 0 and steps(0, 100) == 0


@pytest.mark.parametrize("value", [-1, -0.1, 1.5, 500.0])
def test_impossible_values_are_named(value: float) -> None:
    with pytest.raises(ValueError, match=str(value)):
        steps(value, 1000)


def test_resolve_touches_schedules_at_any_depth_and_nothing_else() -> None:
    config = Outer()
    resolved = resolve(config, 1000)
    assert resolved == Outer(start=25, stop=700, weight=0.2, inner=Inner(every=500))
    assert isinstance(resolved.start, int) and isinstance(resolved.inner.every, int)
    assert config == Outer()  # the config that is saved keeps its fractions


def test_resolving_twice_changes_nothing() -> None:
    once = resolve(Outer(), 1000)
    assert resolve(once, 10) == once


def test_resolve_names_the_field() -> None:
    with pytest.raises(ValueError, match=r"stop: 2\.0"):
        resolve(Outer(stop=2.0), 1000)
    with pytest.raises(ValueError, match="--max-num-iterations"):
        resolve(Outer(), 0)
