"""The hybrid map against a slow twin and by its laws. The encoders here are arithmetic: nothing is said about accuracy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import resize

from vlmgs_ns.semantics.hybrid import TILE_SIZES, hybrid_map, largest_tile, stride_factor, tile_starts

SIZE = 8


def random_encoder(dimension: int = 5, size: int = SIZE):
    weights = torch.randn(3 * size * size, dimension, generator=torch.Generator().manual_seed(0))

    def embed(tiles: Tensor) -> Tensor:
        return F.normalize((tiles.flatten(1) - 0.3) @ weights, dim=-1)

    return embed


def picture_of(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def twin(picture: Tensor, embed, size: int, scales: int, smallest: float, largest: float) -> Tensor:
    """One cell, one scale, one tile at a time."""
    height, width = picture.shape[1:]

    def axis(length: int, side: int, step: float) -> list[int]:
        count = 1
        while (count > 1 and (length - side) / (count - 1) > step) or (count == 1 and length > side):
            count += 1
        return [math.floor((length - side) * k / (count - 1) + 0.5) if count > 1 else 0 for k in range(count)]

    def neighbours(starts: list[int], side: int, point: float) -> list[tuple[int, float]]:
        centres = [start + side / 2 for start in starts]
        if point <= centres[0]:
            return [(starts[0], 1.0)]
        if point >= centres[-1]:
            return [(starts[-1], 1.0)]
        k = max(i for i, centre in enumerate(centres) if centre <= point)
        share = (point - centres[k]) / (centres[k + 1] - centres[k])
        return [(starts[k], 1 - share), (starts[k + 1], share)]

    layout = []
    for k in range(scales):
        ratio = smallest + (largest - smallest) * k / max(scales - 1, 1)
        side = min(max(1, round(ratio * height)), height, width)
        factor = 1.0 if ratio <= 0.05 else 0.5 if ratio >= 0.15 else 1.0 - 0.5 * (ratio - 0.05) / 0.1
        step = max(1.0, side * factor)
        layout.append((side, axis(height, side, step), axis(width, side, step)))
    rows, columns = len(layout[0][1]), len(layout[0][2])
    out = []
    for r in range(rows):
        for c in range(columns):
            mean = torch.zeros(())
            for side, ys, xs in layout:
                for y, wy in neighbours(ys, side, (r + 0.5) * height / rows):
                    for x, wx in neighbours(xs, side, (c + 0.5) * width / columns):
                        tile = resize(picture[:, y : y + side, x : x + side], [size, size], antialias=True)
                        mean = mean + wy * wx * embed(tile[None])[0] / scales
            out.append(mean / mean.norm())
    return torch.stack(out).reshape(rows, columns, -1)


@pytest.mark.parametrize("shape", [(40, 40), (40, 61), (61, 40), (37, 12)])
def test_equals_the_slow_twin(shape: tuple[int, int]) -> None:
    picture, embed = picture_of(*shape), random_encoder()
    for scales, smallest, largest in ((7, 0.05, 0.5), (3, 0.1, 0.9), (1, 0.2, 0.5)):
        got = hybrid_map(picture, embed, SIZE, scales, smallest, largest)
        torch.testing.assert_close(got, twin(picture, embed, SIZE, scales, smallest, largest), atol=2e-5, rtol=0)


def test_steps_are_those_of_the_paper() -> None:
    assert [stride_factor(ratio) for ratio in (0.05, 0.1, 0.15, 0.5)] == pytest.approx([1.0, 0.75, 0.5, 0.5])


def test_tiles_by_hand() -> None:
    assert tile_starts(10, 10, 5.0).tolist() == [0]
    assert tile_starts(10, 4, 2.0).tolist() == [0, 2, 4, 6]
    assert tile_starts(10, 4, 2.5).tolist() == [0, 2, 4, 6]  # 3 steps of 2 rather than 2 of 3
    assert tile_starts(10, 3, 3.0).tolist() == [0, 2, 5, 7]
    assert tile_starts(5, 1, 0.5).tolist() == [0, 1, 2, 3, 4]  # never twice the same tile


@pytest.mark.parametrize("length", [1, 7, 50, 333])
def test_tiles_reach_both_borders_without_gaps(length: int) -> None:
    for tile in {1, max(1, length // 20), max(1, length // 2), length}:
        starts = tile_starts(length, tile, tile * 0.7)
        steps = starts.diff()
        assert starts[0] == 0 and starts[-1] == length - tile
        assert not len(steps) or (steps.min() >= 1 and steps.max() <= tile)


def test_the_picture_of_the_paper_has_a_20_row_map() -> None:
    counted = []

    def embed(tiles: Tensor) -> Tensor:
        counted.append(len(tiles))
        return torch.ones(len(tiles), 2)

    out = hybrid_map(torch.zeros(3, 240, 320), embed, tile_size=2)
    assert out.shape == (20, 27, 2)  # tiles of 12 pixels, 12 apart; ceil(320 / 12) = 27 across
    # Sides 12, 30, 48, … 120 px; steps 12, 18.75 and then half a side: rows and columns by hand.
    assert sum(counted) == 20 * 27 + 13 * 17 + 9 * 13 + 7 * 9 + 5 * 7 + 4 * 6 + 3 * 5
    counted.clear()
    hybrid_map(torch.zeros(3, 240, 320), embed, tile_size=2, scales=3, largest=largest_tile(3))
    assert sum(counted) == 20 * 27 + 13 * 17 + 9 * 13  # the first three of the same


def test_sizes_of_tiles() -> None:
    assert largest_tile(TILE_SIZES) == 0.5  # FMGS'
    assert [largest_tile(sizes) for sizes in (1, 2, 3)] == pytest.approx([0.05, 0.125, 0.2])
    for sizes in (0, 14):
        with pytest.raises(ValueError, match=f"^{sizes} tile sizes"):
            largest_tile(sizes)


def test_a_constant_picture_gives_a_constant_map() -> None:
    picture = torch.tensor([0.2, 0.7, 0.4])[:, None, None].expand(3, 50, 80)
    embed = random_encoder()
    got = hybrid_map(picture, embed, SIZE)
    expected = embed(picture[:, :SIZE, :SIZE][None])[0]
    torch.testing.assert_close(got, expected.expand_as(got), atol=1e-5, rtol=0)


def test_a_cell_says_where_it_is() -> None:
    """With an encoder that measures a tile's mean of a horizontal and a vertical ramp, one scale gives the cell's own place."""
    height, width = 60, 90
    ys = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    xs = ((torch.arange(width) + 0.5) / width)[None].expand(height, width)
    picture = torch.stack([ys, xs, torch.ones(height, width)])
    got = hybrid_map(picture, lambda tiles: tiles.mean(dim=(2, 3)), SIZE, scales=1, smallest=0.1)
    h, w = got.shape[:2]
    place = got[..., :2] / got[..., 2:]  # undoes the unit length
    inner = slice(1, -1)
    torch.testing.assert_close(place[inner, 0, 0], ((torch.arange(h) + 0.5) / h)[inner], atol=1e-3, rtol=0)
    torch.testing.assert_close(place[0, inner, 1], ((torch.arange(w) + 0.5) / w)[inner], atol=1e-3, rtol=0)
    # Cells outside the outermost tile centres take those tiles: 6 pixels large, centred 3 from the border.
    assert place[0, 0, 0] == pytest.approx(3 / height) and place[0, -1, 1] == pytest.approx(1 - 3 / width)


def test_vectors_have_unit_length() -> None:
    got = hybrid_map(picture_of(40, 40), random_encoder(), SIZE)
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(got.shape[:2]))


def test_the_mean_is_plain() -> None:
    """Vectors of different lengths weigh by their length: they are not normalised before the mean."""
    calls = iter([torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])])
    got = hybrid_map(torch.rand(3, 10, 10), lambda tiles: next(calls), SIZE, scales=2, smallest=1.0, largest=1.0)
    torch.testing.assert_close(got[0, 0], torch.tensor([0.6, 0.8]))


def test_batches_change_nothing() -> None:
    picture, embed = picture_of(40, 50), random_encoder()
    largest: list[int] = []

    def watched(tiles: Tensor) -> Tensor:
        largest.append(len(tiles))
        return embed(tiles)

    one = hybrid_map(picture, embed, SIZE, batch_size=1)
    seven = hybrid_map(picture, watched, SIZE, batch_size=7)
    torch.testing.assert_close(one, seven, atol=1e-5, rtol=0)
    assert max(largest) == 7


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 30), (30, 1)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    got = hybrid_map(picture_of(*shape), random_encoder(), SIZE)
    assert got.isfinite().all() and got.shape[0] >= 1 and got.shape[1] >= 1
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(got.shape[:2]))


def test_half_precision_answers_are_averaged_in_single() -> None:
    embed = random_encoder()
    got = hybrid_map(picture_of(30, 30), lambda tiles: embed(tiles).half(), SIZE)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, hybrid_map(picture_of(30, 30), embed, SIZE), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("picture", "settings", "says"),
    [
        (torch.zeros(40, 40, 3), {}, r"\[3, H, W\].*\[40, 40, 3\]"),
        (torch.zeros(3, 0, 40), {}, r"\[3, 0, 40\]"),
        (torch.zeros(3, 40, 40, dtype=torch.uint8), {}, "uint8"),
        (torch.zeros(3, 40, 40), {"scales": 0}, "0 tile sizes"),
        (torch.zeros(3, 40, 40), {"smallest": 0.6}, "0.6 to 0.5"),
        (torch.zeros(3, 40, 40), {"batch_size": 0}, "batch_size 0"),
    ],
)
def test_what_cannot_be_mapped_is_refused(picture: Tensor, settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        hybrid_map(picture, random_encoder(), **{"tile_size": SIZE, **settings})


def test_an_encoder_that_loses_tiles_is_refused() -> None:
    with pytest.raises(ValueError, match="one vector per tile"):
        hybrid_map(torch.zeros(3, 20, 20), lambda tiles: torch.ones(1, 4), SIZE)
