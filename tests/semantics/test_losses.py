"""The field's losses, by hand: their values, their reductions, and who receives a gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlmgs_ns.semantics.losses import LossWeights, huber, mse, pixel_alignment, semantic_loss


def twin_alignment(clip: Tensor, dino: Tensor, mask: Tensor) -> float:
    """All eight neighbours of every pixel, one pair at a time."""
    gaps = []
    H, W = mask.shape
    for y in range(H):
        for x in range(W):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    v, u = y + dy, x + dx
                    if (dy, dx) == (0, 0) or not (0 <= v < H and 0 <= u < W) or not (mask[y, x] and mask[v, u]):
                        continue
                    pairs = [(m[y, x].double(), m[v, u].double()) for m in (clip, dino)]
                    if min(float(end.norm()) for pair in pairs for end in pair) < 1e-6:
                        continue
                    c, d = (float(a @ b / (a.norm() * b.norm())) for a, b in pairs)
                    gaps.append(abs(c - d))
    return sum(gaps) / len(gaps)


def test_huber_is_quadratic_to_delta_and_linear_beyond_and_sums_channels() -> None:
    predicted = torch.tensor([[[1.0, 0.0], [3.0, -0.5]]])  # one row of two pixels, two channels
    # pixel 1: 0.5·1²; pixel 2: 1.25·(3 − 0.625) + 0.5·0.5²
    by_hand = (0.5 + (1.25 * 2.375 + 0.125)) / 2
    assert huber(predicted, torch.zeros_like(predicted)).item() == pytest.approx(by_hand)


def test_mse_sums_channels_and_means_pixels() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 3.0]]])
    assert mse(predicted, torch.zeros_like(predicted)).item() == pytest.approx((1 + 4 + 9) / 2)


def test_the_mask_leaves_pixels_out_even_where_their_target_is_nan() -> None:
    predicted = torch.ones(2, 2, 3, requires_grad=True)
    target = torch.zeros(2, 2, 3)
    target[0, 0] = float("nan")
    mask = torch.tensor([[False, True], [True, False]])
    for loss, value in ((huber(predicted, target, mask), 1.5), (mse(predicted, target, mask), 3.0)):
        assert loss.item() == pytest.approx(value)
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert torch.isfinite(gradient).all() and torch.equal(gradient.abs().sum(-1) > 0, mask)


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\] and target \[3, 2\]"):
        mse(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="of one size"):
        pixel_alignment(torch.zeros(2, 3, 4), torch.zeros(3, 2, 4))


def test_alignment_of_two_pixels_by_hand() -> None:
    clip = torch.tensor([[[2.0, 0.0], [3.0, 3.0]]])  # 45°: cosine 1/√2
    dino = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 5.0, 0.0]]])  # 90°: 0
    assert pixel_alignment(clip, dino).item() == pytest.approx(0.5**0.5)
    assert pixel_alignment(clip, clip).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [(4, 5), (1, 6), (7, 1)])
def test_alignment_equals_a_loop_over_all_neighbours(size: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(0)
    clip, dino = torch.randn(*size, 3, generator=g), torch.randn(*size, 4, generator=g)
    clip[0, 0] = 0.0
    mask = torch.rand(size, generator=g) < 0.8
    mask[-2:, -2:] = True
    assert pixel_alignment(clip, dino, mask).item() == pytest.approx(twin_alignment(clip, dino, mask), rel=1e-5)
    everywhere = torch.ones(size, dtype=torch.bool)
    assert pixel_alignment(clip, dino).item() == pytest.approx(twin_alignment(clip, dino, everywhere), rel=1e-5)


def test_alignment_knows_all_four_directions() -> None:
    """A map whose direction changes along one axis only is told from a constant one, whichever axis it is."""
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    constant = a.expand(2, 2, 2)
    for different in ((0, 0), (0, 1), (1, 0), (1, 1)):
        clip = constant.clone()
        clip[different] = b
        assert pixel_alignment(clip, constant).item() == pytest.approx(3 / 6)  # three of the six pairs meet that pixel


def test_alignment_teaches_clip_and_never_dino() -> None:
    g = torch.Generator().manual_seed(1)
    clip, dino = (torch.randn(4, 4, 3, generator=g).requires_grad_() for _ in range(2))
    pixel_alignment(clip, dino).backward()
    assert clip.grad is not None and clip.grad.abs().sum() > 0
    assert dino.grad is None
    before = pixel_alignment(clip, dino).item()
    with torch.no_grad():
        clip -= 0.1 * clip.grad
    assert pixel_alignment(clip, dino).item() < before


def test_vectors_of_length_zero_have_neither_loss_nor_gradient() -> None:
    clip = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(2))
    clip[1, 1] = 0.0
    clip.requires_grad_()
    loss = pixel_alignment(clip, torch.rand(3, 3, 2))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(clip.grad).all()
    assert (clip.grad[1, 1] == 0).all() and clip.grad.abs().sum() > 0


def test_nothing_that_counts_is_no_loss() -> None:
    zeros = torch.zeros(3, 3, 4, requires_grad=True)
    nowhere = torch.zeros(3, 3, dtype=torch.bool)
    loss = semantic_loss(zeros, torch.ones(3, 3, 4), zeros, torch.ones(3, 3, 4), nowhere).total
    loss.backward()
    assert loss.item() == 0 and torch.equal(zeros.grad, torch.zeros(3, 3, 4))
    assert pixel_alignment(zeros, zeros).item() == 0


def test_the_sum_is_weighed_as_in_the_paper() -> None:
    g = torch.Generator().manual_seed(3)
    maps = [torch.randn(3, 4, n, generator=g) for n in (5, 5, 2, 2)]
    loss = semantic_loss(*maps)
    assert loss.alignment.item() == pytest.approx(pixel_alignment(maps[0], maps[2]).item()) and loss.alignment > 0
    expected = 0.2 * huber(maps[0], maps[1]) + 0.8 * mse(maps[2], maps[3]) + 0.05 * pixel_alignment(maps[0], maps[2])
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)
    without = semantic_loss(*maps, weights=LossWeights(alignment=0.0))
    assert without.alignment.item() == 0 and without.total.item() < loss.total.item()
