"""Gaussians that become several, and new ones from nowhere, without brightening the picture.

Built on gsplat's `duplicate`, which keeps optimisers and the strategy's state aligned; the copies are then moved in place.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gsplat.strategy.ops import duplicate
from torch import Tensor
from torch.nn.functional import normalize

SHRINK = 1.6
"""3DGS' divisor of the size of the two children of a split."""

Params = Any  # dict or ParameterDict of name → Parameter, as gsplat's strategies take it


def shared_opacity(
    opacity: Tensor,  # [...]
    count: int,
) -> Tensor:
    """o' with 1 - (1 - o')^count = opacity: `count` splats of it in one place cover what one did (arXiv 2404.06109, eq. 8)."""
    return 1 - (1 - opacity) ** (1 / count)


def relocated_scale(
    opacity: Tensor,  # [...] before
    count: int,
) -> Tensor:
    """Factor for the size of `count` copies in one place that share the opacity: they keep its integral (3DGS-MCMC, eq. 9)."""
    shared = shared_opacity(opacity, count)
    total = torch.zeros_like(opacity)
    for i in range(1, count + 1):
        for k in range(i):
            total += math.comb(i - 1, k) * (-1) ** k * shared ** (k + 1) / math.sqrt(k + 1)
    return torch.where(opacity > 0, opacity / total.clamp_min(1e-12), torch.ones_like(opacity))


@torch.no_grad()
def multiply(
    params: Params,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
    chosen: Tensor,  # [N] bool
    large: Tensor,  # [N] bool: split these, clone the others
    factor: int = 2,
) -> Tensor:
    """Each chosen Gaussian becomes `factor`: large ones smaller and apart, small ones in place. Which rows are theirs. [N'] bool.

    Opacities are shared out, so that what lies behind shows through as before; a split's children have their parent's size
    divided by 1.6 for two (0.8 · factor in general, as in 3DGS), clones just keep the integral.
    """
    parents = torch.nonzero(chosen).squeeze(1)
    count = len(chosen)
    rows = [parents]
    for k in range(factor - 1):
        everyone = torch.zeros(count + k * len(parents), dtype=torch.bool, device=chosen.device)
        everyone[parents] = True
        if len(parents):
            duplicate(params, optimizers, state, everyone)
        rows.append(torch.arange(len(parents), device=chosen.device) + len(everyone))
    theirs = torch.zeros(len(params["means"]), dtype=torch.bool, device=chosen.device)
    if factor < 2 or not len(parents):
        return theirs
    opacity = params["opacities"][parents].sigmoid()
    size, quats = params["scales"][parents].exp(), normalize(params["quats"][parents], dim=-1)
    divide = large[parents][:, None]
    smaller = torch.where(divide, torch.full_like(opacity, SHRINK / 2 * factor).reciprocal(), relocated_scale(opacity, factor))
    offsets = torch.randn(factor, len(parents), 3, device=chosen.device) * size * divide
    for row, offset in zip(rows, offsets, strict=True):
        params["means"].data[row] += rotate(quats, offset)
        params["scales"].data[row] = (size * smaller).log()
        params["opacities"].data[row] = torch.logit(shared_opacity(opacity, factor).clamp(1e-6, 1 - 1e-6))
        theirs[row] = True
    _forget(params, optimizers, theirs)
    return theirs


@torch.no_grad()
def append(
    params: Params,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
    values: dict[str, Tensor],  # name → [M, ...], every parameter
) -> Tensor:
    """Add M Gaussians with these raw parameter values and no history; there must be one already. Their rows. [N + M] bool."""
    before, wanted = len(params["means"]), len(values["means"])
    while len(params["means"]) < before + wanted:
        now = len(params["means"])
        template = torch.zeros(now, dtype=torch.bool, device=params["means"].device)
        template[: min(now, before + wanted - now)] = True
        duplicate(params, optimizers, state, template)
    new = torch.arange(before + wanted, device=params["means"].device) >= before
    for name, value in values.items():
        params[name].data[new] = value.to(params[name])
    for value in state.values():
        if isinstance(value, Tensor):
            value[new] = 0
    _forget(params, optimizers, new)
    return new


def rotate(
    quats: Tensor,  # [N, 4] (w, x, y, z), unit
    vectors: Tensor,  # [N, 3]
) -> Tensor:  # [N, 3]
    """Vectors of the Gaussians' own axes in world axes."""
    w, axis = quats[:, :1], quats[:, 1:]
    twice = 2 * torch.linalg.cross(axis, vectors)
    return vectors + w * twice + torch.linalg.cross(axis, twice)


def _forget(params: Params, optimizers: dict[str, torch.optim.Optimizer], rows: Tensor) -> None:
    """Moments of what these rows were say nothing about what they are now."""
    for name in params:
        for key, value in optimizers[name].state[params[name]].items():
            if key != "step":
                value[rows] = 0
