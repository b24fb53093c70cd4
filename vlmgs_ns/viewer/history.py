"""Which Gaussians are selected and which are hidden, with the way back.

The two sets know nothing of each other: what is hidden may be selected, and hiding keeps the selection. Both live in one
immutable state that is replaced in one assignment, so that a thread that draws never sees half of a change by another.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

STEPS = 64
"""Changes that can be undone."""


class SelectionState(NamedTuple):
    """One moment. Its tensors belong to the selection: read them, change them through its methods."""

    mask: Tensor  # [N] bool, selected
    hidden: Tensor  # [N] bool


class Selection:
    """Selected and hidden Gaussians of a scene of `count`. A change that changes nothing cannot be undone."""

    def __init__(self, count: int) -> None:
        nothing = torch.zeros(count, dtype=torch.bool)
        self._count = count
        self._state = SelectionState(nothing, nothing)
        # Packed bits: 64 steps of a million Gaussians are 16 MB.
        self._past: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=STEPS)
        self._lock = Lock()

    @property
    def state(self) -> SelectionState:
        """Both sets at one moment; for threads that need the two to belong together."""
        return self._state

    @property
    def mask(self) -> Tensor:
        """[N] bool, selected."""
        return self._state.mask

    @property
    def hidden(self) -> Tensor:
        """[N] bool."""
        return self._state.hidden

    def replace(self, mask: Tensor) -> None:
        """Select these alone. Raises a ValueError for anything but a mask [N] bool."""
        mask = self._checked(mask)
        with self._lock:
            self._change(mask, self.hidden)

    def invert(self) -> None:
        """Select what was not selected, hidden or not, and nothing else."""
        with self._lock:
            self._change(~self.mask, self.hidden)

    def hide(self) -> None:
        """Hide the selected ones, besides what is hidden already."""
        with self._lock:
            self._change(self.mask, self.hidden | self.mask)

    def isolate(self) -> None:
        """Hide all but the selected ones, which are shown. With nothing selected that is everything."""
        with self._lock:
            self._change(self.mask, ~self.mask)

    def show_all(self) -> None:
        """Hide nothing."""
        with self._lock:
            self._change(self.mask, torch.zeros_like(self.mask))

    def undo(self) -> bool:
        """Go back one step; False where there is none."""
        with self._lock:
            if not self._past:
                return False
            mask, hidden = self._past.pop()
            self._state = SelectionState(self._unpacked(mask), self._unpacked(hidden))
            return True

    def _change(self, mask: Tensor, hidden: Tensor) -> None:
        before = self._state
        if torch.equal(mask, before.mask) and torch.equal(hidden, before.hidden):
            return
        self._past.append((np.packbits(before.mask.numpy()), np.packbits(before.hidden.numpy())))
        self._state = SelectionState(mask, hidden)

    def _unpacked(self, bits: np.ndarray) -> Tensor:
        return torch.from_numpy(np.unpackbits(bits, count=self._count).astype(bool))

    def _checked(self, mask: Tensor) -> Tensor:
        if mask.shape != (self._count,) or mask.dtype != torch.bool:
            raise ValueError(f"mask has shape {list(mask.shape)} and type {mask.dtype}: it must be [{self._count}] of torch.bool")
        # A copy: the caller may go on to change its own.
        return mask.detach().to("cpu", copy=True)
