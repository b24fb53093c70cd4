"""Optimisers and learning-rate schedules, as nerfstudio configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig

from vlmgs_ns.schedule import Steps, resolve


@dataclass
class AdamConfig(AdamOptimizerConfig):
    """Adam in one pass over memory.

    torch's default on a CPU walks every tensor a dozen times: 13.6 ms a step for 30 k Gaussians, against 0.6 ms fused.
    """

    fused: bool = True
    """Update all moments and parameters in a single kernel, on CPU and CUDA."""


@dataclass
class DecayConfig(ExponentialDecaySchedulerConfig):
    """Exponential decay over the run, whatever its length."""

    warmup_steps: Steps = 0  # type: ignore[assignment]
    """Iterations, or fraction of the run, of warm-up."""
    max_steps: Steps = 1.0  # type: ignore[assignment]
    """Iteration, or fraction of the run, at which the final learning rate is reached."""


def resolve_schedulers(optimizers: dict[str, dict[str, Any]], run_length: int) -> dict[str, dict[str, Any]]:
    """A copy of nerfstudio's ``{group: {"optimizer": …, "scheduler": … | None}}`` in which our schedules count iterations."""
    return {
        group: {
            **parts,
            "scheduler": resolve(parts["scheduler"], run_length)
            if isinstance(parts["scheduler"], DecayConfig)
            else parts["scheduler"],
        }
        for group, parts in optimizers.items()
    }
