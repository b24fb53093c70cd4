"""Gaussians in few bytes, for a page that carries them: quantised values, one plane for each byte of a value.

Nearby Gaussians stand beside each other in Morton order, so that the planes deflate well: about 15 bytes a Gaussian with
harmonics of degree 1. Centres are quantised on a scale that is linear near the cameras and logarithmic far out, as the size of
what is seen there. `templates/share/decode.js` reads the same planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmgs_ns.splats.ply import C0, Gaussians

Bytes = npt.NDArray[np.uint8]

LEAST_SIZE = 1e-4
"""Least standard deviation that is kept, in `unit`s; the blur of every rasteriser hides smaller ones."""
HARMONIC_STEP = 1 / 32
"""Step of the coefficients of degree 1 and above."""
_MOST_QUATERNION = np.sqrt(0.5)
"""Greatest value of the three smaller components of a unit quaternion."""
_OUTLIERS = 1e-3
"""Share of colours, on either side, that are clipped to the range of the others."""


@dataclass(frozen=True)
class Quantised:
    """Quantised Gaussians, and what their values mean."""

    planes: Bytes  # [17 + 3 · (K − 1), N], K = (degree + 1)²
    """High bytes of x, y, z; their low bytes; three scales; index of the greatest quaternion component (wxyz) and the three
    others; opacity; three colours of degree 0; harmonics, coefficient by coefficient."""
    degree: int
    middle: tuple[float, float, float]
    """Where centres are kept finest."""
    unit: float
    """Distance from the middle up to which the scale of the centres is about linear."""
    reach: float
    """Greatest log(1 + distance / unit) along an axis."""
    scales: tuple[float, float]
    """Logarithms of standard deviations that 0 and 255 mean."""
    colours: tuple[float, float]
    """Colours that 0 and 255 mean."""

    def header(self) -> dict[str, Any]:
        """Return all but the planes, as JSON has it."""
        values = {name: value for name, value in vars(self).items() if name != "planes"}
        return {**values, "count": self.planes.shape[1], "harmonicStep": HARMONIC_STEP}


def morton_order(
    means: Tensor,  # [N, 3]
) -> Tensor:  # [N] int64
    """Return the ids of the Gaussians along a Morton curve through their bounding box."""
    low, high = means.amin(dim=0), means.amax(dim=0)
    cells = ((means - low) / (high - low).clamp_min(1e-12) * 1023).long()
    code = torch.zeros(len(means), dtype=torch.int64)
    for bit in range(10):
        for axis in range(3):
            code |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return code.argsort(stable=True)


def quantise(
    gaussians: Gaussians,
    middle: Tensor,  # [3]
    unit: float,
) -> Quantised:
    """Quantise Gaussians, one or more of them, in the order given.

    Args:
        middle, unit: where the cameras are, and how far from there: centres are kept finest there.
    """
    away = (gaussians.means.double() - middle.double()).numpy() / unit
    curved = np.sign(away) * np.log1p(np.abs(away))
    reach = float(np.abs(curved).max()) or 1.0
    centres = np.round((curved / reach + 1) / 2 * 65535).astype(np.uint16)

    sizes = gaussians.scales.double().numpy().clip(min=np.log(LEAST_SIZE * unit))
    scales = float(sizes.min()), float(sizes.max())
    quats = torch.nn.functional.normalize(gaussians.quats.double(), dim=1).numpy()
    greatest = np.abs(quats).argmax(axis=1)
    rows = np.arange(len(quats))
    quats = quats * np.where(quats[rows, greatest] < 0, -1, 1)[:, None]
    others = quats[np.arange(4) != greatest[:, None]].reshape(-1, 3)

    base = (0.5 + C0 * gaussians.features_dc.double()).numpy()
    colours = float(np.quantile(base, _OUTLIERS)), float(np.quantile(base, 1 - _OUTLIERS))
    rest = gaussians.features_rest.double().flatten(1).numpy()
    planes = [
        *(centres >> 8).T, *(centres & 255).T,
        *_levels(sizes, *scales).T,
        greatest, *np.round(others / _MOST_QUATERNION * 127 + 127).T,
        _levels(torch.sigmoid(gaussians.opacities[:, 0].double()).numpy(), 0.0, 1.0),
        *_levels(base, *colours).T,
        *np.round(rest / HARMONIC_STEP + 128).clip(0, 255).T,
    ]  # fmt: skip
    x, y, z = middle.tolist()
    return Quantised(np.stack(planes).astype(np.uint8), gaussians.degree, (x, y, z), unit, reach, scales, colours)


def restored(quantised: Quantised) -> Gaussians:
    """Return the Gaussians that the planes hold, as a page renders them."""
    planes = quantised.planes.astype(np.float64)
    curved = ((planes[:3] * 256 + planes[3:6]) / 65535 * 2 - 1) * quantised.reach
    means = np.array(quantised.middle)[:, None] + quantised.unit * np.sign(curved) * np.expm1(np.abs(curved))
    others = (planes[10:13].T - 127) / 127 * _MOST_QUATERNION
    greatest = np.sqrt((1 - (others**2).sum(axis=1)).clip(min=0))
    quats = np.empty((planes.shape[1], 4))
    mine = np.arange(4) == planes[9][:, None]
    quats[mine], quats[~mine] = greatest, others.reshape(-1)
    colours = _values(planes[14:17], *quantised.colours)
    rest = (planes[17:].T - 128) * HARMONIC_STEP
    values = {
        "means": means.T,
        "scales": _values(planes[6:9], *quantised.scales).T,
        "quats": quats,
        "features_dc": (colours.T - 0.5) / C0,
        "features_rest": rest.reshape(len(rest), -1, 3),
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)).float() for name, value in values.items()}
    # An opacity of 1 has no logit.
    opacities = torch.logit(torch.from_numpy(planes[13] / 255), eps=1e-6).float()[:, None]
    return Gaussians(**tensors, opacities=opacities)


def of_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """Return the Gaussians without harmonics above a degree."""
    return Gaussians(**{**vars(gaussians), "features_rest": gaussians.features_rest[:, : (degree + 1) ** 2 - 1]})


def _levels(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    return np.round((values - low) / max(high - low, 1e-12) * 255).clip(0, 255)


def _values(levels: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    return low + levels / 255 * (high - low)
