"""Settings out of their range are one clear error."""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import pytest

from vlmgs_ns.guidance.config import GuidanceConfig, PhaseSchedule
from vlmgs_ns.method.model_config import ModelSettings
from vlmgs_ns.method.pipeline import VlmFastGSPipeline, VlmFastGSPipelineConfig
from vlmgs_ns.semantics.config import SemanticsConfig
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.ranges import Amount, Count, Fraction, Positive, Share, Some, check_ranges, range_of
from vlmgs_ns.system.schedules import Steps


@dataclass
class Inner:
    share: Share = 1.0
    free: float = -5.0


@dataclass
class Outer:
    fraction: Fraction = 0.0
    amount: Amount = 1e9
    positive_size: Positive | None = None
    count: Count = 0
    some: Some = 1
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 1.5}, "--a.fraction 1.5 is out of range; give 0 or more, and at most 1"),
        ({"fraction": -0.1}, "--a.fraction -0.1"),
        ({"fraction": math.nan}, "--a.fraction nan"),
        ({"amount": math.inf}, "--a.amount inf is out of range; give 0 or more"),
        ({"positive_size": 0.0}, "--a.positive-size 0.0 is out of range; give more than 0"),
        ({"count": -1}, "--a.count -1"),
        ({"some": 0}, "--a.some 0 is out of range; give 1 or more"),
        ({"inner": Inner(share=0.0)}, "--a.inner.share 0.0 is out of range; give more than 0, and at most 1"),
    ],
)
def test_the_flag_the_value_and_what_is_allowed_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_ranges(Outer(**settings), "--a.")
    assert str(caught.value).startswith(f"Error: {message}")


def test_what_is_in_its_range_passes() -> None:
    check_ranges(Outer(), "--a.")
    check_ranges(Outer(1.0, 0.0, 1e-9, 5, 2, Inner(1e-9)), "--a.")
    check_ranges(ModelSettings(), "--a.")


@pytest.mark.parametrize("config", [ModelSettings, GuidanceConfig, PhaseSchedule, SemanticsConfig])
def test_every_number_has_a_range(config: type) -> None:
    hints = get_type_hints(config, include_extras=True)
    own = {name for part in config.__mro__ if part.__module__.startswith("vlmgs_ns") for name in inspect.get_annotations(part)}
    without = {
        item.name
        for item in dataclasses.fields(config)
        if item.name in own
        and hints[item.name] != Steps
        and range_of(hints[item.name]) is None
        and {int, float} & {hints[item.name], *get_args(hints[item.name])}
    }
    assert without == ({"seed"} if config is SemanticsConfig else set())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relocation": 1.5}, "--pipeline.model.relocation 1.5"),
        ({"guidance": GuidanceConfig(keep_background=-1.0)}, "--pipeline.model.guidance.keep-background -1.0"),
        ({"guidance": GuidanceConfig(detail=PhaseSchedule(views=-1))}, "--pipeline.model.guidance.detail.views -1"),
    ],
)
def test_a_run_does_not_begin_with_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    config = VlmFastGSPipelineConfig()
    config.model = dataclasses.replace(config.model, **settings)
    with pytest.raises(InputError, match=message):
        VlmFastGSPipeline(config, "cpu")
