"""gsplat's rasterisation on any device: `rasterization` sends CUDA tensors to gsplat and CPU tensors to our own kernels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vlmgs_ns.rasterize.settings import RasterizeMode, RasterizeSettings, RenderMode


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = False,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,  # [C, D]
    render_mode: RenderMode = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: RasterizeMode = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    covars: None = None,
    *,
    compact_box: float | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render N Gaussians into C pinhole cameras; arguments, in their order, and results of gsplat 1.4.0's `rasterization`.

    Differentiable in means, quats, scales, opacities, colors, viewmats and backgrounds. `info["means2d"]` can retain its
    gradient, and gets an `.absgrad` in the backward pass where `absgrad` is set. Safe to call from several threads.

    Args:
        means: centres, world coordinates.
        quats: rotations (w, x, y, z), normalised here.
        scales: standard deviations along the rotated axes, world units.
        opacities: in [0, 1].
        colors: values of any number of channels, or with `sh_degree` spherical-harmonics coefficients.
        viewmats: world → camera, OpenCV axes (x right, y down, z forward).
        Ks: intrinsics, pixels; pixel centres are at half integers.
        near_plane, far_plane: depths beyond which Gaussians are not drawn, world units.
        radius_clip: Gaussians of at most this radius in pixels are not drawn.
        eps2d: added to the 2-D covariance's diagonal, pixels².
        sh_degree: 0 to 3, or None where `colors` are plain values.
        packed, sparse_grad, distributed: only False, as Splatfacto uses it.
        tile_size: only 16.
        camera_model: only "pinhole".
        covars: only None: quats and scales give the covariances.
        render_mode: RGB colours; D accumulated depth; ED expected depth (D / alpha); or both, depth last.
        rasterize_mode: "antialiased" scales opacities by the Mip-Splatting compensation.
        channel_chunk: channels blended at a time (CUDA only).
        compact_box: β of FastGS' compact box: a Gaussian reaches only tiles that meet its ellipse at squared Mahalanobis
            distance β·2·ln(255·opacity). None and 1 give the same picture: at 1 only what stays below 1/255 is skipped.

    Example:
        >>> camera = torch.eye(4)[None]  # at the origin, looking along z
        >>> K = torch.tensor([[[100.0, 0.0, 32.0], [0.0, 100.0, 24.0], [0.0, 0.0, 1.0]]])
        >>> red = torch.tensor([[1.0, 0.0, 0.0]])
        >>> ball = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.full((1, 3), 0.1), torch.ones(1)
        >>> image, alphas, info = rasterization(*ball, red, camera, K, width=64, height=48)
        >>> image.shape
        torch.Size([1, 48, 64, 3])

    Returns:
        image [C, H, W, X], alphas [C, H, W, 1], and info: radii [C, N] ([C, N, 2] from gsplat 1.5 on), means2d [C, N, 2],
        depths [C, N], conics [C, N, 3], opacities [C, N], flatten_ids, isect_offsets, tiles_per_gauss, width, height,
        tile_size, tile_width, tile_height, n_cameras.

    Raises:
        ValueError: an argument of the wrong shape, dtype, device or range, or one that is not finite; its name is given.
    """
    _check_shapes(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, sh_degree, render_mode)
    named = {
        "means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors,
        "viewmats": viewmats, "Ks": Ks, "backgrounds": backgrounds,
    }  # fmt: skip
    for name, value in named.items():
        if value is not None:
            _check_values(name, value, means.device)
    if packed or sparse_grad:
        raise ValueError("packed and sparse_grad must be False: Splatfacto's strategies need one row per Gaussian.")
    if distributed:
        raise ValueError("distributed=True is not supported: each process renders its own Gaussians; use False.")
    if camera_model != "pinhole":
        raise ValueError(f"camera_model={camera_model!r} is not supported: use 'pinhole', and undistort photos beforehand.")
    if covars is not None:
        raise ValueError("covars is not supported: give quats and scales, and None for it.")
    if tile_size != 16:
        raise ValueError(f"tile_size={tile_size} is not supported: use 16.")
    if width < 1 or height < 1:
        raise ValueError(f"width={width}, height={height}: an image must have at least one pixel.")
    if rasterize_mode not in ("classic", "antialiased"):
        raise ValueError(f"rasterize_mode={rasterize_mode!r} is unknown: use 'classic' or 'antialiased'.")
    if compact_box is not None and not 0 < compact_box <= 1:
        raise ValueError(f"compact_box={compact_box} is out of range: give β in (0, 1], or None.")

    settings = RasterizeSettings(
        int(width), int(height), near_plane, far_plane, radius_clip, eps2d, sh_degree, render_mode, absgrad, rasterize_mode,
        channel_chunk, compact_box,
    )  # fmt: skip
    if means.is_cuda:
        from vlmgs_ns.rasterize.cuda import rasterize_cuda

        return rasterize_cuda(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, settings)
    from vlmgs_ns.rasterize.jit import announce_compilation

    with announce_compilation():
        from vlmgs_ns.rasterize.cpu import rasterize_cpu
    return rasterize_cpu(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, settings)


def composite(
    image: Tensor,  # [..., H, W, 3 or more], of `rasterization` without backgrounds
    alpha: Tensor,  # [..., H, W, 1]
    background: Tensor,  # [3]
) -> Tensor:  # [..., H, W, 3]
    """Return the colours of a render over a background, clamped to [0, 1]."""
    return (image[..., :3] + (1 - alpha) * background).clamp(0.0, 1.0)


def _check_shapes(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    backgrounds: Tensor | None,
    sh_degree: int | None,
    render_mode: str,
) -> None:
    C, N = len(viewmats), len(means)
    expected = [
        ("means", means, (N, 3)), ("quats", quats, (N, 4)), ("scales", scales, (N, 3)),
        ("opacities", opacities, (N,)), ("viewmats", viewmats, (C, 4, 4)), ("Ks", Ks, (C, 3, 3)),
    ]  # fmt: skip
    for name, value, shape in expected:
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {list(value.shape)}: it must be {list(shape)} beside {N} means, {C} views.")
    if render_mode not in ("RGB", "D", "ED", "RGB+D", "RGB+ED"):
        raise ValueError(f"render_mode={render_mode!r} is unknown: use RGB, D, ED, RGB+D or RGB+ED.")
    lead = tuple(colors.shape[: colors.dim() - (1 if sh_degree is None else 2)])
    if lead not in ((N,), (C, N)):
        wanted = "[(C,) N, D]" if sh_degree is None else "[(C,) N, K, 3]"
        raise ValueError(f"colors has shape {list(colors.shape)}: it must be {wanted} with N={N}, C={C}.")
    channels = colors.shape[-1]
    if sh_degree is not None:
        if not 0 <= sh_degree <= 3:
            raise ValueError(f"sh_degree={sh_degree} is not supported: use 0 to 3, or None for plain colours.")
        if channels != 3 or colors.shape[-2] < (sh_degree + 1) ** 2:
            raise ValueError(f"colors has shape {list(colors.shape)}: degree {sh_degree} needs {(sh_degree + 1) ** 2} x 3.")
    if backgrounds is not None and tuple(backgrounds.shape) != (C, channels):
        raise ValueError(f"backgrounds has shape {list(backgrounds.shape)}: it must be {[C, channels]}.")


def _check_values(name: str, value: Tensor, device: torch.device) -> None:
    if value.dtype != torch.float32:
        raise ValueError(f"{name} is {value.dtype}: rasterization works in torch.float32, convert it with .float().")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device} but means on {device}: move it with .to(means.device).")
    if value.is_cuda or value.numel() == 0:  # on CUDA a look at the values would stall the stream
        return
    low, high = (bound.item() for bound in torch.aminmax(value.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(
            f"{name} has {bad} of {value.numel()} values that are NaN or infinite: training has diverged or the input is"
            " damaged; lower the learning rates or look for the first step at which it happens."
        )
