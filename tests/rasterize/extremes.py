"""Scenes of Gaussians from a billionth to a billion units, before, behind, around and inside the camera, against the twin.

``python -m tests.rasterize.extremes 10000`` compares that many.
"""

from __future__ import annotations

import sys

import torch

from tests.rasterize.scenes import Scene, pinhole
from tests.rasterize.twin import twin_rasterization
from vlmgs_ns.rasterize import rasterization

WIDTH, HEIGHT, COUNT = 24, 20, 30


def extreme_scene(seed: int, largest: int) -> Scene:
    """Scales from 1e-9 to 10 to the power of ``largest``."""
    g = torch.Generator().manual_seed(seed)
    powers = (largest + 9) * torch.rand(COUNT, 1, generator=g) - 9
    means = torch.randn(COUNT, 3, generator=g) * 10 ** (4 * torch.rand(COUNT, 1, generator=g) - 2)
    means[:3] = 0.0  # inside the camera
    opacities = torch.rand(COUNT, generator=g)
    opacities[3:6], opacities[6:9] = 0.0, 1.0
    view = torch.eye(4)[None]
    return Scene(
        means=means,
        quats=torch.randn(COUNT, 4, generator=g) * 10 ** (6 * torch.rand(COUNT, 1, generator=g) - 3),
        scales=10**powers * torch.exp(0.7 * torch.randn(COUNT, 3, generator=g)),
        opacities=opacities,
        colors=torch.rand(COUNT, 3, generator=g),
        viewmats=view,
        Ks=pinhole(WIDTH, HEIGHT, 20.0),
    )


def difference(seed: int) -> float:
    """Return the largest difference of a pixel from the twin's, where float32 can tell; infinite where not all is finite."""
    tensors = extreme_scene(seed, 9).tensors()
    image, alphas, _ = rasterization(*tensors, WIDTH, HEIGHT)
    (image.sum() + alphas.sum()).backward()
    if not all(bool(torch.isfinite(values).all()) for values in (image, alphas, *(t.grad for t in tensors[:6]))):
        return float("inf")
    scene = extreme_scene(seed, 5)
    with torch.no_grad():
        image, alphas, _ = rasterization(*scene.tensors(), WIDTH, HEIGHT)
        twin = twin_rasterization(*scene.tensors(torch.float64), WIDTH, HEIGHT)
    off = torch.cat([image - twin.image, alphas - twin.alphas], dim=-1)[~twin.fragile]
    return float(off.abs().max()) if off.numel() else 0.0


if __name__ == "__main__":
    worst = sorted(((difference(seed), seed) for seed in range(int(sys.argv[1]))), reverse=True)
    sys.stdout.write(f"largest differences and their seeds: {worst[:10]}\n")
