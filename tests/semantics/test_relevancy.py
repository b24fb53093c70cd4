"""Relevancy by hand and by its laws; places, masks and colours."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmgs_ns.semantics.relevancy import (
    pca_basis,
    pca_colours,
    relevancy_from_scores,
    segment,
    select,
)

scores = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=5)


def relevancy_of(phrases: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    return relevancy_from_scores(torch.cat([phrases, negatives], dim=-1), phrases.shape[-1])


def by_definition(phrase: float, negatives: list[float]) -> float:
    """The minimum over softmaxes, as the paper writes it."""
    return min(math.exp(10 * phrase) / (math.exp(10 * phrase) + math.exp(10 * negative)) for negative in negatives)


def test_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    found = relevancy_from_scores(features @ torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T, 1)
    assert found.shape == (3, 1)
    expected = [1 / (1 + math.exp(-10)), 1 / (1 + math.exp(10)), 1 / (1 + math.exp(2))]
    assert found[:, 0].tolist() == pytest.approx(expected, rel=1e-5)


@settings(deadline=None)
@given(scores, scores)
def test_is_the_least_softmax_over_the_negatives(phrases: list[float], negatives: list[float]) -> None:
    found = relevancy_of(torch.tensor(phrases), torch.tensor(negatives))
    assert found.tolist() == pytest.approx([by_definition(p, negatives) for p in phrases], rel=1e-4)


@settings(deadline=None)
@given(scores, scores, st.floats(0.01, 1))
def test_rises_with_the_phrase_falls_with_a_negative_and_ignores_a_shift(
    phrases: list[float], negatives: list[float], more: float
) -> None:
    p, n = torch.tensor(phrases), torch.tensor(negatives)
    found = relevancy_of(p, n)
    assert (relevancy_of(p + more, n) >= found).all()
    assert (relevancy_of(p, torch.cat([n, n[:1] + more])) <= found).all()
    assert torch.allclose(relevancy_of(p + more, n + more), found, atol=1e-5)


def test_a_tie_with_the_hardest_negative_is_one_half() -> None:
    assert relevancy_of(torch.tensor([0.3]), torch.tensor([0.1, 0.3, -0.5])).item() == 0.5


def test_enormous_scores_stay_finite() -> None:
    found = relevancy_of(torch.tensor([1e30, -1e30]), torch.tensor([0.0]))
    assert found.tolist() == [1.0, 0.0]


def test_scores_of_any_shape_and_phrases_that_do_not_disturb_each_other() -> None:
    g = torch.Generator().manual_seed(0)
    p, n = torch.rand(4, 5, 3, generator=g), torch.rand(4, 5, 2, generator=g)
    found = relevancy_of(p, n)
    assert found.shape == (4, 5, 3)
    assert torch.equal(found[..., 1:2], relevancy_of(p[..., 1:2], n))
    assert torch.equal(found[2, 3], relevancy_of(p[2, 3], n[2, 3]))


def test_empty_inputs() -> None:
    assert relevancy_of(torch.zeros(0, 2), torch.ones(0, 1)).shape == (0, 2)
    assert relevancy_of(torch.zeros(3, 0), torch.ones(3, 1)).shape == (3, 0)
    with pytest.raises(ValueError, match=r"no negative phrases.*object, things"):
        relevancy_of(torch.zeros(3, 2), torch.ones(3, 0))


def test_a_tie_is_not_selected() -> None:
    assert select(torch.tensor([0.4, 0.5, 0.6]), 0.5).tolist() == [False, False, True]
    assert select(torch.zeros(0), 0.5).shape == (0,)


def test_segment_leaves_out_where_no_gaussian_is() -> None:
    found, alpha = torch.tensor([[0.6, 0.6, 0.4]]), torch.tensor([[1.0, 0.1, 1.0]])
    assert segment(found, 0.5).tolist() == [[True, True, False]]
    assert segment(found, 0.5, alpha).tolist() == [[True, False, False]]
    assert segment(found, 0.3, alpha, least_alpha=0.05).tolist() == [[True, True, True]]


def test_pca_finds_the_axes_of_a_stretched_cloud() -> None:
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=g))[0]
    lengths = torch.tensor([5.0, 3.0, 2.0, 0.1, 0.1, 0.1])
    features = (torch.randn(5000, 6, generator=g) * lengths) @ turn.T + 7.0
    basis = pca_basis(features)
    assert torch.allclose((basis.axes.T @ turn[:, :3]).abs(), torch.eye(3), atol=0.05)
    assert torch.allclose(basis.spread, lengths[:3], rtol=0.05)
    assert torch.allclose(basis.mean, features.mean(0), atol=1e-4)
    largest = basis.axes.gather(0, basis.axes.abs().argmax(0, keepdim=True))
    assert (largest > 0).all(), "the sign is fixed"
    mirrored = pca_basis(2 * basis.mean - features)
    assert torch.allclose(mirrored.axes, basis.axes, atol=1e-4), "a mirrored cloud has the same axes"


def test_colours_depend_on_the_basis_and_the_feature_alone() -> None:
    features = torch.randn(200, 5, generator=torch.Generator().manual_seed(1))
    basis = pca_basis(features)
    colours = pca_colours(features, basis)
    assert colours.shape == (200, 3) and colours.min() >= 0 and colours.max() <= 1
    assert torch.allclose(pca_colours(features[17:19], basis), colours[17:19], atol=1e-6)
    assert torch.allclose(pca_colours(basis.mean, basis), torch.full((3,), 0.5), atol=1e-6)
    step = basis.mean + basis.axes[:, 1] * basis.spread[1]
    assert torch.allclose(pca_colours(step, basis), torch.tensor([0.5, 0.75, 0.5]), atol=1e-5)
    assert torch.equal(pca_basis(features).axes, basis.axes)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (50, 2), (50, 1)])
def test_too_few_features_or_dimensions_leave_a_channel_grey(shape: tuple[int, int]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    basis = pca_basis(features)
    colours = pca_colours(features, basis)
    assert basis.axes.shape == (shape[1], 3) and torch.isfinite(colours).all()
    assert (colours[:, 2] == 0.5).all()
