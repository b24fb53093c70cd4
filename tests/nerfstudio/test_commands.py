"""ns-eval, ns-render and ns-export on a trained run."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from plyfile import PlyData

from tests.nerfstudio.conftest import Commands, Run


def frames(video: Path) -> np.ndarray:  # [T, H, W, 3] uint8
    return np.stack(list(imageio.imiter(video, plugin="FFMPEG")))


def look_at(position: tuple[float, float, float]) -> list[float]:
    """Camera → world (OpenGL axes), row by row, of a camera that looks at the origin with z up."""
    eye = np.array(position)
    back = eye / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(back, right), back, eye], axis=1)
    return matrix.reshape(-1).tolist()


@pytest.fixture(scope="module")
def path_file(work: Path) -> Path:
    """A camera path of four views, as the viewer and the Blender add-on write it."""
    poses = [look_at((math.cos(a), math.sin(a), 0.4)) for a in (0.0, 0.4, 0.8, 1.2)]
    path = {
        "camera_type": "perspective",
        "render_height": 48,
        "render_width": 64,
        "seconds": 1.0,
        "fps": 4,
        "camera_path": [{"camera_to_world": pose, "fov": 60.0, "aspect": 64 / 48} for pose in poses],
    }
    file = work / "camera_path.json"
    file.write_text(json.dumps(path))
    return file


def test_eval(commands: Commands, trained: Run, work: Path) -> None:
    result = commands.run(
        *("ns-eval", "--load-config", trained.config, "--output-path", work / "eval.json"),
        *("--render-output-path", work / "eval_renders"),
    )
    assert result.status == 0, result.output
    metrics = json.loads((work / "eval.json").read_text())["results"]
    assert 0 < metrics["psnr"] < 60 and -1 < metrics["ssim"] < 1
    assert len(list((work / "eval_renders").glob("*.png"))) == 2
    # LPIPS is a number only where its weights are on the disk; otherwise it is absent, and that is said once.
    assert ("lpips" in metrics) != ("LPIPS is not reported" in result.output)
    assert result.output.count("LPIPS is not reported") <= 1


def test_interpolate_to_video_without_a_system_ffmpeg(commands: Commands, trained: Run, work: Path) -> None:
    bare = Commands(work, commands.server)
    bare.env |= {"PATH": str(work / "empty"), "XDG_CACHE_HOME": str(work / "cache")}
    result = bare.run(
        *("ns-render", "interpolate", "--load-config", trained.config, "--output-path", work / "interpolated.mp4"),
        *("--interpolation-steps", 3),
    )
    assert result.status == 0, result.output
    assert frames(work / "interpolated.mp4").shape == (3, 48, 64, 3)
    assert os.access(work / "cache" / "vlmgs_ns" / "bin" / "ffmpeg", os.X_OK)


def test_dataset_to_images(commands: Commands, trained: Run, work: Path) -> None:
    result = commands.fork(
        *("ns-render", "dataset", "--load-config", trained.config, "--output-path", work / "dataset"),
        *("--rendered-output-names", "rgb", "depth", "accumulation", "gt-rgb", "raw-depth", "--image-format", "png"),
    )
    assert result.status == 0, result.output
    for name in ("rgb", "depth", "accumulation", "gt-rgb"):
        images = [imageio.imread(path) for path in sorted((work / "dataset" / "test" / name).glob("*.png"))]
        assert [image.shape for image in images] == [(48, 64, 3)] * 2, name
    assert len(list((work / "dataset" / "test" / "raw-depth").glob("*.npy.gz"))) == 2


@pytest.mark.parametrize("kind", ["video", "images"])
def test_camera_path(commands: Commands, trained: Run, work: Path, path_file: Path, kind: str) -> None:
    result = commands.fork(
        *("ns-render", "camera-path", "--load-config", trained.config, "--camera-path-filename", path_file),
        *("--output-path", work / "path.mp4", "--output-format", kind, "--rendered-output-names", "rgb", "depth"),
    )
    assert result.status == 0, result.output
    if kind == "video":
        pictures = frames(work / "path.mp4")
    else:
        pictures = np.stack([imageio.imread(path) for path in sorted((work / "path").glob("*.jpg"))])
    assert pictures.shape == (4, 48, 128, 3)  # colour and depth side by side
    assert pictures[0].std() > 0 and not np.array_equal(pictures[0], pictures[-1])


def test_interpolate_to_images(commands: Commands, trained: Run, work: Path) -> None:
    result = commands.fork(
        *("ns-render", "interpolate", "--load-config", trained.config, "--output-path", work / "stills"),
        *("--interpolation-steps", 2, "--output-format", "images", "--pose-source", "train"),
    )
    assert result.status == 0, result.output
    assert len(list((work / "stills").glob("*.jpg"))) == 7 * 2


def test_export(commands: Commands, trained: Run, work: Path) -> None:
    result = commands.run("ns-export", "gaussian-splat", "--load-config", trained.config, "--output-dir", work / "ply")
    assert result.status == 0, result.output
    everything = PlyData.read(work / "ply" / "splat.ply")["vertex"]
    names = {prop.name for prop in everything.properties}
    assert {"x", "f_dc_0", "f_rest_44", "opacity", "scale_2", "rot_3"} <= names
    assert all(np.isfinite(everything[name]).all() for name in names)

    # A box turned by 45° about z keeps what is inside of it, and only that.
    centre, turn, size = np.array([0.1, 0.0, 0.0]), math.pi / 4, np.array([1.0, 1.0, 2.0])
    result = commands.fork(
        *("ns-export", "gaussian-splat", "--load-config", trained.config, "--output-dir", work / "box"),
        *("--obb-center", *centre, "--obb-rotation", 0.0, 0.0, turn, "--obb-scale", *size),
    )
    assert result.status == 0, result.output
    boxed = PlyData.read(work / "box" / "splat.ply")["vertex"]
    points = np.stack([everything[axis] for axis in "xyz"], axis=1)
    c, s = math.cos(turn), math.sin(turn)
    local = (points - centre) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    inside = (np.abs(local) <= size / 2).all(axis=1)
    assert 0 < inside.sum() < len(points)
    assert len(boxed["x"]) == inside.sum()
    np.testing.assert_array_equal(boxed["x"], points[inside, 0])
