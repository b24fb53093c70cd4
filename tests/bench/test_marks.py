"""Boxes around an object, as a user might draw them, from its masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image

from vlmgs_ns.bench.configure import configure
from vlmgs_ns.bench.marks import object_pixels, write_boxes, write_masks_of_box
from vlmgs_ns.bench.run_one import mark
from vlmgs_ns.guidance.instructions import read_boxes
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.scene import write_scene


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Four photos of 40 x 20; the masks have half their size and show object 3 in all but the last, further right each time."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for k in range(4):
        Image.new("RGB", (40, 20)).save(tmp_path / "images" / f"{k}.jpg")
        values = np.zeros((10, 20), np.uint8)
        values[8:] = 7
        if k < 3:
            values[2:5, 3 * k : 3 * k + 4] = 3
        Image.fromarray(values).save(tmp_path / "masks" / f"{k}.png")
    return tmp_path / "masks"


@pytest.fixture
def photos(masks: Path) -> list[Path]:
    """Photos, the last of which has no mask."""
    return [masks.parent / "images" / f"{k}.jpg" for k in range(5)]


def test_boxes_are_tight_and_in_pixels_of_the_photos(masks: Path, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    write_boxes(masks, photos, 3, "boxes", path)
    content = json.loads(path.read_text())
    assert content == {"0.jpg": [[0, 4, 8, 10]], "1.jpg": [[6, 4, 14, 10]], "2.jpg": [[12, 4, 20, 10]], "3.jpg": []}
    assert all(mask.any() for name, mask in read_boxes(path, dict.fromkeys(content, (40, 20))).items() if name != "3.jpg")
    write_boxes(masks, photos, None, "boxes", path)
    assert json.loads(path.read_text())["3.jpg"] == [[0, 16, 40, 20]]


def test_the_control_has_the_boxes_of_other_photos(masks: Path, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    write_boxes(masks, photos, 3, "shuffled boxes", path)
    assert json.loads(path.read_text()) == {
        "0.jpg": [[12, 4, 20, 10]], "1.jpg": [], "2.jpg": [[0, 4, 8, 10]], "3.jpg": [[6, 4, 14, 10]]
    }  # fmt: skip


def test_the_other_control_has_boxes_of_their_size_anywhere(masks: Path, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    write_boxes(masks, photos, 3, "moved boxes", path)
    moved = json.loads(path.read_text())
    assert moved.pop("3.jpg") == [] and len({tuple(box[0]) for box in moved.values()}) == 3
    for ((left, top, right, bottom),) in moved.values():
        assert (round(right - left, 1), round(bottom - top, 1)) == (8, 6) and 0 <= left < right <= 40 and 0 <= top < bottom <= 20


def test_the_bound_has_whole_photos(masks: Path, photos: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    write_boxes(masks, photos, 3, "whole photos", path)
    assert json.loads(path.read_text()) == {f"{k}.jpg": [[0, 0, 40, 20]] for k in range(4)}


def test_an_object_that_no_mask_shows_is_one_message(masks: Path, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="show no object 5 in any photo"):
        write_boxes(masks, photos, 5, "boxes", tmp_path / "boxes.json")
    assert not (tmp_path / "boxes.json").exists()


def test_a_box_in_space_is_white_where_it_is_seen(tmp_path: Path) -> None:
    # From (0, 0, 4) downwards: the box's near side, one unit above the ground, is 3 away and 2 wide, x to the right, y up.
    pose = torch.eye(4)[:3]
    pose[2, 3] = 4
    away = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))[:3]  # looks up
    cameras = Cameras(torch.stack([pose, away]), 60.0, 60.0, 50.0, 40.0, 100, 80)
    write_masks_of_box(cameras, [tmp_path / "a b.jpg", tmp_path / "behind.jpg"], ((0, -1, 0), (2, 1, 1)), tmp_path / "masks")
    seen = object_pixels(tmp_path / "masks" / "a b.png", None)
    rows, columns = np.nonzero(seen)
    assert seen.shape == (80, 100) and (columns.min(), columns.max(), rows.min(), rows.max()) == (50, 90, 20, 60)
    assert seen[20:61, 50:91].all()
    assert not object_pixels(tmp_path / "masks" / "behind.png", None).any()


def test_a_box_is_marked_in_the_photos_of_a_colmap_scene(tmp_path: Path) -> None:
    """The model lies where nerfstudio's dataparser does not look."""
    scene = tmp_path / "room"
    write_scene(scene, views=4, width=32, height=24, held_out=1, points=50, supersample=1)
    (scene / "transforms.json").unlink()
    (scene / "colmap" / "sparse").rename(scene / "sparse")
    settings = {"base": "vlm-fastgs-lite", "dataparser": "colmap", "start": "points", "seed": 0, "words": None, "resolution": 32}
    settings |= {"overrides": {}, "iterations": 1, "masks": None, "object": None, "marks": "boxes"}
    settings["box"] = ((-0.01, -0.01, -0.01), (0.01, 0.01, 0.01))
    config = configure(settings, scene, tmp_path / "out")
    masks = mark(config, settings, tmp_path / "out")
    assert masks is not None and len(list(masks.glob("*.png"))) == 4
    boxes = json.loads(config.pipeline.model.guidance.instruct_boxes.read_text())
    assert sorted(map(len, boxes.values())) == [0, 1, 1]  # the third training photo looks past it
