"""Structure from motion: where each photo was taken, by pycolmap on the CPU.

Everything found so far lies in a database, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import ExifTags, Image

from vlmgs_ns.prepare.folds import FOLDED, contradicting, leave_out_contradicting, misplaced
from vlmgs_ns.prepare.pairs import leave_out_repeated, pairs_to_compare
from vlmgs_ns.prepare.refine import refine
from vlmgs_ns.system.progress import bar

if TYPE_CHECKING:
    import pycolmap

FEATURE_SIZE = 1600
"""Longer side, in pixels, of what features are sought in."""
FEATURES = 4096
"""Most features of a photo, the largest first; the time of a comparison grows with their square."""
PHOTOS_AT_ONCE = 8
PAIRS_AT_ONCE = 100
"""Units between two reports of progress, and the most that a stopped run repeats. Only pycolmap may open its database: it has a
SQLite of its own, and two of them in one process break each other's locks."""
REFINEMENTS = 2
"""Times that matches are chosen by the cameras: in the embedded room the median error was 0.10 % after one, 0.09 % after two."""
UNFOLDINGS = 4
"""Times that cameras are placed again where they came out folded."""
KEPT = 0.8
"""Share of its photos that a folded scene must keep to count as unfolded."""
LEAST = 3
"""Photos of the smallest scene."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class PhotoMatches:
    """What was found in one photo."""

    features: int
    inliers: int
    """features that it shares with the photo that shares most"""
    repeated: int = 0
    """features that it shares with another photo, at most, where they are of a repeated pattern"""


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
        seed: of the robust estimators; the same seed gives the same cameras but for rounding and what hangs on it.
    """
    import pycolmap

    pycolmap.set_random_seed(seed)
    database, names = work / "database.db", sorted(path.name for path in images.iterdir())
    _find_features(images, names, database, masks)
    _compare(images, names, database, work / "pairs.txt", seed)

    trusted = _copy(database, work / "trusted.db")
    with pycolmap.Database.open(trusted) as found:
        repeated = leave_out_repeated(found)
    models = _unfold(_place(images, names, trusted, work / "models", seed), images, names, trusted, work, seed)
    if models and models[0].num_reg_images() < len(names):
        # Photos of carpets and lawns share nothing else; among cameras that stand they find their place all the same.
        models[0] = _place_rest(models[0], images, names, database, work / "rest", seed)
    for k in range(REFINEMENTS if models else 0):
        models[0] = refine(models[0], _copy(database, work / "refined.db"), images, work / "refined")
        if k == 0:
            models[0] = _replace(models[0], images, names, _copy(database, work / "again.db"), work / "again", seed)
    with pycolmap.Database.open(database) as found:
        photos, turned_only = _matches(found, repeated)
    return Motion(models, photos, turned_only)


def _find_features(images: Path, names: list[str], database: Path, masks: Path | None) -> None:
    import pycolmap

    extraction = pycolmap.FeatureExtractionOptions(max_image_size=FEATURE_SIZE)
    extraction.sift.max_num_features = FEATURES
    alike: dict[object, list[str]] = {}
    for name in names:
        alike.setdefault(_camera(images / name), []).append(name)
    done = 0
    with bar("Finding features", len(names)) as report:
        for group in alike.values():
            reader = pycolmap.ImageReaderOptions(camera_model="OPENCV")
            if masks is not None:
                reader.mask_path = masks
            for some in _parts(group, PHOTOS_AT_ONCE):
                # Of a part, too: a killed run may have left a few of its photos, and the rest would get a second camera.
                reader.existing_camera_id = _camera_id(database, group)
                pycolmap.extract_features(
                    database,
                    images,
                    image_names=some,
                    camera_mode=pycolmap.CameraMode.SINGLE,
                    reader_options=reader,
                    extraction_options=extraction,
                )
                report(done := done + len(some))


def _compare(images: Path, names: list[str], database: Path, listed: Path, seed: int) -> None:
    import pycolmap

    pairs = pairs_to_compare(images, names)
    # Guided matching is off: around a wrong geometry, of a repeated pattern, it finds more of the same.
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    done = 0
    with bar("Comparing pairs", len(pairs)) as report:
        for some in _parts(pairs, PAIRS_AT_ONCE):
            listed.write_text("".join(f"{a} {b}\n" for a, b in some), encoding="utf-8")
            pycolmap.match_image_pairs(
                database,
                pairing_options=pycolmap.ImportedPairingOptions(match_list_path=listed),
                verification_options=verification,
            )
            report(done := done + len(some))


def _place(images: Path, names: list[str], database: Path, folder: Path, seed: int) -> list[pycolmap.Reconstruction]:
    """Return the models of three photos or more, the largest first."""
    import pycolmap

    options = _mapping(seed)
    folder.mkdir(exist_ok=True)
    count = itertools.count(2)  # the first two photos come together
    with bar("Placing cameras", len(names)) as report:
        models = pycolmap.incremental_mapping(
            database, images, folder, options, next_image_callback=lambda: report(min(next(count), len(names)))
        )
    large = [model for model in models.values() if model.num_reg_images() >= LEAST]
    return sorted(large, key=lambda model: -model.num_reg_images())


def _unfold(
    models: list[pycolmap.Reconstruction], images: Path, names: list[str], database: Path, work: Path, seed: int
) -> list[pycolmap.Reconstruction]:
    """Return models as they are, or placed again without the pairs that contradict each other where the largest is folded."""
    import pycolmap

    best, least = models, contradicting(models[0]) if models else 0.0
    for k in range(UNFOLDINGS if least > FOLDED else 0):
        with pycolmap.Database.open(database) as found:
            if not leave_out_contradicting(models[0], found):
                break
        models = _place(images, names, database, work / f"unfolded{k}", seed)
        if not models or models[0].num_reg_images() < KEPT * best[0].num_reg_images():
            break
        now = contradicting(models[0])
        if now < least:
            best, least = models, now
    return best


def _replace(
    model: pycolmap.Reconstruction, images: Path, names: list[str], database: Path, folder: Path, seed: int
) -> pycolmap.Reconstruction:
    """Return a model in which misplaced photos have been placed once more, without the pairs that put them where they were."""
    import pycolmap

    wrong = misplaced(model)
    if not wrong:
        return model
    with pycolmap.Database.open(database) as found:
        leave_out_contradicting(model, found)
    for image in wrong:
        model.deregister_frame(model.images[image].frame_id)
    return _place_rest(model, images, names, database, folder, seed)


def _place_rest(
    model: pycolmap.Reconstruction, images: Path, names: list[str], database: Path, folder: Path, seed: int
) -> pycolmap.Reconstruction:
    """Return a model with photos added by all pairs, trusted or not, to those that it has, which stay where they are."""
    import pycolmap

    options = _mapping(seed)
    options.multiple_models = False
    options.fix_existing_frames = options.mapper.fix_existing_frames = True
    there = folder / "input"
    there.mkdir(parents=True, exist_ok=True)
    model.write(there)
    count = itertools.count(model.num_reg_images() + 1)
    with bar("Placing the rest", len(names)) as report:
        models = pycolmap.incremental_mapping(
            database,
            images,
            folder,
            options,
            input_path=there,
            next_image_callback=lambda: report(min(next(count), len(names))),
        )
    return max([model, *models.values()], key=lambda one: one.num_reg_images())


def _mapping(seed: int) -> pycolmap.IncrementalPipelineOptions:
    """Return options with one thread: the order in which several add up their sums changes which photo comes next."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions(random_seed=seed, min_model_size=LEAST, num_threads=1)
    options.mapper.random_seed = options.triangulation.random_seed = seed
    options.mapper.num_threads = 1
    # COLMAP's own are twice that: of 16 photos around bananas on a carpet it then places 8.
    options.mapper.abs_pose_min_num_inliers, options.mapper.abs_pose_min_inlier_ratio = 15, 0.15
    return options


def _copy(database: Path, to: Path) -> Path:
    """Copy a database that is not open."""
    shutil.copyfile(database, to)
    return to


def _parts(items: list[Item], size: int) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _camera_id(database: Path, names: list[str]) -> int:
    """Return the camera of those photos that are in the database already; -1: none is."""
    import pycolmap

    with pycolmap.Database.open(database) as found:
        return next((int(image.camera_id) for image in found.read_all_images() if image.name in names), -1)


def _camera(path: Path) -> object:
    """Return what photos of one camera with one zoom have in common: their size, and what EXIF says of camera and lens."""
    with Image.open(path) as image:
        exif = image.getexif()
        return image.size, exif.get(ExifTags.Base.Model), exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLength)


def _matches(found: pycolmap.Database, repeated: set[int]) -> tuple[dict[str, PhotoMatches], bool]:
    """Return what was found in each photo, and whether nearly all pairs differ by a rotation alone."""
    import pycolmap

    kinds = pycolmap.TwoViewGeometryConfiguration
    images = {image.image_id: image.name for image in found.read_all_images()}
    inliers: dict[int, int] = dict.fromkeys(images, 0)
    doubtful: dict[int, int] = dict.fromkeys(images, 0)
    verified = rotations = 0
    for number, pair in zip(*found.read_two_view_geometries(), strict=True):
        shared = len(pair.inlier_matches)
        verified += shared > 0
        rotations += shared > 0 and pair.config in (kinds.PANORAMIC, kinds.PLANAR_OR_PANORAMIC)
        best = doubtful if number in repeated else inliers
        for image in pycolmap.pair_id_to_image_pair(number):
            best[image] = max(best[image], shared)
    photos = {name: PhotoMatches(found.num_keypoints_for_image(key), inliers[key], doubtful[key]) for key, name in images.items()}
    return photos, verified > 0 and rotations > 0.9 * verified
