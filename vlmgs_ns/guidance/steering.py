"""Guidance as training sees it: at every step, begin what is due and use what has been answered.

Everything here runs on the training thread and is quick; the backend works elsewhere, and pictures are drawn there. What a round
decides is left in the strategy's state as `Wishes` (per Gaussian, what to densify and what to prune), and used by the next
densification.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.densify.wishes import INSTRUCTED, Wishes
from vlmgs_ns.guidance.config import GuidanceConfig, choose_views
from vlmgs_ns.guidance.focus import UNSEEN, WITNESSES, TracedView, focus, seen_mass
from vlmgs_ns.guidance.instructions import Instructions, MarkedView, trace
from vlmgs_ns.guidance.memory import ReplyMemory
from vlmgs_ns.guidance.planting import plant
from vlmgs_ns.guidance.question import Answer, Backend, Phase, Question
from vlmgs_ns.guidance.questions import pixels, survey
from vlmgs_ns.guidance.record import Record
from vlmgs_ns.guidance.regions import boxes_around, mask
from vlmgs_ns.guidance.reply import Box
from vlmgs_ns.guidance.round import Round, ViewRegions, Worker
from vlmgs_ns.guidance.training_scene import Render, TrainingScene, Viewpoint

PATIENCE = 1.0
"""Seconds that the end of a run waits for a round that is still out."""


@dataclass
class Settling:
    """A round that was used and is recorded once its effect is known."""

    round: Round
    effect: dict[str, Any]
    due: int | None = None
    """The step at which one of its views is looked at again; None: not before what it wished for is done."""


@dataclass
class Tally:
    """What guidance has done so far, for curves."""

    rounds: int = 0
    failures: int = 0
    selected: int = 0
    """Gaussians that regions chose."""
    added: int = 0
    """Gaussians that were born of these, and of seeds."""


class Steering:
    """One per run; `step` is called once per training step, before the strategy acts."""

    def __init__(self, config: GuidanceConfig, backend: Backend, memory: ReplyMemory | None, folder: Path | None) -> None:
        """
        Args:
            config: its schedule resolved to iterations.
            folder: where rounds are recorded; None: nowhere.
        """
        self.config = config
        self.record = None if folder is None else Record(folder, config.save_regions)
        self.worker = Worker(backend, memory, None if self.record is None else self.record.draw)
        self.tally = Tally()
        self.targets: dict[int, Tensor] = {}
        """Targeted optimisation: photo index → pixels [H, W] bool in which the loss counts more."""
        self.last: Round | None = None
        """The last round that was answered."""
        self.instructions = Instructions()
        """What the user wants in detail."""
        self._by_hand: list[MarkedView] = []
        self._next_planting = 0
        self._earlier: dict[int, NDArray[np.uint8]] = {}
        self._failed_in_a_row = 0
        self._paused = False
        self._settling: Settling | None = None
        self._released = False

    def step(self, step: int, scene: TrainingScene, state: dict[str, Any]) -> None:
        """Use an answer that has come, and begin the rounds that are due at `step`; `state` is the strategy's."""
        scene.begin_step()
        self._use(self.worker.collect(), scene, state)
        if self._settling is not None and self._settling.due is not None and step >= self._settling.due:
            self._settle(scene)
        for phase in self.config.due(step):
            if self._paused:
                self._leave_out(phase, step, f"guidance paused after {self.config.max_failures} failed rounds in a row")
                continue
            if self.worker.busy:
                self._leave_out(phase, step, "the one before still runs")
                warnings.warn(f"guidance: the {phase} round of step {step} is left out, the one before still runs", stacklevel=2)
                continue
            renders = self._begin(phase, step, scene)
            if self.config.blocking or self.worker.backend.quick:
                self._use(self.worker.collect(wait=None), scene, state, renders)
        over = self._paused or step >= self.config.last_step()
        if over and not self.worker.busy and not self._released:
            self._released = True
            self.worker.release()

    def instruct(self, views: list[MarkedView]) -> None:
        """Want what the user marked by hand in detail, until the run ends. May be called from another thread."""
        self._by_hand = [*self._by_hand, *views]
        for view in views:
            self.instructions.add(view)

    def before_densification(self, step: int, scene: TrainingScene, state: dict[str, Any]) -> None:
        """Plant where the user's marks are rendered wrong, now and then, and trace them to the Gaussians; right before births."""
        views = self.instructions.at(step)
        if views and step >= self._next_planting:
            self._next_planting = step + int(self.config.ground.every)
            meant = ((view.viewpoint, scene.render(view.viewpoint), view.mask) for view in views)
            self.tally.added += self._plant(meant, self.config.seeds // len(views), scene, step, fill_gaps=False)
        state[INSTRUCTED] = focus = trace(views, scene) if views else None
        if focus is not None and self._by_hand:
            by_hand, self._by_hand = self._by_hand, []
            self._record_marks(step, by_hand, scene, int((focus > 0).sum()))

    def densified(self, report: Densification) -> None:
        """Told after each densification what it did; the round it used is recorded with it."""
        self.tally.added += report.focused
        settling = self._settling
        if settling is None or settling.round.phase == "compare":
            return
        for name, count in (("added", report.focused), ("refused", report.refused), ("doomed", report.doomed)):
            settling.effect[name] = settling.effect.get(name, 0) + count
        if settling.due is None:
            settling.due = self._half_way(settling.round, report.step)
            if self._seen_again(settling) is None:
                self._settle(None)

    def close(self) -> None:
        """The run is over: record what is left, wait shortly for a round still out, and give the backend's memory back."""
        self._settle(None)
        late = self.worker.collect(wait=PATIENCE)
        if late is not None:
            self._write(late, {"selected": 0, "late": True})
        elif self.worker.round is not None:
            self._leave_out(self.worker.round.phase, self.worker.round.step, "the run ended before it was answered")
        self.worker.release()

    def get_state(self) -> dict[str, Any]:
        """For a checkpoint, in tensors and plain values."""
        return {
            "failed_in_a_row": self._failed_in_a_row,
            "paused": self._paused,
            "tally": dict(vars(self.tally)),
            "earlier": {index: torch.from_numpy(picture) for index, picture in self._earlier.items()},
            "targets": dict(self.targets),
            "next_planting": self._next_planting,
            "marks": [{**vars(view.viewpoint), "mask": view.mask} for view in self.instructions.views],
        }

    def set_state(self, state: dict[str, Any], device: torch.device | str = "cpu") -> None:
        """Continue from `get_state`, with what is compared with renders on their device."""
        self._failed_in_a_row, self._paused = state["failed_in_a_row"], state["paused"]
        self.tally = Tally(**state["tally"])
        self._earlier = {index: picture.cpu().numpy() for index, picture in state["earlier"].items()}
        self.targets = {photo: target.to(device) for photo, target in state["targets"].items()}
        self._next_planting = state.get("next_planting", 0)
        by_hand, self.instructions = self.instructions.views, Instructions()  # as files say now, whatever they said before
        for mark in state.get("marks", []):
            here: dict[str, Any] = {
                name: value.to(device) if isinstance(value, Tensor) else value for name, value in mark.items()
            }
            self.instructions.add(MarkedView(mask=here.pop("mask"), viewpoint=Viewpoint(**here)))
        for view in by_hand:
            self.instructions.add(view)

    @torch.no_grad()
    def _begin(self, phase: Phase, step: int, scene: TrainingScene) -> list[Render]:
        """Ask; return what was rendered of the round's views."""
        schedule = self.config.phase(phase)
        backend, max_size = self.worker.backend, self.config.max_image_size
        views, turn, wish = schedule.views, schedule.turn(step), self.config.instruct
        asked = survey(phase, views, step, scene, backend, max_size, self._earlier, wish, turn)
        if phase == "detail" and backend.needs_evidence:
            self._remember(step + max(1, int(schedule.every)), schedule.views, scene)
        if not asked.questions:
            self._leave_out(phase, step, "no view is free of what stands before it")
            return []
        asked_about = [{"name": _name(point.photo), "viewpoint": point} for point in asked.viewpoints]
        self.worker.begin(Round(phase, step, asked.questions, asked_about))
        return asked.renders

    def _remember(self, step: int, count: int, scene: TrainingScene) -> None:
        """Render the next round's views as they are now: what begins to show detail is told by comparing."""
        points = scene.viewpoints()
        chosen = choose_views("detail", count, len(points), step)
        self._earlier = {index: pixels(scene.render(points[index]).rgb) for index in chosen}

    @torch.no_grad()
    def _use(self, done: Round | None, scene: TrainingScene, state: dict[str, Any], renders: Sequence[Render] = ()) -> None:
        """Do what a round was answered; `renders` are of its views, if they show the scene as it is now."""
        if done is None:
            return
        self.last = done
        self.tally.rounds += 1
        self._settle(scene)
        if done.failed:
            self._fail(done)
            return
        self._failed_in_a_row = 0
        if done.phase == "compare":
            self._settling = Settling(done, self._target(done), self._half_way(done, done.step))
            return
        if done.phase == "ground":
            self._write(done, self._ground(done))
            return
        effect = self._focus(done, scene, state, renders)
        self.tally.selected += effect["selected"]
        if any(effect.values()):
            self._settling = Settling(done, effect)
        else:
            self._write(done, effect)

    def _half_way(self, done: Round, step: int) -> int:
        """When to look again at what a round did at `step`: it has been trained by then, and nothing else was asked for."""
        return step + int(self.config.phase(done.phase).every) // 2

    def _seen_again(self, settling: Settling) -> int | None:
        """Which of the round's views is looked at again."""
        return None if self.record is None or settling.due is None else self.record.widest(settling.round)

    @torch.no_grad()
    def _settle(self, scene: TrainingScene | None) -> None:
        """Record the round that was used, with another look at one of its views if what it wished for was done meanwhile."""
        settling, self._settling = self._settling, None
        if settling is None:
            return
        view = self._seen_again(settling)
        if scene is not None and self.record is not None and view is not None:
            render = scene.render(settling.round.views[view]["viewpoint"]).rgb
            self.record.draw_after(settling.round, view, pixels(render))
        self._write(settling.round, settling.effect)

    def _focus(self, done: Round, scene: TrainingScene, state: dict[str, Any], renders: Sequence[Render]) -> dict[str, Any]:
        """Leave the round's wishes in the strategy's state, and plant; what was wished and planted."""
        schedule = self.config.phase(done.phase)
        meant = self._meant(done)
        if not any(bool(region.any()) for _, region in meant):
            return {"selected": 0, "planted": 0}
        of_views = {view["viewpoint"]: render for view, render in zip(done.views, renders, strict=bool(renders))}
        seen = [(point, of_views.get(point) or scene.render(point), region) for point, region in meant]
        views = (TracedView(render.info, region) for _, render, region in seen)
        # a floater may be seen from a single new viewpoint
        weights = focus(views, schedule.max_points, witnesses=1 if done.phase == "novel" else WITNESSES)
        doomed = torch.zeros_like(weights, dtype=torch.bool)
        if done.phase == "novel":
            doomed = self._in_no_photo(weights > 0, scene)
            weights = torch.where(doomed, torch.zeros_like(weights), weights)
        effect = {"selected": int((weights > 0).sum()), "floaters": int(doomed.sum())}
        if any(effect.values()):  # a wish for nothing would still cost a densification
            Wishes(weights, doomed).add_to(state)
        # only now, so that the renders have shown all that there is to wish for
        planted = self._plant(seen, self.config.seeds, scene, done.step, done.inverted)
        self.tally.added += planted
        return {**effect, "planted": planted}

    def _meant(self, done: Round) -> list[tuple[Viewpoint, Tensor]]:
        """The views that were answered, each with the pixels [H, W] its answer is about."""
        meant = []
        for view, regions in zip(done.views, done.regions or [], strict=True):
            point: Viewpoint = view["viewpoint"]
            if regions.failed or (done.phase == "background" and not regions.boxes):
                continue  # nobody said where the subject is: that does not make everything background
            inside = torch.from_numpy(mask(regions.boxes, point.width, point.height)).to(point.camera_to_world.device)
            meant.append((point, ~inside if done.inverted else inside))
        return meant

    def _ground(self, done: Round) -> dict[str, Any]:
        """Mark what the user named where it was found in photos."""
        labels = []
        for (point, inside), regions in zip(self._meant(done), (r for r in done.regions or [] if not r.failed), strict=True):
            self.instructions.add(MarkedView(point, inside))
            labels += [box.label.lower() for box in regions.boxes]
        for thing in self.config.instruct.split(";"):
            if thing.strip() and not any(thing.strip().lower() in label for label in labels):
                warnings.warn(f"guidance: {thing.strip()!r} was found in none of {len(done.views)} photos", stacklevel=2)
        return {"selected": 0, "found": len(labels)}

    def _plant(
        self, seen: Iterable[tuple[Viewpoint, Render, Tensor]], count: int, scene: TrainingScene, step: int, fill_gaps: bool
    ) -> int:
        """Plant up to `count` Gaussians for each region of a photo's view where something is not there; how many."""
        if count == 0 or scene.recovering():
            return 0  # renders are dim: what is wrong cannot be told
        views = (view for view in seen if view[0].photo is not None)
        return sum(plant(*view, count, scene, step, fill_gaps) for view in views)

    def _in_no_photo(
        self,
        suspects: Tensor,  # [N] bool
        scene: TrainingScene,
    ) -> Tensor:
        """Suspects that no training photo sees: floaters. [N] bool."""
        unseen = suspects.clone()
        for camera in scene.viewpoints():
            if not unseen.any():
                break
            unseen &= seen_mass(scene.render(camera).info) < UNSEEN
        return unseen

    def _target(self, done: Round) -> dict[str, Any]:
        """Let the loss count more where render and photo of a view were found to differ."""
        for view, regions in zip(done.views, done.regions or [], strict=True):
            point: Viewpoint = view["viewpoint"]
            if point.photo is not None and not regions.failed:
                inside = mask(regions.boxes, point.width, point.height)
                self.targets[point.photo] = torch.from_numpy(inside).to(point.camera_to_world.device)
        return {"targets": len(self.targets)}

    def _fail(self, done: Round) -> None:
        self._failed_in_a_row += 1
        self.tally.failures += 1
        reason = next((regions.notes[0] for regions in done.regions or [] if regions.notes), "no reply")
        warnings.warn(f"guidance: the {done.phase} round of step {done.step} failed and selects nothing: {reason}", stacklevel=2)
        self._write(done, {"selected": 0})
        if self._failed_in_a_row >= self.config.max_failures:
            self._paused = True
            warnings.warn(
                f"guidance pauses for the rest of the run after {self._failed_in_a_row} failed rounds in a row; training goes on",
                stacklevel=2,
            )

    def _record_marks(self, step: int, by_hand: list[MarkedView], scene: TrainingScene, selected: int) -> None:
        """Record what the user marked as if it had been answered, with pictures of as many views as a round asks about."""
        shown = by_hand[: self.config.ground.views]
        points = [view.viewpoint for view in shown]
        pictures = [scene.render(point).rgb if point.photo is None else scene.photo(point) for point in points]
        questions = [Question("ground", "", (pixels(picture),)) for picture in pictures]
        regions = [
            ViewRegions(Answer("marked by hand"), tuple(Box(*box) for box in boxes_around(view.mask.cpu().numpy(), 0, 8)))
            for view in shown
        ]
        done = Round("ground", step, questions, [{"name": _name(point.photo)} for point in points], regions)
        if self.record is not None:
            self.record.draw(done)
            self.record.write(done, "the user", {"selected": selected})

    def _write(self, done: Round, effect: dict[str, Any]) -> None:
        if self.record is not None:
            self.record.write(done, self.worker.backend.name, effect)

    def _leave_out(self, phase: Phase, step: int, reason: str) -> None:
        if self.record is not None:
            self.record.leave_out(phase, step, self.worker.backend.name, reason)


def _name(photo: int | None) -> str:
    return "new viewpoint" if photo is None else f"photo {photo}"
