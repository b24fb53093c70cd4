"""Initialisation of Gaussians without points: a sparse random start, and an ambient shell around the subject.

World coordinates; `up` is the world's vertical (nerfstudio's dataparsers turn it to +z).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

GREY = 0.5
POINT_OPACITY = 0.1
"""Opacity of Gaussians at a scene's points, as in 3DGS, and of those that are added where nothing is."""


@dataclass
class Seeds:
    """Gaussians to be, before activation functions."""

    means: Tensor  # [M, 3] world
    scales: Tensor  # [M, 3] standard deviations, world units
    quats: Tensor  # [M, 4] wxyz
    colors: Tensor  # [M, 3] in [0, 1]
    opacities: Tensor  # [M] in (0, 1)


def camera_extent(
    positions: Tensor,  # [C, 3] world
) -> tuple[Tensor, float]:
    """Centre [3] and extent of a scene by its cameras, as 3DGS has it: 1.1 times the greatest distance from their mean."""
    centre = positions.mean(dim=0)
    return centre, 1.1 * float((positions - centre).norm(dim=-1).max())


def uniform_points(
    count: int,
    centre: Tensor,  # [3]
    half_size: float,
) -> Tensor:
    """Points uniform in the cube centre ± half_size (docs/methods.md, sparse start). [count, 3]."""
    return centre + (2 * torch.rand(count, 3, device=centre.device) - 1) * half_size


def ray_points(
    pixels: Tensor,  # [P, 2] row, column
    depth: Tensor,  # [P] z-depth, world units
    K: Tensor,  # [3, 3] pixels
    camera_to_world: Tensor,  # [4, 4] OpenCV axes
) -> Tensor:  # [P, 3]
    """Points in the world that pixels show at a depth: through the pixels' centres."""
    x = (pixels[:, 1] + 0.5 - K[0, 2]) / K[0, 0] * depth
    y = (pixels[:, 0] + 0.5 - K[1, 2]) / K[1, 1] * depth
    return torch.stack([x, y, depth], dim=1) @ camera_to_world[:3, :3].T + camera_to_world[:3, 3]


def ambient_shell(
    subject: Tensor,  # [P, 3] points of the subject, world
    count: int = 5000,
    margin: float = 1.2,
    padding: float = 0.2,
) -> Seeds:
    """A hollow elliptical tube around the subject, to seed surroundings that have no Gaussian to densify (VLM-Instruct-FastGS).

    Its axes are the principal axes of the subject's horizontal covariance, its radii the greatest projection on them times
    `margin`, its height the subject's, padded by `padding` at both ends. Points lie on a regular grid that is even in arc
    length; each Gaussian is flat against the shell and as large as the grid's spacing, so that they leave no gap. Grey.

    Raises:
        ValueError: fewer than two distinct points, or no room for a grid.
    """
    if count < 8:
        raise ValueError(f"an ambient shell of {count} points has gaps: give at least 8")
    horizontal = subject[:, :2]
    centre = horizontal.mean(dim=0)
    offsets = horizontal - centre
    if len(subject) < 2 or float(offsets.abs().max()) == 0.0:
        raise ValueError(f"an ambient shell needs a subject with some width: {len(subject)} points, all in one vertical line")
    axes = torch.linalg.svd(offsets.T @ offsets / len(subject))[0].T  # [2, 2], rows: first and second axis
    radii = (offsets @ axes.T).abs().amax(dim=0) * margin
    radii = radii.clamp_min(0.05 * float(radii.max()))  # a flat subject still gets a tube
    low, high = float(subject[:, 2].min()), float(subject[:, 2].max())
    height = max(high - low, 0.1 * float(radii.max()))
    middle = (low + high) / 2
    height *= 1 + 2 * padding

    # arc length of the ellipse, by fine sampling, and a grid of about square cells
    fine = torch.linspace(0, 2 * math.pi, 4097, dtype=torch.float64)
    curve = torch.stack([torch.cos(fine) * float(radii[0]), torch.sin(fine) * float(radii[1])], dim=1)
    lengths = torch.cat([torch.zeros(1, dtype=torch.float64), (curve[1:] - curve[:-1]).norm(dim=1).cumsum(0)])
    around = float(lengths[-1])
    columns = max(4, round(math.sqrt(count * around / height)))
    rows = max(2, count // columns)
    wanted = torch.arange(columns, dtype=torch.float64) / columns * around
    after = torch.searchsorted(lengths, wanted, right=True).clamp(1, len(fine) - 1)
    part = (wanted - lengths[after - 1]) / (lengths[after] - lengths[after - 1])
    angles = (fine[after - 1] + part * (fine[after] - fine[after - 1])).to(subject)
    levels = middle + ((torch.arange(rows, device=subject.device) + 0.5) / rows - 0.5) * height
    angle, level = (grid.reshape(-1) for grid in torch.meshgrid(angles, levels.to(subject), indexing="ij"))

    flat = torch.stack([torch.cos(angle) * radii[0], torch.sin(angle) * radii[1]], dim=1) @ axes + centre
    normal = torch.stack([torch.cos(angle) / radii[0], torch.sin(angle) / radii[1]], dim=1) @ axes
    yaw = torch.atan2(normal[:, 1], normal[:, 0])  # local x along the normal, y along the wall, z up
    zeros = torch.zeros_like(yaw)
    along, up = around / columns, height / rows
    size = torch.tensor([0.1 * min(along, up), along / 2, up / 2], device=subject.device, dtype=subject.dtype)
    return Seeds(
        means=torch.cat([flat, level[:, None]], dim=1),
        scales=size.expand(len(flat), 3).clone(),
        quats=torch.stack([torch.cos(yaw / 2), zeros, zeros, torch.sin(yaw / 2)], dim=1),
        colors=torch.full((len(flat), 3), GREY, device=subject.device, dtype=subject.dtype),
        opacities=torch.full((len(flat),), POINT_OPACITY, device=subject.device, dtype=subject.dtype),
    )
