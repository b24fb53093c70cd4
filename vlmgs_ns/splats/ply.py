"""Gaussians from and to a .ply file in the format of 3DGS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from vlmgs_ns.system.errors import InputError

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
