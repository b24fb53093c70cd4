"""Speed of the CPU rasteriser, projection, harmonics and sorting included.

    python benchmarks/rasterize_cpu.py [--repeats 7] [--threads 1 2]

Prints a markdown table: milliseconds forward and backward (median), contributions per pixel, pixel-Gaussian pairs per second
(contributions over time), tile intersections, and the memory that grows with them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.rasterize.lift import contribution_counts
from vlmgs_ns.rasterize.threads import get_num_threads, set_num_threads

# Gaussians, width, height, and the pixels that one standard deviation covers, chosen for about 60 contributions per pixel
SIZES = [(10_000, 256, 256, 3.9), (50_000, 256, 256, 1.75), (100_000, 640, 480, 2.7), (500_000, 1296, 840, 2.2)]


def random_gaussians(count: int, width: int, height: int, sigma: float) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Gaussians spread over the picture at depths 2 to 6, one camera at the origin."""
    g = torch.Generator().manual_seed(0)
    z = torch.rand(count, generator=g) * 4 + 2
    x = (torch.rand(count, generator=g) - 0.5) * z
    y = (torch.rand(count, generator=g) - 0.5) * z * height / width
    scales = (z / width * sigma)[:, None] * torch.exp(0.4 * torch.randn(count, 3, generator=g))
    quats = torch.randn(count, 4, generator=g)
    opacities = torch.rand(count, generator=g) * 0.12 + 0.02
    harmonics = torch.randn(count, 16, 3, generator=g) * 0.3
    K = torch.tensor([[[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]]])
    gaussians = [t.requires_grad_() for t in (torch.stack([x, y, z], 1), quats, scales, opacities, harmonics)]
    return gaussians, torch.eye(4)[None].requires_grad_(), K


def measure(count: int, width: int, height: int, sigma: float, repeats: int) -> str:
    gaussians, viewmat, K = random_gaussians(count, width, height, sigma)
    forward, backward = [], []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        image, _, info = rasterization(*gaussians, viewmat, K, width, height, sh_degree=3, absgrad=True)
        forward.append(time.perf_counter() - began)
        incoming = torch.rand_like(image)
        began = time.perf_counter()
        image.backward(incoming)
        backward.append(time.perf_counter() - began)
    contributions = int(contribution_counts(info, torch.ones(1, height, width, dtype=torch.bool)).sum())
    f, b = (statistics.median(times[1:]) for times in (forward, backward))  # the first run may compile
    rows = len(info["flatten_ids"])
    return (
        f"| {count:,} | {width}x{height} | {f * 1e3:.0f} | {b * 1e3:.0f} | {contributions / (width * height):.0f} "
        f"| {contributions / f / 1e6:.0f} | {contributions / b / 1e6:.0f} | {rows:,} | {rows * (12 + 4 * 11) / 2**20:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[get_num_threads()])
    args = parser.parse_args()
    torch.set_num_threads(1)  # as in training: torch's own threads would spin on the cores that the kernels want
    print(
        "| threads | Gaussians | picture | forward ms | backward ms | contributions / pixel | forward M pairs/s "
        "| backward M pairs/s | tile intersections | their MB |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for threads in args.threads:
        set_num_threads(threads)
        for size in SIZES:
            print(f"| {threads} {measure(*size, args.repeats)}", flush=True)


if __name__ == "__main__":
    main()
