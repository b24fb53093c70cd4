"""Writes a COLMAP model in its binary format (https://colmap.github.io/format.html).

The world is that of ``transforms.json``. COLMAP stores world-to-camera poses of OpenCV cameras, scalar-first
quaternions, and pixel coordinates whose pixel centres lie at half integers. Ids count from 1.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from vlmgs_ns.toy.points import Points
from vlmgs_ns.toy.solid import Array
from vlmgs_ns.toy.viewpoints import Pinhole, Viewpoint

_PINHOLE = 1


def quaternion(rotation: Array) -> Array:
    """Unit quaternion w x y z, w ≥ 0, of a rotation matrix [3, 3]; [4]."""
    # The dominant eigenvector of this symmetric form is the quaternion, whatever the angle.
    r = rotation
    form = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [0.0, r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [0.0, 0.0, r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [0.0, 0.0, 0.0, r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    q = np.linalg.eigh(form, UPLO="U")[1][:, -1]
    return -q if q[0] < 0 else q


def write_colmap(folder: Path, lens: Pinhole, views: list[Viewpoint], names: list[str], points: Points) -> None:
    """Write cameras.bin, images.bin and points3D.bin; ``names[k]`` is the file name of view k below ``images/``."""
    folder.mkdir(parents=True)
    camera = struct.pack("<QiiQQ4d", 1, 1, _PINHOLE, lens.width, lens.height, lens.focal, lens.focal, lens.cx, lens.cy)
    (folder / "cameras.bin").write_bytes(camera)
    slots = np.empty(len(points.view), np.int64)
    images = [struct.pack("<Q", len(views))]
    observation = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
    for k, (view, name) in enumerate(zip(views, names, strict=True)):
        mine = np.flatnonzero(points.view == k)
        slots[mine] = np.arange(len(mine))
        translation = -view.rotation.T @ view.position
        images.append(struct.pack("<i7di", k + 1, *quaternion(view.rotation.T), *translation, 1))
        rows = np.empty(len(mine), observation)
        rows["xy"], rows["point"] = points.pixel[mine], points.point[mine] + 1
        images.append(name.encode() + b"\0" + struct.pack("<Q", len(rows)) + rows.tobytes())
    (folder / "images.bin").write_bytes(b"".join(images))
    (folder / "points3D.bin").write_bytes(_points3d(points, slots))


def _points3d(points: Points, slots: Array) -> bytes:
    """Body of points3D.bin; ``slots`` [M] is the position of each observation in its image's list."""
    order = np.argsort(points.point, kind="stable")
    track = np.stack([points.view[order] + 1, slots[order]], axis=1).astype("<i4")
    ends = np.cumsum(np.bincount(points.point, minlength=len(points.xyz)))
    out = [struct.pack("<Q", len(points.xyz))]
    for i, end in enumerate(ends):
        start = ends[i - 1] if i else 0
        out.append(struct.pack("<Q3d3BdQ", i + 1, *points.xyz[i], *points.rgb[i].tolist(), points.error[i], end - start))
        out.append(track[start:end].tobytes())
    return b"".join(out)
