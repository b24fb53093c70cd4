"""Everything that can be wrong with what a user gives: one message that names it, a failure status, and no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.nerfstudio.conftest import SMALL, Commands, Result, Run, run_of
from vlmgs_ns.method.checkpoint import path_of


def train(commands: Commands, data: Path, *args: object) -> Result:
    return commands.fork("ns-train", "vlm-fastgs-lite", "--data", data, "--max-num-iterations", 3, *SMALL, *args)


def assert_one_message(result: Result, *parts: str) -> None:
    assert result.status == 1, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    for part in parts:
        assert part in line, line


def edited(scene: Path, target: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a scene with its transforms.json changed."""
    shutil.copytree(scene, target, ignore=shutil.ignore_patterns("colmap", "masks_instance"))
    meta = json.loads((target / "transforms.json").read_text())
    edit(meta)
    (target / "transforms.json").write_text(json.dumps(meta))
    return target


@pytest.fixture
def copy(scene: Path, tmp_path: Path) -> Path:
    return edited(scene, tmp_path / "copy", lambda meta: None)


def first_photo(scene: Path) -> Path:
    meta = json.loads((scene / "transforms.json").read_text())
    return scene / next(name for name in meta["train_filenames"])


def test_missing_folder(commands: Commands, tmp_path: Path) -> None:
    assert_one_message(train(commands, tmp_path / "nowhere"), str(tmp_path / "nowhere"), "does not exist", "--data")


def test_folder_without_a_scene(commands: Commands, tmp_path: Path) -> None:
    assert_one_message(train(commands, tmp_path), str(tmp_path), "transforms.json", "vlmgs prepare")


def test_missing_photo(commands: Commands, copy: Path) -> None:
    photo = first_photo(copy)
    photo.unlink()
    assert_one_message(train(commands, copy), photo.name, "missing", "put the files back")


def test_missing_photo_of_a_colmap_scene(commands: Commands, colmap_scene: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(colmap_scene, copy)
    photo = sorted((copy / "images").iterdir())[-1]
    photo.unlink()
    assert_one_message(train(commands, copy), photo.name, "missing", "put the file")


def test_photo_of_the_wrong_size(commands: Commands, copy: Path) -> None:
    photo = first_photo(copy)
    Image.open(photo).resize((32, 32)).save(photo)
    assert_one_message(train(commands, copy), photo.name, "32 x 32", "64 x 48")


def test_photo_cut_short(commands: Commands, copy: Path) -> None:
    photo = first_photo(copy)
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    assert_one_message(train(commands, copy), photo.name, "cannot be decoded", "replace")


def test_photo_that_is_none(commands: Commands, copy: Path) -> None:
    photo = first_photo(copy)
    photo.write_text("not a photo")
    assert_one_message(train(commands, copy), photo.name, "cannot be decoded", "replace")


def test_nan_pose(commands: Commands, scene: Path, tmp_path: Path) -> None:
    def spoil(meta: dict[str, Any]) -> None:
        meta["frames"][3]["transform_matrix"][1][3] = float("nan")

    copy = edited(scene, tmp_path / "copy", spoil)
    name = json.loads((copy / "transforms.json").read_text())["frames"][3]["file_path"]
    assert_one_message(train(commands, copy), name, "finite", "compute the poses again")


def test_nan_pose_in_a_colmap_model(commands: Commands, colmap_scene: Path, tmp_path: Path) -> None:
    from nerfstudio.data.utils.colmap_parsing_utils import read_images_binary, write_images_binary

    copy = tmp_path / "copy"
    shutil.copytree(colmap_scene, copy)
    file = copy / "colmap" / "sparse" / "0" / "images.bin"
    images = read_images_binary(file)
    key = sorted(images)[2]
    images[key] = images[key]._replace(tvec=np.array([0.0, np.nan, 0.0]))
    write_images_binary(images, file)
    assert_one_message(train(commands, copy), images[key].name, "not finite", "compute the poses again")


def test_broken_json(commands: Commands, copy: Path) -> None:
    (copy / "transforms.json").write_text('{"frames": [')
    assert_one_message(train(commands, copy), "transforms.json", "cannot be read", "vlmgs prepare")


def test_one_photo(commands: Commands, scene: Path, tmp_path: Path) -> None:
    def keep_one(meta: dict[str, Any]) -> None:
        meta["frames"] = meta["frames"][:1]
        for split in ("train", "val", "test"):
            meta.pop(f"{split}_filenames", None)

    copy = edited(scene, tmp_path / "copy", keep_one)
    assert_one_message(train(commands, copy), "1 photo", "at least 2")


def test_photos_from_one_point(commands: Commands, scene: Path, tmp_path: Path) -> None:
    def gather(meta: dict[str, Any]) -> None:
        for frame in meta["frames"]:
            for row in range(3):
                frame["transform_matrix"][row][3] = 0.0

    assert_one_message(train(commands, edited(scene, tmp_path / "copy", gather)), "one point", "other places")


def test_colmap_model_without_points_starts_at_random(commands: Commands, colmap_scene: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pointless"
    shutil.copytree(colmap_scene, copy)
    (copy / "colmap" / "sparse" / "0" / "points3D.bin").write_bytes(bytes(8))
    result = train(commands, copy)
    assert result.status == 0, result.output
    assert "no points" in result.output
    assert run_of(commands, "vlm-fastgs-lite", "pointless").checkpoints


def test_cut_checkpoint(commands: Commands, scene: Path, trained: Run, work: Path) -> None:
    """The newest checkpoint is cut in half: training on and evaluating both say so, and name the one before."""
    run = work / "outputs" / "cut" / "vlm-fastgs-lite" / trained.folder.name
    shutil.copytree(trained.folder, run)
    config = run / "config.yml"
    config.write_text(config.read_text().replace("experiment_name: shared", "experiment_name: cut"))
    folder = run / "nerfstudio_models"
    whole = Run(run).checkpoints[-1]
    cut = path_of(folder, 500)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    resumed = train(commands, scene, "--load-dir", folder)
    assert_one_message(resumed, cut.name, "cut short", whole.name)
    relative = config.relative_to(work)
    assert_one_message(commands.fork("ns-eval", "--load-config", relative), cut.name, "cut short", whole.name)
    assert_one_message(
        commands.fork("ns-export", "gaussian-splat", "--load-config", relative, "--output-dir", work / "no"),
        *(cut.name, "cut short", whole.name),
    )
    cut.unlink()
    whole.unlink()
    assert_one_message(commands.fork("ns-eval", "--load-config", relative), "no checkpoint", "ns-train")


def test_missing_checkpoint_folder(commands: Commands, scene: Path, tmp_path: Path) -> None:
    assert_one_message(train(commands, scene, "--load-dir", tmp_path / "none"), str(tmp_path / "none"), "no checkpoint")


def test_device_that_is_not_there(commands: Commands, scene: Path) -> None:
    """Forked commands see no CUDA device, whatever the machine has."""
    assert_one_message(train(commands, scene, "--machine.device-type", "cuda"), "cuda", "--machine.device-type cpu")
