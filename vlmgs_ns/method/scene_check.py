"""Validation of a scene on disk before nerfstudio reads it: every fault becomes one message with the fix."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.utils import colmap_parsing_utils as colmap
from PIL import UnidentifiedImageError
from plyfile import PlyData

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json
from vlmgs_ns.system.progress import say

COLMAP_FOLDERS = (Path("sparse/0"), Path("colmap/sparse/0"), Path("sparse"), Path("colmap/sparse"))
"""Folders of a scene in which COLMAP and ns-process-data store a model."""
FARTHEST = 1e9
"""Coordinates from which a pose is damaged: those on the Earth, in metres from its centre, stay below a hundredth of this."""
LONGEST_FOCAL = 1e4
"""Focal length, in longer sides of the photo, from which intrinsics are damaged; the reciprocal is the shortest."""


def prepare(parser: DataParserConfig, photos_needed: bool) -> DataParserConfig:
    """Check the scene that ``parser`` points at and return the dataparser to read it with.

    nerfstudio's default dataparser becomes COLMAP's where the folder holds a COLMAP model and no ``transforms.json``; a COLMAP
    model is found in any of its usual places; one without points is read without them, so that the start is random.

    Args:
        parser: the dataparser as configured, with ``data`` filled in.
        photos_needed: False where only poses are read (export, camera paths): photos may then be absent.

    Raises:
        InputError: a file is missing or invalid.
    """
    data = parser.data
    if not data.exists():
        raise InputError(f"the data folder {data} does not exist; give the scene's folder with --data")
    if isinstance(parser, NerfstudioDataParserConfig):
        file = data if data.suffix == ".json" else data / "transforms.json"
        if file.is_file():
            _check_transforms(parser, file, photos_needed)
            return parser
        model = find_colmap(data)
        if model is None:
            raise InputError(
                f"the folder {data} has neither a transforms.json nor a COLMAP model in {', '.join(map(str, COLMAP_FOLDERS))}; "
                f"find the poses of its photos with: vlmgs prepare {shlex.quote(str(data))} OUT"
            )
        say(f"Reading {data} as a COLMAP scene, its model in {model}")
        parser = ColmapDataParserConfig(data=data, colmap_path=model)
    if isinstance(parser, ColmapDataParserConfig):
        return _prepare_colmap(parser)
    return parser


def find_colmap(data: Path) -> Path | None:
    """Return the folder of a COLMAP model relative to ``data``, or None."""
    for folder in COLMAP_FOLDERS:
        if any((data / folder / f"cameras.{kind}").is_file() for kind in ("txt", "bin")):
            return folder
    return None


def _prepare_colmap(parser: ColmapDataParserConfig) -> ColmapDataParserConfig:
    folder = parser.data / parser.colmap_path
    if not any((folder / f"cameras.{kind}").is_file() for kind in ("txt", "bin")):
        found = find_colmap(parser.data)
        if found is None:
            raise InputError(
                f"{folder} does not contain a COLMAP model (cameras.txt or cameras.bin); give its folder, relative to the scene, "
                "with: colmap --colmap-path sparse/0"
            )
        parser = replace(parser, colmap_path=found)
    if parser.load_3D_points and count_points(parser.data / parser.colmap_path) == 0:
        say(f"The COLMAP model in {parser.colmap_path} has no points: starting from random Gaussians", "yellow")
        parser = replace(parser, load_3D_points=False)
    if parser.downscale_factor is None:
        # nerfstudio would stop and ask before shrinking large photos into a new folder; ours are shrunk as they are read.
        parser = replace(parser, downscale_factor=1)
    folder = parser.data / f"{parser.images_path}_{parser.downscale_factor}"
    if parser.downscale_factor != 1 and not folder.is_dir():
        raise InputError(
            f"--downscale-factor {parser.downscale_factor} takes its photos from {folder}, which is not there; leave it out: "
            "photos are shrunk as they are read, to --pipeline.datamanager.max-image-size"
        )
    return parser


def count_points(model: Path) -> int:
    """Return the number of 3-D points in a COLMAP model, without reading them; 0 where the file is missing.

    Raises:
        InputError: the file is shorter than that many points.
    """
    binary = model / "points3D.bin"
    if binary.is_file():
        with binary.open("rb") as file:
            count = int.from_bytes(file.read(8), "little")
        # An id, three coordinates, a colour, an error and the length of a track: 51 bytes a point.
        if binary.stat().st_size < 8 + 51 * count:
            raise InputError(f"{binary} was cut short; copy the COLMAP model again, or remove that file to start at random")
        return count
    if (model / "points3D.txt").is_file():
        with (model / "points3D.txt").open(encoding="utf-8") as file:
            return sum(1 for line in file if line.strip() and not line.startswith("#"))
    return 0


def _check_transforms(parser: NerfstudioDataParserConfig, file: Path, photos_needed: bool) -> None:
    try:
        meta = parse_json(file.read_text(encoding="utf-8"), finite=False)
        frames = meta["frames"]
        poses = [(str(frame["file_path"]), frame["transform_matrix"]) for frame in frames]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} cannot be read as a nerfstudio scene ({type(error).__name__}: {error}); write it again, "
            "e.g. with vlmgs prepare: each frame needs file_path and transform_matrix"
        ) from None
    _check_count(len(poses), file)
    for name, matrix in poses:
        if not _is_pose(matrix):
            raise InputError(
                f"the pose of {name} in {file} is not a 4 x 4 matrix of finite numbers below {FARTHEST:g} with a rotation in it "
                f"({_short(matrix)}); "
                "compute the poses again or remove this frame"
            )
    if photos_needed and parser.downscale_factor in (None, 1):
        missing = [name for name, _ in poses if not (file.parent / name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of the {len(poses)} photos named in {file} are missing, first {file.parent / missing[0]}; "
                "put the files back or remove their frames"
            )


def _check_count(count: int, where: Path) -> None:
    if count < 2:
        raise InputError(
            f"{where} has {count} photo{'' if count == 1 else 's'}: depth needs at least 2, taken from different places; "
            "a good scene has 20 or more"
        )


def _is_pose(matrix: Any) -> bool:
    try:
        pose = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return pose.shape == (4, 4) and bool((np.abs(pose) < FARTHEST).all()) and _is_rotation(float(np.linalg.det(pose[:3, :3])))


def _is_rotation(determinant: float) -> bool:
    """Whether a matrix with this determinant turns and may mirror, but for rounding; one of zeros does neither."""
    return 0.9 < abs(determinant) < 1.1


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "…"


@contextmanager
def parsing(parser: DataParserConfig) -> Iterator[None]:
    """Turn what a dataparser raises while reading its scene into one ``InputError``."""
    try:
        yield
    except InputError:
        raise
    except ZeroDivisionError:
        raise InputError(
            f"all photos of {parser.data} were taken from one point, so the scene has no scale; add photos from other places"
        ) from None
    except FileNotFoundError as error:
        raise InputError(f"the file {error.filename} named by the scene {parser.data} is missing; put it back") from None
    except UnidentifiedImageError as error:
        raise InputError(
            f"a photo of the scene {parser.data} cannot be decoded ({error}); replace the file or remove its pose"
        ) from None
    except Exception as error:  # of any kind: dataparsers check little of what they read
        if isinstance(parser, ColmapDataParserConfig):
            _check_colmap_poses(parser.data / parser.colmap_path)
        raise InputError(
            f"nerfstudio's {type(parser).__name__.removesuffix('Config')} cannot read {parser.data} "
            f"({type(error).__name__}: {_short(error)}); check the scene, or choose another dataparser (ns-train … --help)"
        ) from error


def check_outputs(outputs: DataparserOutputs, parser: DataParserConfig) -> None:
    """Raise InputError where a parsed scene has poses or intrinsics that are not numbers."""
    cameras = outputs.cameras
    if not torch.isfinite(cameras.camera_to_worlds).all():
        if isinstance(parser, ColmapDataParserConfig):
            _check_colmap_poses(parser.data / parser.colmap_path)
        raise InputError(f"the scene {parser.data} has poses that are NaN or infinite; compute its poses again")
    for k, pose in enumerate(cameras.camera_to_worlds.double().reshape(-1, 3, 4)):
        if not (bool((pose.abs() < FARTHEST).all()) and _is_rotation(float(torch.det(pose[:, :3])))):
            raise InputError(
                f"the pose of {outputs.image_filenames[k]} has no rotation in it, or numbers of {FARTHEST:g} and more "
                f"({_short(pose.tolist())}); compute the poses again or remove this photo"
            )
    intrinsics = torch.stack([cameras.fx, cameras.fy, cameras.cx, cameras.cy]).reshape(4, -1)
    focal = intrinsics[:2] / torch.maximum(cameras.width, cameras.height).reshape(-1)
    bad = ~(torch.isfinite(intrinsics).all(dim=0) & ((focal > 1 / LONGEST_FOCAL) & (focal < LONGEST_FOCAL)).all(dim=0))
    if bad.any():
        first = int(bad.nonzero()[0])
        values = ", ".join(f"{value:g}" for value in intrinsics[:, first].tolist())
        raise InputError(
            f"the camera of {outputs.image_filenames[first]} has fx, fy, cx, cy = {values}; "
            "focal lengths are positive numbers of pixels: calibrate it again"
        )
    if cameras.distortion_params is not None and not torch.isfinite(cameras.distortion_params).all():
        first = int((~torch.isfinite(cameras.distortion_params)).reshape(len(bad), -1).any(dim=1).nonzero()[0])
        raise InputError(
            f"the camera of {outputs.image_filenames[first]} has distortion that is NaN or infinite; calibrate it again"
        )


def check_points(outputs: DataparserOutputs, parser: DataParserConfig) -> None:
    """Raise InputError where a scene names a .ply of points that could not be read: nerfstudio would start at random instead."""
    if not isinstance(parser, NerfstudioDataParserConfig) or not parser.load_3D_points:
        return
    file = parser.data if parser.data.suffix == ".json" else parser.data / "transforms.json"
    name = parse_json(file.read_text(encoding="utf-8"), finite=False).get("ply_file_path")
    if name is None:
        return
    points = file.parent / str(name)
    try:
        # Looked at again: of a file that was cut short, what nerfstudio reads it with makes up the rest.
        whole = len(PlyData.read(str(points))["vertex"].data) > 0
    except Exception:  # of many kinds, by where the file is damaged
        whole = False
    if not whole or "points3D_xyz" not in outputs.metadata:
        raise InputError(
            f"the points {points} that {file} names cannot be read as .ply, or are none; write them again, or remove "
            "ply_file_path to start at random"
        )


def _check_colmap_poses(model: Path) -> None:
    """Raise InputError for a photo of a COLMAP model whose pose is not finite."""
    read = colmap.read_images_text if (model / "images.txt").is_file() else colmap.read_images_binary
    path = model / ("images.txt" if (model / "images.txt").is_file() else "images.bin")
    try:
        images = read(path)
    except Exception as error:
        raise InputError(f"{path} is damaged or cut short ({_short(error)}); copy the COLMAP model again") from None
    _check_count(len(images), path)
    for image in images.values():
        if not all(math.isfinite(value) for value in (*image.qvec, *image.tvec)):
            raise InputError(
                f"the pose of {image.name} in {path} is not finite (quaternion {_short(image.qvec)}, translation "
                f"{_short(image.tvec)}); compute the poses again or remove this photo from the model"
            )
