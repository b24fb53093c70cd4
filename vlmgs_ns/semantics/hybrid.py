"""The hybrid map: an image-text encoder's features at every place of a picture, averaged over seven tile sizes.

An encoder such as CLIP gives one vector for a whole picture. FMGS (section 3.2) cuts tiles of seven sizes, embeds each, lays the
vectors of one size out as a coarse map, and averages the seven maps on the finest grid: a small tile names a handle, a large
one the cup. Picture coordinates are in pixels, (0, 0) is the outer corner of the top left pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Embed = Callable[[Tensor], Tensor]
"""[B, 3, S, S] in [0, 1] → [B, D]."""

TILE_SIZES = 7
"""Number of tile sizes in FMGS."""


def largest_tile(sizes: int) -> float:
    """Side of the largest of the first `sizes` of FMGS' tile sizes: 0.05 of the picture's height, 0.125, … 0.5, and so on.

    Raises:
        ValueError: `sizes` is below 1, or so large that a tile exceeds the picture.
    """
    if not 1 <= sizes <= 13:
        raise ValueError(f"{sizes} tile sizes from 0.05 of the height, 0.075 apart: give 1 to 13")
    return (3 * sizes - 1) / 40


def stride_factor(ratio: float) -> float:
    """Step from tile to tile, in tiles: 1.0 where the tile is 0.05 of the picture's height, falling to 0.5 at 0.15 and above."""
    return min(1.0, max(0.5, 1.0 - 5.0 * (ratio - 0.05)))


def tile_starts(length: int, tile: int, stride: float) -> Tensor:
    """First pixels of the tiles along one axis. [n] int64, increasing.

    The first tile begins at the border and the last ends at the other border; between them the tiles lie evenly (to the nearest
    pixel), the fewest whose step is at most `stride`. So all of the picture is seen and no tile reaches out of it.
    """
    room = length - tile
    count = math.ceil(room / max(stride, 1.0) - 1e-9) + 1  # a rounding error in the stride adds no tile
    return (torch.linspace(0, room, count, dtype=torch.float64) + 0.5).floor().long()


def _tile(height: int, width: int, ratio: float) -> int:
    """Side of a tile in pixels: `ratio` of the height, at least one pixel and at most the shorter side."""
    return min(max(1, round(ratio * height)), height, width)


def _linear_weights(
    knots: Tensor,  # [n] increasing
    points: Tensor,  # [m]
) -> Tensor:
    """Rows of weights that interpolate linearly between the knots; a point outside takes the nearest knot. [m, n]."""
    weights = torch.zeros(len(points), len(knots), dtype=torch.float64)
    if len(knots) == 1:
        return weights + 1.0
    points = points.clamp(knots[0], knots[-1])
    right = torch.searchsorted(knots, points).clamp(1, len(knots) - 1)
    share = (points - knots[right - 1]) / (knots[right] - knots[right - 1])
    rows = torch.arange(len(points))
    weights[rows, right - 1] = 1.0 - share
    weights[rows, right] = share
    return weights


def _cell_centres(length: int, count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (length / count)


def hybrid_map(
    picture: Tensor,  # [3, H, W] in [0, 1]
    embed: Embed,
    tile_size: int = 224,
    scales: int = TILE_SIZES,
    smallest: float = 0.05,
    largest: float = 0.5,
    batch_size: int = 64,
) -> Tensor:
    """Return the hybrid map of a picture (FMGS, section 3.2).

    The map has as many rows h and columns w as there are tiles of the smallest size. Its cells are equal and cover the picture:
    cell (r, c) stands for the point ((c + 0.5) · W / w, (r + 0.5) · H / h), so the map can be resized like an image. At that
    point every scale is read bilinearly between the centres of its tiles (beyond the outermost centres the nearest counts); the
    plain mean over the scales is scaled to unit length.

    Args:
        picture: floating point, in [0, 1].
        embed: gets up to `batch_size` tiles at once, on the picture's device.
        tile_size: S, the side in pixels to which each tile is resized (bilinear, antialiased) before it is embedded.
        scales: how many tile sizes, evenly from `smallest` to `largest`.
        smallest, largest: sides of the tiles relative to the picture's height.
        batch_size: most tiles in one call of `embed`.

    Returns:
        [h, w, D] float32 on the device that `embed` answers on; unit vectors.

    Raises:
        ValueError: the picture is not floating point [3, H, W] with pixels, a size is out of range, or `embed` does not give one
            vector per tile.
    """
    if picture.dim() != 3 or picture.shape[0] != 3 or picture.numel() == 0 or not picture.is_floating_point():
        raise ValueError(f"a picture is [3, H, W] in floating point, but this is {list(picture.shape)} {picture.dtype}")
    if scales < 1 or not 0.0 < smallest <= largest <= 1.0:
        raise ValueError(f"{scales} tile sizes from {smallest:g} to {largest:g} of the height: give 1 or more, within 0 to 1")
    if tile_size < 1 or batch_size < 1:
        raise ValueError(f"tile_size is {tile_size} and batch_size {batch_size}: both are 1 or more")
    height, width = picture.shape[1:]
    grids = []
    for ratio in torch.linspace(smallest, largest, scales, dtype=torch.float64).tolist():
        side = _tile(height, width, ratio)
        stride = side * stride_factor(ratio)
        grids.append((side, tile_starts(height, side, stride), tile_starts(width, side, stride)))
    ys, xs = _cell_centres(height, len(grids[0][1])), _cell_centres(width, len(grids[0][2]))

    hybrid: Tensor | float = 0.0
    for side, rows, columns in grids:
        corners = [(y, x) for y in rows.tolist() for x in columns.tolist()]
        vectors = []
        for first in range(0, len(corners), batch_size):
            batch = corners[first : first + batch_size]
            tiles = torch.stack([picture[:, y : y + side, x : x + side] for y, x in batch])
            if side != tile_size:
                tiles = F.interpolate(tiles, size=(tile_size, tile_size), mode="bilinear", antialias=True, align_corners=False)
            vectors.append(_embedded(embed, tiles))
        features = torch.cat(vectors).unflatten(0, (len(rows), len(columns)))  # [n_rows, n_columns, D]
        down = _linear_weights(rows + side / 2, ys).to(features)
        across = _linear_weights(columns + side / 2, xs).to(features)
        hybrid = hybrid + torch.einsum("ri,cj,ijd->rcd", down, across, features)
    assert isinstance(hybrid, Tensor)
    return F.normalize(hybrid / scales, dim=-1)


def _embedded(
    embed: Embed,
    tiles: Tensor,  # [B, 3, S, S]
) -> Tensor:  # [B, D] float32
    # Antialiased resizing may leave [0, 1] by a rounding error.
    vectors = embed(tiles.clamp(0.0, 1.0))
    if vectors.dim() != 2 or len(vectors) != len(tiles):
        raise ValueError(
            f"{len(tiles)} tiles were embedded as {list(vectors.shape)}; an encoder gives one vector per tile, [B, D]"
        )
    return vectors.float()
