"""What gsplat's compiled module does, in torch: `kernels_in_torch` lets everything above it run without a GPU.

gsplat's Python stays as it is, with its checks, its padding and its autograd functions; only what it calls in CUDA is here,
under the names and with the arguments of 1.4 and of 1.5. Projection and harmonics are gsplat's own torch reference;
`_torch_impl._isect_tiles` is written again for all Gaussians at once, and blending, whose reference itself calls CUDA, is written
out. Values of Gaussians that a camera does not see are undefined there, and NaN here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest.mock import patch

import gsplat
import torch
from gsplat.cuda import _torch_impl
from torch import Tensor

from tests.cuda.pretend import kernel

ALPHA_MIN, ALPHA_MAX, TRANSMITTANCE_MIN = 1 / 255, 0.999, 1e-4
RADIUS_PER_AXIS = tuple(map(int, gsplat.__version__.split(".")[:2])) >= (1, 5)
"""Whether this gsplat has radii [C, N, 2]; 1.4 has [C, N]."""


def _projected(seen: Tensor | None, gaussians: list[Tensor], view: Tensor, K: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    """`_torch_impl`'s projection into one camera, of some Gaussians or of all (None)."""
    means, quats, scales = gaussians if seen is None else (values[seen] for values in gaussians)
    covars, _ = _torch_impl._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    return _torch_impl._fully_fused_projection(means, covars, view, K, *settings, calc_compensations=True)


@kernel
def project(
    means: Tensor, covars: None, quats: Tensor, scales: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    assert covars is None
    views, Ks, width, height, eps2d, near, far, radius_clip, with_compensations, _ = rest[-10:]
    per_camera = [
        _projected(None, [means, quats, scales], view[None], K[None], width, height, eps2d, near, far)
        for view, K in zip(views, Ks, strict=True)
    ]
    radii, means2d, depths, conics, compensations = (torch.cat(values) for values in zip(*per_camera, strict=True))
    radii[radii <= radius_clip] = 0
    unseen = (radii <= 0).any(-1) if RADIUS_PER_AXIS else radii <= 0
    radii[unseen] = 0
    for values in (means2d, depths, conics):
        values[unseen] = torch.nan
    compensations[unseen] = 0
    return radii, means2d, depths, conics, compensations if with_compensations else None


@kernel
def project_backward(
    means: Tensor, covars: None, quats: Tensor, scales: Tensor, views: Tensor, Ks: Tensor, width: int, height: int, eps2d: float,
    _model: Any, radii: Tensor, _conics: Tensor, compensations: Tensor | None,
    v_means2d: Tensor, v_depths: Tensor, v_conics: Tensor, v_compensations: Tensor | None, _views_too: bool,
) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:  # fmt: skip
    leaves = [values.detach().requires_grad_() for values in (means, quats, scales, views)]
    outcomes, incoming = [], []
    with torch.enable_grad():
        for c in range(len(views)):
            seen = ((radii[c] > 0).all(-1) if RADIUS_PER_AXIS else radii[c] > 0).nonzero().squeeze(1)
            _, *found = _projected(seen, leaves[:3], leaves[3][c : c + 1], Ks[c : c + 1], width, height, eps2d)
            gradients = [v_means2d, v_depths, v_conics, v_compensations]
            pairs = [(values, v[c : c + 1, seen]) for values, v in zip(found, gradients, strict=True) if v is not None]
            outcomes += [values for values, _ in pairs]
            incoming += [v for _, v in pairs]
        v_means, v_quats, v_scales, v_views = torch.autograd.grad(outcomes, leaves, incoming)
    return v_means, None, v_quats, v_scales, v_views


@kernel
def harmonics(degree: int, directions: Tensor, coefficients: Tensor, masks: Tensor | None) -> Tensor:
    colors = _torch_impl._spherical_harmonics(degree, directions, coefficients)
    return colors if masks is None else torch.where(masks[..., None], colors, torch.nan)


@kernel
def harmonics_backward(
    _bases: int, degree: int, directions: Tensor, coefficients: Tensor, masks: Tensor | None, v_colors: Tensor, _with_dirs: bool
) -> tuple[Tensor, Tensor]:
    leaves = [values.detach().requires_grad_() for values in (coefficients, directions)]
    with torch.enable_grad():
        colors = _torch_impl._spherical_harmonics(degree, leaves[1], leaves[0])
    if masks is not None:
        v_colors = torch.where(masks[..., None], v_colors, 0.0)
    return torch.autograd.grad(colors, leaves, v_colors, allow_unused=True, materialize_grads=True)  # type: ignore[return-value]


@kernel
def intersect(
    means2d: Tensor, radii: Tensor, depths: Tensor, _cameras: None, _gaussians: None, C: int, tile: int, tiles_x: int,
    tiles_y: int, sort: bool, _option: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    assert sort
    reach = (radii if radii.dim() == 3 else radii[..., None]) / tile
    seen = (radii > 0) if radii.dim() == 2 else (radii > 0).all(-1)
    limit = torch.tensor([tiles_x, tiles_y])
    centre = torch.where(seen[..., None], means2d / tile, 0.0)
    low = torch.minimum(torch.floor(centre - reach).long().clamp(min=0), limit)
    high = torch.minimum(torch.ceil(centre + reach).long().clamp(min=0), limit)
    size = torch.where(seen[..., None], high - low, 0)
    counts = size.prod(-1)
    splat = torch.repeat_interleave(torch.arange(counts.numel()), counts.flatten())
    first = counts.flatten().cumsum(0) - counts.flatten()
    place = torch.arange(len(splat)) - first[splat]
    x0, y0 = low.reshape(-1, 2)[splat].unbind(-1)
    across = size.reshape(-1, 2)[splat, 0]
    tile_id = (y0 + place // across.clamp(min=1)) * tiles_x + x0 + place % across.clamp(min=1)
    camera = splat // max(1, depths.shape[-1])
    depth_bits = depths.flatten()[splat].contiguous().view(torch.int32).long()
    ids = (camera << 32 << (tiles_x * tiles_y).bit_length()) | (tile_id << 32) | depth_bits
    ids, order = torch.sort(ids, stable=True)
    return counts.int(), ids, splat[order].int()


@kernel
def offsets(ids: Tensor, C: int, tiles_x: int, tiles_y: int) -> Tensor:
    return _torch_impl._isect_offset_encode(ids, C, tiles_x, tiles_y)


@dataclass
class _Tiles:
    """Every splat in the list of a tile at every pixel of that tile: T tiles of P pixels, the longest list has L splats."""

    means2d: Tensor  # [C, N, 2]
    conics: Tensor  # [C, N, 3]
    opacities: Tensor  # [C, N]
    width: int
    height: int
    tile: int
    starts: Tensor  # [C, tiles_y, tiles_x]
    ids: Tensor  # [I]

    def __post_init__(self) -> None:
        begin = self.starts.flatten().long()
        end = torch.cat([begin[1:], torch.tensor([len(self.ids)])])
        place = begin[:, None] + torch.arange(max(1, int((end - begin).max())))
        self.held = place < end[:, None]  # [T, L]
        self.splat = torch.where(
            self.held, torch.cat([self.ids, self.ids.new_zeros(1)])[place.clamp(max=len(self.ids))], 0
        ).long()
        C, tiles_y, tiles_x = self.starts.shape
        y, x = torch.meshgrid(torch.arange(tiles_y * self.tile), torch.arange(tiles_x * self.tile), indexing="ij")
        grid = torch.stack([x, y], -1).view(tiles_y, self.tile, tiles_x, self.tile, 2).transpose(1, 2)
        self.pixels = grid.reshape(1, -1, self.tile**2, 2).expand(C, -1, -1, -1).flatten(0, 1)  # [T, P, 2]
        # as the kernels have it
        x, y = ((self.at(self.means2d)[..., k] - (self.pixels[..., k, None] + 0.5)) for k in range(2))
        a, b, c = (self.at(self.conics)[..., k] for k in range(3))
        sigma = 0.5 * (a * x * x + c * y * y) + b * x * y
        self.falloff = torch.exp(-sigma)
        self.alpha = torch.clamp(self.at(self.opacities[..., None])[..., 0] * self.falloff, max=ALPHA_MAX)
        on = self.held[:, None] & (sigma >= 0) & (self.alpha >= ALPHA_MIN)
        after = torch.cumprod(torch.where(on, 1 - self.alpha, 1.0), dim=-1)
        self.on = on & (after > TRANSMITTANCE_MIN)  # [T, P, L]
        self.left = torch.where(after > TRANSMITTANCE_MIN, after, 1.0).amin(-1)  # [T, P] transmittance in the end
        before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], dim=-1)
        self.transmittance = torch.where(self.on, before, 0.0)
        self.x, self.y = x, y

    def at(self, values: Tensor) -> Tensor:  # [T, 1, L, D]
        """Values [C, N, D] of the splats in the lists."""
        rows = torch.cat([values.reshape(-1, values.shape[-1]), values.new_zeros(1, values.shape[-1])])
        return rows[torch.where(self.held, self.splat, -1)][:, None]

    def picture(self, tiles: Tensor) -> Tensor:
        """[T, P, D] → [C, H, W, D]."""
        C, tiles_y, tiles_x = self.starts.shape
        grid = tiles.view(C, tiles_y, tiles_x, self.tile, self.tile, -1).transpose(2, 3)
        return grid.reshape(C, tiles_y * self.tile, tiles_x * self.tile, -1)[:, : self.height, : self.width].contiguous()

    def cut(self, picture: Tensor) -> Tensor:
        """[C, H, W, D] → [T, P, D], zero beyond the picture."""
        C, tiles_y, tiles_x = self.starts.shape
        padding = (0, 0, 0, tiles_x * self.tile - self.width, 0, tiles_y * self.tile - self.height)
        grid = torch.nn.functional.pad(picture, padding).view(C, tiles_y, self.tile, tiles_x, self.tile, -1)
        return grid.transpose(2, 3).reshape(len(self.held), self.tile**2, -1)

    def sum(self, values: Tensor, like: Tensor) -> Tensor:
        """Sum per splat of what the pixels of its tiles give it: [T, L, D] → the shape of `like` [C, N, D]."""
        flat = torch.zeros(like.shape[0] * like.shape[1], values.shape[-1])
        return flat.index_add_(0, self.splat.flatten(), values.flatten(0, 1)).view(like.shape)


@kernel
def blend(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, background: Tensor | None, masks: None,
    width: int, height: int, tile: int, starts: Tensor, ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    assert masks is None
    tiles = _Tiles(means2d, conics, opacities, width, height, tile, starts, ids)
    image = (tiles.alpha * tiles.transmittance) @ tiles.at(colors)[:, 0]
    if background is not None:
        image = image + tiles.left[..., None] * background.repeat_interleave(starts[0].numel(), 0)[:, None]
    alphas = tiles.picture(1 - tiles.left[..., None])
    return tiles.picture(image), alphas, torch.zeros(alphas.shape[:3], dtype=torch.int32)


@kernel
def blend_backward(
    means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, background: Tensor | None, masks: None,
    width: int, height: int, tile: int, starts: Tensor, ids: Tensor, _alphas: Tensor, _last: Tensor,
    v_image: Tensor, v_alphas: Tensor, absgrad: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    tiles = _Tiles(means2d, conics, opacities, width, height, tile, starts, ids)
    weights, own = tiles.alpha * tiles.transmittance, tiles.at(colors)[:, 0]
    v_pixels, v_left = tiles.cut(v_image), -tiles.cut(v_alphas)
    if background is not None:
        v_left = v_left + v_pixels @ background.repeat_interleave(starts[0].numel(), 0)[..., None]
    pull = v_pixels @ own.transpose(1, 2)  # [T, P, L]
    behind = weights * pull
    behind = behind.sum(-1, keepdim=True) - behind.cumsum(-1) + v_left * tiles.left[..., None]
    v_alpha = torch.where(tiles.on, tiles.transmittance * pull - behind / (1 - tiles.alpha), 0.0)
    v_alpha = torch.where(tiles.alpha < ALPHA_MAX, v_alpha, 0.0)
    v_opacities = (v_alpha * tiles.falloff).sum(1)[..., None]
    v_sigma = -v_alpha * tiles.alpha
    a, b, c = (tiles.at(conics)[..., k] for k in range(3))
    x, y = tiles.x, tiles.y
    v_means = [v_sigma * (a * x + b * y), v_sigma * (b * x + c * y)]
    v_conics = [0.5 * v_sigma * x * x, v_sigma * x * y, 0.5 * v_sigma * y * y]

    def gathered(parts: list[Tensor], like: Tensor) -> Tensor:
        return tiles.sum(torch.stack([part.sum(1) for part in parts], -1), like)

    return (
        gathered([part.abs() for part in v_means], means2d) if absgrad else None,
        gathered(v_means, means2d),
        gathered(v_conics, conics),
        tiles.sum(weights.transpose(1, 2) @ v_pixels, colors),
        tiles.sum(v_opacities, opacities[..., None])[..., 0].contiguous(),
    )


@kernel
def indices(
    first: int, last: int, start: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor, width: int, height: int, tile: int,
    starts: Tensor, ids: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    assert first == 0 and last > len(ids) and bool((start == 1).all())
    tiles = _Tiles(means2d, conics, opacities, width, height, tile, starts, ids)
    inside = (tiles.pixels < torch.tensor([width, height])).all(-1)
    T, P, L = (tiles.on & inside[..., None]).nonzero().unbind(-1)
    x, y = tiles.pixels[T, P].unbind(-1)
    return tiles.splat[T, L] % means2d.shape[1], (T // starts[0].numel() * height + y) * width + x


NAMES = {
    project: ("fully_fused_projection_fwd", "projection_ewa_3dgs_fused_fwd"),
    project_backward: ("fully_fused_projection_bwd", "projection_ewa_3dgs_fused_bwd"),
    harmonics: ("compute_sh_fwd", "spherical_harmonics_fwd"),
    harmonics_backward: ("compute_sh_bwd", "spherical_harmonics_bwd"),
    intersect: ("isect_tiles", "intersect_tile"),
    offsets: ("isect_offset_encode", "intersect_offset"),
    blend: ("rasterize_to_pixels_fwd", "rasterize_to_pixels_3dgs_fwd"),
    blend_backward: ("rasterize_to_pixels_bwd", "rasterize_to_pixels_3dgs_bwd"),
    indices: ("rasterize_to_indices_in_range", "rasterize_to_indices_3dgs"),
}
"""gsplat 1.4's and 1.5's name of each."""


@contextmanager
def kernels_in_torch() -> Iterator[None]:
    """Let gsplat find this as its compiled module."""
    module = ModuleType("gsplat.csrc")
    for work, names in NAMES.items():
        for name in names:
            setattr(module, name, work)
    module.CameraModelType = module.PINHOLE = "pinhole"  # type: ignore[attr-defined]
    with patch.dict(sys.modules, {"gsplat.csrc": module}), patch.object(gsplat, "csrc", module, create=True):
        from gsplat.cuda import _backend  # without a module it would begin to compile

        with patch.object(_backend, "_C", module):
            yield
