"""Lifted features: exact where the answer is known, flagged where there is none; gate, robust mean, projection, warm start."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.rasterize.scenes import flat_splats, random_scene
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.rasterize.lift import lift
from vlmgs_ns.semantics import lifting
from vlmgs_ns.semantics.field import LITE, SemanticField
from vlmgs_ns.semantics.lifting import FeatureView, Lifted, Projection, fit_field, lift_features

W, H = 48, 36


def infos(count: int = 300, cameras: int = 3, seed: int = 0) -> list[dict]:
    """Rasterisations of one scene from several cameras; some Gaussians are behind all of them."""
    scene = random_scene(seed, count, W, H, cameras=cameras, colors=1)
    arguments = scene.means, scene.quats, scene.scales, scene.opacities, scene.colors
    return [rasterization(*arguments, scene.viewmats[c : c + 1], scene.Ks[c : c + 1], W, H)[2] for c in range(cameras)]


def maps(count: int, channels: int, size: tuple[int, int] = (H, W), seed: int = 1) -> list[Tensor]:
    return list(torch.randn(count, *size, channels, generator=torch.Generator().manual_seed(seed)))


def stare(opacities: list[float], weights: list[float] | None = None) -> list[dict]:
    """Views of one Gaussian in the middle, of the given opacities: its masses are proportional to them."""
    scene = flat_splats([(24.5, 18.5)], [2.0], [1.0], [1.0], W, H)
    rest = scene.means, scene.quats, scene.scales
    return [rasterization(*rest, torch.tensor([o]), scene.colors, scene.viewmats, scene.Ks, W, H)[2] for o in opacities]


def constant(vector: list[float]) -> Tensor:
    return torch.tensor(vector).expand(H, W, -1)


@pytest.mark.parametrize("settings", [{}, {"gate": 0.5}, {"robust_passes": 2}])
def test_a_constant_map_is_recovered_and_the_unseen_are_flagged(settings: dict) -> None:
    views, value = infos(), torch.randn(70, generator=torch.Generator().manual_seed(0))
    found = lift_features(lambda: [FeatureView(info, value.expand(9, 12, -1)) for info in views], **settings)
    assert 0 < found.seen.sum() < len(found.seen)
    assert torch.allclose(found.features[found.seen], value.expand(int(found.seen.sum()), -1), rtol=1e-4, atol=1e-5)
    assert (found.features[~found.seen] == 0).all() and (found.mass[~found.seen] == 0).all()
    assert torch.isfinite(found.features).all() and torch.equal(found.seen, found.mass > 0)


def test_the_mean_weighs_every_pixel_of_every_view() -> None:
    views, pictures = infos(), maps(3, 70)
    found = lift_features(lambda: [FeatureView(*pair) for pair in zip(views, pictures, strict=True)])
    mass = sum(lift(info, torch.ones(1, H, W, 1))[0].double() for info in views)
    sums = sum(lift(info, picture[None])[0].double() for info, picture in zip(views, pictures, strict=True))
    assert torch.allclose(found.mass.double(), mass[:, 0], rtol=1e-5)
    expected = sums[found.seen] / mass[found.seen]
    assert torch.allclose(found.features[found.seen].double(), expected, rtol=1e-4, atol=1e-4)


def test_labels_with_disjoint_footprints_are_recovered() -> None:
    pixels = [(8.5, 8.5), (40.5, 8.5), (8.5, 28.5), (40.5, 28.5)]
    scene = flat_splats(pixels, [2.0] * 4, [0.9, 0.5, 0.3, 0.8], [1.0, 2.0, 3.0, 1.5], W, H)
    info = rasterization(scene.means, scene.quats, scene.scales, scene.opacities, scene.colors, scene.viewmats, scene.Ks, W, H)[2]
    labels = torch.zeros(H, W, 4)
    labels[:18, :24, 0] = labels[:18, 24:, 1] = labels[18:, :24, 2] = labels[18:, 24:, 3] = 1
    found = lift_features(lambda: [FeatureView(info, labels)])
    assert torch.equal(found.features, torch.eye(4)) and found.seen.all()


def test_two_views_are_averaged_by_mass() -> None:
    views = stare([0.2, 0.6])
    found = lift_features(lambda: [FeatureView(views[0], constant([1.0, 0])), FeatureView(views[1], constant([0, 1.0]))])
    assert found.features[0].tolist() == pytest.approx([0.25, 0.75], abs=0.01)


def test_masked_pixels_do_not_count() -> None:
    (view,) = stare([0.5])
    left = torch.zeros(H, W, dtype=torch.bool)
    left[:, :24] = True
    picture = torch.where(left[..., None], constant([3.0]), constant([-9.0]))
    found = lift_features(lambda: [FeatureView(view, picture, left)])
    assert found.features[0, 0].item() == pytest.approx(3.0)
    assert found.mass[0] < lift_features(lambda: [FeatureView(view, picture)]).mass[0]
    nothing = lift_features(lambda: [FeatureView(view, picture, torch.zeros_like(left))])
    assert not nothing.seen.any() and (nothing.features == 0).all()


def test_a_small_map_is_stretched_over_the_picture() -> None:
    """A map that rises from left to right gives every Gaussian the value at its place; half precision is enough."""
    scene = flat_splats([(12.5, 18.5), (24.0, 5.0), (36.5, 30.5)], [1.0] * 3, [0.9] * 3, [1.0, 2.0, 3.0], W, H)
    info = rasterization(scene.means, scene.quats, scene.scales, scene.opacities, scene.colors, scene.viewmats, scene.Ks, W, H)[2]
    centres = (torch.arange(12) + 0.5) * 4  # in pixels of the picture
    found = lift_features(lambda: [FeatureView(info, centres.expand(9, 12)[..., None].half())])
    assert found.features[:, 0].tolist() == pytest.approx([12.5, 24.0, 36.5], abs=0.02)


def test_channels_are_lifted_a_few_at_a_time_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    views, pictures = infos(), maps(3, 10)

    def found(**settings: int) -> Tensor:
        return lift_features(lambda: [FeatureView(*pair) for pair in zip(views, pictures, strict=True)], **settings).features

    whole, robust = found(), found(robust_passes=1)
    seen = []
    monkeypatch.setattr(lifting, "CHANNELS", 3)
    monkeypatch.setattr(lifting, "lift", lambda info, picture: seen.append(picture.shape[-1]) or lift(info, picture))
    assert torch.allclose(found(), whole, atol=1e-5) and torch.allclose(found(robust_passes=1), robust, atol=1e-4)
    assert max(seen) == 3


def test_the_gate_leaves_out_views_that_show_little() -> None:
    views = stare([0.9, 0.3, 0.5])
    shown = [constant([1.0, 0, 0]), constant([0, 1.0, 0]), constant([0, 0, 1.0])]

    def found(gate: float) -> Tensor:
        return lift_features(lambda: [FeatureView(*pair) for pair in zip(views, shown, strict=True)], gate=gate).features[0] > 0

    assert found(0.0).tolist() == [True, True, True]
    assert found(0.4).tolist() == [True, False, True]
    assert found(1.0).tolist() == [True, False, False]
    with pytest.raises(ValueError, match=r"gate=1\.5"):
        found(1.5)


def test_robust_passes_trust_the_views_that_agree() -> None:
    views = stare([0.5] * 5)
    shown = [constant([1.0, 0.05 * k]) for k in range(-1, 3)] + [constant([-0.2, 1.0])]

    def off(passes: int) -> float:
        """Cosine to what four of five views say."""
        found = lift_features(lambda: [FeatureView(*p) for p in zip(views, shown, strict=True)], robust_passes=passes)
        assert found.mass[0].item() == pytest.approx(sum(lift(v, torch.ones(1, H, W, 1)).item() for v in views), rel=1e-5)
        return 1 - F.cosine_similarity(found.features[0], torch.tensor([1.0, 0.025]), dim=0).item()

    assert off(1) < 0.5 * off(0) and off(3) < 0.1 * off(0)


def test_progress_counts_views_over_all_passes() -> None:
    views, told = infos(20), []
    lift_features(
        lambda: (FeatureView(info, picture) for info, picture in zip(views, maps(3, 2), strict=True)),
        gate=0.1, robust_passes=2, progress=told.append,
    )  # fmt: skip
    assert told == list(range(1, 13))


def test_what_cannot_be_lifted_is_named() -> None:
    (view, *_), (picture, *_) = infos(), maps(1, 2)
    with pytest.raises(ValueError, match="no views"):
        lift_features(lambda: [])
    with pytest.raises(ValueError, match="NaN or infinite"):
        lift_features(lambda: [FeatureView(view, picture * float("inf"))])
    with pytest.raises(ValueError, match="views of 7 and of 300 Gaussians"):
        lift_features(lambda: [FeatureView(view, picture), FeatureView(infos(7)[0], picture)])
    scene = random_scene(0, 5, W, H, cameras=2, colors=1)
    with pytest.raises(ValueError, match="2 cameras"):
        lift_features(lambda: [FeatureView(rasterization(*scene.tensors(), W, H)[2], picture)])


def random_projection(channels: int, dims: int, generator: torch.Generator) -> Projection:
    return Projection(torch.linalg.qr(torch.randn(channels, dims, generator=generator))[0].T.contiguous())


def test_projection_keeps_what_lies_in_its_span() -> None:
    g = torch.Generator().manual_seed(0)
    span = torch.linalg.qr(torch.randn(20, 4, generator=g))[0]
    pictures = [torch.randn(6, 7, 4, generator=g) @ span.T for _ in range(3)]
    fitted = Projection.fit(iter(pictures), 4)
    assert torch.allclose(fitted.axes @ fitted.axes.T, torch.eye(4), atol=1e-5)
    assert torch.allclose(fitted.restore(fitted.apply(pictures[0])), pictures[0], atol=1e-4)
    blind = random_projection(20, 4, g)
    once = blind.restore(blind.apply(pictures[0]))
    assert torch.allclose(blind.restore(blind.apply(once)), once, atol=1e-5)
    assert (once - pictures[0]).norm() > (fitted.restore(fitted.apply(pictures[0])) - pictures[0]).norm()
    for bad in (0, 21):
        with pytest.raises(ValueError, match=f"20 channels to {bad}"):
            Projection.fit(iter(pictures), bad)
    with pytest.raises(ValueError, match="no feature maps"):
        Projection.fit([], 2)


def test_projecting_before_lifting_is_projecting_after() -> None:
    views, pictures = infos(), maps(3, 30)
    projection = random_projection(30, 6, torch.Generator().manual_seed(0))

    def found(p: Projection | None) -> Lifted:
        return lift_features(lambda: [FeatureView(*pair) for pair in zip(views, pictures, strict=True)], projection=p)

    small, full = found(projection), found(None)
    assert small.features.shape == (300, 6) and torch.equal(small.seen, full.seen)
    assert torch.allclose(small.features, projection.apply(full.features), atol=1e-4)
    ids = torch.tensor([5, 0, 200])
    assert torch.allclose(small.rows(ids), projection.restore(projection.apply(full.features[ids])), atol=1e-4)
    assert torch.equal(full.rows(ids), full.features[ids])


TINY = replace(LITE, log2_hashmap_size=12, clip_dim=48, dino_dim=24)


def smooth(means: Tensor, channels: int, seed: int) -> Tensor:
    """Twelve places with a vector each, mixed by distance."""
    g = torch.Generator().manual_seed(seed)
    places, vectors = torch.rand(12, 3, generator=g) * 2 - 1, torch.randn(12, channels, generator=g)
    return F.normalize(torch.softmax(-4 * torch.cdist(means, places).square(), dim=1) @ vectors, dim=-1)


def lifted(features: Tensor, mass: Tensor | None = None) -> Lifted:
    mass = torch.ones(len(features)) if mass is None else mass
    return Lifted(features, mass, mass > 0)


def test_the_field_learns_lifted_features_and_knows_places_between() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    means, between = torch.rand(20_000, 3, generator=g) * 2 - 1, torch.rand(500, 3, generator=g) * 2 - 1
    field, told = SemanticField(TINY), []
    clip, dino = smooth(means, 48, 1), smooth(means, 24, 2)
    before = (field.clip(means) * clip).sum(-1).mean()
    # lifted CLIP features are means of unit vectors, shorter than 1: their direction is what is learnt
    history = fit_field(
        field, means, lifted(0.3 * clip), lifted(dino), steps=300, batch=512, generator=g,
        progress=lambda done, note: told.append(done),
    )  # fmt: skip
    assert len(history) == 300 and told == list(range(1, 301)) and history[-1] < 0.1 * history[0]
    # Few steps are worth most of it: an optimiser that starts slowly makes a warm start that finds nothing.
    assert history[100] < 0.05 * history[0]
    with torch.no_grad():
        assert before < 0.5 and (field.clip(means) * clip).sum(-1).mean() > 0.95
        assert F.cosine_similarity(field(means)[1], dino, dim=-1).mean() > 0.97
        assert (field.clip(between) * smooth(between, 48, 1)).sum(-1).mean() > 0.95


def test_the_unseen_are_never_taught_and_mass_is_the_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    field, drawn = SemanticField(TINY), []
    monkeypatch.setattr(field, "forward", lambda means: drawn.append(means) or SemanticField.forward(field, means))
    means = torch.arange(4.0)[:, None].expand(4, 3) / 4
    clip = lifted(torch.randn(4, 48), torch.tensor([1.0, 0.0, 3.0, 5.0]))
    dino = lifted(torch.randn(4, 24), torch.tensor([1.0, 1.0, 1.0, 0.0]))

    fit_field(field, means, clip, dino, steps=4, batch=2000, generator=torch.Generator().manual_seed(0))
    share = torch.bincount((torch.cat(drawn)[:, 0] * 4).round().long(), minlength=4) / 8000
    assert torch.allclose(share, torch.tensor([0.25, 0, 0.75, 0]), atol=0.02) and share[1] == share[3] == 0


def test_the_same_draw_gives_the_same_field_whatever_the_length_and_the_projection_of_clip() -> None:
    means = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    whole = smooth(means, 48, 1)
    projection = Projection(torch.eye(48).flip(0))
    reduced = Lifted(projection.apply(whole), torch.ones(50), torch.ones(50, dtype=torch.bool), projection)
    histories = []
    for clip in (lifted(whole), lifted(whole), lifted(0.3 * whole), reduced):
        torch.manual_seed(0)
        g = torch.Generator().manual_seed(1)
        histories.append(
            fit_field(SemanticField(TINY), means, clip, lifted(smooth(means, 24, 2)), steps=5, batch=16, generator=g)
        )
    assert histories[0] == histories[1]
    assert histories[0] == pytest.approx(histories[2], rel=1e-4) and histories[0] == pytest.approx(histories[3], rel=1e-4)


def test_there_must_be_something_to_learn() -> None:
    nothing = lifted(torch.zeros(3, 48), torch.zeros(3))
    with pytest.raises(ValueError, match="none of 3 Gaussians was seen"):
        fit_field(SemanticField(TINY), torch.zeros(3, 3), nothing, lifted(torch.zeros(3, 24)))
    with pytest.raises(ValueError, match="2 means, 3 CLIP"):
        fit_field(SemanticField(TINY), torch.zeros(2, 3), nothing, nothing)
