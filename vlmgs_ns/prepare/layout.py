"""Cameras and points as the folder that every method of nerfstudio reads."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pycolmap

Array = npt.NDArray[np.float64]

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
LEVEL = 0.02
"""Part of the squared length of the cameras' horizontal axes that is left over in one direction, above which the axes do not show
which direction is up."""


def up(rotations: Array) -> Array:  # [N, 3, 3] camera to world, OpenCV axes -> [3] unit
    """Return which direction is up, from cameras that were held upright more or less.

    Horizontal axes of cameras that were not rolled are at right angles to it. Where they all point alike, or were rolled, it is
    the mean of what was up in the photos.
    """
    mean = -rotations[:, :, 1].mean(0)
    values, vectors = np.linalg.eigh(np.einsum("ni,nj->ij", rotations[:, :, 0], rotations[:, :, 0]) / len(rotations))
    level = values[0] < LEVEL and values[1] > 4 * LEVEL
    axis = vectors[:, 0] * np.sign(vectors[:, 0] @ mean) if level else mean
    return axis / max(float(np.linalg.norm(axis)), 1e-12)


def stand_upright(model: pycolmap.Reconstruction) -> None:
    """Turn a model in place: z points up, x to the right of the first photo, the cameras' centre is the origin."""
    import pycolmap

    poses = [_pose(image) for image in sorted(model.images.values(), key=lambda image: image.name) if image.has_pose]
    z = up(np.stack([pose[:3, :3] for pose in poses]))
    # Where the first camera lay on its side, its own up stands in.
    x = max((np.cross(z, np.cross(axis, z)) for axis in (poses[0][:3, 0], -poses[0][:3, 1])), key=np.linalg.norm)
    x /= np.linalg.norm(x)
    turn = np.stack([x, np.cross(z, x), z])
    centre = np.mean([pose[:3, 3] for pose in poses], axis=0)
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(turn), -turn @ centre))


def write_scene(model: pycolmap.Reconstruction, images: Path, work: Path, out: Path) -> None:
    """Write undistorted photos, transforms.json, sparse_pc.ply and the COLMAP model.

    All is made in the folder ``work`` and then moved; transforms.json, by which the scene is known, comes last.
    """
    import pycolmap

    made = work / "scene"
    shutil.rmtree(made, ignore_errors=True)
    model.write(_new(made / "distorted"))
    pycolmap.undistort_images(made, made / "distorted", images, jpeg_quality=95)
    plain = pycolmap.Reconstruction(made / "sparse")
    plain.export_PLY(made / "sparse_pc.ply")
    (made / "transforms.json").write_text(json.dumps(transforms(plain), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _new(out / "colmap" / "sparse")
    for name, place in (("images", "images"), ("sparse", "colmap/sparse/0"), ("sparse_pc.ply",) * 2, ("transforms.json",) * 2):
        shutil.rmtree(out / place, ignore_errors=True)
        os.replace(made / name, out / place)


def transforms(model: pycolmap.Reconstruction) -> dict[str, Any]:
    """Return what transforms.json holds for a model without distortion: poses with OpenGL axes, intrinsics in pixels."""
    frames = []
    for image in sorted(model.images.values(), key=lambda image: image.name):
        camera = image.camera
        assert camera is not None
        frames.append(
            {
                "file_path": f"images/{image.name}",
                "w": camera.width,
                "h": camera.height,
                "fl_x": camera.focal_length_x,
                "fl_y": camera.focal_length_y,
                "cx": camera.principal_point_x,
                "cy": camera.principal_point_y,
                "transform_matrix": (_pose(image) @ _OPENGL).tolist(),
            }
        )
    return {
        "camera_model": "OPENCV",
        "ply_file_path": "sparse_pc.ply",
        # Without this key nerfstudio takes the axes of the COLMAP model beside this file for its own old convention.
        "applied_transform": np.eye(4)[:3].tolist(),
        "frames": frames,
    }


def _pose(image: pycolmap.Image) -> Array:
    """Return the pose [4, 4] of a camera in the world, OpenCV axes."""
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().inverse().matrix()
    return pose


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
