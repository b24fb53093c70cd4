"""The Gaussians that a training starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
from nerfstudio.models.splatfacto import RGB2SH, num_sh_bases, random_quat_tensor
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from vlmgs_ns.densify.seeding import POINT_OPACITY, Seeds, ambient_shell


def initial_gaussians(
    points: tuple[Tensor, Tensor] | None,  # [P, 3] world, [P, 3] colours in 0 to 255, or [0]
    sh_degree: int,
    radius: float,
    random_points: Callable[[], Tensor],  # () -> [N, 3] world
    random_opacity: float,
    shell: int,
    seeds: Seeds | None = None,
) -> ParameterDict:
    """Return Gaussians at a scene's points, or at random ones, as large as the distance to their neighbours, and at seeds.

    Args:
        points: those that are not finite are left out; with fewer than 4, or None, the start is random.
        sh_degree: 0: colours are logits, not spherical harmonics.
        radius: of the scene, world units; gives a single Gaussian its size.
        shell: Gaussians of the ambient shell around them; 0: none.
        seeds: more Gaussians; where `random_points` gives none, they are all.
    """
    if points is not None:
        finite = torch.isfinite(points[0]).all(dim=-1)
        points = points[0][finite], points[1][finite] if len(points[1]) else points[1]
    if points is None or len(points[0]) < 4:  # a Gaussian's size comes from its three nearest neighbours
        means = random_points()
        colours = torch.rand(len(means), 3)
        opacity = random_opacity
    else:
        means = points[0].float()
        colours = points[1].float() / 255 if len(points[1]) else torch.rand(len(means), 3)
        opacity = POINT_OPACITY
    count = len(means)
    scales = _spacing(means, alone=0.1 * radius).repeat(1, 3)
    start = Seeds(means, scales, random_quat_tensor(count), colours, torch.full((count,), opacity))
    if seeds is not None:
        start = _together(start, seeds)
    if shell > 0:
        start = _together(start, ambient_shell(start.means, shell))
    features = torch.zeros(len(start.means), num_sh_bases(sh_degree), 3)
    features[:, 0] = base_colour(start.colors, sh_degree)
    return ParameterDict(
        {
            "means": Parameter(start.means.clone()),
            "scales": Parameter(torch.log(start.scales)),
            "quats": Parameter(start.quats),
            "features_dc": Parameter(features[:, 0].clone()),
            "features_rest": Parameter(features[:, 1:].clone()),
            "opacities": Parameter(torch.logit(start.opacities[:, None])),
        }
    )


def _together(first: Seeds, second: Seeds) -> Seeds:
    pairs = {item.name: (getattr(first, item.name), getattr(second, item.name)) for item in fields(Seeds)}
    return Seeds(**{name: torch.cat([one, other.to(one)]) for name, (one, other) in pairs.items()})


def base_colour(
    colours: Tensor,  # [N, 3] in [0, 1]
    sh_degree: int,
) -> Tensor:  # [N, 3]
    """Return colours as the parameter `features_dc` holds them: the constant harmonic, or without harmonics a logit."""
    return RGB2SH(colours) if sh_degree > 0 else torch.logit(colours, eps=1e-6)


def _spacing(
    means: Tensor,  # [N, 3]
    alone: float,
) -> Tensor:  # [N, 1]
    """Return the mean distance from each point to its three nearest neighbours; `alone` for a single point."""
    from scipy.spatial import cKDTree

    neighbours = min(3, len(means) - 1)
    if neighbours < 1:
        return torch.full((len(means), 1), alone)
    positions = means.cpu().numpy()
    distances = cKDTree(positions).query(positions, neighbours + 1)[0]
    nearest = torch.from_numpy(distances[:, 1:].astype(np.float32))  # the first is the point itself
    return nearest.mean(dim=-1, keepdim=True).clamp_min(1e-7)  # points may coincide
