"""From pixels back to Gaussians: the adjoint of rendering.

`lift` gives, for each Gaussian, the blending mass Σ alpha·transmittance·G over the pixels of a map G: exact and
occlusion-aware (docs/methods.md). It is the vector-Jacobian product of the rasteriser in its colours, so that
⟨render(F), G⟩ = ⟨F, lift(G)⟩. `contribution_counts` counts pixels instead of weighing them (FastGS' scores), `cell_weights` is
rendering itself as a sparse matrix. All take the `info` of a `rasterization` call, and look at the same splats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 25  # the most contributions that are held at once while counting on CUDA, at 16 bytes each


@torch.no_grad()
def lift(
    info: dict[str, Any],
    maps: Tensor,  # [C, H, W, D]
) -> Tensor:
    """Sum alpha·transmittance·maps over the pixels of each camera's splats. [C, N, D] float32.

    A mask as the map gives the blending mass of every Gaussian inside it::

        image, alphas, info = rasterization(...)
        mass = lift(info, mask[None, ..., None].float())[0, :, 0]  # [N], from a mask [H, W] bool
    """
    C, N = info["depths"].shape
    _check(info, maps, 4)
    if maps.is_cuda:
        return _lift_cuda(info, maps)
    rows = _gather_cpu(info, maps.float().contiguous(), counting=False)
    ids = info["flatten_ids"].long()
    return torch.zeros(C * N, maps.shape[-1]).index_add_(0, ids, torch.from_numpy(rows)).view(C, N, maps.shape[-1])


@torch.no_grad()
def contribution_counts(
    info: dict[str, Any],
    mask: Tensor,  # [C, H, W] bool
) -> Tensor:
    """Pixels of the mask to which each splat contributes (alpha >= 1/255, transmittance left > 1e-4). [C, N] int64."""
    C, N = info["depths"].shape
    _check(info, mask, 3)
    if mask.is_cuda:
        return _counts_cuda(info, mask)
    rows = _gather_cpu(info, mask[..., None].float().contiguous(), counting=True)
    counts = np.bincount(info["flatten_ids"].numpy(), weights=rows[:, 0], minlength=C * N)
    return torch.from_numpy(counts).long().view(C, N)


@torch.no_grad()
def cell_weights(
    info: dict[str, Any],
    grid: tuple[int, int],
) -> Tensor:
    """Return the matrix that renders features to means over the cells of a grid of h rows and w columns, on the CPU.

    It is sparse (COO, coalesced) [h·w, N]: `cell_weights(info, grid) @ features` are the means, as adaptive pooling takes them,
    of the picture that `info`'s one camera renders of features [N, D].
    """
    side = info["tile_size"]
    down, first_row = _cells_of_tiles(info["height"], grid[0], side)
    across, first_column = _cells_of_tiles(info["width"], grid[1], side)
    # One channel for each cell that a tile can touch, numbered modulo their count, so that a row tells which cells it fills.
    maps = (down[:, None, :, None] * across[None, :, None, :]).flatten(2)[None]
    rows = torch.from_numpy(_gather_cpu(info, maps.contiguous(), counting=False))
    offsets = F.pad(info["isect_offsets"].flatten().long(), (0, 1), value=len(rows))
    tiles = torch.repeat_interleave(offsets.diff())
    splat, channel = rows.nonzero(as_tuple=True)
    tile = tiles[splat]
    low_row, low_column = first_row[tile // info["tile_width"]], first_column[tile % info["tile_width"]]
    row = low_row + (channel // across.shape[1] - low_row) % down.shape[1]
    column = low_column + (channel % across.shape[1] - low_column) % across.shape[1]
    places = torch.stack([row * grid[1] + column, info["flatten_ids"].long()[splat]])
    return torch.sparse_coo_tensor(places, rows[splat, channel], (grid[0] * grid[1], info["depths"].shape[1])).coalesce()


def _cells_of_tiles(length: int, cells: int, side: int) -> tuple[Tensor, Tensor]:
    """Return the share of each pixel of an axis in cells, numbered modulo the most that a tile touches [length, most], and the
    first cell that each tile touches [tiles]."""
    shares = F.adaptive_avg_pool1d(torch.eye(length)[None], cells)[0]  # [length, cells]
    touched = [part.any(dim=0).nonzero()[:, 0] for part in shares.split(side)]
    most = max(int(found[-1] - found[0]) + 1 for found in touched)
    return torch.zeros(length, most).index_add_(1, torch.arange(cells) % most, shares), torch.stack([f[0] for f in touched])


def _check(info: dict[str, Any], maps: Tensor, dims: int) -> None:
    wanted = (info["depths"].shape[0], info["height"], info["width"])
    if maps.dim() != dims or tuple(maps.shape[:3]) != wanted:
        raise ValueError(f"maps has shape {list(maps.shape)}: it must begin with {list(wanted)}, the rendered pictures' size.")


def _gather_cpu(info: dict[str, Any], maps: Tensor, counting: bool) -> np.ndarray[Any, Any]:
    """Rows [intersections, D] of the `gather` kernel."""
    from vlmgs_ns.rasterize import kernels
    from vlmgs_ns.rasterize.cpu import splat_table
    from vlmgs_ns.rasterize.threads import parallel_for

    table = splat_table(info["means2d"], info["conics"], info["opacities"])
    ids = info["flatten_ids"].numpy()
    offsets = np.append(info["isect_offsets"].numpy().ravel().astype(np.int64), len(ids))
    rows = np.empty((len(ids), maps.shape[-1]), np.float32)
    parallel_for(
        kernels.gather, len(offsets) - 1, max(1, info["tile_width"] // 2), info["tile_width"], info["tile_height"],
        info["width"], info["height"], offsets, ids, table.numpy(), maps.numpy(), counting, rows,
    )  # fmt: skip
    return rows


def _lift_cuda(
    info: dict[str, Any],
    maps: Tensor,  # [C, H, W, D]
) -> Tensor:
    """gsplat's own backward pass, a few channels at a time."""
    from gsplat.cuda._wrapper import rasterize_to_pixels

    C, N = info["depths"].shape
    splats = [info[key].detach().contiguous() for key in ("means2d", "conics")]
    tiles = info["width"], info["height"], info["tile_size"], info["isect_offsets"], info["flatten_ids"]
    lifted = []
    for part in maps.float().split(32, dim=-1):
        with torch.enable_grad():
            dummy = torch.zeros(C, N, part.shape[-1], device=maps.device, requires_grad=True)
            image, _ = rasterize_to_pixels(*splats, dummy, info["opacities"].detach().contiguous(), *tiles)
            lifted.append(torch.autograd.grad(image, dummy, part.contiguous())[0])
    return torch.cat(lifted, dim=-1)


def _counts_cuda(
    info: dict[str, Any],
    mask: Tensor,  # [C, H, W] bool
) -> Tensor:
    """gsplat's index kernel over bands of tiles: a tile always whole, because a pixel once closed must stay closed."""
    from gsplat.cuda._wrapper import rasterize_to_indices_in_range

    C, N = info["depths"].shape
    width, height, tile = info["width"], info["height"], info["tile_size"]
    splats = [info[key].detach().contiguous() for key in ("means2d", "conics", "opacities")]
    offsets, ids = info["isect_offsets"], info["flatten_ids"]
    start = torch.ones(C, height, width, device=mask.device)
    counts = torch.zeros(C * N, dtype=torch.int64, device=mask.device)
    for low, high in tile_bands(offsets.flatten().tolist(), len(ids), CHUNK // tile**2):
        # tiles outside the band get an empty range
        band = offsets.clamp(low, high).contiguous()
        splat, pixel, camera = rasterize_to_indices_in_range(
            0, 1 << 30, start, *splats, width, height, tile, band, ids[:high].contiguous()
        )
        inside = mask.reshape(-1)[camera * (height * width) + pixel]
        counts += torch.bincount((camera * N + splat)[inside], minlength=C * N)
    return counts.view(C, N)


def tile_bands(offsets: list[int], total: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cut the list of intersections at tile borders into pieces [low, high) of at most `limit`, or of one tile."""
    low = high = 0
    for end in [*offsets[1:], total]:
        if end - low > limit and high > low:
            yield low, high
            low = high
        high = end
    if high > low:
        yield low, high
