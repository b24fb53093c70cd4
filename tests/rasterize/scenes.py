"""Small scenes for the rasteriser's tests."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Scene:
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor

    def tensors(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Fresh leaves of all tensors, in the order of `rasterization`'s arguments."""
        return [getattr(self, f.name).detach().to(dtype).requires_grad_() for f in fields(self)]


def pinhole(width: int, height: int, focal: float) -> Tensor:
    return torch.tensor([[[focal, 0, width / 2], [0, focal * 1.1, height / 2], [0, 0, 1]]], dtype=torch.float32)


def random_scene(
    seed: int, count: int, width: int, height: int, *, cameras: int = 1, opacity: float = 0.9, size: float = 0.12, colors: int = 0
) -> Scene:
    """Gaussians before, behind and beside `cameras` slightly turned cameras; harmonics of degree 3, or `colors` channels."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    means = (uniform(count, 3) - 0.5) * torch.tensor([5.0, 5.0, 6.0]) + torch.tensor([0.0, 0.0, 2.5])
    viewmats = torch.eye(4).repeat(cameras, 1, 1)
    for i in range(cameras):
        turn, _ = torch.linalg.qr(torch.eye(3) + 0.1 * normal(3, 3))
        viewmats[i, :3, :3] = turn * torch.sign(torch.diagonal(turn))[None]
        viewmats[i, :3, 3] = 0.2 * normal(3)
    return Scene(
        means=means,
        quats=normal(count, 4),
        scales=size * torch.exp(0.7 * normal(count, 3)),
        opacities=opacity * uniform(count),
        colors=uniform(count, colors) if colors else 0.4 * normal(count, 16, 3),
        viewmats=viewmats,
        Ks=pinhole(width, height, 0.9 * width).repeat(cameras, 1, 1),
    )


def flat_splats(
    pixels: list[tuple[float, float]], sigmas: list[float], opacities: list[float], depths: list[float], width: int, height: int
) -> Scene:
    """Isotropic splats with given pixel positions and 2-D standard deviations, to render with eps2d=0; one channel each."""
    n, focal = len(pixels), 100.0
    z = torch.tensor(depths)
    xy = (torch.tensor(pixels) - torch.tensor([width / 2, height / 2])) / focal * z[:, None]
    # an isotropic covariance seen off axis is no circle: flatten along z, so that only fx/z counts
    flat = torch.tensor(sigmas)[:, None] * z[:, None] / focal * torch.tensor([[1.0, 1.0, 1e-6]])
    K = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]])
    return Scene(
        torch.cat([xy, z[:, None]], 1), torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1), flat, torch.tensor(opacities), torch.eye(n),
        torch.eye(4)[None], K,
    )  # fmt: skip
