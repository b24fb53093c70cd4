"""Gaussians in other coordinates: centres, sizes, orientations and colours that change with the direction."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlmgs_ns.splats.orbit import nearest_to_lines
from vlmgs_ns.splats.ply import Gaussians
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json


def moved(
    gaussians: Gaussians,
    rotation: Tensor,  # [3, 3]
    translation: Tensor,  # [3]
    scale: float,
) -> Gaussians:
    """Transform Gaussians by x ↦ scale · (rotation · x + translation): centres, sizes, orientations and colours.

    Raises:
        ValueError: `rotation` is not a rotation (nerfstudio's axes never mirror).
    """
    rotation = rotation.double()
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-4) or torch.det(rotation) < 0:
        raise ValueError(f"{rotation.tolist()} is not a rotation: its rows must be orthonormal and right-handed")
    means = scale * (gaussians.means.double() @ rotation.T + translation.double())
    rest = gaussians.features_rest
    if rest.shape[1]:
        turn = harmonics_rotation(rotation, gaussians.degree)[1:, 1:]
        rest = torch.einsum("ij,njc->nic", turn, rest.double()).float()
    return Gaussians(
        means.float(), gaussians.scales + float(np.log(scale)), _turned(gaussians.quats, rotation), gaussians.features_dc, rest,
        gaussians.opacities,
    )  # fmt: skip


def in_data_coordinates(
    gaussians: Gaussians,
    transforms: Path,
) -> Gaussians:
    """Transform Gaussians from a run's coordinates to those of the data that it was trained on, such as COLMAP's.

    Args:
        gaussians: in a run's coordinates, y = scale · (rotation · x + translation) of the data's x.
        transforms: the run's dataparser_transforms.json.

    Raises:
        InputError: that file is missing, damaged, or not of a rotation.
    """
    try:
        metadata = parse_json(transforms.read_text(encoding="utf-8"))
        matrix, scale = torch.tensor(metadata["transform"], dtype=torch.float64), float(metadata["scale"])
        rotation, translation = matrix[:3, :3], matrix[:3, 3]
        if not 0 < scale < math.inf:
            raise ValueError(f"a scale of {scale}")
        return moved(gaussians, rotation.T, -scale * (rotation.T @ translation), 1 / scale)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{transforms} does not hold the transform from the data's coordinates to the run's ({error}); "
            "write in the run's coordinates, or copy the file from where the run was trained"
        ) from None


def in_viewer_coordinates(
    gaussians: Gaussians,
    camera_to_worlds: Tensor,  # [N, 3, 4]
) -> Gaussians:
    """Turn and shift Gaussians as web viewers take them: y up, x to the right of a photo, the origin where the photos look.

    Args:
        camera_to_worlds: poses of the photos, OpenGL axes, in the same coordinates. x is that of the photo held most level.
    """
    poses = camera_to_worlds.double().cpu()
    focus = nearest_to_lines(poses[:, :, 3], -poses[:, :, 2])
    up = torch.nn.functional.normalize(poses[:, :, 1].mean(dim=0), dim=0)
    rise = poses[:, :, 0] @ up
    level = int(rise.abs().argmin())
    right = torch.nn.functional.normalize(poses[level, :, 0] - rise[level] * up, dim=0)
    rotation = torch.stack([right, up, torch.linalg.cross(right, up)])
    return moved(gaussians, rotation, -rotation @ focus, 1.0)


def harmonics_rotation(
    rotation: Tensor,  # [3, 3] float64
    degree: int,
) -> Tensor:  # [K, K] float64
    """Return the matrix that rotates coefficients of spherical harmonics: Y(R d) · (matrix · c) = Y(d) · c for all d."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(256, 3, generator=generator, dtype=torch.float64), dim=-1)
    before, after = _harmonics(directions, degree), _harmonics(directions @ rotation.T, degree)
    return torch.linalg.lstsq(after, before).solution


def _harmonics(
    directions: Tensor,  # [M, 3] unit vectors
    degree: int,
) -> Tensor:  # [M, K]
    """Evaluate the rasteriser's own basis functions one by one."""
    from vlmgs_ns.rasterize.spherical_harmonics import SphericalHarmonics  # brings numba along

    count, size = len(directions), (degree + 1) ** 2
    one_hot = torch.eye(size).repeat(count, 1)[:, :, None].expand(-1, -1, 3).contiguous()
    points = directions.float().repeat_interleave(size, dim=0)
    seen = torch.ones(1, count * size, dtype=torch.int32)
    colours = SphericalHarmonics.apply(degree, points, torch.zeros(1, 3), one_hot, seen)  # type: ignore[no-untyped-call]
    return colours[0, :, 0].reshape(count, size).double()


def _turned(
    quats: Tensor,  # [N, 4] wxyz
    rotation: Tensor,  # [3, 3]
) -> Tensor:  # [N, 4]
    """Rotate orientations: the product of the rotation's quaternion and theirs."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation.numpy()).as_quat()
    left = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float64)
    return (quats.double() @ left.T).float()
