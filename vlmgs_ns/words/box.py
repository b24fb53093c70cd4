"""The box around a selection, turned to lie along it.

Weighted by what each Gaussian shows of the thing, or may cover, so that neither dust nor a needle nor the wall behind decides:
axes are the principal axes of what is near the middle, and the extents are quantiles of where the Gaussians begin and end along
them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.shape import mass, spread

TAIL = 0.03
"""Share of the weight that may stick out of each side."""
REACH = 1.0
"""Standard deviations from its centre at which a Gaussian ends: half of its weight in a picture lies within 1.2 of them."""
_FAR = 5.0
"""Times the median distance from the middle; what is farther does not turn the axes. Across a thin rod the ends are at 2."""


@dataclass(frozen=True)
class OrientedBox:
    """A box in world coordinates."""

    centre: Tensor  # [3]
    axes: Tensor  # [3, 3] rows, orthonormal and right-handed, the direction of the widest spread first
    size: Tensor  # [3] full lengths along the axes, world units

    def corners(self) -> Tensor:  # [8, 3]
        """Return the corners, counted in binary: bit 2 is the side along the first axis, bit 0 along the third."""
        signs = torch.tensor(list(itertools.product((-0.5, 0.5), repeat=3)), dtype=self.centre.dtype, device=self.centre.device)
        return self.centre + (signs * self.size) @ self.axes


@torch.no_grad()
def oriented_box(
    splats: Splats,
    weights: Tensor | None = None,  # [N] ≥ 0
) -> OrientedBox:
    """Return the box around these Gaussians, all but `TAIL` of their weight on each side.

    Args:
        weights: how much each counts; None, or nothing but 0: by its mass.

    Raises:
        ValueError: there are none.
    """
    if len(splats) == 0:
        raise ValueError("there is no box around no Gaussians; select some first")
    if weights is None or not weights.any():
        weights = mass(splats)
    means, weights = splats.means.double(), weights.to(splats.means.device).double().clamp_min(1e-30)
    middle = torch.stack([_quantile(means[:, k], weights, 0.5) for k in range(3)])
    distance = (means - middle).norm(dim=1)
    typical = _quantile(distance, weights, 0.5)
    # One Gaussian may hold half the mass, at distance 0; then nothing tells what is far.
    near = (distance <= _FAR * typical) | (typical == 0)
    inner, share, shapes = means[near], weights[near] / weights[near].sum(), spread(splats)
    apart = inner - share @ inner
    own = torch.einsum("n,nij,nik->jk", share, shapes[near], shapes[near])
    _, vectors = torch.linalg.eigh(apart.T @ (apart * share[:, None]) + own)
    axes = _right_handed(vectors.T.flip(0))

    along = means @ axes.T
    reach = REACH * torch.einsum("nij,kj->nki", shapes, axes).norm(dim=2)
    low = torch.stack([_quantile((along - reach)[:, k], weights, TAIL) for k in range(3)])
    high = torch.stack([_quantile((along + reach)[:, k], weights, 1 - TAIL) for k in range(3)])
    kind = splats.means.dtype
    return OrientedBox(((low + high) / 2 @ axes).to(kind), axes.to(kind), (high - low).to(kind))


def _quantile(
    values: Tensor,  # [N]
    weights: Tensor,  # [N] > 0
    share: float,
) -> Tensor:  # []
    """Return the smallest value that holds this share of the weight at or below it."""
    order = values.argsort()
    below = weights[order].cumsum(0)
    # A hair less: of a hundred equal weights, one is 1 %, however the sum was rounded.
    return values[order][torch.searchsorted(below, share * below[-1] * (1 - 1e-9)).clamp_max(len(values) - 1)]


def _right_handed(axes: Tensor) -> Tensor:
    """Return the same axes with signs that do not depend on the solver: the largest entry of the first two is positive."""
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    axes = axes * largest.sign()
    return torch.stack([axes[0], axes[1], torch.linalg.cross(axes[0], axes[1])])
