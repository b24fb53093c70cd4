"""Which Gaussians touch: features spread over an object's surface, a selection grows over it and falls into its parts.

Two Gaussians touch where the distance of their centres is at most the sum of their extents along the line between them, an
extent being `EXTENT` standard deviations of the Gaussian in that direction: flat Gaussians reach far in their plane and hardly
across it. Each is held only against its nearest by centre, `NEAREST` of them, which bounds the memory.
"""

from __future__ import annotations

import os
from copy import copy
from functools import cached_property

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
    """The graph of the Gaussians of one scene that touch, found out when it is first asked. Threads may share it.

    Args:
        splats: of the scene, N ≥ 0. They change no more.
        extent: standard deviations from a centre that belong to a Gaussian.
        nearest: Gaussians that each is held against; one that is nearest to another is a neighbour in both directions.
    """

    def __init__(self, splats: Splats, extent: float = EXTENT, nearest: int = NEAREST) -> None:
        self._splats, self._extent, self._nearest = splats.detached(), extent, nearest
        self._count = len(splats)
        self._ids = np.arange(self._count)
        # Trees whose boxes are halved in the middle are made faster and, of surfaces, asked as fast.
        self._tree = cKDTree(self._splats.means.cpu().double().numpy(), balanced_tree=False)

    def __len__(self) -> int:
        return self._count

    def part(
        self,
        ids: Tensor,  # [M] int64, increasing
    ) -> Neighbours:
        """Return the graph of some of these Gaussians, which touch as they do here; its masks and values have M rows.

        It is made without the rest of the graph."""
        if len(ids) == self._count:
            return self
        part = copy(self)
        part.__dict__.pop("_touching", None)
        part._ids, part._count = self._ids[ids.numpy()], len(ids)
        return part

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

    def bilateral(
        self,
        weights: Tensor,  # [N] ≥ 0
        colors: Tensor,  # [N, 3]
        sigma: float,
    ) -> csr_matrix:  # [N, N] float32
        """Return the matrix of weighted means over each Gaussian and those that touch it, across edges of colour hardly at all.

        A bilateral filter (Tomasi and Manduchi, ICCV 1998): another's weight falls with its colour's distance, a normal
        distribution of deviation `sigma`. Where all weigh nothing, a value stays.
        """
        weight, color = (part.detach().cpu().double().numpy() for part in (weights, colors))
        touching = self._touching
        shares = np.empty(touching.nnz, np.float32)
        total = np.maximum(weight, 1e-12)
        for start in range(0, self._count, _CHUNK):
            offsets = touching.indptr[start : start + _CHUNK + 1]
            row = np.repeat(np.arange(start, start + len(offsets) - 1), np.diff(offsets))
            column = touching.indices[offsets[0] : offsets[-1]]
            part = weight[column] * np.exp(-np.square(color[row] - color[column]).sum(axis=1) / (2 * sigma**2))
            total[start : start + _CHUNK] += np.bincount(row - start, part, len(offsets) - 1)
            shares[offsets[0] : offsets[-1]] = part / total[row]
        own = diags((np.maximum(weight, 1e-12) / total).astype(np.float32))
        return (csr_matrix((shares, touching.indices, touching.indptr), shape=touching.shape) + own).tocsr()

    @cached_property
    def _touching(self) -> csr_matrix:  # [M, M] bool, symmetric, nothing on the diagonal
        from vlmgs_ns.splats.touch import touch_nearest  # compiles

        count, means = len(self._splats), self._tree.data
        place = np.full(count, -1, np.int32)
        place[self._ids] = np.arange(self._count)
        # In the order of the tree, which finds the next one's nearest among those that it has just looked at.
        ordered = self._tree.indices[place[self._tree.indices] >= 0]
        spreads = spread(self._splats[torch.from_numpy(self._ids).to(self._splats.means.device)]).cpu().numpy()
        rows, columns = [place[:0]], [place[:0]]
        for start in range(0, self._count, _CHUNK):
            here = ordered[start : start + _CHUNK]
            # The nearest is the Gaussian itself, or one at the same place.
            wanted = np.arange(1, min(self._nearest + 1, count) + 1)
            _, near = self._tree.query(means[here], k=wanted, workers=os.cpu_count() or 1)
            touch = np.empty(near.shape, dtype=bool)
            touch_nearest(here, near, place, means, spreads, self._extent, touch)
            rows.append(np.repeat(place[here], touch.sum(axis=1)))
            columns.append(place[near[touch]])
        row, column = np.concatenate(rows), np.concatenate(columns)
        half = csr_matrix((np.ones(len(row), dtype=bool), (row, column)), shape=(self._count, self._count))
        return (half + half.T).tocsr()

    def _check(self, **masks: Tensor) -> None:
        for name, mask in masks.items():
            if mask.shape != (self._count,) or mask.dtype != torch.bool or mask.is_cuda:
                raise ValueError(
                    f"{name} has shape {list(mask.shape)} and type {mask.dtype} on {mask.device}: "
                    f"it must be [{self._count}] of torch.bool on the CPU, one a Gaussian"
                )
