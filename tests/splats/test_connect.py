"""Connectivity against a brute-force twin, and by hand on chains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats


def chain(*places: float, size: float = 0.25) -> Splats:
    """Round Gaussians along x: two touch where they are at most 4 · size apart."""
    means = torch.zeros(len(places), 3)
    means[:, 0] = torch.tensor(places)
    turn = torch.tensor([[1.0, 0, 0, 0]]).repeat(len(places), 1)
    return Splats(means, turn, torch.full((len(places), 3), size), torch.ones(len(places)))


def cloud(count: int, seed: int) -> Splats:
    g = torch.Generator().manual_seed(seed)
    scales = 0.02 + 0.1 * torch.rand(count, 3, generator=g) ** 3
    return Splats(torch.rand(count, 3, generator=g), torch.randn(count, 4, generator=g), scales, torch.rand(count, generator=g))


def touching(splats: Splats, nearest: int) -> Tensor:  # [N, N] bool
    """The definition, pair by pair, with covariances."""
    count = len(splats)
    table = torch.zeros(count, count, dtype=torch.bool)
    turns = torch.from_numpy(Rotation.from_quat(splats.quats[:, [1, 2, 3, 0]].numpy()).as_matrix())
    covariances = turns @ torch.diag_embed(splats.scales.double() ** 2) @ turns.transpose(1, 2)
    distances = torch.cdist(splats.means.double(), splats.means.double())
    for i in range(count):
        for j in distances[i].argsort()[1 : nearest + 1].tolist():
            along = (splats.means[j] - splats.means[i]).double() / distances[i, j]
            reach = sum(2 * (along @ covariances[k] @ along) ** 0.5 for k in (i, j))
            if distances[i, j] <= reach:
                table[i, j] = table[j, i] = True
    return table


def flooded(table: Tensor, mask: Tensor, allowed: Tensor) -> Tensor:
    while True:
        more = mask | (table[mask].any(dim=0) & allowed)
        if torch.equal(more, mask):
            return mask
        mask = more


@pytest.mark.parametrize(("count", "nearest"), [(60, 59), (120, 5), (2, 16)])
def test_against_brute_force(count: int, nearest: int) -> None:
    g = torch.Generator().manual_seed(count)
    for seed in range(3):
        splats = cloud(count, seed)
        table, neighbours = touching(splats, nearest), Neighbours(splats, nearest=nearest)
        mask, allowed = torch.rand(count, generator=g) < 0.1, torch.rand(count, generator=g) < 0.7
        assert torch.equal(neighbours.ring(mask, allowed), mask | (table[mask].any(dim=0) & allowed))
        grown = neighbours.grow(mask, allowed)
        assert torch.equal(grown, flooded(table, mask, allowed))
        assert torch.equal(neighbours.grow(grown, allowed), grown)  # the full closure
        labels = neighbours.components(allowed)
        assert torch.equal(labels >= 0, allowed)
        for label in labels[allowed].unique().tolist():
            part = labels == label
            first = torch.zeros_like(part)
            first[part.nonzero()[0]] = True
            assert torch.equal(flooded(table, first, allowed), part)


def test_a_part_touches_as_in_the_whole() -> None:
    """Their nearest are those of the scene, not of the part."""
    splats, g = cloud(120, 3), torch.Generator().manual_seed(3)
    for share in (0.2, 0.6, 1.0):
        ids = (torch.rand(120, generator=g) < share).nonzero()[:, 0]
        table = touching(splats, 5)[ids][:, ids]
        part = Neighbours(splats, nearest=5).part(ids)
        half = torch.rand(len(ids), generator=g) < 0.5
        for graph, rows in ((part, table), (part.part(half.nonzero()[:, 0]), table[half][:, half])):
            assert len(graph) == len(rows)
            for row, touched in enumerate(rows):
                alone = torch.arange(len(rows)) == row
                assert torch.equal(graph.ring(alone, ~alone), touched | alone)


def test_a_chain_by_hand() -> None:
    neighbours = Neighbours(chain(0, 0.9, 1.8, 3.0, 3.9))  # a gap of 1.2 after the third
    everything, first = torch.ones(5, dtype=torch.bool), torch.tensor([True, False, False, False, False])
    assert neighbours.components(everything).tolist() == [0, 0, 0, 1, 1]
    assert neighbours.ring(first, everything).tolist() == [True, True, False, False, False]
    assert neighbours.grow(first, everything).tolist() == [True, True, True, False, False]
    # What is not allowed stops the flood; seeds need no leave.
    assert neighbours.grow(first, torch.tensor([False, False, True, True, True])).tolist() == first.tolist()
    assert neighbours.grow(first, torch.tensor([False, True, False, True, True])).tolist() == [True, True, False, False, False]


def test_flat_gaussians_reach_in_their_plane_alone() -> None:
    """Two discs of radius 1 and thickness 0.01: side by side they touch, one above the other they do not."""
    means = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0.0, 0, 1.5]])
    discs = Splats(
        means, torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1), torch.tensor([[0.5, 0.5, 0.005]]).repeat(3, 1), torch.ones(3)
    )
    assert Neighbours(discs).components(torch.ones(3, dtype=torch.bool)).tolist() == [0, 0, 1]
    # Turned by 90° about y, their thin side is along x.
    standing = Splats(means, torch.tensor([[0.5**0.5, 0, 0.5**0.5, 0]]).repeat(3, 1), discs.scales, discs.opacities)
    assert Neighbours(standing).components(torch.ones(3, dtype=torch.bool)).tolist() == [0, 1, 0]


def test_gaussians_in_one_place_touch() -> None:
    together = chain(0, 0, 0, size=1e-6)
    assert Neighbours(together).components(torch.ones(3, dtype=torch.bool)).tolist() == [0, 0, 0]


def test_means_over_neighbours_by_hand() -> None:
    neighbours = Neighbours(chain(0, 0.9, 1.8, 5.0))
    values, weights = torch.tensor([[0.0], [1.0], [4.0], [7.0]]), torch.tensor([1.0, 2.0, 1.0, 0.0])
    mean = neighbours.averaged(values, weights)[:, 0]
    # The last weighs nothing and keeps its own.
    assert mean.tolist() == pytest.approx([2 / 3, 6 / 4, 6 / 3, 7.0])


@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_single(count: int) -> None:
    neighbours, mask = Neighbours(cloud(count, 0)), torch.ones(count, dtype=torch.bool)
    assert torch.equal(neighbours.grow(mask, mask), mask) and torch.equal(neighbours.ring(mask, mask), mask)
    assert neighbours.components(mask).tolist() == [0] * count
    assert neighbours.components(~mask).tolist() == [-1] * count


def test_a_mask_of_another_scene_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allowed has shape \[3\].* \[2\]"):
        Neighbours(chain(0, 1)).grow(torch.zeros(2, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))


def test_smoothing_against_a_dense_twin() -> None:
    splats, g = cloud(50, 1), torch.Generator().manual_seed(1)
    values, colors = torch.rand(50, 4, generator=g), 0.2 * torch.rand(50, 3, generator=g)
    weights = torch.rand(50, generator=g) * (torch.rand(50, generator=g) < 0.8)
    shares = touching(splats, 49) * weights * torch.exp(-(torch.cdist(colors, colors) ** 2) / (2 * 0.1**2)) + weights.diag()
    twin, total = values, shares.sum(dim=1, keepdim=True)
    for _ in range(3):
        twin = torch.where(total > 0, shares @ twin / total.clamp_min(1e-30), twin)
    smoothing = Neighbours(splats, nearest=49).bilateral(weights, colors, 0.1)
    found = torch.from_numpy(smoothing @ (smoothing @ (smoothing @ values.numpy())))
    assert torch.allclose(found, twin, atol=1e-5) and not torch.allclose(found, values, atol=0.05)


def test_features_spread_over_one_colour_and_not_across_its_edge() -> None:
    splats = chain(*range(6))  # red, red, red, green, green, green: each touches the next
    colors = torch.tensor([[1.0, 0, 0]] * 3 + [[0, 1.0, 0]] * 3)
    values = torch.tensor([[1.0], [0], [0], [5], [5], [5]])
    found = (
        torch.from_numpy(np.linalg.matrix_power(Neighbours(splats).bilateral(splats.opacities, colors, 0.05).toarray(), 200))
        @ values
    )
    assert torch.allclose(found[:3], found[:1].expand(3, 1), atol=1e-3) and 0.2 < float(found[0]) < 0.5
    assert torch.allclose(found[3:], torch.tensor(5.0))
