from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.splats.ply import C0, Gaussians
from vlmgs_ns.splats.quantised import HARMONIC_STEP, LEAST_SIZE, morton_order, of_degree, quantise, restored

ORIGIN = torch.zeros(3)


def cloud(count: int = 400, degree: int = 3, seed: int = 0) -> Gaussians:
    """A ball of Gaussians in front of a camera at the origin, as training leaves them, with a few far out."""
    g = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=g)

    means = 0.5 * normal(count, 3) + torch.tensor([0.0, 0.0, 3.0])
    means[: count // 20] *= 40
    return Gaussians(
        means, normal(count, 3) - 3, normal(count, 4), normal(count, 3), 0.1 * normal(count, (degree + 1) ** 2 - 1, 3),
        2 * normal(count, 1),
    )  # fmt: skip


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_comes_back_is_near(degree: int) -> None:
    before = cloud(degree=degree)
    quantised = quantise(before, ORIGIN, 1.0)
    assert quantised.planes.shape == (17 + 3 * ((degree + 1) ** 2 - 1), 400) and quantised.planes.dtype == np.uint8
    after = restored(quantised)
    # A step of a centre is a share of its distance from the cameras, but for those within a unit.
    step = 2 * quantised.reach / 65535
    away = (before.means.abs() + 1) * math.expm1(step)
    assert ((after.means - before.means).abs() <= 0.51 * away + 1e-6).all()
    span = quantised.scales[1] - quantised.scales[0]
    assert float((after.scales - before.scales).abs().max()) <= 0.51 * span / 255
    opacity = torch.sigmoid(after.opacities) - torch.sigmoid(before.opacities)
    assert float(opacity.abs().max()) <= 0.51 / 255
    cosine = torch.nn.functional.cosine_similarity(after.quats, before.quats).abs()
    assert float(torch.rad2deg(2 * torch.acos(cosine.clamp(max=1))).max()) < 1
    assert float(after.quats.norm(dim=1).sub(1).abs().max()) < 1e-5
    colour = (after.features_dc - before.features_dc).abs() * C0
    inside = (0.5 + C0 * before.features_dc > quantised.colours[0]) & (0.5 + C0 * before.features_dc < quantised.colours[1])
    assert inside.float().mean() > 0.99
    assert float(colour[inside].max()) <= 0.51 / 255 * (quantised.colours[1] - quantised.colours[0])
    if degree:
        assert float((after.features_rest - before.features_rest).abs().max()) <= 0.51 * HARMONIC_STEP


def test_values_on_the_grid_are_exact() -> None:
    """A hand-computed case: level 127 of a quaternion's component is 0, 128 of a harmonic is 0."""
    one = Gaussians(
        torch.tensor([[0.0, 0.0, 0.0], [math.e - 1, 0.0, 1 - math.e]]), torch.log(torch.tensor([[0.5] * 3, [2.0] * 3])),
        torch.tensor([[1.0, 0, 0, 0], [0, 0, -2.0, 0]]), torch.tensor([[-0.5] * 3, [0.5] * 3]) / C0,
        torch.tensor([0.0, 2 * HARMONIC_STEP]).view(2, 1, 1).expand(2, 3, 3), torch.zeros(2, 1),
    )  # fmt: skip
    quantised = quantise(one, ORIGIN, 1.0)
    assert quantised.reach == pytest.approx(1)
    high, low = 65535 >> 8, 65535 & 255
    assert quantised.planes[:6, 1].tolist() == [high, 128, 0, low, 0, 0]
    assert quantised.planes[6:9].tolist() == [[0, 255]] * 3
    assert quantised.planes[9:13].tolist() == [[0, 2], [127, 127], [127, 127], [127, 127]]
    assert quantised.planes[13].tolist() == [128, 128]
    assert quantised.planes[17:].tolist() == [[128, 130]] * 9


def test_the_picture_stays_the_same() -> None:
    gaussians = cloud(800)
    K = torch.tensor([[100.0, 0, 64], [0, 100.0, 48], [0, 0, 1]])

    def picture(some: Gaussians) -> Tensor:
        colours = torch.cat([some.features_dc[:, None], some.features_rest], dim=1)
        image, _, _ = rasterization(
            some.means, some.quats, torch.exp(some.scales), torch.sigmoid(some.opacities)[:, 0], colours, torch.eye(4)[None],
            K[None], 128, 96, sh_degree=some.degree,
        )  # fmt: skip
        return image[0].clamp(0, 1)

    def psnr(a: Tensor, b: Tensor) -> float:
        return float(-10 * torch.log10((a - b).square().mean()))

    full = picture(gaussians)
    assert psnr(picture(restored(quantise(gaussians, ORIGIN, 1.0))), full) > 38
    for degree in (0, 1, 2):
        cut = of_degree(gaussians, degree)
        assert cut.degree == degree and cut.features_rest.equal(gaussians.features_rest[:, : (degree + 1) ** 2 - 1])
        assert psnr(picture(restored(quantise(cut, ORIGIN, 1.0))), picture(cut)) > 38


def test_one_gaussian_alone_and_tiny_ones() -> None:
    one = cloud(1)
    assert torch.allclose(restored(quantise(one, one.means[0], 1.0)).means, one.means, atol=1e-4)
    tiny = replace(one, scales=torch.full((1, 3), -40.0))
    assert torch.allclose(restored(quantise(tiny, ORIGIN, 2.0)).scales.exp(), torch.tensor(2 * LEAST_SIZE))


def test_morton_order_is_a_permutation_that_keeps_neighbours_together() -> None:
    means = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0))
    order = morton_order(means)
    assert order.sort().values.equal(torch.arange(4096))
    step = means[order].diff(dim=0).norm(dim=1).mean()
    assert step < 0.2 * means.diff(dim=0).norm(dim=1).mean()
    corners = torch.tensor([[1.0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert morton_order(corners).tolist() == [3, 2, 4, 1, 0]  # x is the lowest bit
