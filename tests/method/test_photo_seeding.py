"""A model that begins with what its photos show, on the embedded room, whose true depth is known."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from torch import Tensor

import vlmgs_ns.method.pipeline
from tests.method.test_guided_scene import start, views_of
from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.guidance.config import GuidanceConfig
from vlmgs_ns.method.datamanager import VlmFastGSDatamanager
from vlmgs_ns.method.model import VlmFastGSModel
from vlmgs_ns.method.photo_seeding import seed_from_photos, seed_photos
from vlmgs_ns.method.pipeline import VlmFastGSPipeline
from vlmgs_ns.method.training_views import TrainingViews
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.scene import write_scene

COUNT = 3000


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeded") / "room"
    write_scene(folder, seed=1, views=30, width=160, height=120, held_out=6, points=500, supersample=1, depth=True)
    return folder


@pytest.fixture(scope="module")
def views(scene: Path) -> VlmFastGSDatamanager:
    return views_of(scene)


class Changed:
    """Some of the training views, or all, masked or transparent."""

    def __init__(self, views: VlmFastGSDatamanager, chosen: Sequence[int] = range(24), **batch: Tensor) -> None:
        self.views, self.chosen, self.batch = views, list(chosen), batch

    def training_cameras(self) -> Cameras:
        return self.views.training_cameras()[torch.tensor(self.chosen)]

    def training_view(self, index: int) -> tuple[Cameras, dict[str, Tensor]]:
        camera, batch = self.views.training_view(self.chosen[index])
        return camera, {**batch, **self.batch}


def seeded(views: VlmFastGSDatamanager, seeding: str, of: TrainingViews | None = None, count: int = COUNT) -> VlmFastGSModel:
    model = start(views, GuidanceConfig(enabled=False), seeding=seeding, num_seeds=count)
    seed_from_photos(model, of or views)
    return model


def off_the_surface(means: Tensor, views: VlmFastGSDatamanager, scene: Path) -> Tensor:  # [N]
    """How far points are from what is seen, as a part of depth: in the view where that is least."""
    names = views.train_dataset.image_filenames
    scale = views.train_dataparser_outputs.dataparser_scale
    cameras = views.training_cameras()
    least = torch.full((len(means),), torch.inf)
    for k, name in enumerate(names):
        depth = (
            torch.from_numpy(np.array(Image.open(scene / "depth" / f"{Path(name).stem}.png")).astype(np.float32)) / 1000 * scale
        )
        pose, K = cameras.camera_to_worlds[k], cameras.get_intrinsics_matrices()[k]
        local = (means - pose[:, 3]) @ pose[:, :3] * torch.tensor([1.0, -1.0, -1.0])
        z = local[:, 2].clamp_min(1e-6)
        column, row = ((local @ K.T)[:, :2] / z[:, None]).floor().long().unbind(-1)
        seen = (local[:, 2] > 0) & (column >= 0) & (column < depth.shape[1]) & (row >= 0) & (row < depth.shape[0])
        true = depth[row[seen], column[seen]]
        least[seen] = least[seen].minimum((z[seen] - true).abs() / true)
    return least


def test_nearly_all_seeds_lie_on_true_surfaces(views: VlmFastGSDatamanager, scene: Path) -> None:
    model = seeded(views, "photos")
    means, opacities = model.means.detach(), torch.sigmoid(model.gauss_params["opacities"].detach()[:, 0])
    assert COUNT / 2 < len(means) <= COUNT
    error, confirmed = off_the_surface(means, views, scene), opacities > 0.15
    assert (error[confirmed] < 0.02).float().mean() > 0.8 and (error[confirmed] < 0.05).float().mean() > 0.95
    assert (error < 0.05).float().mean() > 0.85  # in plain areas too
    moved = means + 0.1 * means.std() * torch.randn(means.shape, generator=torch.Generator().manual_seed(0))
    assert (off_the_surface(moved, views, scene) < 0.05).float().mean() < 0.8


def test_both_keeps_the_scenes_points_as_they_would_be(views: VlmFastGSDatamanager) -> None:
    points, photos, both = seeded_points(views), seeded(views, "photos"), seeded(views, "both")
    assert len(both.means) == len(points.means) + len(photos.means)
    assert torch.equal(both.means[: len(points.means)], points.means)
    assert torch.equal(both.gauss_params["scales"][: len(points.means)], points.gauss_params["scales"])
    assert torch.equal(both.means[len(points.means) :], photos.means)
    assert both.gauss_params["features_rest"].shape[1:] == points.gauss_params["features_rest"].shape[1:]


def seeded_points(views: VlmFastGSDatamanager) -> VlmFastGSModel:
    return start(views, GuidanceConfig(enabled=False))


def test_a_seeded_model_renders_the_photos(views: VlmFastGSDatamanager) -> None:
    """Before the first step, better than at the scene's points alone."""
    error = {}
    for name, model in (("both", seeded(views, "both", count=20_000)), ("points", seeded_points(views))):
        camera, batch = views.training_view(0)
        with torch.no_grad():
            render = model.eval().get_outputs_for_camera(camera)["rgb"]
        error[name] = float((render - batch["image"].float() / 255).abs().mean())
    assert error["both"] < 0.95 * error["points"]


def test_masked_and_transparent_pixels_give_no_seed(views: VlmFastGSDatamanager) -> None:
    height, width = views.training_view(0)[1]["image"].shape[:2]
    left = torch.zeros(height, width, 1, dtype=torch.bool)
    left[:, : width // 2] = True
    image = views.training_view(0)[1]["image"]
    clear = torch.cat([image[..., :3], left.to(torch.uint8) * 255], dim=-1)
    model = seeded_points(views)
    for changed in (Changed(views, mask=left), Changed(views, image=clear)):
        for photo in seed_photos(model, changed):
            assert photo.mask is not None and torch.equal(photo.mask, left[..., 0])
    none = Changed(views, mask=torch.zeros_like(left))
    with pytest.raises(InputError, match="0 points in 24 training photos"):
        seeded(views, "photos", none)


def test_one_photo_is_an_error_unless_there_are_points(views: VlmFastGSDatamanager, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"1 training photos; add photos.*--pipeline.model.seeding points"):
        seeded(views, "photos", Changed(views, [0]))
    assert len(seeded(views, "both", Changed(views, [0])).means) == len(seeded_points(views).means)
    assert "starting without them" in capsys.readouterr().out


@pytest.mark.parametrize("chosen", [[0, 1], [0, 1, 14]])
def test_few_photos_of_one_thing_are_enough(views: VlmFastGSDatamanager, scene: Path, chosen: list[int]) -> None:
    error = off_the_surface(seeded(views, "photos", Changed(views, chosen)).means.detach(), views, scene)
    assert len(error) > 20 and (error < 0.05).float().mean() > 0.8


def test_large_scenes_are_sampled_evenly(views: VlmFastGSDatamanager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmgs_ns.method.photo_seeding.MOST_PHOTOS", 8)
    found = seed_photos(seeded_points(views), views)
    places = views.training_cameras().camera_to_worlds[:24:3, :, 3]
    assert len(found) == 8 and torch.equal(torch.stack([photo.camera_to_world[:3, 3] for photo in found]), places)


@pytest.mark.parametrize(
    ("seeding", "own_points", "random_init", "seeds"),
    [
        ("auto", True, False, False),
        ("auto", False, False, True),
        ("auto", True, True, False),
        ("auto", False, True, False),
        ("points", False, False, False),
        ("photos", True, True, True),
        ("both", True, False, True),
    ],
)
def test_which_starts_are_seeded(
    monkeypatch: pytest.MonkeyPatch, seeding: str, own_points: bool, random_init: bool, seeds: bool
) -> None:
    seeded_ones: list[Any] = []
    monkeypatch.setattr(vlmgs_ns.method.pipeline, "seed_from_photos", lambda model, views: seeded_ones.append(model))
    config = SimpleNamespace(seeding=seeding, random_init=random_init)
    model = SimpleNamespace(config=config, seed_points=(1, 2) if own_points else None, training_views=None)
    pipeline: Any = SimpleNamespace(model=model)
    assert VlmFastGSPipeline.seed_from_photos(pipeline) == seeds == (seeded_ones == [model])


@pytest.mark.parametrize("seeding", ["points", "photos", "both", "auto"])
def test_a_run_begins_as_its_settings_say_and_is_not_seeded_again(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seeding: str
) -> None:
    if seeding == "auto":
        shutil.copytree(scene, tmp_path / "no points", ignore=shutil.ignore_patterns("colmap"))
        scene = tmp_path / "no points"
        transforms = json.loads((scene / "transforms.json").read_text())
        del transforms["ply_file_path"]
        (scene / "transforms.json").write_text(json.dumps(transforms))
    config: Any = copy.deepcopy(vlm_fastgs_lite.config)
    config.data = config.pipeline.datamanager.data = scene
    config.pipeline.datamanager.max_image_size = 100
    model = config.pipeline.model
    model.seeding, model.num_seeds = seeding, 700
    model.guidance.enabled = model.semantics.enabled = False
    config.max_num_iterations, config.vis, config.output_dir = 3, "tensorboard", tmp_path
    model.run_length = 1000  # nothing is born or pruned yet
    config.set_timestamp()
    trainer = config.setup()
    trainer.setup()
    trainer.train()
    own = trainer.pipeline.model.seed_points
    count, points = len(trainer.pipeline.model.means), model.num_random if own is None else len(own[0])
    assert (own is None) == (seeding == "auto")
    message = "Seeding:" in capsys.readouterr().out
    if seeding == "points":
        assert count == points and not message
    else:
        assert message and 50 < count - (0 if seeding == "photos" else points) <= 700
    optimized = trainer.optimizers.optimizers["means"].param_groups[0]["params"][0]
    assert optimized is trainer.pipeline.model.gauss_params["means"]

    again = copy.deepcopy(config)
    again.load_dir, again.max_num_iterations = trainer.checkpoint_dir, 1
    again.timestamp += "again"
    trainer = again.setup()
    trainer.setup()
    assert len(trainer.pipeline.model.means) == count and "Seeding:" not in capsys.readouterr().out
