"""What guidance asks of densification, kept per Gaussian in the strategy's state.

They are flat tensors there, under the keys below: gsplat's `duplicate` and `remove` keep those aligned with the parameters, so
that what is born of a Gaussian in focus is in focus too, and checkpoints hold them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FOCUS, INSTRUCTED, DOOMED, WAITING = KEYS = ("focus", "instructed", "doomed", "wish_waits")

FADE = 0.8
"""What is left of a focus after each densification, until a round of guidance names it again."""
FAINTEST = 0.05
"""A focus below this is over."""


@dataclass(frozen=True)
class Wishes:
    """What one round of guidance asks for."""

    focus: Tensor  # [N] in [0, 1]: how much to densify
    doomed: Tensor  # [N] bool: what to prune

    def add_to(self, state: dict[str, Any]) -> None:
        """Leave these wishes in a strategy's state; where rounds before asked for the same, the stronger wish counts."""
        focus, doomed = self.focus, self.doomed
        if state.get(FOCUS) is not None:
            focus = torch.maximum(focus, state[FOCUS])
        if state.get(DOOMED) is not None:
            doomed = doomed | (state[DOOMED] > 0)
        state[FOCUS], state[DOOMED], state[WAITING] = focus, doomed.float(), True


def in_force(state: dict[str, Any]) -> Tensor | None:  # [N] in [0, 1]
    """Return how much each Gaussian is in focus, for rounds of guidance or for what the user instructed; None: nothing is."""
    focus, instructed = state.get(FOCUS), state.get(INSTRUCTED)
    if focus is None or instructed is None:
        return instructed if focus is None else focus
    return torch.maximum(focus, instructed)


def fade(state: dict[str, Any]) -> None:
    """Weaken the focus of rounds of guidance, after a densification has used it."""
    state[WAITING] = None
    if state.get(FOCUS) is not None:
        state[FOCUS] = torch.where(state[FOCUS] * FADE < FAINTEST, torch.zeros_like(state[FOCUS]), state[FOCUS] * FADE)


def are_waiting(state: dict[str, Any]) -> bool:
    """Return whether a round of guidance asked for something that no densification has looked at yet."""
    return bool(state.get(WAITING))


def take_doomed(state: dict[str, Any]) -> Tensor | None:  # [N] bool
    """Return what is to be pruned, which is fulfilled now; None: nothing was asked for."""
    doomed = state.get(DOOMED)
    state[DOOMED] = None
    return None if doomed is None else doomed > 0
