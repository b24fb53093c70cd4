"""What training views show of Gaussians in a phrase's masks, against sums over pixels by hand."""

from __future__ import annotations

import torch

from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.words.query import Query
from vlmgs_ns.words.question import Question

CAMERA = Pinhole(torch.eye(4), torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]), 40, 30)
SHOWN, HIDDEN, BEFORE_IT, BEHIND = range(4)
"""Gaussians: two like the phrase, the second with another thing before it; and one like the phrase behind the camera."""


def question(views: list[Pinhole]) -> Question:
    means = torch.tensor([[-0.5, 0, 2.0], [0.5, 0, 2.2], [0.5, 0, 2.0], [0, 0, -2.0]])
    quats = torch.tensor([[1.0, 0, 0, 0]]).expand(4, 4)
    splats = Splats(means, quats, torch.full((4, 3), 0.1), torch.full((4,), 0.95))
    like, other = [1.0, 0.0], [0.0, 1.0]
    return Question(Query(("thing",)), ("object",), splats, torch.tensor([like, like, other, like]), views)


def test_what_hides_behind_another_thing_is_not_in_the_masks() -> None:
    asked = question([CAMERA])
    in_masks = asked.in_masks(0.5)[:, 0]
    assert in_masks[SHOWN] > 0.9 and in_masks[HIDDEN] < 0.1 and in_masks[BEFORE_IT] < 0.1
    assert in_masks[BEHIND] == 1, "what no view shows is left to relevancy"
    assert (asked.relevancy[[SHOWN, HIDDEN, BEHIND], 0] > 0.9).all()
    assert asked.select(average=False, least_share=0.0).mask.tolist() == [True, False, False, True]
    assert question([]).select(average=False, least_share=0.0).mask.tolist() == [True, True, False, True]


def test_the_share_is_summed_over_views_and_pixels() -> None:
    right = Pinhole(torch.eye(4), CAMERA.K.clone(), 40, 30)
    right.K[0, 2] = 0.0  # the first Gaussian is out of the picture
    asked = question([CAMERA, right])
    inside, whole = torch.zeros(4), torch.zeros(4)
    for view in asked.views:
        weights, alpha = blend(asked.splats, view, torch.eye(4), min_radius=0.0)  # [H, W, 4]
        mask = (torch.from_numpy(asked.look(view).relevancy[0]) > 0.5) & (alpha >= 0.5)
        inside, whole = inside + weights[mask].sum(dim=0), whole + weights[alpha >= 0.5].sum(dim=0)
    assert torch.allclose(asked.in_masks(0.5)[:3, 0], (inside / whole)[:3], atol=1e-4)


def test_another_threshold_has_other_masks() -> None:
    asked = question([CAMERA])
    assert 0 < asked.in_masks(0.999)[SHOWN] < asked.in_masks(0.5)[SHOWN]
