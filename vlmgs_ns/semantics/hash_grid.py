"""Hash grids on the CPU. nerfstudio's torch code writes out the corners of every point; these kernels keep none.

They go level by level: its table stays in the cache, and one thread adds up its gradient, in a fixed order, so that results do
not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmgs_ns.rasterize.jit import device_function, kernel
from vlmgs_ns.rasterize.threads import parallel_for

PRIMES = 2654435761, 805459861  # of the second and the third coordinate (Instant-NGP, 3)
ONE = np.float32(1)


class HashGrids(torch.autograd.Function):
    """nerfstudio's `HashEncoding`s at points on the CPU, side by side, differentiable in their tables."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        places: Tensor,  # [N, 3] in [0, 1]
        scalings: Tensor,  # [G, L] cells a side
        *tables: Tensor,  # [L · T, F] of each of G grids; T is a power of two
    ) -> Tensor:  # [N, G · L · F]
        ctx.places, ctx.scalings, ctx.shape = places.contiguous().numpy(), scalings.numpy(), tables[0].shape
        found = torch.empty(len(places), scalings.numel() * tables[0].shape[1])
        for grid, table in enumerate(tables):
            _for_levels(read, ctx, grid, table.detach(), found)
        return found

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,
        v_found: Tensor,  # [N, G · L · F]
    ) -> tuple[Tensor | None, ...]:
        v_tables = [torch.zeros(ctx.shape) for _ in ctx.scalings]
        for grid, v_table in enumerate(v_tables):
            _for_levels(spread, ctx, grid, v_table, v_found.contiguous())
        return None, None, *v_tables


def _for_levels(
    kernel: Callable[..., None],
    ctx: Any,
    grid: int,
    table: Tensor,  # [L · T, F]
    features: Tensor,  # [N, G · L · F]
) -> None:
    scalings = ctx.scalings[grid]
    column = grid * len(scalings) * table.shape[1]
    parallel_for(kernel, len(scalings), 1, column, ctx.places, scalings, table.numpy(), features.numpy())


@device_function
def _corners(x, y, z, first, size):  # type: ignore[no-untyped-def]
    """Rows of the table of the eight corners around a point in cells, and their weights; a level's rows begin at `first`."""
    a, b, c = np.int64(x), np.int64(y), np.int64(z)
    x, y, z = x - np.float32(a), y - np.float32(b), z - np.float32(c)
    b0, b1, c0, c1 = b * PRIMES[0], (b + 1) * PRIMES[0], c * PRIMES[1], (c + 1) * PRIMES[1]
    rows = (
        first + ((a ^ b0 ^ c0) & (size - 1)), first + (((a + 1) ^ b0 ^ c0) & (size - 1)),
        first + ((a ^ b1 ^ c0) & (size - 1)), first + (((a + 1) ^ b1 ^ c0) & (size - 1)),
        first + ((a ^ b0 ^ c1) & (size - 1)), first + (((a + 1) ^ b0 ^ c1) & (size - 1)),
        first + ((a ^ b1 ^ c1) & (size - 1)), first + (((a + 1) ^ b1 ^ c1) & (size - 1)),
    )  # fmt: skip
    u, v, w = ONE - x, ONE - y, ONE - z
    return rows, (u * v * w, x * v * w, u * y * w, x * y * w, u * v * z, x * v * z, u * y * z, x * y * z)


@kernel("void(int64, int64, int64, float32[:,::1], float32[::1], float32[:,::1], float32[:,::1])")
def read(begin, end, first, places, scalings, table, found):  # type: ignore[no-untyped-def]
    """Trilinear interpolation of the corners' features at some levels, the grid's into the columns from `first` on."""
    size, channels = len(table) // len(scalings), table.shape[1]
    for level in range(begin, end):
        scale, column = scalings[level], first + level * channels
        for i in range(len(places)):
            x, y, z = places[i, 0] * scale, places[i, 1] * scale, places[i, 2] * scale
            (r0, r1, r2, r3, r4, r5, r6, r7), (w0, w1, w2, w3, w4, w5, w6, w7) = _corners(x, y, z, level * size, size)
            for c in range(channels):
                found[i, column + c] = (
                    w0 * table[r0, c] + w1 * table[r1, c] + w2 * table[r2, c] + w3 * table[r3, c]
                    + w4 * table[r4, c] + w5 * table[r5, c] + w6 * table[r6, c] + w7 * table[r7, c]
                )  # fmt: skip


@kernel("void(int64, int64, int64, float32[:,::1], float32[::1], float32[:,::1], float32[:,::1])")
def spread(begin, end, first, places, scalings, v_table, v_found):  # type: ignore[no-untyped-def]
    """The adjoint of `read` in the table: adds to each corner what its points pass back."""
    size, channels = len(v_table) // len(scalings), v_table.shape[1]
    for level in range(begin, end):
        scale, column = scalings[level], first + level * channels
        for i in range(len(places)):
            x, y, z = places[i, 0] * scale, places[i, 1] * scale, places[i, 2] * scale
            rows, weights = _corners(x, y, z, level * size, size)
            for k in range(8):
                for c in range(channels):
                    v_table[rows[k], c] += weights[k] * v_found[i, column + c]
