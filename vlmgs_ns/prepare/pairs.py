"""Pairs of photos: which to compare, and which results to trust."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    import pycolmap

ALL_PAIRS = 60
"""Photos up to which every pair is compared."""
NEIGHBOURS = 10
"""Photos before and after one, in the order of their names, with which it is compared where there are more."""
ALIKE = 25
"""Photos that look most alike with which it is compared as well: they close loops."""
DISTINCT = 0.45
"""Angle in radians between a feature's descriptor and the nearest other one of its photo from which it counts as distinct."""
SAME_PLACE = 6.0
"""Distance in pixels within which two features of a photo are of one thing."""
LEAST_DISTINCT = 10
"""Distinct features that a pair must share; with 7, chance is enough to fit a fundamental matrix to a repeated pattern."""


def pairs_to_compare(images: Path, names: list[str]) -> list[tuple[str, str]]:
    """Return the pairs of photos that may show the same: all of them, or neighbours by name and those that look alike."""
    if len(names) <= ALL_PAIRS:
        return list(combinations(names, 2))
    small = np.stack([_thumbnail(images / name) for name in names])
    alike = small @ small.T
    np.fill_diagonal(alike, -np.inf)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :ALIKE]
    found = {(i, j) for i in range(len(names)) for j in range(i + 1, min(i + 1 + NEIGHBOURS, len(names)))}
    found |= {(min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row}
    return [(names[i], names[j]) for i, j in sorted(found)]


def distinct(
    places: npt.NDArray[np.float32],  # [N, 2] pixels
    descriptors: npt.NDArray[np.uint8],  # [N, 128]
) -> npt.NDArray[np.bool_]:  # [N]
    """Return which features of a photo have no double elsewhere in it.

    Tiles, bricks and checks match their own copies, and a symmetric carpet matches itself turned by half: such matches agree with
    each other on a wrong pose. A feature that looks like another one of the same photo is of no use to tell.
    """
    unit = descriptors.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    near = cKDTree(places).query_pairs(SAME_PLACE, output_type="ndarray")
    near = np.concatenate([near, near[:, ::-1], np.arange(len(unit))[:, None].repeat(2, 1)])
    likeness = unit @ unit.T
    likeness[near[:, 0], near[:, 1]] = -1
    return likeness.max(axis=1, initial=-1) < np.cos(DISTINCT)


def leave_out_repeated(database: pycolmap.Database) -> set[int]:
    """Delete, in place, the two-view geometries that rest on repeated patterns, unless hardly a photo would have one left.

    Returns:
        Numbers of the pairs that were left out.
    """
    import pycolmap

    unique = {
        image.image_id: distinct(
            database.read_keypoints(image.image_id)[:, :2], database.read_descriptors(image.image_id).data[:, :128]
        )
        for image in database.read_all_images()
        if database.num_keypoints_for_image(image.image_id)
    }
    kept, doubtful = set[int](), set[int]()
    for number, pair in zip(*database.read_two_view_geometries(), strict=True):
        inliers = pair.inlier_matches
        if len(inliers) == 0:
            continue
        first, second = pycolmap.pair_id_to_image_pair(number)
        shared = np.count_nonzero(unique[first][inliers[:, 0]] & unique[second][inliers[:, 1]])
        (kept if shared >= LEAST_DISTINCT else doubtful).add(number)
    if len(_photos(kept)) < 0.5 * len(_photos(kept | doubtful)):
        return set()
    for number in doubtful:
        database.delete_two_view_geometry(*pycolmap.pair_id_to_image_pair(number))
    return doubtful


def _photos(pairs: set[int]) -> set[int]:
    import pycolmap

    return {image for number in pairs for image in pycolmap.pair_id_to_image_pair(number)}


def _thumbnail(path: Path) -> npt.NDArray[np.float32]:  # [768] unit vector, the mean colour taken away
    small = cv2.resize(cv2.imread(str(path)), (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean((0, 1))
    return small.ravel() / max(float(np.linalg.norm(small)), 1e-6)
