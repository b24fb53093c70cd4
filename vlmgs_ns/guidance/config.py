"""When a round is due, of which phase, and on which views: all of it decided by the step alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from vlmgs_ns.guidance.backends.choose import BackendSettings
from vlmgs_ns.guidance.question import Phase
from vlmgs_ns.system.ranges import Amount, Count, Fraction, Some
from vlmgs_ns.system.schedules import Steps

PHASES: tuple[Phase, ...] = get_args(Phase)
"""In the order in which rounds that fall due together are begun."""


@dataclass
class PhaseSchedule:
    """When one phase asks, about how many views, and how much it may add."""

    enabled: bool = True
    """Whether the phase takes place."""
    start: Steps = 0.0
    """First iteration, or fraction of the run, of the phase."""
    end: Steps = 1.0
    """Iteration, or fraction of the run, before which the phase ends."""
    every: Steps = 0.1
    """Iterations, or fraction of the run, between its rounds."""
    views: Count = 5
    """Views that a round asks about."""
    max_points: Count = 2000
    """The most Gaussians that one view of a round may choose for densification; models overestimate regions."""

    def turn(self, step: int) -> int:
        """Return how many rounds were due before this step (the schedule resolved to iterations)."""
        return (step - int(self.start)) // max(1, int(self.every))

    def is_due(self, step: int) -> bool:
        """Whether a round starts at this step (the schedule resolved to iterations)."""
        since = step - int(self.start)
        return self.enabled and self.views > 0 and since >= 0 and step < int(self.end) and since % max(1, int(self.every)) == 0


@dataclass
class GuidanceConfig(BackendSettings):
    """Three phases of questions about renders, and what their answers may do (VLM-Instruct-FastGS)."""

    enabled: bool = True
    """Whether anybody is asked at all."""
    detail: PhaseSchedule = field(default_factory=lambda: PhaseSchedule(start=0.025, end=0.4, every=0.075, max_points=2000))
    """Phase 1: regions that begin to show detail; random photos' views."""
    background: PhaseSchedule = field(default_factory=lambda: PhaseSchedule(start=0.4, end=0.7, every=0.1, max_points=8000))
    """Phase 2: everything but the main subject; photos' views at even distances."""
    novel: PhaseSchedule = field(
        default_factory=lambda: PhaseSchedule(enabled=False, start=0.7, end=0.9, every=0.1, max_points=2000)
    )
    """Phase 3: what looks wrong from viewpoints of which there is no photo. Off: it made no difference to held-out views, an arc
    without photos included (configs/guidance.yaml)."""
    compare: PhaseSchedule = field(default_factory=lambda: PhaseSchedule(enabled=False, start=0.1, end=0.9, every=0.05))
    """Targeted optimisation: where render and photo differ most the loss counts more until the next comparison of the view."""
    instruct: str = ""
    """What shall be detailed, in words, as "the thermos; the label on it": a vision-language model finds it in the photos."""
    instruct_boxes: Path | None = None
    """The same by hand: JSON, {"12.jpg": [[left, top, right, bottom]]}, in pixels of the photos on disk."""
    instruct_masks: Path | None = None
    """The same by hand: a folder of PNGs, each named as a photo, white where it is wanted."""
    ground: PhaseSchedule = field(default_factory=lambda: PhaseSchedule(start=0.0, end=0.7, every=0.1, views=16))
    """When a model is asked where in photos the things are that `instruct` names, in one photo after the other."""
    target_weight: Amount = 2.0
    """How much more the colour loss counts inside the regions of targeted optimisation."""
    strength: Amount = 3.0
    """The factor on the priority with which FastGS clones and splits what is in focus; 1: focus changes nothing."""
    keep_background: Fraction = 0.5
    """Share of the births out of focus that stay there however strong the focus is, in [0, 1]."""
    prune_protection: Steps = 0.1
    """Iterations, or fraction of the run, for which planted Gaussians are not pruned."""
    seeds: Count = 2000
    """The most new Gaussians that a photo's region is given where the render is wrong, at the depth on which neighbouring photos
    agree, and in gaps of the background at the depth of their surroundings; 0: none. What
    the user marked is given as many in all."""
    blocking: bool = False
    """Wait for each answer, so that runs repeat exactly; else training goes on and the answer is used when it is there. The
    residual backend and the embedded model are always waited for."""
    picture_size: Some = 640
    """Longer side, in pixels, of the renders that are looked at, and in which regions are traced back to Gaussians; for a model
    at most max_image_size."""
    save_regions: bool = True
    """Write a picture of every answer, with its boxes, into the run's guidance folder, and of one view per round how it looks
    afterwards."""
    cache_replies: bool = True
    """Keep replies of models, by picture, prompt and model, so that a repeated run does not ask again."""
    max_failures: Some = 3
    """Rounds in a row that may fail before guidance pauses for the rest of the run."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the settings of a run that may be older than some fields: those have their defaults."""
        self.__dict__.update({**vars(type(self)()), **state})

    def phase(self, name: Phase) -> PhaseSchedule:
        """The schedule of a phase."""
        schedule: PhaseSchedule = getattr(self, name)
        return schedule

    def due(self, step: int) -> list[Phase]:
        """Phases of which a round starts at this step (of a config whose schedule is resolved to iterations)."""
        return [name for name in PHASES if self._takes_place(name) and self.phase(name).is_due(step)]

    def last_step(self) -> int:
        """The step from which on no round is due any more (of a config whose schedule is resolved to iterations)."""
        return max((int(self.phase(name).end) for name in PHASES if self._takes_place(name)), default=0)

    @property
    def marks(self) -> bool:
        """Whether the user marked by hand what shall be detailed."""
        return self.instruct_boxes is not None or self.instruct_masks is not None

    def _takes_place(self, phase: Phase) -> bool:
        return self.enabled and self.phase(phase).enabled and (phase != "ground" or bool(self.instruct.strip()))


def choose_views(phase: Phase, count: int, photos: int, step: int, turn: int = 0) -> list[int]:
    """Indices of the photos a round looks at: evenly strided for the background, random (by the step) otherwise; where things are
    that the user named, the next ones of a random order in each turn, the first ones again after the last."""
    count = min(count, photos)
    if phase == "ground":
        order = torch.randperm(photos, generator=torch.Generator().manual_seed(0))
        return sorted(order.roll(-count * turn)[:count].tolist())
    if phase == "background":
        return [int((k + 0.5) * photos / count) for k in range(count)]
    generator = torch.Generator().manual_seed(7919 * step + len(phase))
    return sorted(torch.randperm(photos, generator=generator)[:count].tolist())
