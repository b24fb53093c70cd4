"""From photos to a scene: a corner of a room photographed by known cameras, and what cannot become a scene."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.prepare.corner import FOCAL, HEIGHT, WIDTH, cameras, write_photos
from vlmgs_ns.commands.prepare import write_prepared_scene
from vlmgs_ns.pages import prepared
from vlmgs_ns.prepare import motion, run
from vlmgs_ns.prepare.outcome import judge
from vlmgs_ns.prepare.run import WORK, is_prepared, prepare
from vlmgs_ns.prepare.settings import Preparation
from vlmgs_ns.system.errors import InputError

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap, of the extra [prepare], is not installed")

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corner") / "Fotos der Küche"
    write_photos(folder, cameras())
    (folder / "notes.txt").write_text("not a photo")
    (folder / "broken 1.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    return folder


@pytest.fixture(scope="module")
def scene(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared by two runs that were stopped, among features and as cameras were to be placed, and by one that went on."""
    out = tmp_path_factory.mktemp("prepared") / "scene"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pycolmap, "extract_features", _stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            prepare(photos, out, Preparation())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(motion, "_place", _stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(photos, out, Preparation())
    outcome = prepare(photos, out, Preparation())
    assert (outcome.photos, outcome.placed) == (7, 7) and outcome.left_out.keys() == {"broken 1.jpg"}
    yield out


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _stop_after_one(*args: Any, image_names: list[str], extract: Any = pycolmap.extract_features, **options: Any) -> None:
    """Seek the features of the first photo, as a kill leaves it."""
    extract(*args, image_names=image_names[:1], **options)
    raise KeyboardInterrupt


def poses(scene: Path) -> Array:  # [N, 4, 4]
    return np.array([frame["transform_matrix"] for frame in transforms(scene)["frames"]])


def transforms(scene: Path) -> dict[str, Any]:
    return json.loads((scene / "transforms.json").read_text(encoding="utf-8"))


def test_cameras_are_where_they_were(scene: Path) -> None:
    """After the similarity that fits centres best: within 1 % of their extent and one degree."""
    found, true = poses(scene), cameras() @ np.diag([1.0, -1, -1, 1])
    a, b = found[:, :3, 3] - found[:, :3, 3].mean(0), true[:, :3, 3] - true[:, :3, 3].mean(0)
    u, s, v = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.linalg.det(u @ v)])
    turn, scale = u * signs @ v, (s * signs).sum() / (a**2).sum()
    assert np.linalg.norm(scale * a @ turn.T - b, axis=1).max() < 0.01 * np.linalg.norm(np.ptp(b, axis=0))
    cosines = (np.einsum("ij,njk,nik->n", turn, found[:, :3, :3], true[:, :3, :3]) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 1
    assert np.degrees(np.arccos(turn[2, 2])) < 3  # z is up
    lengths = [frame["fl_x"] for frame in transforms(scene)["frames"]]
    assert lengths == pytest.approx([FOCAL] * 7, rel=0.02) and len(set(lengths)) == 1  # one camera


def test_the_folder_is_what_nerfstudio_and_colmap_read(scene: Path) -> None:
    frames = transforms(scene)["frames"]
    assert all(cv2.imread(str(scene / frame["file_path"])).shape[:2] == (frame["h"], frame["w"]) for frame in frames)
    model = pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0")
    points = re.search(rb"element vertex (\d+)", (scene / "sparse_pc.ply").read_bytes())
    assert points and int(points[1]) == model.num_points3D() > 100
    by_name = {image.name: image.cam_from_world().inverse().matrix() for image in model.images.values()}
    for frame in frames:
        colmap = by_name[Path(frame["file_path"]).name] @ np.diag([1, -1, -1, 1])
        assert np.array(frame["transform_matrix"])[:3] == pytest.approx(colmap)
    assert not (scene / WORK).exists()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(scene: Path, photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "again", Preparation())
    # the cameras span 10; sums of several threads differ in their last bits, and choices with them
    assert poses(tmp_path / "again") == pytest.approx(poses(scene), abs=1e-2)


def test_a_finished_scene_is_known_by_its_photos_and_settings(scene: Path, photos: Path) -> None:
    assert is_prepared(scene, photos, Preparation()) and not is_prepared(scene, photos, Preparation(seed=1))
    with pytest.raises(InputError, match="is not empty; choose a new folder"):
        prepare(photos, scene, Preparation())


def test_a_run_that_is_stopped_before_its_page_is_not_finished(
    scene: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0")
    monkeypatch.setattr(run, "reconstruct", lambda *_: motion.Motion([model], {}, False))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prepared, "write_prepared", _stop)
        with pytest.raises(KeyboardInterrupt):
            write_prepared_scene(photos, tmp_path / "out", Preparation())
    assert not is_prepared(tmp_path / "out", photos, Preparation())
    write_prepared_scene(photos, tmp_path / "out", Preparation())
    assert is_prepared(tmp_path / "out", photos, Preparation()) and not (tmp_path / "out" / WORK).exists()
    assert "<img" in (tmp_path / "out" / prepared.PAGE).read_text(encoding="utf-8")


def test_groups_are_of_photos_that_are_not_in_the_scene(scene: Path) -> None:
    """Two models of the same seven photos: the largest has all, and then lacks two."""
    one, other = (pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0") for _ in range(2))
    found = motion.Motion([one, other], {image.name: motion.PhotoMatches(900, 300) for image in one.images.values()}, False)
    assert not any("groups" in line for line in judge(found, {}).advice)
    for image in list(one.images.values())[:2]:
        one.deregister_frame(image.frame_id)
    outcome = judge(found, {})
    assert any("groups that do not fit together (5, 2 photos)" in line for line in outcome.advice)
    assert len(outcome.left_out) == 2 and all("fits 6 other photos" in why for why in outcome.left_out.values())


def test_too_few_photos_are_one_error(photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    with pytest.raises(InputError, match=r"few has no photos \(.*\), and a scene needs 3"):
        prepare(few, tmp_path / "out", Preparation())
    for name in ("0.png", "1.png", "broken 1.jpg"):
        shutil.copy(photos / name, few)
    with pytest.raises(InputError, match=r"gives 2 photos that can be used, but a scene needs 3; broken 1\.jpg: "):
        prepare(few, tmp_path / "out", Preparation())


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ("nowhere", Preparation(), "nowhere does not exist; give a folder of photos"),
        ("notes.txt", Preparation(), r"notes\.txt is neither a folder of photos nor a video"),
        (".", Preparation(frames=2), "--frames 2: a scene needs 3"),
        (".", Preparation(max_image_size=10), "--max-image-size 10: too little"),
        (".", Preparation(masks=Path("nowhere")), "--masks nowhere is not a folder"),
    ],
)
def test_what_is_mistyped_is_one_error(source: str, settings: Preparation, said: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        prepare(photos / source, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_features_are_taken_where_masks_are_white_only(scene: Path, photos: Path, tmp_path: Path) -> None:
    """The right third of each photo is black in its mask; four photos still find their places."""
    for number in range(4):
        (tmp_path / "some").mkdir(exist_ok=True)
        shutil.copy(photos / f"{number}.png", tmp_path / "some")
        mask = np.full((HEIGHT // 2, WIDTH // 2), 255, np.uint8)  # of another size than the photo
        mask[:, WIDTH // 3 :] = 0
        (tmp_path / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "masks" / f"{number}{'.png' if number % 2 else ''}.png"), mask)
    assert prepare(tmp_path / "some", tmp_path / "out", Preparation(masks=tmp_path / "masks")).placed == 4
    assert max(columns(tmp_path / "out")) < 2 / 3 * WIDTH + 3 < max(columns(scene)) - 50


def columns(scene: Path) -> list[float]:
    """Return where features were found, used or not, in pixels from the left."""
    images = pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0").images.values()
    return [point.xy[0] for image in images for point in image.points2D]


@pytest.mark.parametrize("checked", [0, 1])
def test_a_disk_without_room_is_one_error_and_the_same_command_goes_on(
    checked: int, scene: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before features are sought, and before the scene is written."""
    usage = shutil.disk_usage(tmp_path)
    free = iter([usage] * checked + [usage._replace(free=1_000_000)] + [usage] * 2)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda _: next(free))
    model = pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0")
    monkeypatch.setattr(run, "reconstruct", lambda *_: motion.Motion([model], {}, False))
    with pytest.raises(InputError, match=r"\.prepare takes about [\d.]+ MB more, and 1\.0 MB are free; make room"):
        prepare(photos, tmp_path / "out", Preparation())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [WORK]
    (tmp_path / "out" / WORK / "images" / ".0.1.partial.jpg").write_bytes(b"of a killed run")
    assert prepare(photos, tmp_path / "out", Preparation()).placed == 7 and len(poses(tmp_path / "out")) == 7


def test_what_pycolmap_cannot_do_is_one_error(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("SQLite error: database or disk is full")

    monkeypatch.setattr(run, "reconstruct", fail)
    with pytest.raises(InputError, match=r"\(SQLite error: database or disk is full\), where .*B are free; make room"):
        prepare(photos, tmp_path / "out", Preparation())


def test_photos_without_detail_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "grey" / f"{number}.jpg"), np.full((120, 160, 3), 90 + number, np.uint8))
    with pytest.raises(InputError, match=r"none of 3 photos could be placed.*no photo has more than 0 features"):
        prepare(tmp_path / "grey", tmp_path / "out", Preparation())
