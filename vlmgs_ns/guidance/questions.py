"""Which views a round asks about, and everything that goes along with the question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmgs_ns.densify.photo_depth import Neighbour
from vlmgs_ns.guidance.backends.pictures import SQUARE, seen_size
from vlmgs_ns.guidance.config import choose_views
from vlmgs_ns.guidance.disagreement import disagreement
from vlmgs_ns.guidance.novel_views import clearance_from_depth, novel_viewpoints
from vlmgs_ns.guidance.prompts import prompt
from vlmgs_ns.guidance.question import Backend, Evidence, Phase, Question
from vlmgs_ns.guidance.training_scene import Render, TrainingScene, Viewpoint, nearest

NEIGHBOURS = 3
"""Photos that a novel view is compared with."""
MIN_CLEARANCE = 0.1
"""A novel viewpoint keeps this distance from surfaces, as a fraction of the scene's extent."""


def pixels(
    picture: Tensor,  # [H, W, 3] in [0, 1]
) -> NDArray[np.uint8]:  # [H, W, 3]
    """As 8-bit values, on the CPU."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def array(values: Tensor) -> NDArray[np.float32]:
    """As a numpy array, on the CPU."""
    return values.float().cpu().numpy()


@dataclass
class Survey:
    """The questions of a round, the viewpoints they are about, and what was rendered there."""

    questions: list[Question]
    viewpoints: list[Viewpoint]
    renders: list[Render]


def survey(
    phase: Phase,
    count: int,
    step: int,
    scene: TrainingScene,
    backend: Backend,
    max_image_size: int,
    earlier: dict[int, NDArray[np.uint8]],
    wish: str = "",
    turn: int = 0,
) -> Survey:
    """Render the views of a round and put the phase's question about each.

    Only a backend that needs evidence is given any; the others' views have the size that they look at.

    Args:
        max_image_size: longer side to which a backend with a model shrinks pictures; the prompt says what it then sees.
        earlier: renders of photos' views in an earlier state, by the photo's index; those of another size are ignored.
        wish: what the user wants in detail, for "ground".
        turn: number of the phase's rounds before this one.
    """
    cameras = scene.viewpoints()
    if not backend.needs_evidence:
        cameras = [camera.within(max_image_size) for camera in cameras]
    if phase == "novel":
        renders = _unseen(count, step, scene, cameras)
    else:
        chosen = [cameras[k] for k in choose_views(phase, count, len(cameras), step, turn)]
        renders = [(viewpoint, scene.render(viewpoint)) for viewpoint in chosen]
    questions = []
    for viewpoint, render in renders:
        pictures = [pixels(scene.photo(viewpoint) if phase == "ground" else render.rgb)]
        if phase == "compare":
            pictures.append(pixels(scene.photo(viewpoint)))
        evidence = Evidence()
        if backend.needs_evidence:
            evidence = _evidence(
                viewpoint, render, scene, cameras, None if viewpoint.photo is None else earlier.get(viewpoint.photo)
            )
        seen = seen_size(viewpoint.width, viewpoint.height, max_image_size, SQUARE[backend.coordinates])
        text = prompt(phase, backend.coordinates, *seen, wish)
        questions.append(Question(phase, text, tuple(pictures), evidence))
    return Survey(questions, [viewpoint for viewpoint, _ in renders], [render for _, render in renders])


def _evidence(
    viewpoint: Viewpoint,
    render: Render,
    scene: TrainingScene,
    cameras: list[Viewpoint],
    earlier: NDArray[np.uint8] | None,
) -> Evidence:
    """All that is known about a view; taken now, because training goes on while the backend looks."""
    new = viewpoint.photo is None
    return Evidence(
        photo=None if new else array(scene.photo(viewpoint)),
        earlier=None if earlier is None or earlier.shape != tuple(render.rgb.shape) else earlier.astype(np.float32) / 255,
        depth=array(render.depth),
        coverage=array(render.coverage),
        disagreement=_disagreement(viewpoint, render, scene, cameras) if new else None,
        subject=viewpoint.project(scene.centre()),
    )


def _unseen(count: int, step: int, scene: TrainingScene, cameras: list[Viewpoint]) -> list[tuple[Viewpoint, Render]]:
    """New viewpoints between the cameras, none of them inside a surface, with the render that told so."""
    like = cameras[0]
    renders: list[tuple[Viewpoint, Render]] = []

    def clearance(pose: Tensor) -> float:
        viewpoint = Viewpoint(pose.to(like.camera_to_world), like.K, like.width, like.height)
        renders.append((viewpoint, scene.render(viewpoint)))
        return clearance_from_depth(renders[-1][1].depth, renders[-1][1].coverage)

    poses = torch.stack([camera.camera_to_world for camera in cameras])
    generator = torch.Generator().manual_seed(step)
    found = novel_viewpoints(poses.cpu(), count, generator, clearance, MIN_CLEARANCE * scene.extent())
    return [next(pair for pair in renders if torch.equal(pair[0].camera_to_world.cpu(), pose)) for pose in found]


def _disagreement(viewpoint: Viewpoint, render: Render, scene: TrainingScene, cameras: list[Viewpoint]) -> NDArray[np.float32]:
    """Between the render and the photos taken nearest to it."""
    neighbours = []
    for camera in nearest(cameras, viewpoint, NEIGHBOURS):
        seen = scene.render(camera)
        depth = torch.where(seen.coverage > 0.5, seen.depth, torch.full_like(seen.depth, torch.nan))
        neighbours.append(Neighbour(scene.photo(camera), camera.K, camera.opencv, depth))
    return array(disagreement(render.rgb, render.depth, render.coverage, viewpoint.K, viewpoint.opencv, neighbours))
