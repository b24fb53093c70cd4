"""Gaussians from a .ply file as 3DGS and its followers write it, in the coordinates of a scene's cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyParseError
from torch import Tensor

from vlmgs_ns.errors import InputError


@dataclass(frozen=True)
class Gaussians:
    """Raw parameters, as training holds them and as the file does."""

    means: Tensor  # [N, 3]
    scales: Tensor  # [N, 3] logarithms of standard deviations
    quats: Tensor  # [N, 4] wxyz
    features_dc: Tensor  # [N, 3] harmonics of degree 0
    features_rest: Tensor  # [N, K - 1, 3] harmonics above, K = (degree + 1)²
    opacities: Tensor  # [N, 1] logits

    @property
    def degree(self) -> int:
        """Of the spherical harmonics."""
        return round((self.features_rest.shape[1] + 1) ** 0.5) - 1


def read_ply(path: Path) -> Gaussians:
    """Read a 3DGS .ply, text or binary, of any degree of harmonics up to 3.

    Raises:
        InputError: there is no such file, it is no .ply or cut short, it holds points without Gaussians, or values that are
            not finite.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a .ply of Gaussians")
    try:
        ply = PlyData.read(str(path), mmap=False)
        vertices = ply["vertex"].data
    except (PlyParseError, KeyError, ValueError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as .ply ({str(error).strip()}); copy or export it again") from None
    names = set(vertices.dtype.names or ())
    rest = sorted((name for name in names if name.startswith("f_rest_")), key=lambda name: int(name.removeprefix("f_rest_")))
    columns = {
        "means": ["x", "y", "z"],
        "scales": [f"scale_{k}" for k in range(3)],
        "quats": [f"rot_{k}" for k in range(4)],
        "features_dc": [f"f_dc_{k}" for k in range(3)],
        "opacities": ["opacity"],
        "features_rest": rest,
    }
    missing = [name for wanted in columns.values() for name in wanted if name not in names]
    if missing:
        raise InputError(
            f"{path} holds no 3-D Gaussians: it lacks {', '.join(missing)}; give a .ply that 3DGS, gsplat or ns-export "
            "gaussian-splat (with spherical harmonics) wrote"
        )
    if len(rest) not in (0, 9, 24, 45):
        raise InputError(f"{path} has {len(rest)} higher harmonics a Gaussian; 0, 9, 24 or 45 make degrees 0 to 3")
    if len(vertices) == 0:
        raise InputError(f"{path} holds no Gaussians at all; export it again")
    values: dict[str, Tensor] = {}
    for name, wanted in columns.items():
        table = [np.asarray(vertices[column], dtype=np.float32) for column in wanted]
        values[name] = torch.from_numpy(np.stack(table, axis=1)) if table else torch.zeros(len(vertices), 0)
        if not torch.isfinite(values[name]).all():
            bad = int((~torch.isfinite(values[name])).any(dim=1).sum())
            raise InputError(f"{path}: {bad} of {len(vertices)} Gaussians have {name} that are not finite; export it again")
    # The file has all coefficients of red, then of green, then of blue.
    values["features_rest"] = values["features_rest"].reshape(len(vertices), 3, -1).transpose(1, 2).contiguous()
    return Gaussians(**values)


def moved(
    gaussians: Gaussians,
    rotation: Tensor,  # [3, 3]
    translation: Tensor,  # [3]
    scale: float,
) -> Gaussians:
    """The same scene in other coordinates, x ↦ scale · (rotation · x + translation): centres, sizes, orientations and colours.

    Raises:
        ValueError: `rotation` is none (nerfstudio's axes never mirror).
    """
    rotation = rotation.double()
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-4) or torch.det(rotation) < 0:
        raise ValueError(f"{rotation.tolist()} is no rotation: its rows must be orthonormal and right-handed")
    means = scale * (gaussians.means.double() @ rotation.T + translation.double())
    rest = gaussians.features_rest
    if rest.shape[1]:
        turn = harmonics_rotation(rotation, gaussians.degree)[1:, 1:]
        rest = torch.einsum("ij,njc->nic", turn, rest.double()).float()
    return Gaussians(
        means.float(), gaussians.scales + float(np.log(scale)), _turned(gaussians.quats, rotation), gaussians.features_dc, rest,
        gaussians.opacities,
    )  # fmt: skip


def harmonics_rotation(
    rotation: Tensor,  # [3, 3] float64
    degree: int,
) -> Tensor:  # [K, K] float64
    """The matrix that turns coefficients of spherical harmonics with the scene: Y(R d) · (turn · c) = Y(d) · c for all d."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(256, 3, generator=generator, dtype=torch.float64), dim=-1)
    before, after = _harmonics(directions, degree), _harmonics(directions @ rotation.T, degree)
    return torch.linalg.lstsq(after, before).solution


def _harmonics(
    directions: Tensor,  # [M, 3] unit vectors
    degree: int,
) -> Tensor:  # [M, K]
    """The rasteriser's own basis functions, one by one."""
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
    """Orientations after the scene was rotated: the product of the rotation's quaternion and theirs."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation.numpy()).as_quat()
    left = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float64)
    return (quats.double() @ left.T).float()
