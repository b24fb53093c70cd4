"""Optimisers and learning-rate schedules, as nerfstudio configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig

from vlmgs_ns.system.schedules import Steps, resolve

GAUSSIANS = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
"""Parameter groups of the Gaussians themselves."""


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
    """Copy nerfstudio's ``{group: {"optimizer": …, "scheduler": … | None}}`` with our schedules in iterations."""
    return {
        group: {
            **parts,
            "scheduler": resolve(parts["scheduler"], run_length)
            if isinstance(parts["scheduler"], DecayConfig)
            else parts["scheduler"],
        }
        for group, parts in optimizers.items()
    }


@dataclass
class LazyUpdates:
    """Intervals between updates of parameters; in between, gradients accumulate (FastGS' optimiser schedule).

    Intervals are fractions of the run's length: 16, 32 and 64 iterations at 20,000, and 1, 2 and 5 at 1,500.
    """

    enabled: bool = True
    """Update by this schedule; else every parameter at every iteration."""
    harmonics: Steps = 16 / 20_000
    """Iterations, or fraction of the run, between updates of the higher harmonics while Gaussians are added."""
    late: Steps = 32 / 20_000
    """The same, for every parameter of the Gaussians once no more are added."""
    last: Steps = 64 / 20_000
    """The same, after another third of the time in which Gaussians are added."""

    def interval(self, group: str, step: int, births_end: int) -> int:
        """Return the iterations between updates of a parameter group at a step; intervals and `births_end` in iterations."""
        if not self.enabled or group not in GAUSSIANS:
            return 1
        if step < births_end:
            return max(1, int(self.harmonics)) if group == "features_rest" else 1
        return max(1, int(self.late if step < births_end + births_end // 3 else self.last))
