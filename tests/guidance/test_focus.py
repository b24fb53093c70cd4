"""From pixels to Gaussians: which of them a round's answers are about."""

from __future__ import annotations

import pytest
import torch

from tests.guidance.small_world import BALL, SHELL, SmallScene
from tests.rasterize.scenes import flat_splats
from vlmgs_ns.guidance.focus import GLIMPSE, MAJORITY, TracedView, focus, seen_mass
from vlmgs_ns.rasterize import rasterization

ALL = BALL + SHELL


def view(opacities: tuple[float, float] = (0.9, 0.9), masked: slice = slice(0, 16)) -> TracedView:
    """One splat left, one right of a picture of 32 x 16 pixels; the mask marks some of its columns."""
    scene = flat_splats([(8.5, 8.5), (24.5, 8.5)], [2.0, 2.0], list(opacities), [2.0, 2.0], 32, 16)
    _, _, info = rasterization(*(tensor.detach() for tensor in scene.tensors()), 32, 16, eps2d=0.0)
    mask = torch.zeros(16, 32, dtype=torch.bool)
    mask[:, masked] = True
    return TracedView(info, mask)


def test_the_share_inside_by_hand() -> None:
    weights = focus([view()], 10)
    assert weights[0] == pytest.approx(1, abs=1e-3) and weights[1] == 0
    whole = seen_mass(view().info)
    assert whole[0] == pytest.approx(2 * torch.pi * 4 * 0.9, rel=0.03)  # the integral of a Gaussian of standard deviation 2
    # up to column 10 lies what is left of 1.5 px beyond its centre: Φ(0.75) = 0.773, below the majority; column 12: Φ(1.75)
    assert focus([view(masked=slice(0, 10))], 10)[0] == 0
    assert focus([view(masked=slice(0, 12))], 10)[0] == pytest.approx(0.96, abs=0.01)
    assert MAJORITY == 0.8


def test_views_vote_with_what_they_see() -> None:
    agree, against = view(), view(masked=slice(16, 32))
    assert focus([agree, agree, agree], 10).tolist() == pytest.approx([1, 0], abs=1e-3)
    assert focus([agree, against], 10).tolist() == [0, 0]
    five = focus([agree] * 5 + [against], 10)
    assert five[0] == pytest.approx(5 / 6, abs=1e-3) and five[1] == 0
    faint = view(opacities=(0.1, 0.1), masked=slice(16, 32))  # what hardly sees it has hardly a voice
    assert focus([agree, agree, faint], 10)[0] == pytest.approx(2 / (2 + 1 / 9), abs=0.03)


def test_a_gaussian_that_one_view_of_several_sees_is_not_chosen() -> None:
    """A box also covers what stands behind the object; only another view tells the two apart."""
    hidden = view(opacities=(0.001, 0.9))  # below 1/255: not drawn at all
    assert seen_mass(hidden.info)[0] < GLIMPSE
    assert focus([view(), hidden], 10)[0] == 0
    assert focus([view(), hidden], 10, witnesses=1)[0] > 0.9
    assert focus([view(), view(), hidden], 10)[0] > 0.9
    assert focus([view()], 10)[0] > 0.9  # a single view is all the witnesses there are


def test_each_view_chooses_at_most_so_many_those_of_greatest_mass() -> None:
    everything = view(opacities=(0.9, 0.5), masked=slice(0, 32))
    assert (focus([everything], 2) > 0).tolist() == [True, True]
    assert (focus([everything], 1) > 0).tolist() == [True, False]
    assert (focus([everything], 0) > 0).tolist() == [False, False]
    other = view(opacities=(0.5, 0.9), masked=slice(0, 32))
    assert (focus([everything, other], 1) > 0).tolist() == [True, True]


def test_no_views_and_empty_masks_choose_nothing() -> None:
    assert focus([], 10).shape == (0,)
    assert focus([view(masked=slice(0, 0))] * 3, 10).tolist() == [0, 0]


def test_boxes_around_a_ball_are_about_the_ball_and_their_inverse_about_the_rest() -> None:
    """The pixels of the ball's boxes also show the shell behind it; together the views tell them apart."""
    scene = SmallScene()
    renders = [scene.render(point) for point in scene.points]
    boxes = []
    for render in renders:
        box = torch.zeros(render.depth.shape, dtype=torch.bool)
        near = torch.nonzero(render.depth < 2.0)
        (top, left), (bottom, right) = near.amin(0).tolist(), near.amax(0).tolist()
        box[top : bottom + 1, left : right + 1] = True
        boxes.append(box)
        assert (box & (render.depth > 2.0)).sum() > 30  # corners
    chosen = focus((TracedView(render.info, box) for render, box in zip(renders, boxes, strict=True)), 1000) > 0
    assert chosen[:BALL].sum() > 0.8 * BALL and not chosen[BALL:].any()
    chosen = focus((TracedView(render.info, ~box) for render, box in zip(renders, boxes, strict=True)), 1000) > 0
    assert chosen[BALL:].sum() > 0.3 * SHELL and not chosen[:BALL].any()
