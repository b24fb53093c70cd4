"""Photos of a corner of a room whose floor and walls are covered with noise, from cameras that are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
TEXELS = 100
"""Texels of a texture along one unit of length."""


def cameras(count: int = 7) -> Array:  # [N, 4, 4] camera to world, OpenCV axes, z up
    """Return upright cameras on an arc that look into the corner at the origin."""
    poses = []
    for angle in np.linspace(0.35, 1.2, count):
        place = np.array([4 * np.cos(angle), 4 * np.sin(angle), 1.6 + 0.3 * np.cos(7 * angle)])
        ahead = np.array([0.4, 0.4, 0.6]) - place
        ahead /= np.linalg.norm(ahead)
        right = np.cross(ahead, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.stack([right, np.cross(ahead, right), ahead], 1), place
        poses.append(pose)
    return np.stack(poses)


def write_photos(
    folder: Path, poses: Array, width: int = WIDTH, height: int = HEIGHT, focal: float = FOCAL, first: int = 0
) -> None:
    """Cast a ray for each pixel: it hits one of the planes x = 0, y = 0, z = 0, the last on its way. Names start at `first`."""
    rng = np.random.default_rng(0)
    side = 8 * TEXELS
    textures = [sum(_noise(rng, side, grain) for grain in (4, 12, 40)).astype(np.uint8) for _ in range(3)]
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(columns - width / 2) / focal, (rows - height / 2) / focal, np.ones_like(columns)], -1)
    folder.mkdir(parents=True, exist_ok=True)
    for number, pose in enumerate(poses, first):
        toward = rays @ pose[:3, :3].T
        distance = np.where(toward < 0, -pose[:3, 3] / np.minimum(toward, -1e-9), np.inf)  # to each plane
        plane = distance.argmin(-1)
        hit = pose[:3, 3] + toward * distance.min(-1, keepdims=True)
        photo = np.zeros((height, width), np.uint8)
        for axis, texture in enumerate(textures):
            u, v = (hit[..., k].astype(np.float32) * TEXELS for k in range(3) if k != axis)
            seen = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
            photo[plane == axis] = seen[plane == axis]
        cv2.imwrite(str(folder / f"{number}.png"), photo)


def _noise(rng: np.random.Generator, side: int, grain: int) -> npt.NDArray[np.float32]:
    coarse = rng.uniform(0, 85, (side // grain, side // grain)).astype(np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR)
