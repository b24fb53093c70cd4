"""Gaussians from and to a .ply file in the format of 3DGS, and their transformation to other coordinates."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json

LEAST_LOGIT = math.log(1 / 254)
"""Logit of the opacity 1/255, below which no rasteriser of 3DGS draws a Gaussian."""
LONGEST_HEADER = 1 << 16
"""Bytes; 3DGS' own take 1,500."""
C0 = math.sqrt(1 / (4 * math.pi))
"""The harmonic of degree 0."""


@dataclass(frozen=True)
class Gaussians:
    """Parameters of Gaussians before their activation functions, as in training and in the file."""

    means: Tensor  # [N, 3]
    scales: Tensor  # [N, 3] logarithms of standard deviations
    quats: Tensor  # [N, 4] wxyz
    features_dc: Tensor  # [N, 3] harmonics of degree 0
    features_rest: Tensor  # [N, K - 1, 3] harmonics above, K = (degree + 1)²
    opacities: Tensor  # [N, 1] logits

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return round((self.features_rest.shape[1] + 1) ** 0.5) - 1

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, which: Tensor) -> Gaussians:
        """Return the Gaussians of ids [M] int64 or of a mask [N] bool."""
        return Gaussians(**{name: values[which] for name, values in vars(self).items()})

    def drawn(self) -> Tensor:  # [N] bool
        """Return which Gaussians a rasteriser can draw: finite values, and an opacity of 1/255 or more. Others break viewers."""
        finite = [torch.isfinite(values).flatten(1).all(dim=1) for values in vars(self).values()]
        return torch.stack(finite).all(dim=0) & (self.opacities[:, 0] >= LEAST_LOGIT)


def trained_gaussians(
    parameters: Mapping[str, Tensor],
    sh_degree: int,
) -> Gaussians:
    """Return the Gaussians of a model in Splatfacto's parametrisation, on the CPU.

    Args:
        parameters: `gauss_params`, by the names of `Gaussians`.
        sh_degree: the model's degree. At 0 its colours are logits, which become harmonics of degree 0 here.
    """
    values = {name: parameters[name].detach().cpu().float() for name in Gaussians.__dataclass_fields__}
    if sh_degree == 0:
        values["features_dc"] = (torch.sigmoid(values["features_dc"]) - 0.5) / C0
    return Gaussians(**values)


def write_ply(
    path: Path,
    gaussians: Gaussians,
) -> None:
    """Write a binary 3DGS .ply with 3DGS' columns in its order, normals of 0 among them.

    Drop what no viewer can draw on the way::

        gaussians = read_ply(Path("scene.ply"))
        write_ply(Path("clean.ply"), gaussians[gaussians.drawn()])

    Raises:
        OSError: `path` cannot be written; the file is then incomplete.
    """
    count = len(gaussians)
    columns: dict[str, Tensor] = {axis: gaussians.means[:, k] for k, axis in enumerate("xyz")}
    columns |= {f"n{axis}": torch.zeros(count) for axis in "xyz"}
    tables = {
        "f_dc": gaussians.features_dc,
        # All coefficients of red, then of green, then of blue.
        "f_rest": gaussians.features_rest.transpose(1, 2).reshape(count, 3 * gaussians.features_rest.shape[1]),
        "opacity": gaussians.opacities,
        "scale": gaussians.scales,
        "rot": gaussians.quats,
    }
    for name, table in tables.items():
        columns |= {"opacity" if name == "opacity" else f"{name}_{k}": table[:, k] for k in range(table.shape[1])}
    rows = np.empty(count, dtype=[(name, "<f4") for name in columns])
    for name, column in columns.items():
        rows[name] = column.detach().cpu().numpy()
    PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(path))


def read_ply(path: Path) -> Gaussians:
    """Read a 3DGS .ply, text or binary, of any degree of harmonics up to 3.

    Raises:
        InputError: the file does not exist, is not a .ply or is cut short, holds points without Gaussians, or values that
            are not finite.
    """
    if not path.is_file():
        raise InputError(f"the file {path} does not exist; give a .ply of Gaussians")
    try:
        with path.open("rb") as file:
            if b"end_header" not in file.read(LONGEST_HEADER):
                raise ValueError(f"its header does not end within {LONGEST_HEADER} bytes")
        ply = PlyData.read(str(path))  # through a memory map: otherwise row by row
        vertices = ply["vertex"].data
        names = set(vertices.dtype.names or ())
        rest = sorted((name for name in names if name.startswith("f_rest_")), key=lambda name: int(name.removeprefix("f_rest_")))
    except MemoryError:
        raise InputError(f"{path} promises more Gaussians than memory holds; copy or export it again") from None
    except (PlyParseError, KeyError, ValueError, EOFError, OverflowError) as error:
        raise InputError(f"{path} cannot be read as .ply ({str(error).strip()}); copy or export it again") from None
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
            f"{path} does not hold 3-D Gaussians: it lacks {', '.join(missing)}; give a .ply that 3DGS, gsplat or ns-export "
            "gaussian-splat (with spherical harmonics) wrote"
        )
    if len(rest) not in (0, 9, 24, 45):
        raise InputError(f"{path} has {len(rest)} higher harmonics a Gaussian; 0, 9, 24 or 45 make degrees 0 to 3")
    if len(vertices) == 0:
        raise InputError(f"{path} holds 0 Gaussians; export it again")
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


def write_compressed_ply(
    path: Path,
    gaussians: Gaussians,
) -> None:
    """Write PlayCanvas' compressed .ply, a quarter of the size: gsply quantises within chunks of 256 Gaussians near each other.

    Raises:
        ImportError: gsply is not installed.
        OSError: `path` cannot be written.
    """
    compress = importlib.import_module("gsply").compress_to_bytes  # an optional dependency
    quats = torch.nn.functional.normalize(gaussians.quats, dim=1)
    tensors = [gaussians.means, gaussians.scales, quats, gaussians.opacities[:, 0], gaussians.features_dc]
    rest = gaussians.features_rest.contiguous().numpy() if gaussians.degree else None
    path.write_bytes(compress(*(tensor.contiguous().numpy() for tensor in tensors), rest))


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
