"""The Gaussians that a training starts from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from nerfstudio.models.splatfacto import RGB2SH, num_sh_bases, random_quat_tensor
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from vlmgs_ns.densify.seeding import ambient_shell

POINT_OPACITY = 0.1
"""Opacity of Gaussians at a scene's points, as in 3DGS, and of those that are added where nothing is."""


def initial_gaussians(
    points: tuple[Tensor, Tensor] | None,  # [P, 3] world, [P, 3] colours in 0 to 255, or [0]
    sh_degree: int,
    radius: float,
    random_points: Callable[[], Tensor],  # () -> [N, 3] world
    random_opacity: float,
    shell: int,
) -> ParameterDict:
    """Return Gaussians at a scene's points, or at random ones, as large as the distance to their neighbours.

    Args:
        points: those that are not finite are left out; with fewer than 4, or None, the start is random.
        sh_degree: 0: colours are logits, not spherical harmonics.
        radius: of the scene, world units; gives a single Gaussian its size.
        shell: Gaussians of the ambient shell around them; 0: none.
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
    quats, opacities = random_quat_tensor(count), torch.full((count, 1), opacity)
    if shell > 0:
        seeds = ambient_shell(means, shell)
        means, colours = torch.cat([means, seeds.means]), torch.cat([colours, seeds.colors])
        scales, quats = torch.cat([scales, seeds.scales]), torch.cat([quats, seeds.quats])
        opacities = torch.cat([opacities, torch.full((len(seeds.means), 1), POINT_OPACITY)])
    features = torch.zeros(len(means), num_sh_bases(sh_degree), 3)
    features[:, 0] = base_colour(colours, sh_degree)
    return ParameterDict(
        {
            "means": Parameter(means.clone()),
            "scales": Parameter(torch.log(scales)),
            "quats": Parameter(quats),
            "features_dc": Parameter(features[:, 0].clone()),
            "features_rest": Parameter(features[:, 1:].clone()),
            "opacities": Parameter(torch.logit(opacities)),
        }
    )


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
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(3, len(means) - 1)
    if neighbours < 1:
        return torch.full((len(means), 1), alone)
    positions = means.cpu().numpy()
    distances = NearestNeighbors(n_neighbors=neighbours + 1).fit(positions).kneighbors(positions)[0]
    nearest = torch.from_numpy(distances[:, 1:].astype(np.float32))  # the first is the point itself
    return nearest.mean(dim=-1, keepdim=True).clamp_min(1e-7)  # points may coincide
