"""Damaged scenes end in one line before training, not in a traceback and not in a run of nonsense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import Image

from vlmgs_ns.method.datamanager import VlmFastGSDatamanagerConfig
from vlmgs_ns.method.photos import read_image
from vlmgs_ns.method.scene_check import prepare
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.scene import write_scene

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "room"
    write_scene(folder, views=4, width=32, height=24, held_out=1, points=50, supersample=1)
    return folder


@pytest.fixture
def scene(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "room")


def load(scene: Path, colmap: bool = False) -> None:
    parser = ColmapDataParserConfig() if colmap else NerfstudioDataParserConfig(load_3D_points=True)
    VlmFastGSDatamanagerConfig(data=scene, dataparser=parser).setup(device="cpu", test_mode="val")


def edited(scene: Path, edit: Edit) -> Path:
    meta = json.loads((scene / "transforms.json").read_text())
    edit(meta)
    (scene / "transforms.json").write_text(json.dumps(meta))
    return scene


def pose(change: Callable[[Any], None]) -> Edit:
    return lambda meta: change(meta["frames"][0]["transform_matrix"])


def test_the_scene_is_whole(scene: Path) -> None:
    load(scene)
    load(scene, colmap=True)


EDITS: dict[str, tuple[Edit, str]] = {
    "zeros": (lambda meta: meta["frames"][0].update(transform_matrix=[[0.0] * 4] * 4), "with a rotation in it"),
    "far away": (pose(lambda matrix: matrix[0].__setitem__(3, 1e30)), r"finite numbers below 1e\+09"),
    "huge rotation": (pose(lambda matrix: matrix[0].__setitem__(0, 1e20)), "the pose of"),
    "focal length": (lambda meta: meta.update(fl_x=1e30), "calibrate it again"),
    "no focal length": (lambda meta: meta.update(fl_y=1e-30), "calibrate it again"),
    "distortion": (lambda meta: meta.update(k1=float("nan")), "distortion that is NaN"),
    "points": (lambda meta: meta.update(ply_file_path="nowhere.ply"), "nowhere.ply that .* names cannot be read as .ply"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_damaged_scene_is_one_line(kind: str, scene: Path) -> None:
    edit, words = EDITS[kind]
    with pytest.raises(InputError, match=words) as raised:
        load(edited(scene, edit))
    assert "\n" not in str(raised.value)


def test_points_cut_short_are_no_random_start(scene: Path) -> None:
    file = scene / json.loads((scene / "transforms.json").read_text())["ply_file_path"]
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match="remove ply_file_path to start at random"):
        load(scene)


def test_deep_json_is_one_line(scene: Path) -> None:
    (scene / "transforms.json").write_text('{"frames": ' + "[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        load(scene)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("kept", [0, 7, 0.5])
def test_a_colmap_model_cut_short_is_one_line(name: str, kept: float, scene: Path) -> None:
    (scene / "transforms.json").unlink()
    (file,) = scene.rglob(name)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(InputError) as raised:
        load(scene, colmap=True)
    assert "\n" not in str(raised.value)


def test_a_photo_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(InputError, match=r"large\.png has more than 0 million pixels; make it smaller"):
        read_image(path)


def test_nobody_is_asked_whether_to_shrink_photos(scene: Path) -> None:
    """nerfstudio's dataparser would wait at the terminal for an answer."""
    parser = ColmapDataParserConfig(data=scene, colmap_path=Path("colmap/sparse/0"), downscale_factor=4)
    with pytest.raises(InputError, match=r"images_4, which is not there; leave it out"):
        prepare(parser, photos_needed=True)
    (scene / "images_4").mkdir()
    assert prepare(parser, photos_needed=True).downscale_factor == 4  # type: ignore[attr-defined]
