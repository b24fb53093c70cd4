"""Points and cameras once more, from all matches that agree with the cameras found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vlmgs_ns.system.progress import bar

if TYPE_CHECKING:
    import pycolmap

Array = npt.NDArray[np.float64]

EPIPOLAR = 4.0
"""Distance in pixels from the epipolar line up to which a match is used."""
LEAST = 8
"""Matches of a pair that is used."""
ROBUST = 0.5
"""Residual in pixels at which the Cauchy loss begins to flatten."""
REPROJECTION = 2.0
"""Reprojection error in pixels above which an observation is dropped."""
ANGLE = 1.5
"""Angle in degrees between rays below which a point is dropped: its depth is unknown."""
ROUNDS = 3


def refine(model: pycolmap.Reconstruction, database: Path, images: Path, work: Path) -> pycolmap.Reconstruction:
    """Triangulate again from the matches that fit the cameras, and adjust both with a robust loss.

    The first pass trusts few pairs and few matches in each. With the cameras known, the epipolar geometry of every pair is known
    as well, and matches that it explains join; wrong ones leave.

    Args:
        model: cameras; its points are not used.
        database: copy of the one that holds the matches; its two-view geometries are replaced.
        images: photos, of which the points take their colours.
        work: folder for what pycolmap writes.
    """
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=0, min_num_matches=LEAST)
    options.mapper.random_seed = options.triangulation.random_seed = 0
    adjustment = pycolmap.BundleAdjustmentOptions(print_summary=False)
    adjustment.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    adjustment.ceres.loss_function_scale = ROBUST
    adjustment.ceres.solver_options.num_threads = 1  # sums in another order would give other digits
    work.mkdir(exist_ok=True)
    with bar("Refining cameras", 1 + ROUNDS) as report:
        with pycolmap.Database.open(database) as found:
            _verify(model, found)
        model = pycolmap.triangulate_points(model, database, images, work, True, options, True)
        for done in range(1, 1 + ROUNDS):
            report(done)
            pycolmap.bundle_adjustment(model, adjustment)
            pycolmap.ObservationManager(model).filter_all_points3D(REPROJECTION, ANGLE)
        report(1 + ROUNDS)
    model.normalize()  # photos leave the scale free, and the adjustment lets it drift
    return model


def epipolar_distance(
    first: Array,  # [N, 2] normalised image coordinates
    second: Array,  # [N, 2]
    rotation: Array,  # [3, 3] second camera from first
    translation: Array,  # [3]
) -> Array:  # [N]
    """Return the Sampson distance of matches, in normalised image units (Hartley and Zisserman, 2004, eq. 11.9)."""
    essential = np.cross(translation, rotation, axisb=0, axisc=0)
    a, b = (np.concatenate([points, np.ones((len(points), 1))], axis=1) for points in (first, second))
    lines, back = a @ essential.T, b @ essential
    slope = np.sqrt((lines[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1))
    return np.abs((b * lines).sum(1)) / np.maximum(slope, 1e-12)


def _verify(model: pycolmap.Reconstruction, found: pycolmap.Database) -> None:
    """Replace the two-view geometries by those of the cameras, each with the matches that it explains."""
    import pycolmap

    found.clear_two_view_geometries()
    cameras = {key: image for key, image in model.images.items() if image.has_pose}
    points = {key: image.camera.cam_from_img(found.read_keypoints(key)[:, :2].astype(float)) for key, image in cameras.items()}
    for number, matches in zip(*found.read_all_matches(), strict=True):
        first, second = pycolmap.pair_id_to_image_pair(number)
        if first not in cameras or second not in cameras or len(matches) < LEAST:
            continue
        pose = cameras[second].cam_from_world() * cameras[first].cam_from_world().inverse()
        distance = epipolar_distance(
            points[first][matches[:, 0]], points[second][matches[:, 1]], pose.rotation.matrix(), pose.translation
        )
        focal = 0.5 * sum(cameras[key].camera.mean_focal_length() for key in (first, second))
        kept = matches[distance * focal < EPIPOLAR]
        if len(kept) >= LEAST:
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
            geometry.cam2_from_cam1, geometry.inlier_matches = pose, kept
            found.write_two_view_geometry(first, second, geometry)
