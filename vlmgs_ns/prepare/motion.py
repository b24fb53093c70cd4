"""Structure from motion: where each photo was taken, by pycolmap on the CPU.

Everything found so far lies in a database, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from vlmgs_ns.system.progress import bar

if TYPE_CHECKING:
    import pycolmap

ALL_PAIRS = 60
"""Photos up to which every pair is compared."""
NEIGHBOURS = 10
"""Photos before and after one, in the order of their names, with which it is compared where there are more."""
ALIKE = 25
"""Photos that look most alike with which it is compared as well: they close loops."""
FEATURE_SIZE = 1600
"""Longer side, in pixels, of what features are sought in."""


@dataclass(frozen=True)
class PhotoMatches:
    """What was found in one photo."""

    features: int
    matched: int
    """photos that share enough features with it"""
    inliers: int
    """features that it shares with the photo that shares most"""


@dataclass(frozen=True)
class Motion:
    """Cameras and points."""

    models: list[pycolmap.Reconstruction]
    """one for each group of photos that could be placed together, the largest first"""
    photos: dict[str, PhotoMatches]
    turned_only: bool
    """most pairs differ by a rotation alone, which shows no depth"""


def reconstruct(images: Path, work: Path, masks: Path | None, seed: int) -> Motion:
    """Find cameras and points for the photos of a folder.

    Args:
        images: JPEGs.
        work: folder of the database; one of an earlier run, stopped or not, is used.
        masks: PNGs named as photos with .png appended; no feature is taken where they are black.
        seed: of the robust estimators; the same seed gives the same cameras.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the database is closed.
    """
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    pycolmap.set_random_seed(seed)
    database, names = work / "database.db", sorted(path.name for path in images.iterdir())

    reader = pycolmap.ImageReaderOptions(camera_model="OPENCV")
    if masks is not None:
        reader.mask_path = masks
    extraction = pycolmap.FeatureExtractionOptions(max_image_size=FEATURE_SIZE)
    mode = pycolmap.CameraMode.SINGLE if len({_size(images / name) for name in names}) == 1 else pycolmap.CameraMode.AUTO
    _watched(
        "Finding features",
        len(names),
        lambda: _rows(database, "keypoints"),
        lambda token: pycolmap.extract_features(
            database, images, camera_mode=mode, reader_options=reader, extraction_options=extraction, cancellation_token=token
        ),
    )

    pairs = pairs_to_compare(images, names)
    (work / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    _watched(
        "Comparing pairs",
        len(pairs),
        lambda: _rows(database, "two_view_geometries"),
        lambda token: pycolmap.match_image_pairs(
            database,
            pairing_options=pycolmap.ImportedPairingOptions(match_list_path=work / "pairs.txt"),
            verification_options=verification,
            cancellation_token=token,
        ),
    )

    options = pycolmap.IncrementalPipelineOptions(random_seed=seed, min_model_size=3)
    options.mapper.random_seed = options.triangulation.random_seed = seed
    placed = [0]
    models: dict[int, pycolmap.Reconstruction] = {}

    def place(token: pycolmap.CancellationToken) -> None:
        def one_more() -> None:
            placed[0] += 1

        (work / "models").mkdir(exist_ok=True)
        found = pycolmap.incremental_mapping(
            database, images, work / "models", options, next_image_callback=one_more, cancellation_token=token
        )
        models.update(found)

    _watched("Placing cameras", len(names), lambda: placed[0], place)
    photos, turned_only = _matches(database)
    return Motion(sorted(models.values(), key=lambda model: -model.num_reg_images()), photos, turned_only)


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


def _thumbnail(path: Path) -> np.ndarray[Any, Any]:  # [768] unit vector, the mean colour taken away
    small = cv2.resize(cv2.imread(str(path)), (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean((0, 1))
    return small.ravel() / max(float(np.linalg.norm(small)), 1e-6)


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as image:
        return image.size


def _watched(label: str, total: int, count: Callable[[], int], work: Callable[[pycolmap.CancellationToken], None]) -> None:
    """Do the work in a thread, show how far it is, and have it stop at Ctrl-C.

    Raises:
        KeyboardInterrupt: when the work has stopped.
        Exception: what the work raised.
    """
    import pycolmap

    token, errors = pycolmap.CancellationToken(), list[BaseException]()

    def run() -> None:
        try:
            work(token)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        with bar(label, total) as report:
            while thread.is_alive():
                thread.join(0.5)
                report(min(count(), total))
    except KeyboardInterrupt:
        token.cancel()
        thread.join()
        raise
    if errors:
        raise errors[0]


def _rows(database: Path, table: str) -> int:
    """Return the rows of a table that another thread is filling; 0 where there is none yet."""
    try:
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.1)
    except sqlite3.Error:
        return 0
    try:
        return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


def _matches(database: Path) -> tuple[dict[str, PhotoMatches], bool]:
    """Return what was found in each photo, and whether nearly all pairs differ by a rotation alone."""
    import pycolmap

    kinds = pycolmap.TwoViewGeometryConfiguration
    flat = {kinds.PANORAMIC, kinds.PLANAR_OR_PANORAMIC}
    with pycolmap.Database.open(database) as found:
        images = {image.image_id: image.name for image in found.read_all_images()}
        inliers: dict[int, list[int]] = {key: [] for key in images}
        rotations, verified = 0, 0
        for (first, second), pair in zip(*_pairs(found), strict=True):
            shared = len(pair.inlier_matches)
            if shared < 15:
                continue
            verified += 1
            rotations += pair.config in flat
            inliers[first].append(shared)
            inliers[second].append(shared)
        photos = {
            name: PhotoMatches(found.num_keypoints_for_image(key), len(inliers[key]), max(inliers[key], default=0))
            for key, name in images.items()
        }
    return photos, verified > 0 and rotations > 0.9 * verified


def _pairs(found: pycolmap.Database) -> tuple[list[tuple[int, int]], list[pycolmap.TwoViewGeometry]]:
    import pycolmap

    ids, geometries = found.read_two_view_geometries()
    return [pycolmap.pair_id_to_image_pair(number) for number in ids], geometries
