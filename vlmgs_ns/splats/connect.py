"""Which Gaussians touch: features spread over an object's surface, a selection grows over it and falls into its parts.

Two Gaussians touch where the distance of their centres is at most the sum of their extents along the line between them, an
extent being `EXTENT` standard deviations of the Gaussian in that direction: flat Gaussians reach far in their plane and hardly
across it. Each is held only against its nearest by centre, `NEAREST` of them, which bounds the memory.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor

from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.splats.shape import EXTENT, spread

NEAREST = 16
_CHUNK = 65_536


class Neighbours:
    """The graph of the Gaussians of one scene that touch. It changes no more; threads may share it.

    Args:
        splats: of the scene, N ≥ 0.
        extent: standard deviations from a centre that belong to a Gaussian.
        nearest: Gaussians that each is held against; one that is nearest to another is a neighbour in both directions.
    """

    def __init__(self, splats: Splats, extent: float = EXTENT, nearest: int = NEAREST) -> None:
        self._count = len(splats)
        self._touching = _touching(splats, extent, nearest)

    def __len__(self) -> int:
        return self._count

    def grow(
        self,
        mask: Tensor,  # [N] bool
        allowed: Tensor,  # [N] bool
    ) -> Tensor:  # [N] bool
        """Return the selected ones and all that can be reached from them through Gaussians that are allowed."""
        self._check(mask=mask, allowed=allowed)
        labels = self.components(mask | allowed)
        return torch.isin(labels, labels[mask].unique())

    def ring(
        self,
        mask: Tensor,  # [N] bool
        allowed: Tensor,  # [N] bool
    ) -> Tensor:  # [N] bool
        """Return the selected ones and those of the allowed that touch one of them: one step of `grow`."""
        self._check(mask=mask, allowed=allowed)
        beside = torch.from_numpy(self._touching @ mask.numpy().astype(np.int32) > 0)
        return mask | beside & allowed

    def components(
        self,
        mask: Tensor,  # [N] bool
    ) -> Tensor:  # [N] int64
        """Return the number of the connected part of the mask that a Gaussian is in, from 0; −1 outside the mask."""
        self._check(mask=mask)
        labels = torch.full((self._count,), -1, dtype=torch.int64)
        ids = mask.numpy().nonzero()[0]
        if len(ids):
            _, found = connected_components(self._touching[ids][:, ids], directed=False)
            labels[mask] = torch.from_numpy(found).long()
        return labels

    def averaged(
        self,
        values: Tensor,  # [N, P]
        weights: Tensor,  # [N] ≥ 0
    ) -> Tensor:  # [N, P] float64
        """Weighted means over each Gaussian and those that touch it; its own value where all of them weigh nothing."""
        own, weight = values.detach().cpu().double().numpy(), weights.detach().cpu().double().numpy()
        total = self._touching @ weight + weight
        mean = (self._touching @ (own * weight[:, None]) + own * weight[:, None]) / np.maximum(total, 1e-30)[:, None]
        return torch.from_numpy(np.where(total[:, None] > 0, mean, own))

    def smoothed(
        self,
        values: Tensor,  # [N, D]
        weights: Tensor,  # [N] ≥ 0
        colors: Tensor,  # [N, 3]
        sigma: float,
        times: int,
    ) -> Tensor:  # [N, D] float32, on the CPU
        """Take weighted means over each Gaussian and those that touch it, so many times, across edges of colour hardly at all.

        A bilateral filter (Tomasi and Manduchi, ICCV 1998): another's weight falls with its colour's distance, a normal
        distribution of deviation `sigma`. Where all weigh nothing, a value stays.
        """
        weight, color = (part.detach().cpu().double().numpy() for part in (weights, colors))
        row, column = self._touching.nonzero()
        alike = np.exp(-np.square(color[row] - color[column]).sum(axis=1) / (2 * sigma**2))
        shares = csr_matrix((weight[column] * alike, (row, column)), shape=self._touching.shape) + diags(
            np.maximum(weight, 1e-12)
        )
        shares = (diags(1 / shares.sum(axis=1).A1) @ shares).astype(np.float32)
        mean = values.detach().cpu().float().numpy()
        for _ in range(times):
            mean = shares @ mean
        return torch.from_numpy(mean)

    def _check(self, **masks: Tensor) -> None:
        for name, mask in masks.items():
            if mask.shape != (self._count,) or mask.dtype != torch.bool or mask.is_cuda:
                raise ValueError(
                    f"{name} has shape {list(mask.shape)} and type {mask.dtype} on {mask.device}: "
                    f"it must be [{self._count}] of torch.bool on the CPU, one a Gaussian"
                )


def _touching(splats: Splats, extent: float, nearest: int) -> csr_matrix:
    """[N, N] symmetric, True where two touch, nothing on the diagonal."""
    count = len(splats)
    if count < 2:
        return csr_matrix((count, count), dtype=bool)
    splats = splats.detached()
    means = splats.means.cpu().double().numpy()
    spreads = spread(splats).cpu().numpy()
    tree = cKDTree(means)
    rows, columns = [], []
    for start in range(0, count, _CHUNK):
        here = np.arange(start, min(start + _CHUNK, count))
        # The nearest is the Gaussian itself, or one at the same place.
        _, near = tree.query(means[here], k=min(nearest + 1, count), workers=os.cpu_count() or 1)
        row, column = np.repeat(here, near.shape[1]), near.reshape(-1)
        apart = means[column] - means[row]
        distance = np.linalg.norm(apart, axis=1)
        along = apart / np.maximum(distance, 1e-30)[:, None]
        reach = extent * (_deviation(spreads[row], along) + _deviation(spreads[column], along))
        touch = (distance <= reach) & (row != column)
        rows.append(row[touch])
        columns.append(column[touch])
    row, column = np.concatenate(rows), np.concatenate(columns)
    half = csr_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=(count, count))
    return (half + half.T).tocsr()


def _deviation(
    spreads: np.ndarray,  # [M, 3, 3]
    along: np.ndarray,  # [M, 3] unit vectors
) -> np.ndarray:  # [M]
    return np.linalg.norm(np.einsum("mij,mj->mi", spreads, along), axis=1)
