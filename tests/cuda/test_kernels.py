"""The CUDA path with torch in place of gsplat's kernels gives the CPU's pictures, gradients, lifted maps and counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from gsplat.cuda import _torch_impl, _wrapper

from tests.cuda.kernels import RADIUS_PER_AXIS, intersect, kernels_in_torch
from tests.cuda.pretend import label, pretend_cuda, unseen
from tests.rasterize.scenes import random_scene
from vlmgs_ns.rasterize import lift as lifting
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.rasterize.lift import contribution_counts, lift

WIDTH, HEIGHT = 60, 44  # whole tiles and parts of them


@pytest.fixture
def cuda() -> Iterator[None]:
    with kernels_in_torch(), pretend_cuda():
        yield


@contextmanager
def radius_per_axis() -> Iterator[None]:
    """gsplat 1.4 as 1.5 would be: radii [C, N, 2] from the projection, and asked for by the tiles."""
    project, tiles = _wrapper.fully_fused_projection, _wrapper.isect_tiles

    def projection(*args: Any, **kwargs: Any) -> Any:
        radii, *rest = project(*args, **kwargs)
        return torch.stack([radii, radii], -1), *rest

    def intersection(means2d: Any, radii: Any, *args: Any, **kwargs: Any) -> Any:
        assert radii.shape == (*means2d.shape[:2], 2)
        return tiles(means2d, radii.amax(-1), *args, **kwargs)

    with patch.multiple(_wrapper, fully_fused_projection=projection, isect_tiles=intersection):
        yield


def rendered(device: str, scene: Any, settings: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Picture, gradients, lifted map and counts, on the CPU in the end."""
    leaves = [values.detach().to(device).requires_grad_() for values in scene.tensors()]
    image, alphas, info = rasterization(*leaves, WIDTH, HEIGHT, absgrad=True, **settings)
    assert {image.device.type, alphas.device.type, info["means2d"].device.type} == {device}
    info["means2d"].retain_grad()
    image.square().mean().backward()
    maps = torch.rand(len(image), HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0)).to(device)
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats")
    found = {name: leaf.grad for name, leaf in zip(names, leaves, strict=False) if leaf.grad is not None}
    found |= {"image": image, "alphas": alphas, "grad2d": info["means2d"].grad, "absgrad": info["means2d"].absgrad}
    found |= {"lift": lift(info, maps), "counts": contribution_counts(info, maps[..., 0] > 0.5)}
    return {name: values.detach().cpu() for name, values in found.items()}, info


CASES: list[dict[str, Any]] = [
    {"sh_degree": 3},
    {"sh_degree": 2, "rasterize_mode": "antialiased", "render_mode": "RGB+ED"},
    {"sh_degree": 1, "compact_box": 1.0, "cameras": 2},
    {"sh_degree": 2, "rasterize_mode": "antialiased", "render_mode": "RGB+ED", "compact_box": 1.0},
    {"render_mode": "ED", "colors": 3, "compact_box": 1.0},
    {"colors": 7},
]


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_pictures_gradients_lift_and_counts_are_the_cpus(case: dict[str, Any], axes: int) -> None:
    settings = dict(case)
    if axes == 2 and ("compact_box" not in settings or RADIUS_PER_AXIS):
        pytest.skip("gsplat's own rasterization has the radii of its version")
    scene = random_scene(20, 150, WIDTH, HEIGHT, cameras=settings.pop("cameras", 1), colors=settings.pop("colors", 0))
    ours, _ = rendered("cpu", scene, settings)
    with kernels_in_torch(), radius_per_axis() if axes == 2 else kernels_in_torch(), pretend_cuda():
        theirs, info = rendered("cuda", scene, settings)
        assert (info["radii"].dim() == 3) == (axes == 2 or RADIUS_PER_AXIS)
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours.pop("counts"), theirs.pop("counts"))
    for name, values in ours.items():
        assert (values - theirs[name]).abs().max() < 1e-5 * values.abs().max(), name


def test_a_smaller_box_reaches_fewer_tiles(cuda: None) -> None:
    scene = random_scene(21, 200, WIDTH, HEIGHT)
    leaves = [values.detach().to("cuda") for values in scene.tensors()]
    tiles = [
        int(rasterization(*leaves, WIDTH, HEIGHT, sh_degree=0, compact_box=box)[2]["tiles_per_gauss"].sum()) for box in (0.3, 1.0)
    ]
    assert 0 < tiles[0] < tiles[1]


def test_counts_in_bands_are_counts_at_once(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene(22, 200, WIDTH, HEIGHT, cameras=2)
    _, _, info = rasterization(*(values.detach().to("cuda") for values in scene.tensors()), WIDTH, HEIGHT, sh_degree=0)
    mask = torch.ones(2, HEIGHT, WIDTH, dtype=torch.bool, device="cuda")
    whole = contribution_counts(info, mask)
    monkeypatch.setattr(lifting, "CHUNK", 40 * 256)
    assert torch.equal(contribution_counts(info, mask), whole) and whole.sum() > 1000


@pytest.mark.parametrize("count", [0, 1])
def test_no_gaussian_and_one(cuda: None, count: int) -> None:
    scene = random_scene(23, count, WIDTH, HEIGHT)
    scene.means[:] = torch.tensor([0.0, 0.0, 2.0])
    for box in (None, 1.0):
        leaves = [values.detach().to("cuda") for values in scene.tensors()]
        image, _, info = rasterization(*leaves, WIDTH, HEIGHT, sh_degree=0, compact_box=box)
        ones = torch.ones(1, HEIGHT, WIDTH, 1, device="cuda")
        assert bool(image.isfinite().all()) and lift(info, ones).shape == (1, count, 1)
        assert contribution_counts(info, ones[..., 0] > 0).shape == (1, count)


@pytest.mark.skipif(RADIUS_PER_AXIS, reason="gsplat 1.5's reference draws tiles its own way")
def test_tiles_are_those_of_gsplats_reference() -> None:
    scene = random_scene(24, 60, WIDTH, HEIGHT, cameras=2)
    with kernels_in_torch(), pretend_cuda():
        _, _, info = rasterization(*(values.detach().to("cuda") for values in scene.tensors()), WIDTH, HEIGHT, sh_degree=0)
        with unseen():
            arguments = [info[name].nan_to_num() for name in ("means2d", "radii", "depths")]
            expected = _torch_impl._isect_tiles(*arguments, 16, 4, 3)
        found = intersect(*map(label, arguments), None, None, 2, 16, 4, 3, True, True)
        with unseen():
            assert all(map(torch.equal, found, expected)) and len(expected[1]) > 100
