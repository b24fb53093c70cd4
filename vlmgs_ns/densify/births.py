"""Gaussians that become two, and new ones from nowhere; a picture of the scene stays as it is, but for what is scattered.

Built on gsplat's `duplicate`, which keeps optimisers and the strategy's state aligned; parents and copies are then changed in
place. gsplat's own clone stacks a second Gaussian of the same opacity, and its split moves both children at random.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gsplat.strategy.ops import duplicate
from torch import Tensor
from torch.nn.functional import normalize, one_hot

SHRINK = 0.6
"""Length of a split's children along the axis that is split, as a fraction of their parent's; across it they are as wide."""
SHIFT = 0.85 * math.sqrt(1 - SHRINK**2)
"""How far they move to either side, in standard deviations of their parent: sqrt(1 - SHRINK²) keeps its variance, a little less
keeps the picture better."""
DIM = 0.79
"""Their opacity, as a fraction of their parent's: with it they cover what it did, but for 5 to 10 % of its alpha mass. Halves
with all of it are no better from many points, and become fewer Gaussians and 2 to 4 dB less from 100."""
VAST = 0.1
"""Longest axis of a vast Gaussian, in units of the scene's extent."""
SCATTERED = 1 / 1.6
"""Size of scattered children, as a fraction of their parent's."""

Params = Any  # dict or ParameterDict of name → Parameter, as gsplat's strategies take it


def shared_opacity(
    opacity: Tensor,  # [...]
) -> Tensor:
    """Opacity of two splats in one place that together cover what one did (arXiv 2404.06109, eq. 8)."""
    return 1 - (1 - opacity).sqrt()


def shared_scale(
    opacity: Tensor,  # [...] before
) -> Tensor:
    """Factor for the size of two copies in one place that share the opacity: they keep its integral (3DGS-MCMC, eq. 9)."""
    shared = shared_opacity(opacity)
    return torch.where(opacity > 0, opacity / (2 * shared - shared**2 / math.sqrt(2)).clamp_min(1e-12), torch.ones_like(opacity))


@torch.no_grad()
def clone(
    params: Params,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
    chosen: Tensor,  # [N] bool
) -> None:
    """Put a copy beside each chosen Gaussian, in the same place; the two share its opacity, and what its optimisers know stays
    with the first, so that they come apart."""
    if not chosen.any():
        return
    parents, copies = _double(params, optimizers, state, chosen)
    opacity = params["opacities"][parents].sigmoid()
    for rows in (parents, copies):
        params["opacities"].data[rows] = _logit(shared_opacity(opacity))
        params["scales"].data[rows] += shared_scale(opacity).log()


@torch.no_grad()
def split(
    params: Params,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
    chosen: Tensor,  # [N] bool
    scatter: bool = False,
) -> None:
    """Cut each chosen Gaussian in two across its longest axis.

    Args:
        scatter: make children of vast ones smaller and move them at random, as gsplat does; halves stay where their parent was.
    """
    if not chosen.any():
        return
    parents, copies = _double(params, optimizers, state, chosen)
    size, quats = params["scales"][parents].exp(), normalize(params["quats"][parents], dim=-1)
    vast = scatter & (size.amax(dim=-1, keepdim=True) > VAST * state["scene_scale"])  # [M, 1]
    longest = one_hot(size.argmax(dim=-1), 3).to(size)  # [M, 3]
    shift = rotate(quats, SHIFT * size * longest)
    shrink = torch.where(vast, math.log(SCATTERED), math.log(SHRINK) * longest)
    opacity = _logit(params["opacities"][parents].sigmoid() * torch.where(vast, 1.0, DIM))
    for rows, side in ((parents, 1), (copies, -1)):
        astray = rotate(quats, size * torch.randn_like(size))
        params["means"].data[rows] += torch.where(vast, astray, side * shift)
        params["scales"].data[rows] += shrink
        params["opacities"].data[rows] = opacity
    _forget(params, optimizers, parents)


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


def _double(
    params: Params,
    optimizers: dict[str, torch.optim.Optimizer],
    state: dict[str, Any],
    chosen: Tensor,  # [N] bool
) -> tuple[Tensor, Tensor]:  # [M], [M]
    """Duplicate the chosen; rows of the parents and of their copies, of which the optimisers know nothing yet."""
    parents = torch.nonzero(chosen).squeeze(1)
    duplicate(params, optimizers, state, chosen)
    return parents, len(chosen) + torch.arange(len(parents), device=chosen.device)


def _logit(opacity: Tensor) -> Tensor:
    return torch.logit(opacity.clamp(1e-6, 1 - 1e-6))


def _forget(params: Params, optimizers: dict[str, torch.optim.Optimizer], rows: Tensor) -> None:
    """Moments of what these rows were say nothing about what they are now."""
    for name in params:
        for key, value in optimizers[name].state[params[name]].items():
            if key != "step":
                value[rows] = 0
