"""Folded scenes: cameras of two sides that came out on one, because what they saw looks the same from both.

Photos taken from nearly the same place show the same things. Where the cameras say that two photos were, and the photos share
hardly a point of what both should see, a camera is wrong: missing correspondences (Zach, Irschara and Bischof, "What can missing
correspondences tell us about 3D structure and motion?", CVPR 2008).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pycolmap

NEARLY = 10.0
"""Angle in degrees, seen from the points of a photo, up to which another one was taken from nearly the same place."""
WIDE = 25.0
"""Angle up to which photos of one place still share what they see."""
HARDLY = 0.2
"""Share of the points that two photos should both see, below which they do not show the same place: 0.4 to 0.9 of them are shared
by photos from nearly the same place in scenes that came out right."""
FEW = 20
"""Points below which nothing is said about a pair."""
CLOSEST = 20
"""Photos that one is compared with, those of the smallest angles."""
WITNESSES = 3
"""Pairs from nearly the same place that tell whether a photo is misplaced."""
FOLDED = 0.15
"""Share of contradicting pairs from nearly the same place above which a scene is folded: 0.37 of them in a folded room, 0
to 0.07 in rooms and captures that are not."""


def shared(model: pycolmap.Reconstruction) -> Iterator[tuple[int, int, float, float]]:
    """Yield pairs of photos that should see the same: two image ids, the angle between them in degrees, and how many of the first
    one's points inside the second one's frame the second has, in [0, 1]. Things that hide points are not looked at."""
    images = [image for image in model.images.values() if image.has_pose]
    rows = {key: row for row, key in enumerate(model.points3D)}
    places = np.array([model.points3D[key].xyz for key in rows]).reshape(-1, 3)
    seen = [np.array([rows[p.point3D_id] for p in image.points2D if p.has_point3D()], dtype=int) for image in images]
    centres = np.array([image.projection_center() for image in images])
    for k, image in enumerate(images):
        if len(seen[k]) < FEW:
            continue
        middle = np.median(places[seen[k]], axis=0)
        angles = _angles(centres[k] - middle, centres - middle)
        angles[k] = np.inf
        for other in np.argsort(angles)[:CLOSEST]:
            if angles[other] > WIDE:
                break
            inside = seen[k][_inside(images[other], places[seen[k]])]
            if len(inside) >= FEW:
                yield image.image_id, images[other].image_id, angles[other], float(np.isin(inside, seen[other]).mean())


def contradicting(model: pycolmap.Reconstruction) -> float:
    """Return the share, in [0, 1], of the pairs from nearly the same place that share hardly a point."""
    near = [share < HARDLY for _, _, angle, share in shared(model) if angle < NEARLY]
    return float(np.mean(near)) if near else 0.0


def misplaced(model: pycolmap.Reconstruction) -> list[int]:
    """Return ids of the photos that contradict most of those from nearly the same place."""
    votes: dict[int, list[bool]] = {}
    for first, second, angle, share in shared(model):
        for image in (first, second) if angle < NEARLY else ():
            votes.setdefault(image, []).append(share < HARDLY)
    return [image for image, against in sorted(votes.items()) if len(against) >= WITNESSES and np.mean(against) > 0.5]


def leave_out_contradicting(model: pycolmap.Reconstruction, database: pycolmap.Database) -> int:
    """Delete, in place, the two-view geometries of photos that should see the same and share hardly a point; how many."""
    import pycolmap

    pairs = {pycolmap.image_pair_to_pair_id(a, b) for a, b, _, share in shared(model) if share < HARDLY}
    verified = {number for number, pair in zip(*database.read_two_view_geometries(), strict=True) if len(pair.inlier_matches)}
    for number in pairs & verified:
        database.delete_two_view_geometry(*pycolmap.pair_id_to_image_pair(number))
    return len(pairs & verified)


def _inside(
    image: pycolmap.Image,
    points: npt.NDArray[np.float64],  # [P, 3] world
) -> npt.NDArray[np.bool_]:  # [P]
    """Return which points lie before a photo's camera and inside its frame."""
    camera, pose = image.camera, image.cam_from_world()
    assert camera is not None  # of a model, not of a database
    local = points @ pose.rotation.matrix().T + pose.translation
    before = local[:, 2] > 0
    pixels = camera.img_from_cam(np.where(before[:, None], local, 1.0))
    return before & (pixels >= 0).all(axis=1) & (pixels <= [camera.width, camera.height]).all(axis=1)


def _angles(
    one: npt.NDArray[np.float64],  # [3]
    others: npt.NDArray[np.float64],  # [N, 3]
) -> npt.NDArray[np.float64]:  # [N] degrees
    lengths = np.linalg.norm(one) * np.linalg.norm(others, axis=1)
    return np.degrees(np.arccos(np.clip(others @ one / np.maximum(lengths, 1e-12), -1, 1)))
