from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from vlmgs_ns.method import checkpoint, scene_check
from vlmgs_ns.method.datamanager import VlmFastGSDatamanager, VlmFastGSDatamanagerConfig
from vlmgs_ns.system.errors import InputError

Mode = Literal["test", "val", "inference"]


def write(folder: Path, views: int = 12, width: int = 60, height: int = 40, **camera: Any) -> Path:
    """Photos on a circle; photo i is painted with the value 10·i."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for i in range(views):
        angle = 2 * np.pi * i / views
        c, s = float(np.cos(angle)), float(np.sin(angle))
        pose = [[-s, 0.0, c, 2 * c], [c, 0.0, s, 2 * s], [0.0, 1.0, 0.0, 0.3], [0.0, 0.0, 0.0, 1.0]]
        Image.new("RGB", (width, height), (10 * i,) * 3).save(folder / "images" / f"{i:03d}.png")
        frames.append({"file_path": f"images/{i:03d}.png", "transform_matrix": pose})
    meta = {"fl_x": 50.0, "fl_y": 50.0, "cx": width / 2, "cy": height / 2, "w": width, "h": height, "frames": frames, **camera}
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def manager(folder: Path, mode: Mode = "val", **config: Any) -> VlmFastGSDatamanager:
    return VlmFastGSDatamanagerConfig(data=folder, **config).setup(device="cpu", test_mode=mode)


def test_photos_and_cameras_are_at_most_so_large(tmp_path: Path) -> None:
    photos = manager(write(tmp_path / "scene"), max_image_size=30)
    camera, batch = photos.next_train(0)
    assert batch["image"].shape == (20, 30, 3) and batch["image"].dtype == torch.uint8
    assert (int(camera.width), int(camera.height)) == (30, 20)
    assert (float(camera.fx), float(camera.cx)) == (25.0, 15.0)
    held_out, batch = photos.next_eval(0)
    assert batch["image"].shape == (20, 30, 3) and float(held_out.fy) == 25.0


def test_a_camera_comes_with_its_own_photo(tmp_path: Path) -> None:
    photos = manager(write(tmp_path / "scene"))
    files = photos.train_dataset.image_filenames
    for step in range(len(files)):
        camera, batch = photos.next_train(step)
        index = camera.metadata["cam_idx"]
        assert batch["image"][0, 0, 0].item() == 10 * int(files[index].stem)
        torch.testing.assert_close(camera.camera_to_worlds, photos.train_dataset.cameras.camera_to_worlds[index : index + 1])


def test_every_camera_comes_once_before_any_comes_again(tmp_path: Path) -> None:
    photos = manager(write(tmp_path / "scene"))
    count = len(photos.train_dataset)
    for _ in range(3):
        assert sorted(photos.next_train(0)[0].metadata["cam_idx"] for _ in range(count)) == list(range(count))


@pytest.mark.parametrize("strategy", ["random", "fps"])
def test_the_order_of_cameras_continues(tmp_path: Path, strategy: str) -> None:
    scene = write(tmp_path / "scene")
    first, second = (manager(scene, train_cameras_sampling_strategy=strategy, fps_reset_every=5) for _ in range(2))
    for step in range(17):
        first.next_train(step)
    second.set_state(first.get_state())
    random_state, orders = checkpoint.random_state(), []  # farthest points begin at one that numpy draws
    for photos in (first, second):
        checkpoint.restore_random_state(random_state)
        orders.append([photos.next_train(0)[0].metadata["cam_idx"] for _ in range(30)])
    assert orders[0] == orders[1]


def test_the_order_of_another_scene_is_not_taken_over(tmp_path: Path) -> None:
    large, small = manager(write(tmp_path / "large", views=30)), manager(write(tmp_path / "small", views=5))
    small.set_state(large.get_state())
    assert {small.next_train(0)[0].metadata["cam_idx"] for _ in range(5)} == set(range(len(small.train_dataset)))


def test_distorted_photos_are_undistorted_at_the_small_size(tmp_path: Path) -> None:
    photos = manager(write(tmp_path / "scene", k1=0.2), max_image_size=30)
    camera, batch = photos.next_train(0)
    assert batch["image"].shape[:2] == (int(camera.height), int(camera.width))
    assert max(batch["image"].shape) <= 30
    # Reading a file again, as the viewer does for its thumbnails, does not see the undistorted camera.
    assert photos.train_dataset.get_data(0)["image"].shape == (20, 30, 3)


def test_more_than_five_hundred_photos_need_no_pinned_memory(tmp_path: Path) -> None:
    """nerfstudio caches so many in pinned memory, which fails without a CUDA driver."""
    photos = manager(write(tmp_path / "scene", views=12), cache_images="cpu")
    assert photos.cache_place() == "gpu" and not photos.next_train(0)[1]["image"].is_pinned()


def test_export_needs_no_photos(tmp_path: Path) -> None:
    scene = write(tmp_path / "scene")
    for photo in (scene / "images").iterdir():
        photo.unlink()
    assert len(manager(scene, "inference").train_dataset) == 11
    with pytest.raises(InputError, match="missing"):
        manager(scene, "val")


def test_camera_positions_reach_the_model(tmp_path: Path) -> None:
    dataset = manager(write(tmp_path / "scene"), "inference").train_dataset
    torch.testing.assert_close(dataset.metadata["camera_positions"], dataset.cameras.camera_to_worlds[:, :, 3])


def test_a_bad_focal_length_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"000\.png has fx, fy, cx, cy = 0, 50, 30, 20"):
        manager(write(tmp_path / "scene", fl_x=0.0))


def colmap(folder: Path, where: str, points: int = 3) -> Path:
    """The text files of a COLMAP model with two photos."""
    model = folder / where
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 PINHOLE 60 40 50 50 30 20\n")
    (model / "images.txt").write_text("1 1 0 0 0 0 0 1 1 a.png\n\n2 1 0 0 0 1 0 1 1 b.png\n\n")
    (model / "points3D.txt").write_text("# a comment\n" + "".join(f"{i} 0 0 {i} 9 9 9 0.5 1 0\n" for i in range(points)))
    return folder


@pytest.mark.parametrize("where", ["sparse/0", "colmap/sparse/0", "sparse"])
def test_colmap_models_are_found_where_they_usually_are(tmp_path: Path, where: str) -> None:
    folder = colmap(tmp_path / "scene", where)
    for parser in (NerfstudioDataParserConfig(data=folder), ColmapDataParserConfig(data=folder)):
        found = scene_check.prepare(parser, photos_needed=True)
        assert isinstance(found, ColmapDataParserConfig)
        assert (found.colmap_path, found.load_3D_points, found.downscale_factor) == (Path(where), True, 1)


def test_transforms_come_before_a_colmap_model(tmp_path: Path) -> None:
    folder = colmap(write(tmp_path / "scene"), "sparse/0")
    parser = NerfstudioDataParserConfig(data=folder)
    assert scene_check.prepare(parser, photos_needed=True) is parser


def test_a_colmap_model_without_points_is_read_without_them(tmp_path: Path) -> None:
    folder = colmap(tmp_path / "scene", "sparse/0", points=0)
    parser = scene_check.prepare(ColmapDataParserConfig(data=folder), photos_needed=True)
    assert isinstance(parser, ColmapDataParserConfig) and not parser.load_3D_points
    assert scene_check.count_points(folder / "sparse/0") == 0
    (folder / "sparse/0/points3D.txt").unlink()
    assert scene_check.count_points(folder / "sparse/0") == 0


def test_a_chosen_downscale_factor_is_kept(tmp_path: Path) -> None:
    parser = ColmapDataParserConfig(data=colmap(tmp_path / "scene", "sparse/0"), downscale_factor=2)
    (tmp_path / "scene" / "images_2").mkdir()
    assert scene_check.prepare(parser, photos_needed=True).downscale_factor == 2  # type: ignore[attr-defined]


def test_errors_are_value_errors_and_end_a_program_with_their_message() -> None:
    error = InputError("the value; the fix")
    assert isinstance(error, ValueError) and isinstance(error, SystemExit)
    assert str(error) == error.code == "Error: the value; the fix"
