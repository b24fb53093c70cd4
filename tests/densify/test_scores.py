"""Multi-view scores against hand-computed cases and a brute-force count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from tests.densify.test_strategy import population
from tests.rasterize.scenes import flat_splats, random_scene
from tests.rasterize.twin import twin_rasterization
from vlmgs_ns.densify.births import append
from vlmgs_ns.densify.scores import ScoredView, Scores, add_view, error_mask, min_max, number_of_views, take_scores
from vlmgs_ns.densify.ssim import SSIM
from vlmgs_ns.rasterize import rasterization


def no_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.tensor(1.0)


def scores_of(views: Iterable[ScoredView], ssim: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Scores:
    state: dict[str, Any] = {}
    for view in views:
        add_view(state, view, ssim)
    return take_scores(state)


def test_error_is_normalised_per_view_before_the_threshold() -> None:
    """Errors 0, 0.01 and 0.02 become 0, 0.5 and 1; of errors 0.5, 0.51 only the larger is marked."""
    photo = torch.zeros(1, 3, 3)
    render = torch.tensor([0.0, 0.01, 0.02])[None, :, None].expand(1, 3, 3)
    assert error_mask(render, photo).tolist() == [[False, True, True]]
    render = torch.tensor([0.5, 0.5, 0.51])[None, :, None].expand(1, 3, 3)
    assert error_mask(render, photo).tolist() == [[False, False, True]]
    assert not error_mask(photo + 0.3, photo).any()  # the same error everywhere points nowhere


def test_masked_pixels_neither_count_nor_set_the_scale() -> None:
    photo = torch.zeros(1, 3, 3)
    render = torch.tensor([0.0, 0.01, 1.0])[None, :, None].expand(1, 3, 3)
    mask = torch.tensor([[True, True, False]])
    assert error_mask(render, photo, mask=mask).tolist() == [[False, True, False]]


def test_min_max_by_hand() -> None:
    assert min_max(torch.tensor([2.0, 4.0, 3.0])).tolist() == [0.0, 1.0, 0.5]
    assert min_max(torch.full((3,), 7.0)).tolist() == [0.0, 0.0, 0.0]
    assert min_max(torch.empty(0)).shape == (0,)


def test_scores_by_hand() -> None:
    """One splat left, one right; only the right half of the photo differs, in one of two views: half its pixels, rounded down."""
    scene = flat_splats([(8.5, 8.5), (24.5, 8.5)], [1.0, 1.0], [0.9, 0.9], [2.0, 2.0], 32, 16)
    image, _, info = rasterization(*scene.tensors(), 32, 16, eps2d=0.0)
    render = image[0].detach().mean(-1, keepdim=True).expand(-1, -1, 3)
    photo = render.clone()
    photo[:, 16:] += 1.0
    reached = int((image[0, :, 16:, 1] > 0).sum())
    views = [ScoredView(render, photo, info), ScoredView(render, render, info)]
    scores = scores_of(views, no_ssim)
    assert reached > 5
    assert scores.importance.tolist() == [0.0, reached // 2]
    assert scores.pruning.tolist() == [0.0, 1.0]


def test_scores_equal_a_brute_force_count() -> None:
    scene = random_scene(2, 60, 48, 32, cameras=3)
    views, totals, blame = [], torch.zeros(60, dtype=torch.long), torch.zeros(60, dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    for c in range(3):
        tensors = [*scene.tensors()[:5], scene.viewmats[c : c + 1], scene.Ks[:1]]
        image, _, info = rasterization(*tensors, 48, 32, sh_degree=0)
        twin = twin_rasterization(*(t.detach().double() for t in tensors), 48, 32, sh_degree=0)
        photo = torch.rand(32, 48, 3, generator=g)
        sound = ~twin.fragile[0]
        view = ScoredView(image[0].detach(), photo, info, mask=sound)
        marked = error_mask(view.render, photo, mask=sound)
        counts = ((twin.weights[0] > 0) & marked.flatten()[:, None]).sum(0)
        totals += counts
        blame += counts * float(0.8 * (view.render - photo)[sound].abs().mean())
        views.append(view)
    scores = scores_of(views, no_ssim)
    assert torch.equal(scores.importance.long(), totals // 3) and totals.sum() > 300
    assert torch.allclose(scores.pruning.double(), min_max(blame), atol=1e-6)


def test_what_a_mask_leaves_out_blames_none() -> None:
    """The second of two views is wrong only where its mask says that it does not count: all blame comes from the first."""
    scene = random_scene(2, 60, 48, 32, cameras=2)
    views, garbage = [], []
    g = torch.Generator().manual_seed(1)
    mask = torch.rand(32, 48, generator=g) > 0.3
    for c in range(2):
        image, _, info = rasterization(*scene.tensors()[:5], scene.viewmats[c : c + 1], scene.Ks[:1], 48, 32, sh_degree=0)
        photo = (image[0].detach() + 0.1 * torch.rand(32, 48, 3, generator=g)).clamp(0, 1)
        views.append(ScoredView(image[0].detach(), photo, info, mask))
        garbage.append(ScoredView(image[0].detach(), torch.where(mask[..., None], photo, c * 5.0), info, mask))
    clean, dirty = scores_of(views, SSIM()), scores_of(garbage, SSIM())
    assert torch.equal(clean.importance, dirty.importance) and clean.importance.any()
    assert torch.allclose(clean.pruning, dirty.pruning, atol=1e-6)
    every = [ScoredView(v.render, v.photo, v.info, torch.ones_like(mask)) for v in views]
    plain = [ScoredView(v.render, v.photo, v.info) for v in views]
    assert torch.allclose(scores_of(every, SSIM()).pruning, scores_of(plain, SSIM()).pruning)


def test_the_error_of_a_masked_view_is_the_mean_over_what_counts() -> None:
    """Left, right, outside. One view is wrong by 1 in its left half; the other in its right half, which alone counts."""
    scene = flat_splats([(8.5, 8.5), (24.5, 8.5), (8.5, -90.0)], [1.0] * 3, [0.9] * 3, [2.0] * 3, 32, 16)
    image, _, info = rasterization(*scene.tensors(), 32, 16, eps2d=0.0)
    render = image[0].detach().mean(-1, keepdim=True).expand(-1, -1, 3)
    left = (torch.arange(32) < 16).expand(16, 32)
    views = [
        ScoredView(render, torch.where(left[..., None], render + 1, render), info),
        ScoredView(render, torch.where(left[..., None], render, render + 1), info, ~left),
    ]
    views[1].photo[:, 16] = render[:, 16]  # an error that is the same everywhere marks nothing
    few = scores_of(views, no_ssim).pruning
    assert few[2] == 0 and few[1] == 1 and float(few[0]) == pytest.approx(0.5 * 16 / 15, rel=0.1)


def test_views_are_counted_anew_once_scores_are_taken_and_what_is_planted_between_two_has_none() -> None:
    scene = flat_splats([(8.5, 8.5), (24.5, 8.5)], [1.0, 1.0], [0.9, 0.9], [2.0, 2.0], 32, 16)
    image, _, info = rasterization(*scene.tensors(), 32, 16, eps2d=0.0)
    render = image[0].detach().mean(-1, keepdim=True).expand(-1, -1, 3)
    wrong = torch.where(torch.arange(32)[:, None] >= 16, render + 1.0, render)
    _, params, optimizers, state = population([0.5] * 2, [0.0005] * 2)
    assert number_of_views(state) == 0
    add_view(state, ScoredView(render, wrong, info), no_ssim)
    append(params, optimizers, state, {name: value[:1].detach() for name, value in params.items()})
    again = rasterization(*[t[[0, 1, 0]] for t in scene.tensors()[:5]], *scene.tensors()[5:], 32, 16, eps2d=0.0)[2]
    add_view(state, ScoredView(render, render, again), no_ssim)
    assert number_of_views(state) == 2
    assert take_scores(state).importance.tolist() == [
        0.0,
        scores_of([ScoredView(render, wrong, info)], no_ssim).importance[1] // 2,
        0.0,
    ]
    assert number_of_views(state) == 0
    add_view(state, ScoredView(render, wrong, again), no_ssim)
    assert number_of_views(state) == 1 and take_scores(state).importance[1] > 5
