"""Plates of Gaussians that face a camera: what a click and a box select of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.words.trained import hand_made_semantics
from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words import thing
from vlmgs_ns.words.thing import WINDOW, Looks, best_name, in_box, under

CAMERA = Pinhole(torch.eye(4), torch.tensor([[100.0, 0, 50], [0, 100.0, 30], [0, 0, 1]]), 100, 60)
RED, GREEN, BLUE, WHITE = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (0.9, 0.9, 0.9)
STEP = 0.05
"""Between Gaussians, 5 pixels at depth 1."""


def plate(left: float, right: float, depth: float = 1.0) -> Tensor:  # [M, 3]
    """Return centres in rows of a plate from x = left to right, 0.4 high."""
    x, y = torch.meshgrid(torch.arange(left, right, STEP), torch.arange(-0.2, 0.2, STEP), indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.full((x.numel(),), depth)], dim=1)


def scene(*plates: Tensor) -> tuple[Splats, Tensor]:
    """Return flat opaque Gaussians, and the plate of each."""
    means = torch.cat(plates)
    scales = torch.tensor([0.03, 0.03, 0.005]).repeat(len(means), 1)
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(len(means), 1)
    of = torch.cat([torch.full((len(part),), k) for k, part in enumerate(plates)])
    return Splats(means, quats, scales, torch.full((len(means),), 0.95)), of


def pixel(x: float, y: float = 0.0) -> tuple[float, float]:
    """Return where a point at depth 1 is in the picture."""
    return 50 + 100 * x, 30 + 100 * y


def click(splats: Splats, colours: Tensor, x: float, width: float = 1.0, features: Tensor | None = None) -> Tensor:
    semantics = None if features is None else hand_made_semantics(features)
    looks = Looks(splats, colours, Neighbours(splats), semantics)
    weights = under(splats, CAMERA, *pixel(x))
    return looks.thing(weights, width)


def test_a_click_shows_what_a_whole_render_does_there() -> None:
    splats, _ = scene(plate(-0.4, 0.4), plate(-0.4, 0.4, depth=1.5))
    x, y = 37, 22
    features = torch.zeros(len(splats), 1, requires_grad=True)
    image, _ = blend(splats, CAMERA, features, min_radius=0.0)
    window = image[y - WINDOW : y + WINDOW + 1, x - WINDOW : x + WINDOW + 1]
    (slow,) = torch.autograd.grad(window.sum(), features)
    torch.testing.assert_close(under(splats, CAMERA, x, y), slow[:, 0], atol=5e-3, rtol=0)
    assert slow.any()


def test_a_click_takes_the_plate_in_front_and_leaves_its_neighbour_and_its_like_elsewhere() -> None:
    splats, of = scene(plate(-0.4, 0.0), plate(0.0, 0.2), plate(0.3, 0.45), plate(-0.4, 0.4, depth=2.0))
    colours = torch.tensor([RED, BLUE, RED, RED])[of]
    mask = click(splats, colours, -0.2)
    assert not mask[of != 0].any() and mask[(of == 0) & (splats.means[:, 0] < -0.11)].all(), "but for the rim, where colours mix"
    assert click(splats, colours, 0.37)[of == 2].all()
    wide = click(splats, colours, -0.2, width=20.0)
    assert wide[(of == 0) | (of == 1)].all() and not wide[of > 1].any(), "what touches, whatever its colour; not what is apart"


def test_light_and_shade_count_for_less_than_hue() -> None:
    splats, of = scene(plate(-0.4, 0.0), plate(0.0, 0.4))
    shaded = torch.tensor([RED])[of * 0] * (0.8 + 0.4 * (splats.means[:, :1] + 0.4))
    assert click(splats, shaded, -0.35).all()
    assert not click(splats, torch.tensor([RED, BLUE])[of], -0.35).all()


@pytest.mark.parametrize("known", [True, False])
def test_features_hold_a_striped_thing_together(known: bool) -> None:
    splats, of = scene(plate(-0.4, 0.0), plate(0.0, 0.4))
    stripe = (splats.means[:, 0] / 0.15).floor().long() % 2
    pale, dark = torch.tensor([0.8, 0.6, 0.6]), torch.tensor([0.8, 0.2, 0.2])
    colours = torch.where(stripe[:, None] == 0, pale, dark)
    features = torch.zeros(len(splats), 6)
    features[torch.arange(len(splats)), of] = 1
    mask = click(splats, colours, -0.2, features=features if known else None)
    whole, other = mask[(of == 0) & (splats.means[:, 0] < -0.06)].all(), mask[(of == 1) & (splats.means[:, 0] > 0.06)].any()
    assert bool(whole and not other) == known


@pytest.mark.parametrize("known", [True, False])
def test_a_click_looks_at_as_much_of_the_scene_as_it_needs(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """From any beginning it finds what it finds in the whole scene, and a small thing without the rest of it."""
    chance = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0))
    splats, _ = scene(*(plate(-3, 3, 1 + 0.02 * k) for k in range(4)))
    chance = chance[: len(splats)]
    scales = splats.scales * (0.3 + chance) * torch.where(chance[:, :1] < 0.01, 6, 1)
    splats = Splats(splats.means + 0.03 * chance, splats.quats, scales, 0.5 + 0.4 * chance[:, 0])
    patch = (splats.means[:, :2] / 0.2).floor().long() % 2
    colours = torch.tensor([[RED, BLUE], [WHITE, GREEN]])[patch[:, 0], patch[:, 1]] + 0.1 * chance
    features = torch.zeros(len(splats), 6)
    features[torch.arange(len(splats)), patch[:, 0]] = 1
    semantics = hand_made_semantics(features) if known else None
    looked, last, part = [], set(), Neighbours.part
    monkeypatch.setattr(Neighbours, "part", lambda graph, ids: looked.append(len(ids)) or part(graph, ids))
    for x in torch.linspace(-0.4, 0.4, 9).tolist():
        weights = under(splats, CAMERA, *pixel(x, 0.01))
        found = []
        for first in (len(splats), 100):
            monkeypatch.setattr(thing, "REGION", first)
            found.append(Looks(splats, colours, Neighbours(splats), semantics).thing(weights))
        assert torch.equal(*found)
        last.add(looked[-1])
    assert len(last) > 1 and min(last) < len(splats) / 2


def test_what_is_left_out_could_not_change_the_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever along a row of Gaussians the region ends: colours of all sizes average in from both sides."""
    cases = ((0, 33, 0.2), (2, 33, 1.0), (4, 20, 0.4), (4, 47, 0.2), (5, 33, 0.4), (5, 47, 0.2))
    for seed, middle, width in cases:  # where leaving out what may not be left out is seen
        chance = torch.rand(80, 4, generator=torch.Generator().manual_seed(seed))
        means = torch.stack([torch.arange(80.0) + chance[:, 0], *torch.zeros(2, 80)], dim=1)
        scales = (0.3 + 0.4 * chance[:, 1:2] + 4 * (chance[:, 1:2] > 0.95)).expand(80, 3)
        splats = Splats(means, torch.tensor([1.0, 0, 0, 0]).expand(80, 4), scales, chance[:, 2])
        colours = chance[:, 3:].expand(80, 3) * torch.tensor([1.0, 0.2, 0.0])
        weights, found = torch.zeros(80), []
        weights[middle : middle + 2] = torch.tensor([0.6, 0.3])
        for first in (80, *range(3, 40, 3)):
            monkeypatch.setattr(thing, "REGION", first)
            found.append(Looks(splats, colours, Neighbours(splats)).thing(weights, width))
        assert all(torch.equal(one, found[0]) for one in found)


def test_the_next_click_sees_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the scene the click before it looked at."""
    monkeypatch.setattr(thing, "REGION", 40)
    splats, of = scene(*(plate(left, left + 0.15) for left in (-0.45, -0.2, 0.05, 0.3)))
    colours = torch.tensor([RED, BLUE, WHITE, RED])[of]
    looks = Looks(splats, colours, Neighbours(splats))
    for number, x in ((0, -0.4), (3, 0.35), (1, -0.13), (0, -0.4), (2, 0.12), (2, 0.1)):
        assert torch.equal(looks.thing(under(splats, CAMERA, *pixel(x))), of == number)


def test_a_box_takes_what_it_shows_and_not_what_is_hidden_behind() -> None:
    splats, of = scene(plate(-0.4, 0.4), plate(-0.4, 0.4, depth=1.2))
    (left, top), (right, bottom) = pixel(-0.22, -0.22), pixel(0.03, 0.18)
    mask = in_box(splats, CAMERA, (left, top, right, bottom))
    inside = (splats.means[:, 0] > -0.21) & (splats.means[:, 0] < 0.01)
    assert mask[inside & (of == 0)].all() and not mask[~inside & (of == 0) & (splats.means[:, 0].abs() > 0.3)].any()
    assert mask[of == 1].float().mean() < 0.1


def test_nothing_there_is_said() -> None:
    splats, _ = scene(plate(-0.1, 0.1))
    with pytest.raises(InputError, match="nothing at"):
        under(splats, CAMERA, 2, 2)
    with pytest.raises(InputError, match="100 x 60 pixels"):
        under(splats, CAMERA, 100, 2)
    with pytest.raises(InputError, match="nothing in the box"):
        in_box(splats, CAMERA, (0, 0, 5, 5))


def test_the_best_name_is_that_of_the_mean_feature() -> None:
    splats, of = scene(plate(-0.4, 0.0), plate(0.0, 0.4))
    features = torch.zeros(len(splats), 6)
    features[torch.arange(len(splats)), of] = 1  # "red ball" and "blue box" in tests/words/trained.py
    semantics = hand_made_semantics(features)
    name, relevancy = best_name(semantics, splats, of == 1, ["red ball", "blue box"]) or ("", 0.0)
    assert name == "blue box" and relevancy == pytest.approx(1 / (1 + math.exp(-10)), abs=1e-4)
    assert best_name(semantics, splats, of == 1, []) is None and best_name(semantics, splats, of == 7, ["red ball"]) is None
