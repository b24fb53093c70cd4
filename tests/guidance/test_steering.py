"""Guidance as training sees it: what an answer does, and that a missing, late or broken one does nothing."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.guidance.small_world import BALL, BALL_BOX, HEIGHT, SHELL, WIDTH, Scripted, SmallScene, says
from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.guidance import questions, steering
from vlmgs_ns.guidance.config import PHASES, GuidanceConfig, PhaseSchedule
from vlmgs_ns.guidance.focus import seen_mass
from vlmgs_ns.guidance.memory import ReplyMemory
from vlmgs_ns.guidance.question import Answer, Phase
from vlmgs_ns.guidance.steering import Steering

STEERING_PHASES: tuple[Phase, ...] = ("detail", "background", "novel")


def config(phases: tuple[Phase, ...] = ("detail",), **settings: Any) -> GuidanceConfig:
    """Run of 30 steps with these phases at 0, 10 and 20."""
    on = {p: PhaseSchedule(enabled=p in phases, start=0, end=30, every=10, views=6, max_points=1000) for p in PHASES}
    return GuidanceConfig(**{**on, "blocking": True, "seeds": 0, "prune_protection": 5, **settings})


def chosen(state: dict[str, Any]) -> torch.Tensor:  # [N] bool
    focus = state.get("focus")
    return torch.zeros(BALL + SHELL, dtype=torch.bool) if focus is None else focus > 0


@pytest.fixture
def scene() -> SmallScene:
    return SmallScene()


@pytest.fixture(autouse=True)
def no_unexpected_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# what an answer does


def test_the_box_of_the_ball_puts_the_ball_in_focus_and_the_background_phase_its_surroundings(scene: SmallScene) -> None:
    state: dict[str, Any] = {}
    Steering(config(), Scripted(says(BALL_BOX)), None, None).step(0, scene, state)
    assert chosen(state)[:BALL].sum() > 0.8 * BALL and not chosen(state)[BALL:].any() and not state["doomed"].any()
    state = {}
    Steering(config(("background",)), Scripted(says(BALL_BOX)), None, None).step(0, scene, state)
    assert chosen(state)[BALL:].sum() > 0.3 * SHELL and not chosen(state)[:BALL].any()


def test_nothing_is_planted_while_renders_are_dim(scene: SmallScene, monkeypatch: pytest.MonkeyPatch) -> None:
    planted: list[int] = []

    def pretend(point: Any, *rest: Any) -> int:
        planted.append(point.photo)
        return 1

    monkeypatch.setattr(steering, "plant", pretend)
    scene.dim = True
    state: dict[str, Any] = {}
    guide = Steering(config(seeds=10), Scripted(says(BALL_BOX)), None, None)
    guide.step(0, scene, state)
    assert planted == [] and chosen(state).any() and guide.tally.added == 0
    scene.dim = False
    guide.step(10, scene, state)
    assert planted == list(range(6)) and guide.tally.added == 6


def test_a_round_renders_each_view_once(scene: SmallScene) -> None:
    """For the question, for planting and for the focus; a late answer is about what training has made of the view meanwhile."""
    state: dict[str, Any] = {}
    guide = Steering(config(("background",), seeds=10), Scripted(says(BALL_BOX)), None, None)
    guide.step(0, scene, state)
    assert scene.renders == 6 and len(scene.planted) == 6 and chosen(state).any()
    guide.config.blocking = False
    guide.step(10, scene, state)
    guide.worker._thread.join()
    scene.renders = 0
    guide.step(11, scene, state)
    assert scene.renders == 6 and len(scene.planted) == 12


def test_every_step_has_its_own_budget_of_planting(scene: SmallScene) -> None:
    guide = Steering(config(), Scripted(says(BALL_BOX)), None, None)
    for step in range(3):
        guide.step(step, scene, {})
    assert scene.steps == 3


def test_regions_without_a_gaussian_ask_for_no_densification(scene: SmallScene) -> None:
    """One view names the ball, the five others nothing: the ball has no majority. A wish for nothing would cost its scoring."""
    state: dict[str, Any] = {}
    script = lambda questions: [Answer("[]" if k else BALL_BOX) for k in range(len(questions))]  # noqa: E731
    guide = Steering(config(("detail", "novel")), Scripted(script), None, None)
    guide.step(0, scene, state)
    assert state == {} and guide.tally.rounds == 2 and guide.tally.selected == 0


def test_wishes_add_up_until_a_densification_takes_them(scene: SmallScene) -> None:
    """Both phases fall due at step 0: their union is wished for."""
    state: dict[str, Any] = {}
    both = Steering(config(("detail", "background")), Scripted(says(BALL_BOX)), None, None)
    both.step(0, scene, state)
    assert chosen(state)[:BALL].sum() > 0.8 * BALL and chosen(state)[BALL:].sum() > 0.3 * SHELL
    assert both.tally.rounds == 2 and both.tally.selected == int(chosen(state).sum())


def test_the_limit_of_points_per_view(scene: SmallScene) -> None:
    few = config()
    few.detail.max_points, few.detail.views = 3, 2
    state: dict[str, Any] = {}
    Steering(few, Scripted(says(BALL_BOX)), None, None).step(0, scene, state)
    assert 3 <= chosen(state).sum() <= 6


def test_a_view_without_reply_has_no_vote(scene: SmallScene) -> None:
    """Were the silent views' regions taken to be empty, they would outvote the one that answered."""
    script = lambda questions: [Answer(BALL_BOX if k < 2 else None, "no") for k in range(len(questions))]  # noqa: E731
    state: dict[str, Any] = {}
    Steering(config(), Scripted(script), None, None).step(0, scene, state)
    assert chosen(state)[:BALL].any()
    inverse: dict[str, Any] = {}
    Steering(config(("background",)), Scripted(script), None, None).step(0, scene, inverse)
    assert chosen(inverse)[BALL:].any() and not chosen(inverse)[:BALL].any()


def test_a_floater_that_no_photo_shows_is_doomed_and_what_photos_show_is_densified(
    scene: SmallScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One Gaussian stands where only a new viewpoint, straight above, sees it."""
    scene.means[BALL], scene.scales[BALL] = torch.tensor([0.0, 0.0, 1.0]), 0.05
    assert all(seen_mass(scene.render(point).info)[BALL] == 0 for point in scene.points)
    above = torch.tensor([[[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 2.0]]])

    def straight_above(poses: Any, count: int, generator: Any, clearance: Any, least: float) -> torch.Tensor:
        clearance(above[0])
        return above

    monkeypatch.setattr(questions, "novel_viewpoints", straight_above)
    state: dict[str, Any] = {}
    middle = '[{"bbox_2d": [250, 250, 750, 750], "label": "floater"}]'
    Steering(config(("novel",)), Scripted(says(middle)), None, None).step(0, scene, state)
    assert state["doomed"].nonzero().flatten().tolist() == [BALL] and not chosen(state)[BALL]
    assert chosen(state)[:BALL].any()
    # a later round before the next densification does not forget what was doomed
    Steering(config(), Scripted(says(BALL_BOX)), None, None).step(0, scene, state)
    assert state["doomed"].nonzero().flatten().tolist() == [BALL]


def test_compared_views_become_targets_and_densify_nothing(scene: SmallScene) -> None:
    state: dict[str, Any] = {}
    box = '[{"bbox_2d": [0, 0, 250, 500]}]'
    guide = Steering(config(("compare",)), Scripted(says(box)), None, None)
    guide.step(0, scene, state)
    assert sorted(guide.targets) == list(range(6)) and state == {}
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    expected[: HEIGHT // 2, : WIDTH // 4] = True
    assert all(torch.equal(target, expected) for target in guide.targets.values())
    guide.worker.backend = Scripted(says("[]"))  # nothing differs any more: the next comparison clears the view
    guide.step(10, scene, state)
    assert not any(target.any() for target in guide.targets.values())


def test_a_detail_round_is_shown_how_its_views_looked_before(scene: SmallScene) -> None:
    backend = Scripted(says("[]"))
    some = config()
    some.detail.views = 3
    guide = Steering(some, backend, None, None)
    guide.step(0, scene, {})
    before = scene.colors.clone()
    scene.colors = 1 - before
    guide.step(10, scene, {})
    first, second = backend.asked
    assert all(question.evidence.earlier is None for question in first)
    scene.colors = before
    for question in second:
        assert question.evidence.earlier is not None and abs(question.evidence.earlier - question.pictures[0] / 255).mean() > 0.05


# failures select nothing


@pytest.mark.parametrize("phase", [*STEERING_PHASES, "compare"])
def test_a_failed_round_selects_nothing_and_says_so(phase: Phase, scene: SmallScene) -> None:
    state: dict[str, Any] = {}
    guide = Steering(config((phase,), seeds=100), Scripted(says(None)), None, None)
    with pytest.warns(UserWarning, match=f"the {phase} round of step 0 failed and selects nothing: the server is on fire"):
        guide.step(0, scene, state)
    assert state == {} and guide.targets == {} and scene.planted == []
    assert (guide.tally.rounds, guide.tally.failures, guide.tally.selected) == (1, 1, 0)


@pytest.mark.parametrize("phase", STEERING_PHASES)
@pytest.mark.parametrize("reply", ["[]", "I see a lovely room.", '[{"bbox_2d": [1, 2'])
def test_an_empty_reply_selects_nothing(phase: Phase, reply: str, scene: SmallScene) -> None:
    """Least of all the whole picture, which is what is outside of no box."""
    state: dict[str, Any] = {}
    guide = Steering(config((phase,), seeds=100), Scripted(says(reply)), None, None)
    guide.step(0, scene, state)
    assert not chosen(state).any() and scene.planted == []
    assert (guide.tally.failures, guide.tally.selected, guide.tally.added) == (0, 0, 0)


def test_a_backend_that_breaks_is_a_failure_like_any_other(scene: SmallScene) -> None:
    for script in (lambda questions: 1 / 0, lambda questions: [], lambda questions: None):
        state: dict[str, Any] = {}
        with pytest.warns(UserWarning, match="failed and selects nothing"):
            Steering(config(("background",)), Scripted(script), None, None).step(0, scene, state)
        assert state == {}


def test_after_failures_in_a_row_guidance_pauses_and_says_so(scene: SmallScene) -> None:
    every = PhaseSchedule(start=0, end=100, every=1, views=2)
    backend = Scripted(says(None))
    guide = Steering(config(max_failures=3, detail=every), backend, None, None)
    replies = [None, None, BALL_BOX, None, None, None, BALL_BOX, BALL_BOX]  # two failures, a success, three failures
    told = []
    for step, reply in enumerate(replies):
        backend.script = says(reply)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            guide.step(step, scene, {})
        told.append([str(warning.message) for warning in caught])
    assert [len(words) for words in told] == [1, 1, 0, 1, 1, 2, 0, 0]
    assert told[5][1].startswith("guidance pauses for the rest of the run after 3 failed rounds in a row")
    assert len(backend.asked) == 6 and backend.released == 1  # its memory is of no more use
    # and a run that continues stays paused
    again = Steering(config(max_failures=3, detail=every), backend, None, None)
    again.set_state(guide.get_state())
    again.step(8, scene, {})
    assert len(backend.asked) == 6 and again.tally == guide.tally


# beside training


def test_training_goes_on_while_a_slow_backend_thinks(scene: SmallScene) -> None:
    event = threading.Event()

    def think(questions: Any) -> list[Answer]:
        assert event.wait(20)
        return [Answer(BALL_BOX) for _ in questions]

    backend = Scripted(think)
    guide = Steering(config(blocking=False), backend, None, None)
    state: dict[str, Any] = {}
    for step in range(10):
        guide.step(step, scene, state)
        assert state == {}
    with pytest.warns(UserWarning, match="the detail round of step 10 is left out, the one before still runs"):
        guide.step(10, scene, state)
    event.set()
    end = time.monotonic() + 10
    step = 10
    while not state and time.monotonic() < end:
        step += 0 if step == 19 else 1
        guide.step(step, scene, state)
        time.sleep(0.01)
    assert chosen(state)[:BALL].any() and len(backend.asked) == 1
    guide.step(20, scene, state)
    guide.close()
    assert len(backend.asked) == 2 and backend.released == 1


@pytest.mark.parametrize(("blocking", "quick", "waits"), [(True, False, True), (False, True, True), (False, False, False)])
def test_training_waits_where_it_is_told_to_and_for_a_quick_backend(
    scene: SmallScene, blocking: bool, quick: bool, waits: bool
) -> None:
    def think(questions: Any) -> list[Answer]:
        time.sleep(0.1)
        return [Answer(BALL_BOX) for _ in questions]

    state: dict[str, Any] = {}
    backend = Scripted(think)
    backend.quick = quick
    guide = Steering(config(blocking=blocking), backend, None, None)
    guide.step(0, scene, state)
    assert bool(chosen(state).any()) is waits
    guide.close()


def test_memory_is_given_back_once_after_the_last_round(scene: SmallScene) -> None:
    backend = Scripted(says("[]"))
    guide = Steering(config(), backend, None, None)
    released = []
    for step in range(40):
        guide.step(step, scene, {})
        released.append(backend.released)
    assert released == [0] * 30 + [1] * 10


def test_the_end_does_not_wait_for_a_backend_that_hangs(
    scene: SmallScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "PATIENCE", 0.05)
    event = threading.Event()
    backend = Scripted(lambda questions: [Answer("[]")] * len(questions) if event.wait(20) else [])
    guide = Steering(config(blocking=False), backend, None, tmp_path)
    guide.step(0, scene, {})
    guide.close()
    assert backend.released == 0
    (line,) = lines(tmp_path)
    assert line["left_out"] == "the run ended before it was answered" and line["views"] == line["pictures"] == []
    event.set()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def test_a_round_that_comes_too_late_is_recorded_and_used_for_nothing(scene: SmallScene, tmp_path: Path) -> None:
    def think(questions: Any) -> list[Answer]:
        time.sleep(0.1)
        return [Answer(BALL_BOX) for _ in questions]

    state: dict[str, Any] = {}
    guide = Steering(config(blocking=False), Scripted(think), None, tmp_path)
    guide.step(0, scene, state)
    guide.close()
    (line,) = lines(tmp_path)
    assert line["late"] and line["selected"] == 0 and state == {} and line["views"][0]["reply"] == BALL_BOX


def test_every_round_is_recorded_with_what_it_did(scene: SmallScene, tmp_path: Path) -> None:
    guide = Steering(config(), Scripted(says(BALL_BOX)), None, tmp_path)
    state: dict[str, Any] = {}
    guide.step(0, scene, state)
    guide.densified(Densification(5, focused=7, refused=2, doomed=1))
    guide.worker.backend = Scripted(says(None))
    with pytest.warns(UserWarning, match="failed"):
        guide.step(10, scene, state)
    guide.worker.backend = Scripted(says(BALL_BOX))
    guide.step(20, scene, state)
    guide.close()  # no densification came after it
    first, failed, last = lines(tmp_path)
    assert (first["step"], first["phase"], first["added"], first["refused"], first["doomed"]) == (0, "detail", 7, 2, 1)
    assert first["selected"] == guide.tally.selected / 2 and first["seconds"] >= 0 and first["backend"] == "scripted"
    assert [view["view"] for view in first["views"]] == [f"photo {k}" for k in range(6)]
    assert failed["selected"] == 0 and failed["views"][0]["error"] == "the server is on fire"
    assert last["step"] == 20 and "added" not in last
    assert (guide.tally.rounds, guide.tally.failures, guide.tally.added) == (3, 1, 7)
    assert len(list(tmp_path.glob("*.jpg"))) == 19


def test_one_view_of_a_round_is_seen_again_when_its_densification_is_half_a_phase_old(scene: SmallScene, tmp_path: Path) -> None:
    small = '[{"bbox_2d": [240, 160, 760, 840]}]'
    backend = Scripted(lambda questions: [Answer(BALL_BOX if k == 3 else small) for k in range(len(questions))])
    guide = Steering(config(), backend, None, tmp_path)
    guide.step(0, scene, {})
    guide.densified(Densification(2))
    scene.colors = torch.ones_like(scene.colors)
    guide.step(6, scene, {})
    assert not (tmp_path / "rounds.jsonl").exists()
    renders = scene.renders
    guide.step(7, scene, {})
    assert scene.renders == renders + 1
    (line,) = lines(tmp_path)
    names = [f"000000_detail_{k}.jpg" for k in range(6)]
    assert line["pictures"] == [*names[:4], "000000_detail_3_after.jpg", *names[4:]]
    assert sorted(line["pictures"]) == sorted(path.name for path in tmp_path.glob("*.jpg"))
    before, after = (
        np.asarray(Image.open(tmp_path / f"000000_detail_3{name}.jpg")).reshape(-1, 3).mean() for name in ("", "_after")
    )
    assert after > before + 30  # the shell is white now


@pytest.mark.parametrize(("settings", "reply"), [({"save_regions": False}, BALL_BOX), ({}, "[]")])
def test_nothing_is_rendered_again_for_no_picture(settings: Any, reply: str, scene: SmallScene, tmp_path: Path) -> None:
    guide = Steering(config(**settings), Scripted(says(reply)), None, tmp_path)
    guide.step(0, scene, {})
    guide.densified(Densification(2))
    (line,) = lines(tmp_path)  # there is nothing to wait for
    assert len(line["pictures"]) == len(list(tmp_path.glob("*.jpg"))) == (6 if reply == "[]" else 0)
    renders = scene.renders
    guide.step(9, scene, {})
    guide.close()
    assert scene.renders == renders and len(lines(tmp_path)) == 1


def test_a_compared_view_is_seen_again_too(scene: SmallScene, tmp_path: Path) -> None:
    guide = Steering(config(("compare",)), Scripted(says('[{"bbox_2d": [0, 0, 250, 500]}]')), None, tmp_path)
    guide.step(0, scene, {})
    guide.step(5, scene, {})
    assert lines(tmp_path)[0]["pictures"][1] == "000000_compare_0_after.jpg"


def test_rounds_that_do_not_take_place_are_recorded_with_the_reason(scene: SmallScene, tmp_path: Path) -> None:
    event = threading.Event()
    backend = Scripted(lambda questions: [Answer(None, "no")] * len(questions) if event.wait(20) else [])
    guide = Steering(config(("detail", "background"), blocking=False, max_failures=1), backend, None, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guide.step(0, scene, {})
        event.set()
        while guide.worker.busy:
            guide.step(1, scene, {})
            time.sleep(0.01)
        guide.step(10, scene, {})
    first, failed, *rest = lines(tmp_path)
    assert (first["phase"], first["left_out"], first["views"]) == ("background", "the one before still runs", [])
    assert failed["phase"] == "detail" and "left_out" not in failed
    paused = "guidance paused after 1 failed rounds in a row"
    assert [(line["step"], line["phase"], line["left_out"]) for line in rest] == [
        (10, "detail", paused),
        (10, "background", paused),
    ]
    scene.extent = lambda: 100.0  # type: ignore[method-assign]
    Steering(config(("novel",)), backend, None, tmp_path / "novel").step(0, scene, {})
    assert lines(tmp_path / "novel")[0]["left_out"] == "no view is free of what stands before it"


def test_a_record_that_cannot_be_written_costs_a_warning(scene: SmallScene, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    guide = Steering(config(), Scripted(says(BALL_BOX)), None, tmp_path / "file" / "guidance")
    state: dict[str, Any] = {}
    guide.step(0, scene, state)
    with pytest.warns(UserWarning, match="could not be recorded"):
        guide.close()
    assert chosen(state).any()


def test_a_second_run_asks_nothing(scene: SmallScene, tmp_path: Path) -> None:
    states: list[dict[str, Any]] = [{}, {}]
    backends = [Scripted(says(BALL_BOX)), Scripted(says(None))]
    for state, backend in zip(states, backends, strict=True):
        guide = Steering(config(), backend, ReplyMemory(tmp_path), None)
        for step in range(30):
            guide.step(step, scene, state)
    assert len(backends[0].asked) == 1  # the scene did not change: already the second round knew
    assert backends[1].asked == [] and torch.equal(states[0]["focus"], states[1]["focus"])


def test_what_a_checkpoint_needs_survives(scene: SmallScene) -> None:
    guide = Steering(config(("detail", "compare")), Scripted(says(BALL_BOX)), None, None)
    guide.step(0, scene, {})
    again = Steering(config(("detail", "compare")), Scripted(says(BALL_BOX)), None, None)
    again.set_state(guide.get_state())
    assert again.tally == guide.tally and again.targets.keys() == guide.targets.keys()
    for one in (guide, again):
        one.step(10, scene, {})
    asked = [one.worker.backend.asked[-1] for one in (guide, again)]  # type: ignore[attr-defined]
    for a, b in zip(*asked, strict=True):
        assert (a.pictures[0] == b.pictures[0]).all() and (a.evidence.earlier is None) == (b.evidence.earlier is None)
        assert a.evidence.earlier is None or (a.evidence.earlier == b.evidence.earlier).all()
