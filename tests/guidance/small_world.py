"""A ball of small Gaussians inside a shell of large ones, six cameras around it, and backends that do as they are told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmgs_ns.guidance.question import Answer, Coordinates, Question
from vlmgs_ns.guidance.training_scene import Render, Viewpoint
from vlmgs_ns.rasterize import rasterization

WIDTH, HEIGHT, FOCAL = 48, 36, 40.0
BALL, SHELL = 40, 120
"""Gaussians of the subject, which come first, and of its surroundings."""


def look_at(eye: tuple[float, float, float]) -> Tensor:  # [3, 4]
    """Camera → world, OpenGL axes, looking at the origin."""
    position = torch.tensor(eye)
    back = position / position.norm()
    right = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), back)
    right = right / right.norm()
    return torch.stack([right, torch.linalg.cross(back, right), back, position], dim=-1)


class SmallScene:
    """`TrainingScene` over Gaussians that nobody trains; what is planted is only counted."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)

        def sphere(count: int, radius: float) -> Tensor:
            return torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1) * radius

        self.means = torch.cat([sphere(BALL, 0.25), sphere(SHELL, 3.0)])
        self.scales = torch.cat([torch.full((BALL, 3), 0.1), torch.full((SHELL, 3), 0.5)])
        self.opacities = torch.full((BALL + SHELL,), 0.95)
        self.colors = torch.rand(BALL + SHELL, 3, generator=g)
        self.planted: list[tuple[Tensor, Tensor, Tensor]] = []
        self.renders = self.steps = 0
        self.dim = False
        K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
        self.points = [
            Viewpoint(look_at((1.5 * math.cos(k * math.pi / 3), 1.5 * math.sin(k * math.pi / 3), 0.3)), K, WIDTH, HEIGHT, k)
            for k in range(6)
        ]

    def begin_step(self) -> None:
        self.steps += 1

    def viewpoints(self) -> list[Viewpoint]:
        return self.points

    def photo(self, viewpoint: Viewpoint) -> Tensor:
        assert viewpoint.photo is not None
        return torch.full((HEIGHT, WIDTH, 3), viewpoint.photo / 10)

    def render(self, viewpoint: Viewpoint) -> Render:
        self.renders += 1
        quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(len(self.means), 1)
        image, alpha, info = rasterization(
            self.means, quats, self.scales, self.opacities, self.colors, viewpoint.opencv.inverse()[None], viewpoint.K[None],
            viewpoint.width, viewpoint.height, render_mode="RGB+ED",
        )  # fmt: skip
        return Render(image[0, ..., :3].clamp(0, 1), image[0, ..., 3], alpha[0, ..., 0], info)

    def centre(self) -> Tensor:
        return torch.zeros(3)

    def extent(self) -> float:
        return 1.5

    def recovering(self) -> bool:
        return self.dim

    def plant(self, means: Tensor, colors: Tensor, sizes: Tensor) -> int:
        self.planted.append((means, colors, sizes))
        return len(means)


Asked = Callable[[Sequence[Question]], Any]


class Scripted:
    """A backend whose replies a function makes."""

    def __init__(self, script: Asked, coordinates: Coordinates = "thousandths", fingerprint: str = "scripted 1") -> None:
        self.script = script
        self.name = "scripted"
        self.fingerprint = fingerprint
        self.coordinates = coordinates
        self.needs_evidence = True
        self.quick = False
        self.asked: list[Sequence[Question]] = []
        self.released = 0

    def check(self) -> None:
        pass

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked.append(questions)
        answers: list[Answer] = self.script(questions)
        return answers

    def release(self) -> None:
        self.released += 1


def says(text: str | None, **details: Any) -> Asked:
    """Every question gets the same reply; None: every question fails."""
    return lambda questions: [
        Answer(text, None if text is not None else "the server is on fire", details=dict(details)) for _ in questions
    ]


BALL_BOX = '[{"bbox_2d": [230, 150, 770, 850], "label": "ball"}]'
"""What every camera sees of the ball, and a little more."""
