"""On a CUDA machine: our CPU kernels and gsplat's own give the same pictures and gradients, and lifting agrees."""

from __future__ import annotations

import pytest
import torch

from tests.rasterize.scenes import random_scene
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.rasterize.cuda import compact_radii
from vlmgs_ns.rasterize.lift import contribution_counts, lift

gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and gsplat's CUDA kernels")

CASES = [
    dict(sh_degree=3), dict(sh_degree=2, rasterize_mode="antialiased"), dict(sh_degree=1, render_mode="RGB+ED"),
    dict(sh_degree=0, compact_box=1.0), dict(sh_degree=0, compact_box=0.5, cameras=2),
]  # fmt: skip


@gpu
@needs_cuda
@pytest.mark.parametrize("settings", CASES)
def test_cpu_and_cuda_agree(settings: dict) -> None:
    settings = dict(settings)
    scene = random_scene(20, 300, 100, 60, cameras=settings.pop("cameras", 1))
    results = []
    for device in ("cpu", "cuda"):
        leaves = [t.detach().to(device).requires_grad_() for t in scene.tensors()]
        image, alphas, info = rasterization(*leaves, 100, 60, absgrad=True, **settings)
        info["means2d"].retain_grad()
        image.square().mean().backward()
        found = [image, alphas, *(t.grad for t in leaves[:6]), info["means2d"].grad, info["means2d"].absgrad]
        results.append([t.detach().cpu() for t in found])
    for ours, theirs in zip(*results, strict=True):
        # a pixel may fall on the other side of a threshold: at most 1 in 500, anywhere else the same
        far = (ours - theirs).abs() > 1e-3 * theirs.abs().max()
        assert far.float().mean() < 2e-3 or settings.get("compact_box") == 0.5
        assert torch.median((ours - theirs).abs()) <= 1e-4 * theirs.abs().max()


@gpu
@needs_cuda
def test_lift_and_counts_agree_on_both_devices() -> None:
    scene = random_scene(21, 300, 100, 60, cameras=2)
    found = []
    for device in ("cpu", "cuda"):
        _, _, info = rasterization(*(t.detach().to(device) for t in scene.tensors()), 100, 60, sh_degree=1)
        maps = torch.rand(2, 60, 100, 3, generator=torch.Generator().manual_seed(0)).to(device)
        found.append((lift(info, maps).cpu(), contribution_counts(info, maps[..., 0] > 0.5).cpu()))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-2, atol=1e-2)
    assert (found[0][1] - found[1][1]).abs().max() <= 3


@pytest.mark.parametrize("two_columns", [False, True])
def test_compact_radii_by_hand(two_columns: bool) -> None:
    """Opacity 1, β = 0.5: sqrt(ln 255) = 2.354 of 3 standard deviations. At β = 1 it exceeds 3: the radius stays."""
    radii = torch.tensor([[30, 30, 0]], dtype=torch.int32)
    opacities = torch.tensor([[1.0, 1 / 255, 1.0]])
    if two_columns:
        radii = torch.stack([radii, radii], -1)
    shrunk = compact_radii(radii, opacities, 0.5)
    expected = torch.tensor([[24, 0, 0]], dtype=torch.int32)
    assert torch.equal(shrunk, torch.stack([expected, expected], -1) if two_columns else expected)
    assert compact_radii(radii, opacities, 1.0)[0, 0].max() == 30
