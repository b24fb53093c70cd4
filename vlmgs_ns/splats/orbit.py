"""A smooth closed path of cameras through a scene that was photographed all around."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HARMONICS = 2
_RIDGE = 1e-3
_WIDEST_GAP = 120.0
"""Degrees around the axis without a camera, up to which photos surround a scene."""


def orbit(
    camera_to_worlds: Tensor,  # [N, 3, 4]
    frames: int,
) -> Tensor:  # [frames, 3, 4]
    """Return poses of one turn around what the photos look at, as far out as the photos were taken in each direction.

    The distance from the axis is a Fourier series of second order fitted to the cameras over their azimuth, so that the path
    keeps to where cameras stood; it rises and falls once, within the cameras' heights; it looks at the point nearest to all
    optical axes. The last frame is one step before the first, for a video that loops.

    Args:
        camera_to_worlds: poses of the photos, OpenGL axes.
        frames: poses to return, ≥ 1.

    Returns:
        Poses of the same kind.

    Raises:
        ValueError: there are fewer than 3 photos.
    """
    if len(camera_to_worlds) < 3:
        raise ValueError(f"{len(camera_to_worlds)} photos do not surround a scene; give the poses of 3 or more")
    poses = camera_to_worlds.double()
    positions, forward = poses[:, :, 3], -poses[:, :, 2]
    focus = nearest_to_lines(positions, forward)
    east, north, up = _frame(poses[:, :, 1].mean(dim=0))
    offset = positions - focus
    height = offset @ up
    waves = _fit_waves(torch.atan2(offset @ north, offset @ east), torch.hypot(offset @ east, offset @ north))

    angle = torch.arange(frames, dtype=torch.float64) * (2 * math.pi / frames)
    reach = _waves(angle) @ waves
    rise = height.mean() + 0.6 * height.std() * torch.sin(angle)
    eye = focus + (reach * angle.cos())[:, None] * east + (reach * angle.sin())[:, None] * north + rise[:, None] * up
    return _look_at(eye, focus, up).to(camera_to_worlds.dtype)


def surrounds(
    camera_to_worlds: Tensor,  # [N, 3, 4]
) -> bool:
    """Return whether photos were taken from all around what they look at, so that `orbit` stays where something was seen."""
    if len(camera_to_worlds) < 3:
        return False
    poses = camera_to_worlds.double()
    offset = poses[:, :, 3] - nearest_to_lines(poses[:, :, 3], -poses[:, :, 2])
    east, north, _ = _frame(poses[:, :, 1].mean(dim=0))
    azimuth = torch.rad2deg(torch.atan2(offset @ north, offset @ east)).sort().values
    gaps = torch.diff(azimuth, append=azimuth[:1] + 360)
    return float(gaps.max()) <= _WIDEST_GAP


def nearest_to_lines(
    origins: Tensor,  # [N, 3]
    directions: Tensor,  # [N, 3]
) -> Tensor:  # [3]
    """Return the point nearest to lines in least squares; a small pull to their origins' mean determines it for parallel ones."""
    unit = directions / directions.norm(dim=-1, keepdim=True)
    across = torch.eye(3, dtype=unit.dtype) - unit[:, :, None] * unit[:, None, :]
    pull = _RIDGE * torch.eye(3, dtype=unit.dtype)
    across_origins = (across @ origins[..., None])[..., 0]
    return torch.linalg.solve(across.mean(dim=0) + pull, across_origins.mean(dim=0) + pull @ origins.mean(dim=0))


def _frame(up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right-handed unit vectors of which the last is along ``up`` [3]."""
    up = up / up.norm()
    axis = torch.zeros_like(up)
    axis[int(up.abs().argmin())] = 1.0
    east = torch.linalg.cross(axis, up)
    east = east / east.norm()
    return east, torch.linalg.cross(up, east), up


def _waves(angle: Tensor) -> Tensor:
    """Values [K, 2 * harmonics + 1] of the Fourier basis at ``angle`` [K]."""
    waves = [torch.ones_like(angle)]
    for order in range(1, _HARMONICS + 1):
        waves += [(order * angle).cos(), (order * angle).sin()]
    return torch.stack(waves, dim=-1)


def _fit_waves(
    angle: Tensor,  # [N]
    value: Tensor,  # [N]
) -> Tensor:  # [2 * harmonics + 1]
    """Coefficients of the Fourier series nearest to ``value`` over ``angle``; a ridge bounds it at unobserved angles."""
    basis = _waves(angle)
    ridge = _RIDGE * len(angle) * torch.eye(basis.shape[1], dtype=basis.dtype)
    ridge[0, 0] = 0.0
    return torch.linalg.solve(basis.T @ basis + ridge, basis.T @ value)


def _look_at(
    eye: Tensor,  # [F, 3]
    target: Tensor,  # [3]
    up: Tensor,  # [3]
) -> Tensor:  # [F, 3, 4]
    """Upright OpenGL poses at ``eye`` that look at ``target``."""
    back = torch.nn.functional.normalize(eye - target, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(up.expand_as(back), back), dim=-1)
    return torch.stack([right, torch.linalg.cross(back, right), back, eye], dim=-1)
