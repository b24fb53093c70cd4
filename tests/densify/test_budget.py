"""Choices under a budget."""

from __future__ import annotations

import torch

from vlmgs_ns.densify.budget import draw_half, keep_highest


def test_the_highest_scores_win_by_hand() -> None:
    candidates = torch.tensor([True, False, True, True, True])
    scores = torch.tensor([1.0, 9.0, 3.0, 2.0, 3.0])
    assert keep_highest(candidates, scores, 2).tolist() == [False, False, True, False, True]
    assert keep_highest(candidates, scores, 1).tolist() == [False, False, True, False, False]  # a tie: the lower index
    assert torch.equal(keep_highest(candidates, scores, 4), candidates)
    assert not keep_highest(candidates, scores, 0).any() and not keep_highest(candidates, scores, -3).any()


def test_half_of_the_candidates_are_drawn_and_nobody_else() -> None:
    """The public code drew among all Gaussians and met only few candidates; here it is always half of them, rounded up."""
    torch.manual_seed(0)
    for count in (0, 1, 2, 7, 100):
        candidates = torch.zeros(1000, dtype=torch.bool)
        candidates[torch.randperm(1000)[:count]] = True
        drawn = draw_half(candidates, torch.rand(1000))
        assert int(drawn.sum()) == (count + 1) // 2 and not (drawn & ~candidates).any()


def test_the_blamed_are_drawn_more_often_in_proportion_to_their_weight() -> None:
    """Two candidates with scores 0 and 0.75, weights 1 and 4: the second is drawn four times out of five."""
    torch.manual_seed(1)
    candidates, scores = torch.tensor([True, True]), torch.tensor([0.0, 0.75])
    second = sum(int(draw_half(candidates, scores)[1]) for _ in range(4000)) / 4000
    assert abs(second - 0.8) < 0.03
