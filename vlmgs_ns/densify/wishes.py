"""What guidance asks of the next densification, kept per Gaussian in the strategy's state.

They are flat tensors there, under the keys below: gsplat's `duplicate`, `split` and `remove` keep those aligned with the
parameters, and checkpoints hold them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FOCUS, DOOMED, PLANTED, GUIDED = KEYS = ("focus", "doomed", "planted", "guided")


@dataclass(frozen=True)
class Wishes:
    """What one round of guidance asks for."""

    focus: Tensor  # [N] in [0, 1]: how much to densify
    doomed: Tensor  # [N] bool: what to prune
    planted: int
    """Gaussians that the round added itself."""

    def add_to(self, state: dict[str, Any]) -> None:
        """Leave these wishes in a strategy's state, beside those of rounds before that are not fulfilled yet."""
        focus, doomed = self.focus, self.doomed
        state[PLANTED] = (state.get(PLANTED) or 0) + self.planted
        if state.get(FOCUS) is not None:
            focus = torch.maximum(focus, state[FOCUS])
        if state.get(DOOMED) is not None:
            doomed = doomed | (state[DOOMED] > 0)
        state[FOCUS], state[DOOMED] = focus, doomed.float()


def has_focus(state: dict[str, Any]) -> bool:
    """Return whether a focus waits to be densified."""
    return state.get(FOCUS) is not None


def take_focus(state: dict[str, Any]) -> Tensor:  # [N] in [0, 1]
    """Return the focus, which is fulfilled now; the state keeps it as `GUIDED`, to be shown."""
    focus: Tensor = state[FOCUS]
    state[FOCUS], state[GUIDED] = None, focus
    return focus


def take_doomed(state: dict[str, Any]) -> Tensor | None:  # [N] bool
    """Return what is to be pruned, which is fulfilled now; None: nothing was asked for."""
    doomed = state.get(DOOMED)
    state[DOOMED] = None
    return None if doomed is None else doomed > 0


def take_planted(state: dict[str, Any]) -> int:
    """Return how many Gaussians were planted since this was asked last."""
    planted = state[PLANTED] or 0
    state[PLANTED] = None
    return int(planted)
