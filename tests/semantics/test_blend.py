"""Blended features: who takes part, that nothing but features learns, and that the savings are exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.rasterize.scenes import Scene, flat_splats, random_scene
from tests.semantics.test_field import SMALL, lively
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.semantics.blend import MIN_OPACITY, CellView, blend, blend_field, cell_means, drawn
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats

W, H = 60, 44


def of(scene: Scene) -> tuple[Splats, Pinhole]:
    return (
        Splats(scene.means, scene.quats, scene.scales, scene.opacities),
        Pinhole(scene.viewmats[0], scene.Ks[0], W, H),
    )


def room(count: int = 400, seed: int = 1) -> tuple[Splats, Pinhole]:
    return of(random_scene(seed, count, W, H))


def features(count: int, channels: int, seed: int = 2) -> Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def by_rasterizing(splats: Splats, camera: Pinhole, values: Tensor) -> Tensor:
    """The plain order: all channels of the Gaussians that take part, chosen one by one from their radii."""
    arguments = splats.means, splats.quats, splats.scales, splats.opacities
    views = camera.viewmat[None], camera.K[None], camera.width, camera.height
    radii = rasterization(*arguments, values, *views)[2]["radii"][0]
    keep = torch.tensor([bool(o > 0.25) and bool(r > 2) for o, r in zip(splats.opacities, radii, strict=True)])
    assert 0 < keep.sum() < len(keep)
    return rasterization(*(t[keep] for t in arguments), values[keep], *views)[0][0]


def test_only_opaque_and_large_gaussians_take_part() -> None:
    splats, camera = room()
    values = features(400, 5)
    image, alpha = blend(splats, camera, values)
    assert image.shape == (H, W, 5) and alpha.shape == (H, W)
    assert torch.allclose(image, by_rasterizing(splats, camera, values), atol=1e-5)
    everyone = blend(splats, camera, values, min_opacity=0.0, min_radius=0.0)[0]
    assert not torch.allclose(image, everyone, atol=1e-3)


@pytest.mark.parametrize(("opacity", "sigma", "takes_part"), [(0.26, 3.0, True), (0.25, 3.0, False), (0.9, 0.5, False)])
def test_one_gaussian_at_the_border_of_taking_part(opacity: float, sigma: float, takes_part: bool) -> None:
    # eps2d adds 0.3 to the variance: at sigma 0.5 the radius is ⌈3·√0.55⌉ = 3, so ask for more than 3
    splats, camera = of(flat_splats([(30.5, 20.5)], [sigma], [opacity], [1.0], W, H))
    image, alpha = blend(splats, camera, torch.ones(1, 1), min_radius=3.0)
    assert (alpha.max() > 0) == takes_part == bool(len(drawn(splats, camera, min_radius=3.0)))
    assert torch.allclose(image[..., 0], alpha, atol=1e-6)
    if takes_part:
        assert image[20, 30, 0].item() == pytest.approx(opacity, rel=1e-5)
    assert MIN_OPACITY == 0.25


def test_there_is_no_background_and_nothing_is_normalised() -> None:
    """Two flat splats behind each other: front 0.5, behind it 0.4 of the half that is left."""
    splats, camera = of(flat_splats([(30.5, 20.5)] * 2, [3.0, 3.0], [0.5, 0.4], [1.0, 2.0], W, H))
    image, alpha = blend(splats, camera, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert image[20, 30].tolist() == pytest.approx([0.5, 0.2], rel=1e-5)
    assert alpha[20, 30].item() == pytest.approx(0.7, rel=1e-5)
    assert (image[0, 0] == 0).all() and alpha[0, 0] == 0


def test_features_alone_learn_and_by_the_right_amount() -> None:
    splats, camera = room()
    splats = Splats(*(t.clone().requires_grad_() for t in (splats.means, splats.quats, splats.scales, splats.opacities)))
    pull = features(H * W, 5, seed=3).view(H, W, 5)
    gradients = []
    for render in (lambda v: blend(splats, camera, v)[0], lambda v: by_rasterizing(splats.detached(), camera, v)):
        values = features(400, 5).requires_grad_()
        (render(values) * pull).sum().backward()
        gradients.append(values.grad)
    assert torch.allclose(*gradients, atol=1e-4) and gradients[0].abs().sum() > 1
    assert splats.means.grad is None and splats.quats.grad is None
    assert splats.scales.grad is None and splats.opacities.grad is None


def test_what_is_drawn_gives_the_whole_picture_and_nothing_drawn_is_idle() -> None:
    splats, camera = room(800)
    values = features(800, 4)
    ids = drawn(splats, camera)
    assert 0 < len(ids) < 800 and (ids.diff() > 0).all()
    whole, alpha = blend(splats, camera, values)
    part, part_alpha = blend(splats[ids], camera, values[ids])
    assert torch.allclose(part, whole, atol=1e-6) and torch.allclose(part_alpha, alpha, atol=1e-6)
    values.requires_grad_()
    blend(splats, camera, values)[0].sum().backward()
    assert torch.equal(torch.nonzero(values.grad[:, 0])[:, 0], ids)


def test_a_gaussian_behind_others_is_not_drawn() -> None:
    splats, camera = of(
        flat_splats([(30.5, 20.5)] * 7, [9.0] * 6 + [1.0], [0.999] * 7, [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 2.0], W, H)
    )
    ids = drawn(splats, camera).tolist()
    assert 6 not in ids and 0 in ids


def test_codes_blend_to_the_maps_of_the_plain_order() -> None:
    field = lively()
    with torch.no_grad():
        field.clip_head.output.bias.normal_()
        field.dino_head.output.bias.normal_()
    splats, camera = room()
    clip, dino = field(splats.means)
    found = blend_field(field, splats, camera)
    for one, values in zip(found, (clip, dino), strict=True):
        plain = blend(splats, camera, values)[0]
        assert torch.allclose(one, plain, atol=1e-5) and plain.abs().max() > 0.05
    assert found[0].norm(dim=-1).max() < 1 + 1e-5 and found[0].norm(dim=-1).min() < 0.5, "not normalised again"


def test_codes_teach_the_field_what_the_plain_order_teaches() -> None:
    field, (splats, camera) = lively(), room()
    pulls = [features(H * W, n, seed=5).view(H, W, n) for n in (SMALL.clip_dim, SMALL.dino_dim)]
    gradients = []
    for maps in (
        blend_field(field, splats, camera),
        [blend(splats, camera, values)[0] for values in field(splats.means)],
    ):
        gradients.append(torch.autograd.grad(sum((m * p).sum() for m, p in zip(maps, pulls, strict=True)), field.parameters()))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * other.abs().max().item()) and other.abs().sum() > 0


def test_a_cell_is_the_mean_of_its_pixels() -> None:
    picture = features(H * W, 3).view(H, W, 3)
    means = cell_means(picture, (11, 12))  # of 4x5 pixels
    for row, column in ((0, 0), (3, 7), (10, 11)):
        by_hand = picture[4 * row : 4 * row + 4, 5 * column : 5 * column + 5].mean(dim=(0, 1))
        assert torch.allclose(means[row, column], by_hand, atol=1e-6)


@pytest.mark.parametrize("grid", [(11, 15), (9, 7), (1, 1), (H, W), (50, 67)])
def test_a_view_as_a_matrix_renders_and_teaches_what_blending_does(grid: tuple[int, int]) -> None:
    field, (splats, camera) = lively(), room()
    view = CellView.of(splats, camera, grid)
    assert torch.equal(view.ids, drawn(splats, camera))
    pulls = [features(grid[0] * grid[1], n, seed=5).view(*grid, n) for n in (SMALL.clip_dim, SMALL.dino_dim)]
    gradients = []
    pairs = view.maps(field, splats.means), blend_field(field, splats, camera, grid)
    for one, other in zip(*pairs, strict=True):
        assert one.shape[:2] == grid and torch.allclose(one, other, atol=1e-5) and other.abs().max() > 0.01
    for maps in pairs:
        gradients.append(torch.autograd.grad(sum((m * p).sum() for m, p in zip(maps, pulls, strict=True)), field.parameters()))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * other.abs().max().item()) and other.abs().sum() > 0


def test_a_resized_camera_sees_the_same() -> None:
    splats, camera = room(60)
    half = camera.resized(W // 2, H // 4)
    assert (half.width, half.height) == (W // 2, H // 4)
    point = torch.tensor([0.3, -0.2, 2.0])
    assert torch.allclose(half.K @ point, (camera.K @ point) * torch.tensor([0.5, 0.25, 1]))
    assert torch.equal(half.viewmat, camera.viewmat)
    big = flat_splats([(30.0, 22.0)], [12.0], [0.9], [1.0], W, H)
    splats, camera = of(big)
    full, small = blend(splats, camera, torch.ones(1, 1))[0], blend(splats, camera.resized(30, 22), torch.ones(1, 1))[0]
    pooled = torch.nn.functional.avg_pool2d(full.movedim(-1, 0)[None], 2)[0, 0]
    assert torch.allclose(small[..., 0], pooled, atol=0.02)


def test_no_gaussians_and_wrong_features() -> None:
    splats, camera = room(10)
    none = splats[torch.zeros(10, dtype=torch.bool)]
    image, alpha = blend(none, camera, torch.zeros(0, 3))
    assert image.shape == (H, W, 3) and (image == 0).all() and (alpha == 0).all()
    assert len(drawn(none, camera)) == 0
    for clip, _ in (blend_field(lively(), none, camera), CellView.of(none, camera, (3, 4)).maps(lively(), none.means)):
        assert (clip == 0).all()
    with pytest.raises(ValueError, match=r"features has shape \[9, 3\].*N=10"):
        blend(splats, camera, torch.zeros(9, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and gsplat's CUDA kernels")
def test_cuda_draws_teaches_and_freezes_the_same() -> None:
    splats, camera = room()
    there = Splats(*(t.cuda().requires_grad_() for t in (splats.means, splats.quats, splats.scales, splats.opacities)))
    view = Pinhole(camera.viewmat.cuda(), camera.K.cuda(), W, H)
    assert torch.equal(drawn(there, view).cpu(), drawn(splats, camera))
    here, away = features(400, 40).requires_grad_(), features(400, 40).cuda().requires_grad_()
    one, other = blend(splats, camera, here)[0], blend(there, view, away)[0]
    assert torch.allclose(one, other.cpu(), atol=1e-3)
    one.sum().backward()
    other.sum().backward()
    assert torch.allclose(here.grad, away.grad.cpu(), atol=1e-2) and there.means.grad is None and there.opacities.grad is None
