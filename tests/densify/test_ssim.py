from __future__ import annotations

import pytest
import torch
from pytorch_msssim import ssim as reference

from vlmgs_ns.densify.ssim import SSIM, WEIGHTS, WINDOW, blur, blur_adjoint


@pytest.mark.parametrize("shape", [(1, 3, 40, 33), (2, 1, 11, 11), (1, 3, 11, 50)])
def test_value_and_gradient_are_the_references(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(shape, generator=generator, dtype=torch.float64)
    render = (photo + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1).requires_grad_()
    ours = SSIM()(photo, render)
    theirs = reference(photo, render, data_range=1.0)
    # The reference holds its window in float32.
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    (by_ours,), (by_theirs,) = torch.autograd.grad(ours, render), torch.autograd.grad(theirs, render)
    torch.testing.assert_close(by_ours, by_theirs, atol=1e-6 * float(by_theirs.abs().max()), rtol=1e-4)


def test_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    photo = torch.rand(1, 1, 13, 12, generator=generator, dtype=torch.float64)
    render = torch.rand(1, 1, 13, 12, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda image: SSIM()(photo, image), (render,))


def test_identical_images_have_ssim_one() -> None:
    photo = torch.rand(1, 3, 20, 20)
    assert SSIM()(photo, photo).item() == pytest.approx(1.0, abs=1e-6)


def test_constant_images_by_hand() -> None:
    """Two flat images have no variance: SSIM is the luminance term alone."""
    dark, light = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert SSIM()(dark, light).item() == pytest.approx(expected, abs=1e-4)


def test_blur_keeps_constants_and_its_adjoint_is_its_transpose() -> None:
    assert sum(WEIGHTS) == pytest.approx(1.0) and len(WEIGHTS) == WINDOW
    torch.testing.assert_close(blur(torch.ones(2, 15, 13)), torch.ones(2, 5, 3))
    a, b = torch.rand(3, 20, 17, dtype=torch.float64), torch.rand(3, 10, 7, dtype=torch.float64)
    torch.testing.assert_close((blur(a) * b).sum(), (a * blur_adjoint(b)).sum())


def test_images_smaller_than_the_window_still_have_a_loss() -> None:
    photo, render = torch.rand(1, 3, 8, 20), torch.rand(1, 3, 8, 20).requires_grad_()
    with pytest.warns(UserWarning, match="Skipping Gaussian Smoothing"):
        SSIM()(photo, render).backward()
    assert render.grad is not None and render.grad.isfinite().all()


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 20, 20\)"):
        SSIM()(torch.rand(1, 3, 20, 20), torch.rand(1, 3, 20, 21))
