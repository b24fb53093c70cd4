"""``vlmgs prepare`` as a process: photos of several sizes, one of them zoomed, and runs that are killed or stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from PIL import ExifTags, Image

from tests.console.forks import ForkServer
from tests.prepare.corner import cameras, write_photos

pytest.importorskip("pycolmap", reason="pycolmap, of the extra [prepare], is not installed")

LANDSCAPE, PORTRAIT, LARGE, ZOOMED = (320, 240, 300.0), (240, 320, 300.0), (480, 360, 450.0), (240, 320, 420.0)
KINDS = (LANDSCAPE, PORTRAIT, LARGE, LANDSCAPE, ZOOMED, LARGE, PORTRAIT)
"""Width, height and focal length of each photo, in pixels. Those of one size and two zooms differ in what EXIF says."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed") / "Große & kleine Fotos"
    for number, (pose, kind) in enumerate(zip(cameras(len(KINDS)), KINDS, strict=True)):
        write_photos(folder, pose[None], *kind, first=number)
    zoomed = folder / f"{KINDS.index(ZOOMED)}.png"
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLength] = 42.0
    Image.open(zoomed).save(zoomed.with_suffix(".jpg"), exif=exif, quality=95)
    zoomed.unlink()
    return folder


@pytest.fixture(scope="module")
def scene(photos: Path, fork_server: ForkServer) -> Path:
    out = photos.parent / "scene"
    done = fork_server.run(["vlmgs", "prepare", str(photos), str(out)], photos.parent, os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Wrote {out}: {len(KINDS)} of {len(KINDS)} photos" in done.stdout
    return out


def frames(scene: Path) -> list[dict[str, Any]]:
    return json.loads((scene / "transforms.json").read_text(encoding="utf-8"))["frames"]


def poses(scene: Path) -> np.ndarray:  # [N, 4, 4]
    return np.array([frame["transform_matrix"] for frame in frames(scene)])


def test_photos_of_one_size_and_zoom_share_a_camera_and_others_do_not(scene: Path) -> None:
    """Undistortion may cut a few pixels from the border; the focal length stays."""
    for frame, (width, height, focal) in zip(frames(scene), KINDS, strict=True):
        assert frame["fl_x"] == pytest.approx(focal, rel=0.02)
        assert (frame["w"], frame["h"]) == pytest.approx((width, height), abs=8)
    assert len({frame["fl_x"] for frame in frames(scene)}) == len(set(KINDS))


def test_nerfstudio_reads_every_photo_with_its_own_camera(scene: Path) -> None:
    parser = NerfstudioDataParserConfig(data=scene, train_split_fraction=1.0, load_3D_points=True).setup()
    outputs = parser.get_dataparser_outputs("train")
    assert [path.stem for path in outputs.image_filenames] == [str(number) for number in range(len(KINDS))]
    assert outputs.cameras.fx[:, 0].tolist() == pytest.approx([frame["fl_x"] for frame in frames(scene)])
    for path, width, height in zip(outputs.image_filenames, outputs.cameras.width, outputs.cameras.height, strict=True):
        with Image.open(path) as photo:
            assert photo.size == (int(width), int(height))
    assert len(outputs.metadata["points3D_xyz"]) > 100


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    scene: Path, photos: Path, tmp_path: Path, fork_server: ForkServer
) -> None:
    """Killed among features, between features and pairs, and as cameras are placed; then stopped with Ctrl-C."""
    out = tmp_path / "scene"
    work = out / ".prepare"
    moments: tuple[tuple[Callable[[], bool], int], ...] = (
        (lambda: _size(work / "database.db-wal") > 400_000, signal.SIGKILL),  # one photo or two
        ((work / "pairs.txt").exists, signal.SIGKILL),
        ((work / "models").exists, signal.SIGKILL),
        ((work / "trusted.db").exists, signal.SIGINT),
    )
    command = ["vlmgs", "prepare", str(photos), str(out)]
    for number, (reached, sent) in enumerate(moments):
        if sent == signal.SIGINT:
            (work / "trusted.db").unlink()  # of the run before
        with (tmp_path / f"output{number}").open("wb") as output, (tmp_path / f"errors{number}").open("wb") as errors:
            process = fork_server.start(command, tmp_path, os.environ, output, errors)
        deadline = time.monotonic() + 120
        while not reached():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / f"errors{number}").read_text()
            time.sleep(0.01)
        process.send_signal(sent)
        assert process.wait(timeout=120) == (130 if sent == signal.SIGINT else -sent)
        assert [path.name for path in out.iterdir()] == [".prepare"]
    assert (tmp_path / f"errors{number}").read_text().strip() == "Stopped."
    done = fork_server.run(command, tmp_path, os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    extent = np.linalg.norm(np.ptp(poses(scene)[:, :3, 3], axis=0))
    assert poses(out)[:, :3, 3] == pytest.approx(poses(scene)[:, :3, 3], abs=2e-4 * float(extent))
    assert [frame["fl_x"] for frame in frames(out)] == pytest.approx([frame["fl_x"] for frame in frames(scene)], rel=1e-3)
    assert len({frame["fl_x"] for frame in frames(out)}) == len(set(KINDS))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
