"""What the user wants in detail: files that say it, marks traced back to Gaussians, and words that a model finds."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.guidance.small_world import BALL, BALL_BOX, HEIGHT, SHELL, WIDTH, Scripted, SmallScene, says
from tests.guidance.test_steering import config, lines
from vlmgs_ns.guidance import steering
from vlmgs_ns.guidance.config import PhaseSchedule
from vlmgs_ns.guidance.instructions import VIEWS, Instructions, MarkedView, marked_box, read_boxes, read_masks, trace
from vlmgs_ns.guidance.regions import mask
from vlmgs_ns.guidance.reply import Box
from vlmgs_ns.guidance.steering import Steering
from vlmgs_ns.guidance.training_scene import Viewpoint
from vlmgs_ns.system.errors import InputError

PHOTOS = {"12.jpg": (40, 30), "13.jpg": (30, 40)}


@pytest.fixture
def scene() -> SmallScene:
    return SmallScene()


def on_the_ball(point: Viewpoint) -> MarkedView:
    return MarkedView(point, torch.from_numpy(mask((Box(0.23, 0.15, 0.77, 0.85),), WIDTH, HEIGHT)))


# files


def boxes(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_boxes_are_pixels_of_the_photo(tmp_path: Path) -> None:
    marks = read_boxes(boxes(tmp_path, {"12.jpg": [[1, 2, 4, 7], [3.2, 2, 3.4, 3]], "13.jpg": []}), PHOTOS)
    assert marks["12.jpg"].shape == (30, 40) and marks["13.jpg"].shape == (40, 30) and not marks["13.jpg"].any()
    expected = np.zeros((30, 40), bool)
    expected[2:7, 1:4] = True  # the narrow box still has a pixel, which lies inside the other
    assert np.array_equal(marks["12.jpg"], expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"12.jpg": [[1, 2', "is not JSON"),
        ([[1, 2, 3, 4]], "holds list, not boxes by photo"),
        ({"12.png": []}, "the scene has no photo '12.png'. Did you mean 12.jpg?"),
        ({"12.jpg": {"a": 1}}, "not a list of boxes"),
        ({"12.jpg": [[1, 2, 3]]}, "the box [1, 2, 3], not four numbers"),
        ({"12.jpg": [[1, 2, True, 4]]}, "not four numbers"),
        ({"12.jpg": [[1, 2, 41, 4]]}, "not inside the photo of 40 x 30 pixels"),
        ({"12.jpg": [[4, 2, 1, 4]]}, "not inside the photo"),
        ('{"12.jpg": [[1, 2, NaN, 4]]}', "not inside the photo"),
    ],
)
def test_boxes_that_are_none_are_one_message(content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_boxes(boxes(tmp_path, content), PHOTOS)
    assert words in str(error.value) and "boxes.json" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_boxes(tmp_path / "none.json", PHOTOS)
    with pytest.raises(InputError, match="is not a folder"):
        read_masks(tmp_path / "none", PHOTOS)


def paint(folder: Path, name: str, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(folder / name)


def test_masks_are_white_where_detail_is_wanted_at_any_size(tmp_path: Path) -> None:
    half = np.zeros((15, 20), np.uint8)
    half[:, :10] = 255
    paint(tmp_path, "12.png", half)
    marks = read_masks(tmp_path, PHOTOS)
    assert list(marks) == ["12.jpg"] and marks["12.jpg"][:, :20].all() and not marks["12.jpg"][:, 20:].any()


def test_masks_that_say_nothing_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no mask of a photo of this scene"):
        read_masks(tmp_path, PHOTOS)
    paint(tmp_path, "12.png", np.zeros((30, 40)))
    with pytest.raises(InputError, match="are black everywhere"):
        read_masks(tmp_path, PHOTOS)
    (tmp_path / "13.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read"):
        read_masks(tmp_path, PHOTOS)


# marks become a focus


def test_marks_of_several_views_single_out_what_they_are_on(scene: SmallScene) -> None:
    instructions = Instructions()
    assert instructions.at(0) == []
    for point in scene.points:
        instructions.add(on_the_ball(point))
    focus = trace(instructions.at(0), scene)
    assert (focus[:BALL] > 0).sum() > 0.8 * BALL and not focus[BALL:].any()


def test_a_photo_has_one_mark_and_a_new_viewpoint_as_many_as_are_drawn(scene: SmallScene) -> None:
    instructions = Instructions()
    photo, free = scene.points[0], Viewpoint(scene.points[0].camera_to_world, scene.points[0].K, WIDTH, HEIGHT)
    for point in (photo, photo, free, free):
        instructions.add(on_the_ball(point))
    assert [view.viewpoint.photo for view in instructions.views] == [0, None, None]


def test_a_box_drawn_in_the_viewer_is_a_wish_of_its_own(scene: SmallScene) -> None:
    """Photos say where the ball is; a box on what is behind it must not lose to that, though photos see it too."""
    instructions = Instructions()
    for point in scene.points:
        instructions.add(on_the_ball(point))
    ball = trace(instructions.at(0), scene)
    free = Viewpoint(scene.points[0].camera_to_world, scene.points[0].K, WIDTH, HEIGHT)
    instructions.add(marked_box(free, Box(0.0, 0.0, 0.2, 1.0)))
    both = trace(instructions.at(0), scene)
    assert torch.equal(both[:BALL], ball[:BALL]) and (both[BALL:] > 0).sum() > 3 and not (ball[BALL:] > 0).any()


def test_of_many_views_a_few_are_looked_at_others_at_each_step(scene: SmallScene) -> None:
    instructions = Instructions()
    for k in range(5):
        for point in scene.points:
            instructions.add(
                on_the_ball(Viewpoint(point.camera_to_world, point.K, WIDTH, HEIGHT, photo=10 * k + (point.photo or 0)))
            )
    assert len(instructions.at(0)) == VIEWS == len(instructions.at(1))
    photos = [[view.viewpoint.photo for view in instructions.at(step)] for step in (0, 0, 1)]
    assert photos[0] == photos[1] != photos[2]


def test_marks_by_hand_are_in_force_at_every_densification_and_recorded_once(scene: SmallScene, tmp_path: Path) -> None:
    guide = Steering(config(()), Scripted(says("[]")), None, tmp_path)
    guide.instruct([on_the_ball(point) for point in scene.points])
    state: dict[str, Any] = {}
    for step in range(10):
        guide.step(step, scene, state)
        if step in (5, 9):
            guide.before_densification(step, scene, state)
            assert (state["instructed"][:BALL] > 0).any() and not state["instructed"][BALL:].any()
            scene.means = torch.cat([scene.means[:BALL], scene.means[BALL:]])  # and Gaussians come and go
    guide.close()
    (line,) = lines(tmp_path)
    assert (line["phase"], line["backend"], line["step"]) == ("ground", "the user", 5) and line["selected"] > 0.8 * BALL
    assert [view["reply"] for view in line["views"]] == ["marked by hand"] * 6 and len(line["views"][0]["boxes"]) == 1
    assert sorted(line["pictures"]) == sorted(path.name for path in tmp_path.glob("*.jpg")) and len(line["pictures"]) == 6


def test_what_is_marked_is_planted_now_and_then_where_it_is_wrong(scene: SmallScene, monkeypatch: pytest.MonkeyPatch) -> None:
    planted: list[int] = []
    monkeypatch.setattr(steering, "plant", lambda point, render, region, count, *rest: planted.append(point.photo) or count)
    every = PhaseSchedule(start=0, end=30, every=10, views=6)
    guide = Steering(config((), seeds=20, ground=every), Scripted(says("[]")), None, None)
    guide.instruct([on_the_ball(point) for point in scene.points])
    for step in range(12):
        guide.before_densification(step, scene, {})
    assert sorted(planted) == sorted([*range(6), *range(6)]) and guide.tally.added == 36  # at steps 0 and 10
    again = Steering(guide.config, Scripted(says("[]")), None, None)
    again.set_state(guide.get_state())
    again.before_densification(12, scene, {})
    scene.dim = True
    again.before_densification(30, scene, {})
    assert len(planted) == 12


def test_a_box_drawn_in_the_viewer_is_recorded_with_what_it_was_drawn_on(scene: SmallScene, tmp_path: Path) -> None:
    guide = Steering(config(()), Scripted(says("[]")), None, tmp_path)
    free = Viewpoint(scene.points[0].camera_to_world, scene.points[0].K, WIDTH, HEIGHT)
    for step in (3, 6):
        guide.instruct([marked_box(free, Box(0.23, 0.15, 0.77, 0.85))])
        guide.before_densification(step, scene, {})
        guide.before_densification(step + 1, scene, {})
    assert [(line["step"], line["backend"]) for line in lines(tmp_path)] == [(3, "the user"), (6, "the user")]
    assert lines(tmp_path)[0]["views"][0]["view"] == "new viewpoint" and len(list(tmp_path.glob("*.jpg"))) == 2


def test_without_marks_nothing_is_traced(scene: SmallScene) -> None:
    state: dict[str, Any] = {}
    guide = Steering(config(()), Scripted(says("[]")), None, None)
    guide.before_densification(5, scene, state)
    assert state == {"instructed": None} and scene.renders == 0


# words


def named(label: str, box: str = "[230, 150, 770, 850]") -> str:
    return f'[{{"bbox_2d": {box}, "label": "{label}"}}]'


def test_a_model_finds_what_is_named_in_photos(scene: SmallScene) -> None:
    backend = Scripted(says(named("The Ball")))
    guide = Steering(config(("ground",), instruct="the ball"), backend, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guide.step(0, scene, {})
    (questions,) = backend.asked
    assert "the ball" in questions[0].prompt and len(questions) == 6
    assert {round(float(q.pictures[0].mean()) / 25.5) for q in questions} == set(range(6))  # photos, not renders
    state: dict[str, Any] = {}
    guide.before_densification(1, scene, state)
    assert (state["instructed"][:BALL] > 0).sum() > 0.8 * BALL and not state["instructed"][BALL:].any()


def test_a_model_may_miss_a_thing_in_a_photo(scene: SmallScene) -> None:
    marks = [on_the_ball(point) for point in scene.points]
    marks[0] = MarkedView(scene.points[0], torch.zeros(HEIGHT, WIDTH, dtype=torch.bool))
    chosen = trace(marks, scene) > 0
    assert chosen[:BALL].sum() > 0.8 * BALL and not chosen[BALL:].any()


@pytest.mark.parametrize("reply", ["[]", named("a shoe")])
def test_what_is_found_nowhere_is_a_warning_that_names_it(reply: str, scene: SmallScene) -> None:
    guide = Steering(config(("ground",), instruct="the ball; the shell"), Scripted(says(reply)), None, None)
    with pytest.warns(UserWarning) as told:
        guide.step(0, scene, {})
    assert [str(warning.message) for warning in told] == [
        f"guidance: {thing!r} was found in none of 6 photos" for thing in ("the ball", "the shell")
    ]
    state: dict[str, Any] = {}
    guide.before_densification(1, scene, state)
    assert (state["instructed"] is None) == (reply == "[]")


def test_marks_survive_a_checkpoint(scene: SmallScene) -> None:
    guide = Steering(config(("ground",), instruct="ball"), Scripted(says(BALL_BOX)), None, None)
    guide.step(0, scene, {})
    again = Steering(config(("ground",), instruct="ball"), Scripted(says("[]")), None, None)
    again.instruct([MarkedView(scene.points[2], torch.zeros(HEIGHT, WIDTH, dtype=torch.bool))])  # the file has changed meanwhile
    again.set_state(guide.get_state())
    assert len(again.instructions.views) == 6
    kept = {view.viewpoint.photo: bool(view.mask.any()) for view in again.instructions.views}
    assert kept == {photo: photo != 2 for photo in range(6)}
    states: list[dict[str, Any]] = [{}, {}]
    assert [view.viewpoint.photo for view in again.instructions.views] == [
        view.viewpoint.photo for view in guide.instructions.views
    ]
    guide.instruct(again.instructions.views)
    for one, state in zip((guide, again), states, strict=True):
        one.before_densification(3, scene, state)
    assert len(states[0]["instructed"]) == BALL + SHELL and (states[1]["instructed"][:BALL] > 0).any()
