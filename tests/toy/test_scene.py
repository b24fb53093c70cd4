"""The written scene: determinism, agreement of its files with each other and with nerfstudio's readers, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nerfstudio.data.utils import colmap_parsing_utils as colmap
from PIL import Image

from tests.toy.conftest import SMALL
from vlmgs_ns.toy.colmap import quaternion
from vlmgs_ns.toy.points import NOISE
from vlmgs_ns.toy.scene import is_scene, write_scene

TINY: dict[str, Any] = {"views": 3, "width": 24, "height": 16, "held_out": 1, "supersample": 1, "points": 60}


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    write_scene(one, seed=5, depth=True, **TINY)
    write_scene(two, seed=5, depth=True, **TINY)
    write_scene(other, seed=6, depth=True, **TINY)
    assert contents(one) == contents(two)
    names = [[thing["name"] for thing in read_json(p / "labels.json")["objects"]] for p in (one, other)]
    assert names[0] != names[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "other", "two"]


def test_summary_and_progress(tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    summary = write_scene(tmp_path / "deep" / "er", seed=1, progress=lambda *t: ticks.append(t), **TINY)
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert (summary.train, summary.held_out, summary.seed) == (2, 1, 1)
    assert summary.path == tmp_path / "deep" / "er"
    labels = read_json(summary.path / "labels.json")
    assert summary.objects == tuple(thing["name"] for thing in labels["objects"])
    assert 0 < summary.points <= 60


def test_files(scene: Path) -> None:
    frames = [f"frame_{k:05d}.png" for k in range(1, SMALL["views"] + 1)]
    assert sorted(p.name for p in (scene / "images").iterdir()) == frames
    assert sorted(p.name for p in (scene / "masks_instance").iterdir()) == frames
    assert not (scene / "depth").exists()
    for name in frames:
        assert pixels(scene / "images" / name).shape == (72, 96, 3)
        assert pixels(scene / "masks_instance" / name).dtype == np.uint8


def test_depth_maps_are_optional(tmp_path: Path) -> None:
    write_scene(tmp_path / "s", depth=True, **TINY)
    depth = pixels(tmp_path / "s" / "depth" / "frame_00001.png")
    assert depth.shape == (16, 24)
    assert 50 < depth.min() < depth.max() < 8000
    frames = read_json(tmp_path / "s" / "transforms.json")["frames"]
    assert frames[0]["depth_file_path"] == "depth/frame_00001.png"
    assert read_json(tmp_path / "s" / "labels.json")["depth"]["unit"] == "millimetre"


def test_splits(scene: Path) -> None:
    meta, labels = read_json(scene / "transforms.json"), read_json(scene / "labels.json")
    train, val = meta["train_filenames"], meta["val_filenames"]
    assert (len(train), len(val)) == (SMALL["views"] - SMALL["held_out"], SMALL["held_out"])
    assert meta["test_filenames"] == val
    assert sorted(train + val) == [frame["file_path"] for frame in meta["frames"]]
    assert [p for p, view in labels["views"].items() if view["split"] == "val"] == val
    assert (scene / "train_list.txt").read_text().split() == [Path(p).name for p in train]
    height = {frame["file_path"]: frame["transform_matrix"][2][3] for frame in meta["frames"]}
    assert min(abs(height[a] - height[b]) for a in train for b in val) > 0.1


def test_without_held_out_views_there_is_no_split(tmp_path: Path) -> None:
    write_scene(tmp_path / "s", **{**TINY, "held_out": 0})
    meta = read_json(tmp_path / "s" / "transforms.json")
    assert not [key for key in meta if key.endswith("_filenames")]
    assert not list((tmp_path / "s").glob("*_list.txt"))


def test_boxes_are_tight_around_masks(scene: Path) -> None:
    labels = read_json(scene / "labels.json")
    ids = {thing["id"]: thing["name"] for thing in labels["objects"]}
    assert sorted(ids) == list(range(1, len(ids) + 1))
    for path, view in labels["views"].items():
        mask = pixels(scene / "masks_instance" / Path(path).name)
        seen = {ids[k]: int((mask == k).sum()) for k in np.unique(mask) if k}
        assert view["visible_pixels"] == seen
        assert set(view["boxes"]) == set(seen)
        for number, name in ids.items():
            if name in seen:
                x1, y1, x2, y2 = view["boxes"][name]
                inside = mask[y1:y2, x1:x2] == number
                assert inside.sum() == seen[name]
                assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_object_entries(scene: Path) -> None:
    labels = read_json(scene / "labels.json")
    for thing in labels["objects"]:
        low, high = np.array(thing["bbox_min"]), np.array(thing["bbox_max"])
        assert (low < high).all()
        assert thing["center"] == pytest.approx((low + high) / 2, abs=1e-4)
        assert thing["size"] == pytest.approx(high - low, abs=1e-4)
        assert thing["phrases"][0] == thing["name"]
        assert (low >= np.array(labels["room"]["min"]) - 1e-6).all()
        assert (high <= np.array(labels["room"]["max"]) + 1e-6).all()
    assert len(labels["objects"]) >= 8
    assert "wooden floor" in labels["background"]


def test_masks_lie_inside_the_projected_world_boxes(scene: Path) -> None:
    """Ties labels, poses and intrinsics together: the eight corners of a box surround its object's pixels."""
    labels, meta = read_json(scene / "labels.json"), read_json(scene / "transforms.json")
    boxes = {t["name"]: np.array([t["bbox_min"], t["bbox_max"]]) for t in labels["objects"]}
    checked = 0
    for frame in meta["frames"]:
        world_to_camera = np.linalg.inv(np.array(frame["transform_matrix"]))
        for name, (x1, y1, x2, y2) in labels["views"][frame["file_path"]]["boxes"].items():
            corners = np.array([[*p, 1.0] for p in np.array(np.meshgrid(*boxes[name].T)).reshape(3, -1).T])
            x, y, z, _ = world_to_camera @ corners.T
            if z.max() > -0.05:
                continue
            column, row = meta["fl_x"] * x / -z + meta["cx"], -meta["fl_y"] * y / -z + meta["cy"]
            assert column.min() <= x1 + 0.51 and x2 - 0.51 <= column.max()
            assert row.min() <= y1 + 0.51 and y2 - 0.51 <= row.max()
            checked += 1
    assert checked > 50


@pytest.fixture(scope="module")
def model(scene: Path) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    folder = scene / "colmap" / "sparse" / "0"
    return (
        colmap.read_cameras_binary(folder / "cameras.bin"),
        colmap.read_images_binary(folder / "images.bin"),
        colmap.read_points3D_binary(folder / "points3D.bin"),
    )


def test_colmap_and_transforms_agree(scene: Path, model: tuple[dict[int, Any], ...]) -> None:
    cameras, images, _ = model
    meta = read_json(scene / "transforms.json")
    (camera,) = cameras.values()
    assert (camera.model, camera.width, camera.height) == ("PINHOLE", meta["w"], meta["h"])
    assert camera.params.tolist() == [meta["fl_x"], meta["fl_y"], meta["cx"], meta["cy"]]
    poses = {frame["file_path"]: np.array(frame["transform_matrix"]) for frame in meta["frames"]}
    assert {f"images/{image.name}" for image in images.values()} == set(poses)
    for image in images.values():
        world_to_camera = np.eye(4)
        world_to_camera[:3, :3], world_to_camera[:3, 3] = image.qvec2rotmat(), image.tvec
        opencv = np.linalg.inv(world_to_camera)
        assert np.allclose(opencv @ np.diag([1, -1, -1, 1]), poses[f"images/{image.name}"], atol=1e-9)


def test_colmap_tracks_are_real(scene: Path, model: tuple[dict[int, Any], ...]) -> None:
    """Observations point back at their points, reproject within the noise, and agree in mask and colour."""
    cameras, images, points = model
    (camera,) = cameras.values()
    focal, _, cx, cy = camera.params
    masks = {k: pixels(scene / "masks_instance" / image.name) for k, image in images.items()}
    photos = {k: pixels(scene / "images" / image.name).astype(int) for k, image in images.items()}
    val = set((scene / "val_list.txt").read_text().split())
    ids: dict[int, set[int]] = {}
    difference, errors = [], []
    for number, point in points.items():
        assert len(point.image_ids) == len(set(point.image_ids.tolist()))
        assert sum(images[i].name not in val for i in point.image_ids) >= 2
        mine = []
        for k, slot in zip(point.image_ids, point.point2D_idxs, strict=True):
            image = images[k]
            assert image.point3D_ids[slot] == number
            x, y = image.xys[slot]
            assert 0 <= x < camera.width and 0 <= y < camera.height
            px, py, pz = image.qvec2rotmat() @ point.xyz + image.tvec
            mine.append(np.hypot(focal * px / pz + cx - x, focal * py / pz + cy - y))
            row, column = int(y), int(x)
            around = masks[k][max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            if (around == around[0, 0]).all():
                ids.setdefault(number, set()).add(int(around[0, 0]))
                difference.append(np.abs(photos[k][row, column] - point.rgb).mean())
        assert point.error == pytest.approx(np.mean(mine), abs=1e-9)
        errors += mine
    assert len(points) > 1000
    assert np.median(errors) < 3 * NOISE * focal / 1.5
    assert np.mean([len(seen) == 1 for seen in ids.values()]) > 0.985
    assert np.median(difference) < 8
    assert sum(len(image.point3D_ids) for image in images.values()) == sum(len(p.image_ids) for p in points.values())


def test_seed_points_are_the_colmap_points(scene: Path, model: tuple[dict[int, Any], ...]) -> None:
    raw = (scene / "seed_points.ply").read_bytes()
    header, body = raw.split(b"end_header\n", 1)
    rows = np.frombuffer(body, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    assert f"element vertex {len(rows)}".encode() in header
    points = model[2]
    assert len(rows) == len(points)
    assert np.abs(rows["xyz"] - [point.xyz for point in points.values()]).max() < 1e-6
    assert np.array_equal(rows["rgb"], [point.rgb for point in points.values()])
    low, high = (np.array(read_json(scene / "labels.json")["room"][k]) for k in ("min", "max"))
    assert (rows["xyz"] > low - 6 * NOISE).all() and (rows["xyz"] < high + 6 * NOISE).all()


def test_seed_points_of_an_object_lie_on_it(scene: Path, model: tuple[dict[int, Any], ...]) -> None:
    """A point whose every observation falls on one object is inside that object's world box."""
    _, images, points = model
    masks = {k: pixels(scene / "masks_instance" / image.name) for k, image in images.items()}
    things = {thing["id"]: thing for thing in read_json(scene / "labels.json")["objects"]}
    checked = 0
    for point in points.values():
        seen = {
            int(masks[k][int(images[k].xys[s][1]), int(images[k].xys[s][0])])
            for k, s in zip(point.image_ids, point.point2D_idxs, strict=True)
        }
        if len(seen) == 1 and 0 not in seen:
            thing = things[seen.pop()]
            assert (point.xyz > np.array(thing["bbox_min"]) - 6 * NOISE).all()
            assert (point.xyz < np.array(thing["bbox_max"]) + 6 * NOISE).all()
            checked += 1
    assert checked > 100


@pytest.mark.parametrize("seed", range(5))
def test_quaternions_of_random_rotations(seed: int) -> None:
    q = np.random.default_rng(seed).normal(size=4)
    q /= np.linalg.norm(q)
    q = -q if q[0] < 0 else q
    assert quaternion(colmap.qvec2rotmat(q)) == pytest.approx(q)


@pytest.mark.parametrize("half_turn", [np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])])
def test_quaternions_of_half_turns(half_turn: np.ndarray) -> None:
    assert np.allclose(colmap.qvec2rotmat(quaternion(half_turn)), half_turn)


def test_nerfstudio_parsers_read_both_forms_alike(scene: Path) -> None:
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
    from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig

    plain: dict[str, Any] = {"orientation_method": "none", "center_method": "none", "auto_scale_poses": False}
    native = NerfstudioDataParserConfig(data=scene, load_3D_points=True, **plain).setup()
    converted = ColmapDataParserConfig(data=scene, assume_colmap_world_coordinate_convention=False, **plain).setup()
    meta = read_json(scene / "transforms.json")
    poses = {frame["file_path"]: np.array(frame["transform_matrix"])[:3] for frame in meta["frames"]}
    for split in ("train", "val", "test"):
        one, two = native.get_dataparser_outputs(split), converted.get_dataparser_outputs(split)
        names = [str(p.relative_to(scene)) for p in one.image_filenames]
        assert names == meta[f"{split}_filenames"]
        assert names == [str(p.relative_to(scene)) for p in two.image_filenames]
        assert one.mask_filenames is None
        for outputs in (one, two):
            assert np.allclose(outputs.cameras.camera_to_worlds.numpy(), [poses[n] for n in names], atol=1e-5)
            assert np.allclose(outputs.dataparser_transform.numpy(), np.eye(4)[:3], atol=1e-6)
        assert np.allclose(one.metadata["points3D_xyz"], two.metadata["points3D_xyz"], atol=1e-5)
        assert np.abs(one.metadata["points3D_rgb"].int() - two.metadata["points3D_rgb"].int()).max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": 0, "held_out": 0}, "views is 0.*use 1 or more"),
        ({"width": 15}, "size is 15 x 16 pixels.*use 16 or more"),
        ({"height": 3}, "size is 24 x 3 pixels"),
        ({"held_out": -1}, "held_out is -1.*use 0 to 2"),
        ({"held_out": 3}, "held_out is 3, which leaves no training photo"),
        ({"seed": -2}, "seed is -2.*use 0 or more"),
        ({"supersample": 0}, "supersample is 0.*use 1 to 8"),
        ({"points": 0}, "points is 0.*use 1 or more"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_scene(tmp_path / "s", **{**TINY, **change})
    assert not list(tmp_path.iterdir())


def test_what_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "s"
    out.mkdir()
    write_scene(out, **TINY)
    assert is_scene(out)
    with pytest.raises(ValueError, match=f"{out} exists and is not empty.*overwrite=True"):
        write_scene(out, **TINY)
    (out / "leftover.txt").write_text("old")
    write_scene(out, overwrite=True, **{**TINY, "seed": 9})
    assert read_json(out / "labels.json")["seed"] == 9
    assert not (out / "leftover.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("labels", [None, "not json", "[]", '{"writer": "someone else"}'])
def test_a_stranger_folder_is_never_replaced(tmp_path: Path, labels: str | None) -> None:
    out = tmp_path / "s"
    out.mkdir()
    (out / "holiday.txt").write_text("keep me")
    if labels is not None:
        (out / "labels.json").write_text(labels)
    with pytest.raises(ValueError, match="was not written by this function"):
        write_scene(out, overwrite=True, **TINY)
    assert (out / "holiday.txt").read_text() == "keep me"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(ValueError, match="is a file, but a scene is a folder"):
        write_scene(tmp_path / "s", overwrite=True, **TINY)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    write_scene(tmp_path / "s", **TINY)
    before = contents(tmp_path)
    monkeypatch.setattr("vlmgs_ns.toy.writer.write_colmap", fail)
    with pytest.raises(OSError, match="disk full"):
        write_scene(tmp_path / "s", overwrite=True, **TINY)
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
