"""Files of Gaussians that viewers open, by their suffix."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlmgs_ns.splats.ply import C0, Gaussians, write_ply


def write_splat(path: Path, gaussians: Gaussians) -> None:
    """Write a .splat, as antimatter15/splat reads it: 32 bytes a Gaussian, the largest and most opaque first, no harmonics.

    Raises:
        OSError: `path` cannot be written.
    """
    order = (gaussians.scales.sum(dim=1).exp() * torch.sigmoid(gaussians.opacities[:, 0])).argsort(descending=True, stable=True)
    chosen = gaussians[order]
    rows = np.empty(len(chosen), dtype=[("mean", "<f4", 3), ("scale", "<f4", 3), ("colour", "u1", 4), ("quat", "u1", 4)])
    rows["mean"], rows["scale"] = chosen.means.numpy(), chosen.scales.exp().numpy()
    colour = torch.cat([0.5 + C0 * chosen.features_dc, torch.sigmoid(chosen.opacities)], dim=1)
    rows["colour"] = (colour * 255).round().clamp(0, 255).numpy()
    rows["quat"] = (torch.nn.functional.normalize(chosen.quats, dim=1) * 128 + 128).round().clamp(0, 255).numpy()
    path.write_bytes(rows.tobytes())


def write_compressed_ply(path: Path, gaussians: Gaussians) -> None:
    """Write PlayCanvas' compressed .ply, a quarter of the size: gsply quantises within chunks of 256 Gaussians near each other.

    Raises:
        ImportError: gsply is not installed.
        OSError: `path` cannot be written.
    """
    path.write_bytes(importlib.import_module("gsply").compress_to_bytes(_for_gsply(gaussians)))


def write_spz(path: Path, gaussians: Gaussians) -> None:
    """Write Niantic's .spz, version 3, through gsply: about a seventh of the size. Its readers take y for up.

    Centres are on a grid of 24 bits an axis, as fine as their extent allows.

    Raises:
        ImportError: gsply is not installed.
        OSError: `path` cannot be written.
    """
    whole = math.ceil(math.log2(max(float(gaussians.means.abs().max()), 1.0)))
    bits = max(1, min(16, 22 - whole))
    importlib.import_module("gsply").write_spz(path, _for_gsply(gaussians), version=3, fractional_bits=bits)


WRITERS: dict[str, Callable[[Path, Gaussians], None]] = {
    "ply": write_ply,
    "compressed.ply": write_compressed_ply,
    "spz": write_spz,
    "splat": write_splat,
}


def _for_gsply(gaussians: Gaussians) -> Any:
    """Return the Gaussians as gsply takes them."""
    gsply = importlib.import_module("gsply")
    quats = torch.nn.functional.normalize(gaussians.quats, dim=1)
    values = {
        "means": gaussians.means, "scales": gaussians.scales, "quats": quats, "opacities": gaussians.opacities[:, 0],
        "sh0": gaussians.features_dc, "shN": gaussians.features_rest,
    }  # fmt: skip
    arrays = {name: tensor.contiguous().numpy() for name, tensor in values.items()}
    return gsply.GSData(**arrays, _format=gsply.create_ply_format(gaussians.degree))
