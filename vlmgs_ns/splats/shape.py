"""How far Gaussians reach and how much they weigh."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vlmgs_ns.splats.gaussians import Splats

EXTENT = 2.0
"""Standard deviations from its centre that count as a Gaussian's own."""


def mass(splats: Splats) -> Tensor:  # [N]
    """Opacity times the area of the largest cross-section, in square world units: what a Gaussian may cover in a picture."""
    largest = splats.scales.sort(dim=1).values[:, 1:]
    return splats.opacities * largest.prod(dim=1)


def spread(splats: Splats) -> Tensor:  # [N, 3, 3] float64
    """Return a square root S of each covariance SᵀS: |S d| is the standard deviation along a unit vector d of the world."""
    w, x, y, z = normalize(splats.quats.double(), dim=1).unbind(1)
    own_axes = [
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
        [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
    ]
    turn = torch.stack([torch.stack(axis, dim=1) for axis in own_axes], dim=1)
    return turn * splats.scales.double()[:, :, None]
