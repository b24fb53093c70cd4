"""LangSplat's evaluation against a slow twin of its published steps, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.test_protocols import room, thing
from vlmgs_ns.evaluation.labels import LabelledView
from vlmgs_ns.evaluation.langsplat import averaged, langsplat_mask, voted
from vlmgs_ns.evaluation.protocols import protocol_b_langsplat


def test_the_mean_is_over_15_pixels_before_and_14_after() -> None:
    values = np.random.default_rng(0).random((40, 50))
    padded = np.pad(values, 15, mode="reflect")
    twin = [[padded[y : y + 30, x : x + 30].mean() for x in range(50)] for y in range(40)]
    assert np.allclose(averaged(values), twin)
    one = np.zeros((61, 61))
    one[30, 30] = 900
    assert np.argwhere(averaged(one) > 0.5).min() == 16 and np.argwhere(averaged(one) > 0.5).max() == 45


@pytest.mark.parametrize("size", [(12, 17), (3, 5), (2, 2)])
def test_a_vote_is_as_the_loop_of_the_published_code(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(1).random(size) < 0.5
    height, width = size
    for y in range(height):
        for x in range(width):
            square = mask[max(0, y - 3) : min(y + 4, height - 1), max(0, x - 3) : min(x + 4, width - 1)]
            assert voted(mask)[y, x] == (square.sum() > (~square).sum())


def two_halves(low: float, high: float) -> np.ndarray:
    """[80, 120]: low on the left, high on the right."""
    values = np.full((80, 120), low)
    values[:, 60:] = high
    return values


def test_by_hand_an_edge_moves_by_the_blur_and_the_relevancy_itself_counts_for_nothing() -> None:
    # Beside the edge the map is (step + share of the window right of it) / 2: of 30 columns x-15 … x+14, x-45 lie beyond 60.
    # The cut is at 0.7 of the range, so that on the right (1 + share) / 2 > 0.7: share > 0.4, and x - 45 > 12 holds from x = 60
    # on; on the left share / 2 < 0.7 everywhere. The mask is the right half, and as the last row and column do not vote, whole.
    for low, high in ((0.2, 0.9), (0.1, 0.3)):
        mask = langsplat_mask(two_halves(low, high))
        assert not mask[:, :60].any() and mask[:, 60:].all()
    line = two_halves(0.0, 0.0)
    line[:, 60:63] = 1.0  # three columns: (1 + 0.1) / 2 there, the greatest; at most 0.05 elsewhere, which is cut off
    assert not langsplat_mask(line).any(), "3 of 7 lose the vote"
    line[:, 60:64] = 1.0
    assert langsplat_mask(line)[40].nonzero()[0].tolist() == [60, 61, 62, 63], "4 of 7 win it"


def test_the_cut_is_at_0_7_of_the_range() -> None:
    plates = np.repeat([[0.1, 0.1 + 0.68 * 0.5, 0.1 + 0.72 * 0.5, 0.6]], 80, axis=0).repeat(60, axis=1)
    found = langsplat_mask(plates)[40]
    assert found[[30, 90, 150, 210]].tolist() == [False, False, True, True]


def test_the_protocol_s_scores() -> None:
    truth = two_halves(0, 1) > 0
    truth[:40] = False
    half, nowhere = (0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.1, 0.1)
    view = LabelledView("1.jpg", 120, 80, (thing("ball", truth, half, nowhere), thing("cube", ~truth, nowhere)))
    unseen = LabelledView("2.jpg", 120, 80, (thing("ball", truth, half),))
    peaked = two_halves(0.2, 0.3)
    peaked[60:, 100:] += 0.001
    maps = np.stack([peaked, peaked])
    report = protocol_b_langsplat(room(view, unseen), lambda asked, phrases: maps if asked is view else None)
    ball, cube, missing = report.rows
    assert ball.scores == {"iou": pytest.approx(0.5), "localisation": 1.0}
    assert cube.scores == {"iou": pytest.approx(2400 / 9600), "localisation": 0.0}
    assert missing.missing and missing.scores == {"iou": 0.0, "localisation": 0.0}
    assert (report.protocol, report.settings["window"], report.settings["threshold"]) == ("B-langsplat", 30, 0.4)
    without = room(LabelledView("1.jpg", 120, 80, (thing("ball", truth),)))
    assert protocol_b_langsplat(without, lambda asked, phrases: maps[:1]).scores == {"iou": pytest.approx(0.5)}
