"""The stage on a little cloud of Gaussians and random-weight encoders: plumbing and exactness, never accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.semantics.tiny_models import save_clip, save_dino
from vlmgs_ns.semantics.blend import CellView, blend, blend_field
from vlmgs_ns.semantics.cache import FeatureCache
from vlmgs_ns.semantics.config import SemanticsConfig
from vlmgs_ns.semantics.features import PhotoMaps
from vlmgs_ns.semantics.field import FieldConfig, SemanticField
from vlmgs_ns.semantics.losses import LossWeights, pixel_alignment
from vlmgs_ns.semantics.relevancy import relevancy_from_scores
from vlmgs_ns.semantics.scene_semantics import SceneSemantics
from vlmgs_ns.semantics.stage import Stage, choose_encoders, digest
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.system.errors import InputError

SIZES = FieldConfig(levels=2, features_per_level=4, log2_hashmap_size=8, clip_hidden=16, clip_layers=1, dino_hidden=16)


class Cloud:
    """Three views of random photos."""

    def __init__(self, mask: Tensor | None = None) -> None:
        g = torch.Generator().manual_seed(0)
        self.photos = [(torch.rand(30, 40, 3, generator=g) * 255).byte() for _ in range(3)]
        self.looked = 0
        self._mask = mask

    def __len__(self) -> int:
        return 3

    def photo(self, index: int) -> Tensor:
        self.looked += 1
        return self.photos[index]

    def camera(self, index: int) -> Pinhole:
        viewmat = torch.eye(4)
        viewmat[:3, 3] = torch.tensor([0.3 * index - 0.3, 0.0, 3.0])
        return Pinhole(viewmat, torch.tensor([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]]), 40, 30)

    def mask(self, index: int) -> Tensor | None:
        return self._mask


def splats(count: int = 60) -> Splats:
    g = torch.Generator().manual_seed(1)
    means = torch.rand(count, 3, generator=g) * 1.6 - 0.8
    return Splats(means, torch.randn(count, 4, generator=g), torch.full((count, 3), 0.15), torch.full((count,), 0.7))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_clip(folder / "clip")
    save_clip(folder / "other", seed=5)
    save_dino(folder / "dino")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("maps"))


@pytest.fixture
def make(models: Path, cache: FeatureCache) -> Callable[..., Stage]:
    def stage(cloud: Cloud | None = None, gaussians: Splats | None = None, **settings: Any) -> Stage:
        config = SemanticsConfig(
            clip=str(models / "clip"), dino=str(models / "dino"), dino_shorter_side=32, sizes=SIZES, warm_steps=20, warm_batch=64,
            refine_steps=5, steps=4, alignment_steps=3,
        )  # fmt: skip
        config = replace(config, **settings)
        given = splats() if gaussians is None else gaussians
        return Stage(config, choose_encoders(config), given, cloud or Cloud(), cache, torch.zeros(3), 1.0, ["red ball"])

    return stage


def tensors(scene: SceneSemantics) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in scene.state_dict().items() if isinstance(value, Tensor)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def reloaded(scene: SceneSemantics, path: Path) -> SceneSemantics:
    """Through a file, as a checkpoint does it."""
    torch.save(scene.state_dict(), path)
    state = torch.load(path, weights_only=True)
    found = SceneSemantics.from_state(state)
    found.load_state_dict(state)
    return found


@torch.no_grad()
def relevancy_of(scene: SceneSemantics, means: Tensor, *phrases: str, negatives: Sequence[str] | None = None) -> Tensor:  # [N, P]
    """Relevancy of every Gaussian, against the scene's negatives or others."""
    texts = scene.embed([*phrases, *(scene.about.negatives if negatives is None else negatives)])
    return relevancy_from_scores(scene.scores(means, texts), len(phrases))


def stop_after(count: int) -> Callable[[], bool]:
    """Says yes at the so-manieth question."""
    asked = iter(range(count - 1))
    return lambda: next(asked, None) is None


@pytest.mark.parametrize("mode", ["warm", "fmgs", "lift"])
def test_every_mode_answers_and_leaves_the_geometry_alone(make: Callable[..., Stage], mode: str, tmp_path: Path) -> None:
    gaussians = splats()
    before = digest(gaussians)
    numbers = torch.get_rng_state()
    stage = make(gaussians=gaussians, mode=mode)
    scene = stage.begin()
    start = tensors(scene)
    assert stage.run(scene) and scene.complete and scene.moments is None
    assert digest(gaussians) == before and torch.equal(torch.get_rng_state(), numbers)
    assert not same(start, tensors(scene))
    again = reloaded(scene, tmp_path / "scene.pt")
    for one in (scene, again):
        found = relevancy_of(one, gaussians.means, "red ball", "a green cube")
        assert found.shape == (60, 2) and found.min() >= 0 and found.max() <= 1 and found.std() > 0
        maps, colours = one.pictures(gaussians, Cloud().camera(0), ["red ball"])
        assert maps.shape == (30, 40, 1) and colours.shape == (30, 40, 3) and colours.std() > 0
    assert torch.equal(relevancy_of(scene, gaussians.means, "red ball"), relevancy_of(again, gaussians.means, "red ball"))


@pytest.mark.parametrize("mode", ["warm", "fmgs"])
@pytest.mark.parametrize("questions", [2, 6, 200])
def test_stopped_and_resumed_is_uninterrupted(make: Callable[..., Stage], mode: str, questions: int, tmp_path: Path) -> None:
    straight = make(mode=mode)
    whole = straight.begin()
    assert straight.run(whole)
    first = make(mode=mode)
    scene = first.begin()
    done = first.run(scene, stop_after(questions))
    assert done == (questions == 200) == scene.complete
    scene = reloaded(scene, tmp_path / "scene.pt")
    torch.manual_seed(9)  # the state of the machine is of no account
    second = make(mode=mode)
    scene = second.begin(scene)
    assert second.run(scene)
    assert same(tensors(scene), tensors(whole))


def test_stopping_in_the_middle_of_rendered_steps_keeps_their_moments(make: Callable[..., Stage], tmp_path: Path) -> None:
    stage = make(mode="fmgs")
    scene = stage.begin()
    assert not stage.run(scene, stop_after(3 + 2))  # three photos, two steps
    assert scene.step == 2 and scene.moments is not None and scene.moments["state"]
    found = reloaded(scene, tmp_path / "scene.pt")
    again = make(mode="fmgs").begin(found)
    assert again is found and again.step == 2
    # Without the moments the rest comes out differently: they are used.
    forgetful = reloaded(scene, tmp_path / "scene.pt")
    forgetful.moments = None
    for one in (found, forgetful):
        assert make(mode="fmgs").run(one)
    assert not same(tensors(found), tensors(forgetful))


def test_the_loss_is_taken_on_the_dino_grid(make: Callable[..., Stage]) -> None:
    """A field whose renders, brought down to the grid, are the maps has nothing to learn but the alignment of the maps' cells."""
    stage = make(mode="fmgs", weights=LossWeights(alignment=0.5))
    scene = stage.begin()
    field = scene.field
    assert field is not None
    with torch.no_grad():
        for values in field.parameters():
            values.add_(0.3 * torch.randn(values.shape, generator=torch.Generator().manual_seed(values.numel())))
        rendered = [blend_field(field, stage.splats, stage.views.camera(index).resized(20, 15), (4, 5)) for index in range(3)]
    exact: Any = [PhotoMaps(clip.numpy(), dino.numpy()) for clip, dino in rendered]
    other: Any = [PhotoMaps(maps.clip, np.roll(maps.dino, 1, axis=1)) for maps in exact]
    turn = int(torch.randperm(3, generator=torch.Generator().manual_seed(stage.config.seed))[0])
    assert stage._loss(scene, exact, 0, aligned=False).total.item() < 1e-9
    loss = stage._loss(scene, exact, 0, aligned=True)
    by_cells = pixel_alignment(*rendered[turn])
    assert loss.total.item() == pytest.approx(0.5 * by_cells.item(), rel=1e-3) and by_cells > 0.001
    # What the alignment teaches reaches the CLIP head alone; what DINO's error does, the other and the grids too.
    loss.total.backward()
    assert field.clip_head.output.weight.grad.abs().max() > 1e-5 > field.dino_head.output.weight.grad.abs().max()
    stage._loss(scene, other, 0, aligned=False).total.backward()
    assert all(values.grad.abs().max() > 1e-5 for part in (field.dino_head, field.grids) for values in part.parameters())


def test_few_steps_are_adams(make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    """RAdam, which the paper takes, has hardly begun by then."""
    left = []
    for many in (31, 30):
        monkeypatch.setattr("vlmgs_ns.semantics.config.MANY_STEPS", many)
        stage = make(mode="fmgs", steps=30, alignment_steps=0)
        scene = stage.begin()
        losses: list[float] = []
        real = stage._loss

        def noted(*given: Any, real: Any = real, losses: list[float] = losses, **named: Any) -> Any:
            loss = real(*given, **named)
            losses.append(float(loss.total.detach()))
            return loss

        monkeypatch.setattr(stage, "_loss", noted)
        assert stage.run(scene)
        left.append(sum(losses[-3:]) / sum(losses[:3]))
    assert left[0] < 0.8 * left[1] < 0.8


def test_views_are_kept_within_a_budget(make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = CellView.of

    def counted(*given: Any) -> CellView:
        made.append(1)
        return real(*given)

    monkeypatch.setattr(CellView, "of", counted)
    scenes = []
    for budget, views in ((1 << 20, 3), (0, 7)):
        monkeypatch.setattr("vlmgs_ns.semantics.stage.VIEWS_KEPT", budget)
        made.clear()
        stage = make(mode="fmgs")
        scenes.append(stage.begin())
        assert stage.run(scenes[-1]) and len(made) == views
    assert same(tensors(scenes[0]), tensors(scenes[1]))


def test_a_scene_of_other_settings_is_built_again(make: Callable[..., Stage], models: Path) -> None:
    stage = make()
    scene = stage.begin()
    assert stage.run(scene)
    assert make().begin(scene) is scene
    assert make(clip=str(models / "other")).begin(scene) is not scene
    fewer = make()
    fewer.encoders.clip.tile_sizes = 2
    assert fewer.begin(scene) is not scene
    assert make(refine_steps=6).begin(scene) is not scene
    moved = splats()
    moved.opacities[3] += 0.01
    assert make(gaussians=moved).begin(scene) is not scene


def test_a_map_is_the_relevancy_of_the_blended_feature(make: Callable[..., Stage]) -> None:
    """K + M channels give what all channels give."""
    stage, camera = make(), Cloud().camera(1)
    scene = stage.begin()
    assert stage.run(scene) and scene.field is not None
    maps, _ = scene.pictures(stage.splats, camera, ["red ball", "lamp"])
    with torch.no_grad():
        picture, _ = blend(stage.splats, camera, scene.field.clip(stage.splats.means))
    texts = scene.embed(["red ball", "lamp", *stage.config.negatives])
    assert torch.allclose(maps, relevancy_from_scores(picture @ texts.T, 2), atol=1e-5)
    none, _ = scene.pictures(stage.splats, camera, ["lamp"], inside=torch.zeros(60, dtype=torch.bool))
    assert (none == 0.5).all()


def test_other_negatives_for_one_question(make: Callable[..., Stage]) -> None:
    stage = make()
    scene = stage.begin()
    assert stage.run(scene)
    means, own = stage.splats.means, stage.config.negatives
    plain = relevancy_of(scene, means, "red ball")
    assert torch.equal(relevancy_of(scene, means, "red ball", negatives=own), plain)
    # Against itself a phrase ties everywhere; more negatives are never easier to beat.
    assert torch.allclose(relevancy_of(scene, means, "red ball", negatives=["red ball"]), torch.tensor(0.5), atol=1e-5)
    easier, other = (relevancy_of(scene, means, "red ball", negatives=given) for given in ([own[0]], ["blue chair"]))
    assert (easier >= plain - 1e-5).all() and not torch.allclose(other, plain, atol=1e-3)
    assert torch.allclose(relevancy_of(scene, means, "red ball", negatives=[*own, "blue chair"]), plain.minimum(other), atol=1e-5)
    assert torch.equal(relevancy_of(scene, means, "red ball"), plain)  # of that question alone
    with pytest.raises(ValueError, match="no negative phrases"):
        relevancy_of(scene, means, "lamp", negatives=[])


def test_the_first_question_finds_its_codes_made(make: Callable[..., Stage], tmp_path: Path, monkeypatch: Any) -> None:
    stage = make()
    scene = stage.begin()
    assert stage.run(scene) and scene.field is not None
    means = stage.splats.means
    again = reloaded(scene, tmp_path / "scene.pt")
    again.prepare(means)
    computed: list[int] = []
    real = SemanticField.clip_codes

    def counted(field: SemanticField, given: Tensor) -> Tensor:
        computed.append(len(given))
        return real(field, given)

    monkeypatch.setattr(SemanticField, "clip_codes", counted)
    expected = relevancy_of(scene, means.detach(), "red ball")
    assert torch.equal(relevancy_of(again, means.detach(), "red ball"), expected)
    for one in (scene, again):
        one.pictures(stage.splats, Cloud().camera(0), ["red ball"])
    assert not computed
    # Features at other places are computed there.
    other = means + 0.3
    assert not torch.equal(relevancy_of(scene, other, "red ball"), expected) and computed == [60]
    other -= 0.3
    assert torch.allclose(relevancy_of(scene, other, "red ball"), expected, atol=1e-4) and computed == [60, 60]
    # Too many to be kept: they are computed for every question, and the answer is the same.
    monkeypatch.setattr("vlmgs_ns.semantics.scene_semantics.CODES_KEPT", 59 * 17 * 4)
    again.prepare(means)
    assert torch.equal(relevancy_of(again, means, "red ball"), expected) and computed == [60, 60, 60]
    make(mode="lift").begin().prepare(means)  # nothing to do


def test_lifting_holds_no_more_than_it_may(make: Callable[..., Stage]) -> None:
    """Of 40,000 Gaussians' 512 dimensions, which alone would take 0.08 GB."""
    g, status = torch.Generator().manual_seed(0), Path("/proc/self/status")
    maps: Any = [PhotoMaps(np.random.default_rng(k).normal(size=(3, 4, 512)).astype(np.float32), None) for k in range(3)]

    def lift(gaussians: int, gigabytes: float) -> tuple[float, tuple[int, ...]]:
        means = torch.rand(gaussians, 3, generator=g) * 1.6 - 0.8
        cloud = Splats(
            means, torch.randn(gaussians, 4, generator=g), torch.full((gaussians, 3), 0.01), torch.full((gaussians,), 0.1)
        )
        stage = make(mode="lift", gaussians=cloud, lift_memory=gigabytes, smoothing=2)
        stage.encoders = replace(stage.encoders, clip=SimpleNamespace(dimension=512, fingerprint="", tile_sizes=1))  # type: ignore[arg-type]
        scene = stage.begin()
        Path("/proc/self/clear_refs").write_text("5")  # the greatest memory is counted from here
        before = int(status.read_text().split("VmRSS:")[1].split()[0])
        scene.keep_lifted(stage._lift("clip", maps, lambda: False))
        return (int(status.read_text().split("VmHWM:")[1].split()[0]) - before) / 1e6, scene.features.shape

    lift(10_000, 0.08)  # kernels are compiled, threads have their memory
    held, shape = lift(40_000, 0.08)
    assert held < 0.08 and shape == (40_000, 166)


def test_lifted_features_within_a_budget(make: Callable[..., Stage]) -> None:
    roomy, tight = make(mode="lift"), make(mode="lift", lift_memory=1e-9)
    scenes = []
    for stage in (roomy, tight):
        scenes.append(stage.begin())
        assert stage.run(scenes[-1])
    # The tiny CLIP has 16 dimensions, fewer than the least that are kept: the projection is a rotation.
    assert scenes[0].axes.numel() == 0 and scenes[1].axes.shape == (16, 16)
    found = [relevancy_of(scene, roomy.splats.means, "red ball") for scene in scenes]
    assert torch.allclose(*found, atol=2e-3)
    with pytest.raises(InputError, match="lifted for 60 Gaussians, but the scene has 10"):
        relevancy_of(scenes[0], splats(10).means, "red ball")


def test_phrases_are_answered_without_the_encoder(make: Callable[..., Stage], models: Path, tmp_path: Path) -> None:
    stage = make()
    scene = stage.begin()
    assert stage.run(scene)
    found = reloaded(scene, tmp_path / "scene.pt")
    found.about = replace(found.about, clip=str(tmp_path / "gone"))
    assert torch.equal(relevancy_of(found, stage.splats.means, "red ball"), relevancy_of(scene, stage.splats.means, "red ball"))
    with pytest.raises(InputError, match="gone is neither a folder"):
        relevancy_of(found, stage.splats.means, "something new")
    found.about = replace(found.about, clip=str(models / "other"))
    with pytest.raises(InputError, match="mean nothing to the other"):
        relevancy_of(found, stage.splats.means, "something new")


def test_masked_pixels_teach_nothing(make: Callable[..., Stage]) -> None:
    left = torch.zeros(30, 40, dtype=torch.bool)
    left[:, :20] = True
    features = {}
    for name, mask in (("all", None), ("left", left)):
        stage = make(cloud=Cloud(mask), mode="lift")
        scene = stage.begin()
        assert stage.run(scene)
        features[name] = scene.features.float().norm(dim=-1) > 0
    assert features["left"].sum() < features["all"].sum()


def test_gaussians_that_no_photo_shows(make: Callable[..., Stage]) -> None:
    away = splats()
    away.means[:, 2] -= 100
    stage = make(gaussians=away)
    with pytest.raises(InputError, match="none of 60 Gaussians is in any of 3 photos"):
        stage.run(stage.begin())
    nothing = make(gaussians=splats(0))
    with pytest.raises(InputError, match="no Gaussians"):
        nothing.run(nothing.begin())


def test_the_embedded_clip_looks_at_small_tiles_alone(models: Path) -> None:
    for clip, sizes in (("embedded", 2), (str(models / "clip"), 7)):
        assert choose_encoders(SemanticsConfig(clip=clip, dino="embedded", device="cpu")).clip.tile_sizes == sizes


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"refine_steps": -1}, "refine-steps -1"),
        ({"warm_batch": 0}, "warm-batch 0"),
        ({"gate": 1.5}, "gate 1.5"),
        ({"negatives": ()}, "negatives are empty"),
        ({"lift_memory": float("nan")}, "lift-memory nan"),
        ({"clip": "no-such-model"}, "no-such-model is neither"),
        ({"device": "tpu"}, "device tpu"),
    ],
)
def test_settings_out_of_range(make: Callable[..., Stage], settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make(**settings)
