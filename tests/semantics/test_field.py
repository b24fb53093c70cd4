"""The semantic field: where it looks, what its heads give, and codes that stand for its features."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vlmgs_ns.rasterize.threads import get_num_threads, set_num_threads
from vlmgs_ns.semantics import field as module
from vlmgs_ns.semantics.field import LITE, FieldConfig, Head, SemanticField, contract, hash_implementation
from vlmgs_ns.semantics.hash_grid import HashGrids
from vlmgs_ns.system.errors import InputError

SMALL = replace(LITE, levels=3, log2_hashmap_size=8, clip_hidden=16, clip_dim=24, dino_hidden=12, dino_dim=10)


def points(count: int, seed: int = 0, size: float = 2.0) -> torch.Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * size


def lively(config: FieldConfig = SMALL, **place: object) -> SemanticField:
    """A field whose grids say something: at their start they are nearly constant."""
    torch.manual_seed(0)
    field = SemanticField(config, **place)  # type: ignore[arg-type]
    with torch.no_grad():
        for grid in field.grids:
            grid.hash_table.mul_(1000)
    return field


def test_contraction_by_hand() -> None:
    found = contract(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, -0.5, 0], [0, 4, 0], [0, 0, -1e9]]))
    # at distance 4 the ball's radius is 2 − 1/4
    expected = torch.tensor([[2.0, 2, 2], [3, 2, 2], [2, 1.5, 2], [2, 3.75, 2], [2, 2, 0]]) / 4
    assert torch.allclose(found, expected, atol=1e-6)


def test_contraction_keeps_directions_order_and_the_cube() -> None:
    direction = torch.nn.functional.normalize(points(50), dim=-1)
    distances = torch.logspace(-3, 8, 40)
    inside = contract((direction[:, None] * distances[:, None]).reshape(-1, 3)).reshape(50, 40, 3)
    assert inside.min() >= 0 and inside.max() <= 1
    radii = (4 * inside - 2).norm(dim=-1)
    assert (radii.diff(dim=1) > -1e-5).all() and radii.max() <= 2 + 1e-5
    assert torch.allclose(torch.nn.functional.normalize(4 * inside - 2, dim=-1), direction[:, None], atol=1e-3)


def test_default_sizes_are_those_of_the_paper() -> None:
    field = SemanticField(FieldConfig(log2_hashmap_size=4))
    assert field.hash_features(points(7)).shape == (7, 192)
    assert [feature.shape for feature in field(points(7))] == [(7, 512), (7, 384)]
    assert [grid.scalings[[0, -1]].tolist() for grid in field.grids] == [[16, 128], [128, 511]]  # nerfstudio rounds down
    linear = [layer for layer in field.clip_head.modules() if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [256, 256, 256, 256, 512]
    assert FieldConfig().log2_hashmap_size == 19


def test_clip_is_unit_and_dino_is_not() -> None:
    field = lively()
    clip, dino = field(points(100))
    assert torch.allclose(clip.norm(dim=-1), torch.ones(100), atol=1e-5)
    assert dino.norm(dim=-1).std() > 1e-3
    assert torch.equal(clip, field.clip(points(100)))
    head = field.clip_head
    hidden = head.trunk(field.hash_features(points(100)))
    assert (hidden >= 0).all()
    assert torch.allclose(torch.nn.functional.normalize(head.output(hidden), dim=-1), clip, atol=1e-6)


def test_both_grids_speak() -> None:
    field = lively()
    features = field.hash_features(points(50))
    half = features.shape[1] // 2
    before = features.clone()
    with torch.no_grad():
        field.grids[1].hash_table.zero_()
    after = field.hash_features(points(50))
    assert torch.equal(after[:, :half], before[:, :half]) and (after[:, half:] == 0).all() and before[:, half:].abs().sum() > 0


def test_grids_read_as_nerfstudio_reads_them_and_learn_as_much() -> None:
    """nerfstudio's torch code is the slow twin. Some places lie on the corners of cells, and of the cube."""
    field, threads = lively(), get_num_threads()
    inside = torch.rand(300, 3, generator=torch.Generator().manual_seed(3))
    places = torch.cat([inside, (inside[:50] * 16).round() / 16, torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 1, 0.5]])])
    tables = [grid.hash_table for grid in field.grids]
    scalings = torch.stack([grid.scalings for grid in field.grids])
    twin = torch.cat([grid(places) for grid in field.grids], dim=-1)
    pull = torch.randn(twin.shape, generator=torch.Generator().manual_seed(4))
    expected = torch.autograd.grad((twin * pull).sum(), tables)
    results = []
    for count in (1, 3):
        set_num_threads(count)
        found = HashGrids.apply(places, scalings, *tables)
        results.append([found, *torch.autograd.grad((found * pull).sum(), tables)])
    set_num_threads(threads)
    for one, again, other in zip(*results, [twin, *expected], strict=True):
        assert torch.equal(one, again), "not of how many threads there are"
        assert torch.allclose(one, other, atol=1e-5 * other.abs().max().item()) and other.abs().sum() > 0


def test_centre_and_scale_move_the_scene_into_the_field() -> None:
    plain, moved = lively(), lively(centre=(5.0, -2.0, 1.0), scale=10.0)
    moved.load_state_dict({**plain.state_dict(), "centre": moved.centre, "scale": moved.scale})
    there = points(20) * 10 + torch.tensor([5.0, -2.0, 1.0])
    assert torch.allclose(moved.clip(there), plain.clip(points(20)), atol=1e-3)
    again = lively()
    again.load_state_dict(moved.state_dict())
    assert torch.equal(again.clip(there), moved.clip(there)), "the place is saved with the field"
    with pytest.raises(ValueError, match="scale=0"):
        SemanticField(SMALL, scale=0)


def test_points_receive_no_gradient_and_every_parameter_does() -> None:
    field = lively()
    means = points(200).requires_grad_()
    clip, dino = field(means)
    (clip[:, 0].sum() + dino.square().sum()).backward()
    assert means.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in field.parameters())


def test_codes_decode_to_the_features_and_so_do_their_sums() -> None:
    field = lively()
    with torch.no_grad():
        field.clip_head.output.bias.normal_()  # a bias that matters
        field.dino_head.output.bias.normal_()
    means = points(60)
    clip, dino = field(means)
    codes = field.codes(means)
    assert codes.shape == (60, 16 + 1 + 12 + 1)
    for found, expected in zip(field.decode(codes), (clip, dino), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.rand(9, 60, generator=torch.Generator().manual_seed(5)) / 60
    for found, expected in zip(field.decode(weights @ codes), (weights @ clip, weights @ dino), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_codes_and_features_teach_the_same() -> None:
    field, means = lively(), points(60)
    pull = torch.randn(60, SMALL.clip_dim, generator=torch.Generator().manual_seed(6))
    gradients = []
    for clip in (field.clip(means), field.decode(field.codes(means))[0]):
        gradients.append(torch.autograd.grad((clip * pull).sum(), [*field.clip_head.parameters(), field.grids[0].hash_table]))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * one.abs().max().item())


def test_scores_of_codes_are_those_of_features(monkeypatch: pytest.MonkeyPatch) -> None:
    field, means = lively(), points(101)
    texts = torch.randn(6, SMALL.clip_dim, generator=torch.Generator().manual_seed(7))
    expected = field.clip(means) @ texts.T
    monkeypatch.setattr(module, "CHUNK", 25)  # a part that is not full at the end
    codes = field.clip_codes(means)
    assert not codes.requires_grad and codes.shape == (101, 17)
    assert torch.allclose(field.scores(codes, texts), expected, atol=1e-5)


def test_a_head_of_zeros_divides_nothing_by_nothing() -> None:
    head = Head(4, 8, 1, 5, unit=True)
    with torch.no_grad():
        for p in head.parameters():
            p.zero_()
    out = head(torch.randn(3, 4)) + head.decode(head.code(torch.randn(3, 4)))
    out.sum().backward()
    assert (out == 0).all() and all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_no_points() -> None:
    field = lively()
    clip, dino = field(torch.zeros(0, 3))
    assert clip.shape == (0, 24) and dino.shape == (0, 10) and field.clip_codes(torch.zeros(0, 3)).shape == (0, 17)


def test_tiny_cuda_nn_is_taken_only_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from nerfstudio.utils import external

    def asked(installed: bool, gpu: bool) -> list[str]:
        monkeypatch.setattr(external, "TCNN_EXISTS", installed)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        return [hash_implementation("torch"), hash_implementation("auto")]

    assert asked(installed=True, gpu=True) == ["torch", "tcnn"] and hash_implementation("tcnn") == "tcnn"
    assert asked(installed=True, gpu=False) == ["torch", "torch"]
    with pytest.raises(InputError, match=r"no CUDA device.*'auto' or 'torch'"):
        hash_implementation("tcnn")
    assert asked(installed=False, gpu=True) == ["torch", "torch"]
    with pytest.raises(InputError, match="tiny-cuda-nn is not installed"):
        SemanticField(replace(SMALL, implementation="tcnn"))
