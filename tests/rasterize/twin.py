"""The slow twin: gsplat's rasterisation in plain float64 torch, every Gaussian at every pixel, no tiles, autograd throughout.

Projection and harmonics are gsplat's own torch reference; blending is written out below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci, _spherical_harmonics
from torch import Tensor

ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN = 1 / 255, 0.999, 1e-4


@dataclass
class Twin:
    image: Tensor  # [C, H, W, D]
    alphas: Tensor  # [C, H, W, 1]
    fragile: Tensor  # [C, H, W] pixels where a threshold is so near that float32 may fall on its other side
    counts: Tensor  # [C, N] pixels to which each Gaussian contributes
    weights: Tensor  # [C, H·W, N] alpha · transmittance
    means2d: Tensor  # [C, H·W, N, 2], one copy per pixel, so that its gradient can be read pixel by pixel


def twin_rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,
    render_mode: str = "RGB",
    rasterize_mode: str = "classic",
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    tile: int = 16,
    margin: float = 1e-4,
) -> Twin:
    """As `vlmgs_ns.rasterize.rasterization`, in float64. `tile` only decides which pixels gsplat 1.4's 3-sigma square reaches."""
    C, N = len(viewmats), len(means)
    covars, _ = _quat_scale_to_covar_preci(torch.nn.functional.normalize(quats, dim=-1), scales, compute_preci=False)
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        means, covars, viewmats, Ks, width, height, eps2d=eps2d, near_plane=near_plane,
        calc_compensations=rasterize_mode == "antialiased",
    )  # fmt: skip
    radii = torch.where(radii < 0, torch.iinfo(radii.dtype).max, radii)  # gsplat's own cast to 32 bits overflows
    opacity = opacities.expand(C, N)
    if compensations is not None:
        opacity = opacity * compensations
    if sh_degree is not None:
        eyes = torch.inverse(viewmats)[:, :3, 3]
        coefficients = colors if colors.dim() == 4 else colors.expand(C, -1, -1, -1)
        colors = torch.clamp_min(_spherical_harmonics(sh_degree, means[None] - eyes[:, None], coefficients) + 0.5, 0.0)
    elif colors.dim() == 2:
        colors = colors.expand(C, -1, -1)
    if render_mode in ("D", "ED"):
        colors, backgrounds = depths[..., None], None
    elif render_mode != "RGB":
        colors = torch.cat([colors, depths[..., None]], -1)
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(C, 1)], -1)

    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([u, v], -1).reshape(-1, 2).double() + 0.5  # [P, 2]
    means2d = means2d[:, None].expand(C, len(pixels), N, 2).clone()
    delta = means2d - pixels[None, :, None]
    a, b, c = (x[:, None] for x in conics.unbind(-1))
    s = 0.5 * (a * delta[..., 0] ** 2 + c * delta[..., 1] ** 2) + b * delta[..., 0] * delta[..., 1]  # [C, P, N]
    alpha = torch.clamp(opacity[:, None] * torch.exp(-s), max=ALPHA_MAX)

    centre = means2d.detach() / tile
    reach = radii[:, None, :, None] / tile
    own = torch.floor(pixels / tile)[None, :, None]
    in_box = ((own >= torch.floor(centre - reach)) & (own < torch.ceil(centre + reach))).all(-1)
    drawn = in_box & (radii > 0)[:, None]
    on = drawn & (alpha >= ALPHA_MIN) & (s >= 0)
    near_threshold = drawn & ((alpha - ALPHA_MIN).abs() < margin * ALPHA_MIN)
    alpha = torch.where(on, alpha, 0.0)

    order = torch.argsort(depths.detach(), dim=-1, stable=True)[:, None].expand(-1, len(pixels), -1)
    sorted_alpha = torch.gather(alpha, 2, order)
    after = torch.cumprod(1 - sorted_alpha, dim=-1)
    is_open = after > TRANSMITTANCE_MIN
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)
    sorted_weights = torch.where(is_open, sorted_alpha * before, 0.0)
    weights = torch.zeros_like(alpha).scatter(2, order, sorted_weights)
    end = torch.where(is_open, 1 - sorted_alpha, 1.0).prod(-1)  # [C, P]
    image = torch.einsum("cpn,cnd->cpd", weights, colors)
    if backgrounds is not None:
        image = image + end[..., None] * backgrounds[:, None]
    alphas = 1 - end[..., None]
    if render_mode in ("ED", "RGB+ED"):
        image = torch.cat([image[..., :-1], image[..., -1:] / alphas.clamp(min=1e-10)], -1)
    fragile = near_threshold.any(-1) | (((after / TRANSMITTANCE_MIN - 1).abs() < 1e-2) & (sorted_alpha > 0)).any(-1)
    shape = (C, height, width)
    return Twin(
        image.reshape(*shape, -1), alphas.reshape(*shape, 1), fragile.reshape(shape), (weights > 0).sum(1), weights, means2d
    )
