"""Lifting is the adjoint of rendering, and counts are exact."""

from __future__ import annotations

import pytest
import torch

from tests.rasterize.scenes import random_scene
from tests.rasterize.twin import twin_rasterization
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.rasterize.lift import contribution_counts, lift, tile_bands


@pytest.mark.parametrize(("channels", "cameras", "opacity"), [(1, 1, 0.9), (5, 2, 0.9), (8, 1, 0.9), (3, 1, 1.0)])
def test_lift_is_the_adjoint_of_rendering(channels: int, cameras: int, opacity: float) -> None:
    """⟨render(F), G⟩ = ⟨F, lift(G)⟩ for any F per Gaussian and any G per pixel."""
    scene = random_scene(1, 500, 80, 50, cameras=cameras, opacity=opacity, size=0.3, colors=channels)
    image, _, info = rasterization(*scene.tensors(), 80, 50)
    G = torch.rand(image.shape, generator=torch.Generator().manual_seed(2))
    left = (image.double() * G).sum()
    right = (scene.colors.double() * lift(info, G).double().sum(0)).sum()
    assert abs(left - right) < 1e-5 * abs(left)


def test_lift_of_ones_is_the_blending_mass_of_the_twin() -> None:
    scene = random_scene(3, 60, 48, 32, colors=1)
    _, alphas, info = rasterization(*scene.tensors(), 48, 32)
    twin = twin_rasterization(*scene.tensors(torch.float64), 48, 32)
    sound = (~twin.fragile)[..., None].float()
    expected = torch.einsum("cpn,cp->cn", twin.weights, sound.flatten(1).double())
    assert torch.allclose(lift(info, sound)[..., 0].double(), expected, atol=1e-4)
    assert torch.isclose(lift(info, torch.ones(1, 32, 48, 1)).sum(), alphas.sum(), rtol=1e-5)


@pytest.mark.parametrize("opacity", [0.6, 1.0])
def test_counts_equal_a_brute_force_count(opacity: float) -> None:
    scene = random_scene(4, 80, 48, 40, cameras=2, opacity=opacity, size=0.4)
    _, _, info = rasterization(*scene.tensors(), 48, 40, sh_degree=0)
    twin = twin_rasterization(*scene.tensors(torch.float64), 48, 40, sh_degree=0)
    mask = ~twin.fragile & (torch.rand(2, 40, 48, generator=torch.Generator().manual_seed(0)) < 0.5)
    expected = ((twin.weights > 0) & mask.flatten(1)[..., None]).sum(1)
    counts = contribution_counts(info, mask)
    assert counts.dtype == torch.int64 and torch.equal(counts, expected) and counts.sum() > 1000


def test_empty_mask_and_empty_scene_count_nothing() -> None:
    _, _, info = rasterization(*random_scene(5, 20, 32, 32).tensors(), 32, 32, sh_degree=0)
    assert contribution_counts(info, torch.zeros(1, 32, 32, dtype=torch.bool)).sum() == 0
    _, _, info = rasterization(*random_scene(5, 0, 32, 32).tensors(), 32, 32, sh_degree=0)
    assert contribution_counts(info, torch.ones(1, 32, 32, dtype=torch.bool)).shape == (1, 0)


def test_wrong_size_is_named() -> None:
    _, _, info = rasterization(*random_scene(5, 20, 32, 32).tensors(), 32, 32, sh_degree=0)
    with pytest.raises(ValueError, match=r"maps has shape \[1, 31, 32\]"):
        contribution_counts(info, torch.ones(1, 31, 32, dtype=torch.bool))


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_bands_cover_every_intersection_once_and_cut_only_between_tiles(limit: int) -> None:
    offsets, total = [0, 2, 2, 7, 8, 8, 12], 13
    bands = list(tile_bands(offsets, total, limit))
    assert [low for low, _ in bands] == [0] + [high for _, high in bands[:-1]] and bands[-1][1] == total
    assert all(low in offsets and (high in offsets or high == total) for low, high in bands)
    tiles = [b - a for a, b in zip(offsets, [*offsets[1:], total], strict=True)]
    assert all(high - low <= max(limit, max(tiles)) for low, high in bands)
    assert list(tile_bands([0, 0], 0, limit)) == []
