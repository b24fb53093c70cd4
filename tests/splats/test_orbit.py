"""The orbit keeps to where cameras stood, looks at what they looked at, closes, and moves smoothly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vlmgs_ns.splats.orbit import orbit

CENTRE = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)


def ring(radius: Tensor, height: Tensor, target: Tensor) -> Tensor:  # [N, 3, 4]
    """Upright OpenGL cameras around a target, one per given radius [N] and height [N]."""
    angle = torch.arange(len(radius), dtype=torch.float64) * (2 * math.pi / len(radius))
    eye = target + torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)
    back = torch.nn.functional.normalize(eye - target, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64), back), dim=-1)
    return torch.stack([right, torch.linalg.cross(back, right), back, eye], dim=-1)


def test_cameras_on_a_circle_give_that_circle() -> None:
    poses = orbit(ring(torch.full((12,), 3.0).double(), torch.full((12,), 1.0).double(), CENTRE), 40)
    offset = poses[:, :, 3] - CENTRE
    torch.testing.assert_close(offset[:, :2].norm(dim=-1), torch.full((40,), 3.0).double(), atol=1e-2, rtol=0)
    torch.testing.assert_close(offset[:, 2], torch.ones(40).double(), atol=1e-2, rtol=0)


def test_every_pose_is_a_rotation_that_looks_at_the_centre_upright() -> None:
    poses = orbit(ring(torch.linspace(2, 3, 12).double(), torch.linspace(0.5, 1.5, 12).double(), CENTRE), 25)
    rotation = poses[:, :, :3]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).double().expand(25, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(25).double())
    towards = torch.nn.functional.normalize(CENTRE - poses[:, :, 3], dim=-1)
    assert ((-rotation[:, :, 2] * towards).sum(dim=-1) > 0.999).all()
    assert (rotation[:, 2, 1] > 0).all()


def test_the_path_follows_a_long_room_and_closes() -> None:
    angle = torch.arange(24, dtype=torch.float64) * (2 * math.pi / 24)
    ellipse = 6.0 / torch.hypot(2.0 * angle.cos(), 3.0 * angle.sin())  # half axes 3 and 2
    poses = orbit(ring(ellipse, torch.ones(24).double(), CENTRE), 72)
    offset = poses[:, :2, 3] - CENTRE[:2]
    inside = torch.hypot(offset[:, 0] / 3.0, offset[:, 1] / 2.0)
    assert (inside - 1).abs().max() < 0.1
    step = (poses[:, :, 3] - poses.roll(1, dims=0)[:, :, 3]).norm(dim=-1)  # the step from the last to the first among them
    assert step.max() < 2 * step.min()


def test_heights_stay_between_the_cameras() -> None:
    height = torch.linspace(0.5, 2.0, 30).double()[torch.randperm(30, generator=torch.Generator().manual_seed(0))]
    poses = orbit(ring(torch.full((30,), 3.0).double(), height, CENTRE), 50)
    rise = poses[:, 2, 3] - CENTRE[2]
    assert rise.min() > 0.4 and rise.max() < 2.1 and rise.max() - rise.min() > 0.3


def test_it_turns_with_the_world() -> None:
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    cameras = ring(torch.full((12,), 3.0).double(), torch.full((12,), 1.0).double(), CENTRE)
    turned = orbit(turn @ cameras, 200)
    distance = torch.cdist(turned[:, :, 3], (turn @ orbit(cameras, 200))[:, :, 3]).min(dim=1).values
    assert distance.max() < 0.1  # the same circle, begun elsewhere


def test_two_photos_surround_nothing() -> None:
    with pytest.raises(ValueError, match="2 photos"):
        orbit(torch.eye(4)[None, :3].repeat(2, 1, 1), 10)
