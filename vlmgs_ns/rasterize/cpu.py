"""gsplat's rasterisation on a CPU: project, colour, sort into tiles, blend; every step with its gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmgs_ns.rasterize import kernels
from vlmgs_ns.rasterize.kernels import TILE
from vlmgs_ns.rasterize.projection import Project
from vlmgs_ns.rasterize.settings import RasterizeSettings
from vlmgs_ns.rasterize.spherical_harmonics import SphericalHarmonics
from vlmgs_ns.rasterize.threads import chunk_count, parallel_for

GRAIN = 4096  # Gaussians per chunk


def splat_table(
    means2d: Tensor,  # [C, N, 2] pixels
    conics: Tensor,  # [C, N, 3]
    opacities: Tensor,  # [C, N]
) -> Tensor:
    """Return what the tile kernels read, side by side in memory: x, y, a, b, c, opacity, 2·ln(255·opacity). [C·N, 7]."""
    table = torch.empty(opacities.numel(), kernels.SPLAT)
    table[:, 0:2] = means2d.reshape(-1, 2)
    table[:, 2:5] = conics.reshape(-1, 3)
    table[:, 5] = opacities.reshape(-1)
    table[:, 6] = 2 * torch.log(255 * table[:, 5])
    return table


class Tiles:
    """Which splats each tile of each camera sees, front to back.

    offsets: [C·tiles + 1] int64, where each tile's list begins in flatten_ids
    flatten_ids: [I] int32, splats (camera·N + Gaussian)
    first_slot [C·N + 1], slots [I] int64: for each splat, its places in flatten_ids
    """

    def __init__(
        self,
        table: Tensor,  # [C·N, 7] splat_table
        radii: Tensor,  # [C, N] int32
        depths: Tensor,  # [C, N]
        width: int,
        height: int,
        compact_box: float,
    ) -> None:
        C, N = radii.shape
        self.tiles_x, self.tiles_y = math.ceil(width / TILE), math.ceil(height / TILE)
        self.width, self.height, self.cameras = width, height, C
        tiles = self.tiles_x * self.tiles_y
        splats, reach = table.numpy(), radii.numpy()
        counts = np.zeros((C, N), np.int32)
        passes = []
        for c in range(C):
            seen = torch.nonzero(radii[c] > 0).squeeze(1)
            # depths are positive, so their bits sort as integers do: torch sorts those by radix. Ties keep their order.
            keys = depths[c, seen].contiguous().view(torch.int32)
            order = seen[torch.sort(keys, stable=True).indices].to(torch.int32).numpy()
            histogram = np.zeros((chunk_count(len(order), GRAIN), tiles), np.int32)
            box = (order, splats[c * N : (c + 1) * N], reach[c], self.tiles_x, self.tiles_y, compact_box)
            parallel_for(kernels.count_tiles, len(order), GRAIN, GRAIN, *box, histogram, counts[c])
            passes.append((box, histogram))
        self.tiles_per_gauss = counts
        self.first_slot = np.concatenate([[0], np.cumsum(counts.ravel(), dtype=np.int64)])
        per_tile = [histogram.sum(axis=0, dtype=np.int64) for _, histogram in passes]
        self.offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *per_tile]))])
        self.flatten_ids = np.empty(self.offsets[-1], np.int32)
        self.slots = np.empty(self.offsets[-1], np.int64)
        for c, (box, histogram) in enumerate(passes):
            before = np.cumsum(histogram, axis=0, dtype=np.int64) - histogram
            cursor = before + self.offsets[c * tiles : (c + 1) * tiles]
            first_slot = self.first_slot[c * N : (c + 1) * N]
            parallel_for(
                kernels.fill_tiles, len(box[0]), GRAIN, GRAIN, *box, cursor, first_slot, np.int32(c * N),
                self.flatten_ids, self.slots,
            )  # fmt: skip

    @property
    def geometry(self) -> tuple[Any, ...]:
        """The arguments with which every tile kernel begins."""
        return self.tiles_x, self.tiles_y, self.width, self.height, self.offsets, self.flatten_ids

    def run(self, kernel: Any, *args: Any) -> None:
        """Run a tile kernel over all tiles of all cameras, half a row of tiles at a time."""
        parallel_for(kernel, self.cameras * self.tiles_x * self.tiles_y, max(1, self.tiles_x // 2), *self.geometry, *args)


class Blend(torch.autograd.Function):
    """Splats and their colours → pictures and accumulated alpha. Sets `means2d.absgrad` in the backward pass if asked."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means2d: Tensor,  # [C, N, 2]
        conics: Tensor,  # [C, N, 3]
        opacities: Tensor,  # [C, N]
        colors: Tensor,  # [C, N, D]
        background: Tensor,  # [C, D]
        table: Tensor,  # [C·N, 7]
        tiles: Tiles,
        absgrad: bool,
    ) -> tuple[Tensor, Tensor]:
        C, N, D = colors.shape
        image = torch.empty(C, tiles.height, tiles.width, D)
        alphas = torch.empty(C, tiles.height, tiles.width)
        last_ids = np.empty((C, tiles.height, tiles.width), np.int32)
        flat_colors = colors.detach().reshape(C * N, D).contiguous()
        floor = background.detach().contiguous()
        tiles.run(kernels.blend, table.numpy(), flat_colors.numpy(), floor.numpy(), image.numpy(), alphas.numpy(), last_ids)
        ctx.save_for_backward(means2d, flat_colors, floor, table, alphas)
        ctx.tiles, ctx.last_ids, ctx.absgrad = tiles, last_ids, absgrad
        return image, alphas[..., None]

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,
        v_image: Tensor,  # [C, H, W, D]
        v_alphas: Tensor,  # [C, H, W, 1]
    ) -> tuple[Tensor | None, ...]:
        means2d, colors, background, table, alphas = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        C, N, _ = means2d.shape
        D = colors.shape[1]
        v_image, v_alphas = v_image.contiguous(), v_alphas.contiguous()
        rows = np.empty((len(tiles.flatten_ids), kernels.SHAPE + D), np.float32)
        tiles.run(
            kernels.blend_backward, table.numpy(), colors.numpy(), background.numpy(), alphas.numpy(), ctx.last_ids,
            v_image.numpy(), v_alphas.squeeze(-1).numpy(), rows,
        )  # fmt: skip
        sums = torch.empty(C * N, kernels.SHAPE + D)
        parallel_for(kernels.sum_rows, C * N, GRAIN, tiles.first_slot, tiles.slots, rows, sums.numpy())
        sums = sums.view(C, N, kernels.SHAPE + D)
        if ctx.absgrad:
            means2d.absgrad = sums[..., 2:4].contiguous()
        v_background = None
        if ctx.needs_input_grad[4]:  # numpy adds on one thread: the same bits whatever torch's number of threads
            v_background = torch.from_numpy(np.einsum("chw,chwd->cd", (1 - alphas).numpy(), v_image.numpy()))
        return sums[..., 0:2], sums[..., 4:7], sums[..., 7], sums[..., 8:], v_background, None, None, None


def rasterize_cpu(
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
    C, N = len(viewmats), len(means)
    radii, means2d, depths, conics, compensations = Project.apply(
        means, quats, scales, viewmats, Ks, settings.width, settings.height, settings.eps2d,
        settings.near_plane, settings.far_plane, settings.radius_clip,
    )  # fmt: skip
    opacities = opacities.expand(C, N)
    if settings.rasterize_mode == "antialiased":
        opacities = opacities * compensations
    if settings.sh_degree is not None:
        eyes = torch.inverse(viewmats)[:, :3, 3]
        colors = SphericalHarmonics.apply(settings.sh_degree, means, eyes, colors, radii)
        colors = torch.clamp_min(colors + 0.5, 0.0)
    elif colors.dim() == 2:
        colors = colors.expand(C, N, -1)
    if settings.depth_only:
        colors = depths[..., None]
    elif settings.depth_last:
        colors = torch.cat([colors, depths[..., None]], dim=-1)
        if backgrounds is not None:
            backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(C, 1)], dim=-1)
    if backgrounds is None or settings.depth_only:
        backgrounds = means.new_zeros(C, colors.shape[-1])

    with torch.no_grad():
        table = splat_table(means2d, conics, opacities)
        compact_box = 1.0 if settings.compact_box is None else settings.compact_box
        tiles = Tiles(table, radii, depths, settings.width, settings.height, compact_box)
    image, alphas = Blend.apply(means2d, conics, opacities, colors, backgrounds, table, tiles, settings.absgrad)
    if settings.expected_depth:
        image = torch.cat([image[..., :-1], image[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
    info = {
        "camera_ids": None,
        "gaussian_ids": None,
        "radii": radii,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": opacities,
        "tile_width": tiles.tiles_x,
        "tile_height": tiles.tiles_y,
        "tiles_per_gauss": torch.from_numpy(tiles.tiles_per_gauss),
        "flatten_ids": torch.from_numpy(tiles.flatten_ids),
        "isect_offsets": torch.from_numpy(tiles.offsets[:-1].astype(np.int32).reshape(C, tiles.tiles_y, tiles.tiles_x)),
        "width": settings.width,
        "height": settings.height,
        "tile_size": TILE,
        "n_cameras": C,
    }
    return image, alphas, info
