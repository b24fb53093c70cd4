"""What a round asks, and the one small interface of those who answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vlmgs_ns.guidance.reply import Coordinates

Phase = Literal["detail", "background", "novel", "compare", "ground"]
"""Phases 1 to 3 of the method; the comparison of render and photo of targeted optimisation; and where in photos the things are
that the user wants in detail."""


@dataclass(frozen=True)
class Evidence:
    """What training knows about a view beside its picture, for a backend that has no model. All maps have the picture's size."""

    photo: NDArray[np.float32] | None = None  # [H, W, 3] in [0, 1]; None where no photo was taken from there
    earlier: NDArray[np.float32] | None = None  # [H, W, 3] in [0, 1]: the same view rendered in an earlier state
    depth: NDArray[np.float32] | None = None  # [H, W] expected depth, world units; meaningless where coverage is 0
    coverage: NDArray[np.float32] | None = None  # [H, W] accumulated opacity in [0, 1]
    disagreement: NDArray[np.float32] | None = None  # [H, W] how much neighbouring photos, warped here, differ from the render;
    # in [0, 1], NaN where none sees the place
    subject: tuple[float, float] | None = None  # where the scene's centre projects to, normalised (x, y); None: unknown


@dataclass(frozen=True)
class Question:
    """One view that a backend is asked about; boxes in the reply refer to the first picture."""

    phase: Phase
    prompt: str
    pictures: tuple[NDArray[np.uint8], ...]  # each [H, W, 3]: the render, and for "compare" the photo as
    # the second; for "ground" the photo alone
    evidence: Evidence = field(default_factory=Evidence)
    """Empty where the backend does not need it."""


@dataclass(frozen=True)
class Answer:
    """What a backend said about one question: a reply, or why there is none."""

    text: str | None
    error: str | None = None
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)
    """Plain values worth recording, e.g. tokens or attempts."""


class Backend(Protocol):
    """Looks at pictures and names regions as JSON, `[{"bbox_2d": [x1, y1, x2, y2], "label": "…"}]`."""

    name: str
    """What a user reads, e.g. "residual" or "transformers Qwen/Qwen3-VL-2B-Instruct"."""
    fingerprint: str
    """Identifies the model and its settings: equal fingerprints give equal replies to equal questions."""
    coordinates: Coordinates
    needs_evidence: bool
    """Whether it has no model and reads a question's evidence instead; others get none, because training would pay for it."""
    quick: bool
    """Whether training waits for its answers, so that a run repeats exactly."""

    def check(self) -> None:
        """Raise `InputError` if the backend cannot work at all; called once before training, quick, loads nothing large."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order. Never raises for a question that fails: its answer says why."""

    def release(self) -> None:
        """Give back memory and connections; `ask` may be called again afterwards."""
