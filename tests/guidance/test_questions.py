"""What a round asks: the right views, and everything a backend may want to know about them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.guidance.small_world import HEIGHT, WIDTH, Scripted, SmallScene, says
from vlmgs_ns.guidance.backends.residual import ResidualBackend
from vlmgs_ns.guidance.config import choose_views
from vlmgs_ns.guidance.question import Evidence, Phase
from vlmgs_ns.guidance.questions import Survey, pixels, survey


def ask(phase: Phase, count: int = 3, step: int = 10, scene: SmallScene | None = None, size: int = 640, **more) -> Survey:
    backend = more.pop("backend", ResidualBackend())
    return survey(phase, count, step, scene or SmallScene(), backend, size, more.pop("earlier", {}))


@pytest.mark.parametrize("phase", ["detail", "background", "compare"])
def test_photos_views_are_asked_about_with_their_photo_and_depth(phase: Phase) -> None:
    scene = SmallScene()
    found = ask(phase, scene=scene)
    assert [point.photo for point in found.viewpoints] == choose_views(phase, 3, 6, 10)
    for point, question in zip(found.viewpoints, found.questions, strict=True):
        render, evidence = scene.render(point), question.evidence
        assert question.phase == phase and (question.pictures[0] == pixels(render.rgb)).all()
        assert evidence.photo is not None and np.allclose(evidence.photo, (point.photo or 0) / 10)
        assert evidence.depth is not None and np.allclose(evidence.depth, render.depth)
        assert evidence.coverage is not None and np.allclose(evidence.coverage, render.coverage)
        assert evidence.subject == pytest.approx((0.5, 0.5), abs=1e-4)  # every camera looks at the centre
        assert evidence.disagreement is None and evidence.earlier is None
        assert len(question.pictures) == (2 if phase == "compare" else 1)
        if phase == "compare":
            assert (question.pictures[1] == round(255 * (point.photo or 0) / 10)).all()


def test_an_earlier_render_is_evidence_if_it_has_the_same_size() -> None:
    before = {k: np.full((HEIGHT, WIDTH, 3), 51, np.uint8) for k in range(6)}
    assert all(
        q.evidence.earlier is not None and np.allclose(q.evidence.earlier, 0.2) for q in ask("detail", earlier=before).questions
    )
    before = {k: np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8) for k in range(6)}
    assert all(q.evidence.earlier is None for q in ask("detail", earlier=before).questions)


def test_new_viewpoints_have_no_photo_but_neighbours_that_do() -> None:
    scene = SmallScene()
    found = ask("novel", 4, scene=scene)
    cameras = torch.stack([point.camera_to_world for point in scene.points])
    assert len(found.questions) == 4
    for point, question in zip(found.viewpoints, found.questions, strict=True):
        assert point.photo is None and question.evidence.photo is None and len(question.pictures) == 1
        assert (cameras[:, :, 3] - point.camera_to_world[:, 3]).norm(dim=1).min() > 0
        disagreement = question.evidence.disagreement
        assert disagreement is not None and disagreement.shape == (HEIGHT, WIDTH) and np.isfinite(disagreement).any()
    again = ask("novel", 4)
    assert all(torch.equal(a.camera_to_world, b.camera_to_world) for a, b in zip(found.viewpoints, again.viewpoints, strict=True))
    other = ask("novel", 4, step=11)
    assert not torch.equal(found.viewpoints[0].camera_to_world, other.viewpoints[0].camera_to_world)


def test_no_new_viewpoint_stands_too_near_to_a_surface() -> None:
    """A tenth of the scene's extent must be free in front; in a scene of extent 100 the shell 3 units away is too near."""
    scene = SmallScene()
    assert len(ask("novel", 3, scene=scene).questions) == 3
    scene.extent = lambda: 100.0  # type: ignore[method-assign]
    assert ask("novel", 3, scene=scene).questions == []


def test_a_prompt_states_the_size_that_the_model_will_see() -> None:
    """Qwen2.5-VL sees multiples of 28 pixels, of pictures that the backend has shrunk before."""
    backend = Scripted(says(None), coordinates="pixels")
    prompts = [ask("detail", 1, backend=backend, size=size).questions[0].prompt for size in (640, 30)]
    assert "28 wide and 28 high" in prompts[0] and "28 wide and 28 high" in prompts[1]
    scene = SmallScene()
    scene.points = [type(p)(p.camera_to_world, p.K, 300, 200, p.photo) for p in scene.points]
    scene.photo = lambda viewpoint: torch.zeros(200, 300, 3)  # type: ignore[method-assign]
    assert "280 wide and 196 high" in ask("detail", 1, scene=scene, backend=backend, size=640).questions[0].prompt
    assert "140 wide and 84 high" in ask("detail", 1, scene=scene, backend=backend, size=150).questions[0].prompt
    assert "thousandths" in ask("detail", 1, scene=scene, size=150).questions[0].prompt


@pytest.mark.parametrize("phase", ["detail", "background", "novel", "compare"])
def test_a_backend_without_need_of_evidence_is_given_none_at_the_size_it_looks_at(phase: Phase) -> None:
    backend = Scripted(says(None))
    backend.needs_evidence = False
    scene, small = SmallScene(), (HEIGHT // 2, WIDTH // 2, 3)
    scene.photo = lambda viewpoint: torch.zeros(viewpoint.height, viewpoint.width, 3)  # type: ignore[method-assign]
    found = ask(phase, scene=scene, backend=backend, size=WIDTH // 2)
    assert scene.renders == 3  # one per view: also the clear view from a new viewpoint is rendered once
    for point, question in zip(found.viewpoints, found.questions, strict=True):
        assert question.evidence == Evidence() and {picture.shape for picture in question.pictures} == {small}
        assert len(question.pictures) == (2 if phase == "compare" else 1)
        assert (point.height, point.width) == small[:2] and (pixels(scene.render(point).rgb) == question.pictures[0]).all()
    large = ask(phase, scene=SmallScene()).questions[0].pictures[0]
    half = np.stack([large[y::2, x::2] for y in (0, 1) for x in (0, 1)]).mean(axis=0)
    assert abs(half - found.questions[0].pictures[0]).mean() < 12  # the same view, in fewer pixels


def test_pixels_are_rounded_and_clamped() -> None:
    assert pixels(torch.tensor([[[-1.0, 0.5, 2.0]]])).tolist() == [[[0, 128, 255]]]
