"""gsplat on CUDA, with FastGS' compact box put together from gsplat's own kernels. Works with gsplat 1.4.0 and with 1.5."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from vlmgs_ns.rasterize.settings import RasterizeSettings


def rasterize_cuda(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    backgrounds: Tensor | None,  # [C, D]
    settings: RasterizeSettings,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """See `vlmgs_ns.rasterize.rasterization`, which checks the arguments."""
    if settings.compact_box is not None:
        return _rasterize_compact(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, settings)
    from gsplat.rendering import rasterization

    options = asdict(settings)
    del options["compact_box"]
    return rasterization(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds=backgrounds, packed=False, **options)


def compact_radii(
    radii: Tensor,  # [C, N] or [C, N, 2] int32, pixels
    opacities: Tensor,  # [C, N]
    beta: float,
) -> Tensor:
    """Radii shrunk to the ellipse at squared Mahalanobis distance β·2·ln(255·opacity) (FastGS, compact box); 0 stays 0.

    gsplat's radius is 3 standard deviations (1.4), or already opacity-aware (1.5): the smaller of the two is kept.
    """
    sigmas = torch.sqrt(torch.clamp(beta * 2 * torch.log(255 * opacities), min=0.0))
    factor = torch.clamp(sigmas / 3.0, max=1.0)
    if radii.dim() == 3:
        factor = factor[..., None]
    return torch.ceil(radii * factor).to(radii.dtype)


def _rasterize_compact(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    backgrounds: Tensor | None,  # [C, D]
    settings: RasterizeSettings,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """gsplat's own steps, with the radii shrunk between projection and tile intersection."""
    from gsplat.cuda._wrapper import (
        fully_fused_projection,
        isect_offset_encode,
        isect_tiles,
        rasterize_to_pixels,
        spherical_harmonics,
    )

    C, N, tile = len(viewmats), len(means), 16
    width, height = settings.width, settings.height
    radii, means2d, depths, conics, compensations = fully_fused_projection(
        means, None, quats, scales, viewmats, Ks, width, height, eps2d=settings.eps2d,
        near_plane=settings.near_plane, far_plane=settings.far_plane, radius_clip=settings.radius_clip, packed=False,
        calc_compensations=settings.rasterize_mode == "antialiased",
    )  # fmt: skip
    opacities = opacities.expand(C, N)
    if compensations is not None:
        opacities = opacities * compensations
    seen = (radii > 0) if radii.dim() == 2 else (radii > 0).all(-1)
    if settings.sh_degree is not None:
        eyes = torch.inverse(viewmats)[:, :3, 3]
        coefficients = colors if colors.dim() == 4 else colors.expand(C, -1, -1, -1)
        colors = spherical_harmonics(settings.sh_degree, means[None] - eyes[:, None], coefficients, masks=seen)
        colors = torch.clamp_min(colors + 0.5, 0.0)
    elif colors.dim() == 2:
        colors = colors.expand(C, N, -1)
    if settings.depth_only:
        colors, backgrounds = depths[..., None], None
    elif settings.depth_last:
        colors = torch.cat([colors, depths[..., None]], dim=-1)
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(C, 1)], dim=-1)

    assert settings.compact_box is not None
    opacities = opacities.contiguous()
    tiles_x, tiles_y = math.ceil(width / tile), math.ceil(height / tile)
    tiles_per_gauss, isect_ids, flatten_ids = isect_tiles(
        means2d, compact_radii(radii, opacities.detach(), settings.compact_box), depths, tile, tiles_x, tiles_y, packed=False
    )
    isect_offsets = isect_offset_encode(isect_ids, C, tiles_x, tiles_y)
    pieces = []
    alphas = None
    for begin in range(0, colors.shape[-1], settings.channel_chunk):
        chunk = slice(begin, begin + settings.channel_chunk)
        floor = None if backgrounds is None else backgrounds[..., chunk].contiguous()
        piece, alphas = rasterize_to_pixels(
            means2d, conics, colors[..., chunk].contiguous(), opacities, width, height, tile, isect_offsets, flatten_ids,
            backgrounds=floor, packed=False, absgrad=settings.absgrad,
        )  # fmt: skip
        pieces.append(piece)
    assert alphas is not None
    image = torch.cat(pieces, dim=-1)
    if settings.expected_depth:
        image = torch.cat([image[..., :-1], image[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
    info = {
        "camera_ids": None, "gaussian_ids": None, "radii": radii, "means2d": means2d, "depths": depths, "conics": conics,
        "opacities": opacities, "tile_width": tiles_x, "tile_height": tiles_y, "tiles_per_gauss": tiles_per_gauss,
        "isect_ids": isect_ids, "flatten_ids": flatten_ids, "isect_offsets": isect_offsets, "width": width,
        "height": height, "tile_size": tile, "n_cameras": C,
    }  # fmt: skip
    return image, alphas, info
