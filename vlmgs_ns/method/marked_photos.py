"""Marks on photos as they are on disk, carried over to the photos as training sees them: smaller, and without distortion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from numpy.typing import NDArray

from vlmgs_ns.guidance.config import GuidanceConfig
from vlmgs_ns.guidance.instructions import MarkedView, Marks, Size, read_boxes, read_masks
from vlmgs_ns.guidance.training_scene import Viewpoint
from vlmgs_ns.system.errors import InputError


def marked_views(config: GuidanceConfig, datamanager: Any, viewpoints: list[Viewpoint]) -> list[MarkedView]:
    """Return what the user marked by hand, in the training photos' views; marks of held-out photos are ignored.

    Raises:
        InputError: a file is wrong, or no training photo is marked.
    """
    training, held_out = datamanager.train_dataset, datamanager.eval_dataset
    photos = {**_sizes(held_out), **_sizes(training)}
    marks: Marks = {}
    for path, read in ((config.instruct_masks, read_masks), (config.instruct_boxes, read_boxes)):
        for name, mask in ({} if path is None else read(Path(path), photos)).items():
            marks[name] = mask | marks.get(name, False)
    stated = training._dataparser_outputs.cameras
    names = [Path(file).name for file in training.image_filenames]
    views = [
        MarkedView(point, torch.from_numpy(as_trained(marks[names[k]], stated[k], point)).to(point.K.device))
        for k, point in enumerate(viewpoints)
        if names[k] in marks
    ]
    if marks and not any(bool(view.mask.any()) for view in views):
        raise InputError("what is marked in detail is in no training photo: every box or mask is empty or of a held-out photo")
    return views


def as_trained(
    mask: NDArray[np.bool_],  # [H, W] of the photo on disk
    camera: Cameras,  # one, as the scene states it: with its distortion
    viewpoint: Viewpoint,
) -> NDArray[np.bool_]:  # [h, w]
    """Return the mask of a photo as its undistorted view shows it."""
    x, y = np.meshgrid(np.arange(viewpoint.width) + 0.5, np.arange(viewpoint.height) + 0.5)
    K = viewpoint.K.cpu().double().numpy()
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]], axis=-1).reshape(-1, 1, 2)
    focal, centre = (float(camera.fx), float(camera.fy)), (float(camera.cx), float(camera.cy))
    bent = _distort(rays, camera)
    scale = mask.shape[1] / int(camera.width), mask.shape[0] / int(camera.height)
    column = ((bent[:, 0] * focal[0] + centre[0]) * scale[0]).reshape(x.shape)
    row = ((bent[:, 1] * focal[1] + centre[1]) * scale[1]).reshape(x.shape)
    # half a pixel: OpenCV's pixel centres are whole numbers
    shown = cv2.remap(
        mask.astype(np.float32), (column - 0.5).astype(np.float32), (row - 0.5).astype(np.float32), cv2.INTER_LINEAR
    )
    return shown >= 0.5


def _distort(rays: NDArray[np.float64], camera: Cameras) -> NDArray[np.float64]:  # [P, 1, 2] → [P, 2]
    """Rays (x/z, y/z) as the lens bends them."""
    if camera.distortion_params is None or not bool((camera.distortion_params != 0).any()):
        return rays[:, 0]
    k1, k2, k3, k4, p1, p2 = camera.distortion_params.reshape(-1).double().tolist()
    if int(camera.camera_type) == CameraType.FISHEYE.value:
        return np.asarray(cv2.fisheye.distortPoints(rays, np.eye(3), np.array([k1, k2, k3, k4]))[:, 0], dtype=np.float64)
    ahead = np.concatenate([rays[:, 0], np.ones((len(rays), 1))], axis=1)
    none = np.zeros(3)
    return np.asarray(cv2.projectPoints(ahead, none, none, np.eye(3), np.array([k1, k2, p1, p2, k3]))[0][:, 0], dtype=np.float64)


def _sizes(photos: Any) -> dict[str, Size]:
    return {Path(file).name: size for file, size in zip(photos.image_filenames, photos._stated, strict=True)}
