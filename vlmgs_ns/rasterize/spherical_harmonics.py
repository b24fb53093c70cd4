"""View-dependent colour from real spherical harmonics up to degree 3 on the CPU, forward and backward.

Basis order and signs are gsplat's (and Inria's): Y_0, then (y, z, x), ... of the unit vector from the camera to the Gaussian.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmgs_ns.rasterize.jit import device_function, kernel
from vlmgs_ns.rasterize.threads import chunk_count, parallel_for

GRAIN = 4096
Y0 = 0.28209479177387814
Y1 = 0.4886025119029199
Y2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
Y3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


@device_function
def _basis(degree, x, y, z, Y):  # type: ignore[no-untyped-def]
    """Values of the (degree + 1)² basis functions at the unit vector (x, y, z) into Y."""
    Y[0] = Y0
    if degree >= 1:
        Y[1] = -Y1 * y
        Y[2] = Y1 * z
        Y[3] = -Y1 * x
    if degree >= 2:
        Y[4] = Y2[0] * x * y
        Y[5] = -Y2[0] * y * z
        Y[6] = Y2[1] * (3 * z * z - 1)
        Y[7] = -Y2[0] * x * z
        Y[8] = Y2[2] * (x * x - y * y)
    if degree >= 3:
        Y[9] = -Y3[0] * y * (3 * x * x - y * y)
        Y[10] = Y3[1] * x * y * z
        Y[11] = -Y3[2] * y * (5 * z * z - 1)
        Y[12] = Y3[3] * z * (5 * z * z - 3)
        Y[13] = -Y3[2] * x * (5 * z * z - 1)
        Y[14] = Y3[4] * z * (x * x - y * y)
        Y[15] = -Y3[0] * x * (x * x - 3 * y * y)


@device_function
def _basis_gradient(degree, x, y, z, G):  # type: ignore[no-untyped-def]
    """Derivatives of the basis functions by x, y and z (each free, not on the sphere) into G [16, 3]."""
    if degree >= 1:
        G[1, 1] = -Y1
        G[2, 2] = Y1
        G[3, 0] = -Y1
    if degree >= 2:
        G[4, 0] = Y2[0] * y
        G[4, 1] = Y2[0] * x
        G[5, 1] = -Y2[0] * z
        G[5, 2] = -Y2[0] * y
        G[6, 2] = 6 * Y2[1] * z
        G[7, 0] = -Y2[0] * z
        G[7, 2] = -Y2[0] * x
        G[8, 0] = 2 * Y2[2] * x
        G[8, 1] = -2 * Y2[2] * y
    if degree >= 3:
        G[9, 0] = -6 * Y3[0] * x * y
        G[9, 1] = -3 * Y3[0] * (x * x - y * y)
        G[10, 0] = Y3[1] * y * z
        G[10, 1] = Y3[1] * x * z
        G[10, 2] = Y3[1] * x * y
        G[11, 1] = -Y3[2] * (5 * z * z - 1)
        G[11, 2] = -10 * Y3[2] * y * z
        G[12, 2] = Y3[3] * (15 * z * z - 3)
        G[13, 0] = -Y3[2] * (5 * z * z - 1)
        G[13, 2] = -10 * Y3[2] * x * z
        G[14, 0] = 2 * Y3[4] * x * z
        G[14, 1] = -2 * Y3[4] * y * z
        G[14, 2] = Y3[4] * (x * x - y * y)
        G[15, 0] = -3 * Y3[0] * (x * x - y * y)
        G[15, 1] = 6 * Y3[0] * x * y


@device_function
def _direction(means, eye, n):  # type: ignore[no-untyped-def]
    dx = means[n, 0] - eye[0]
    dy = means[n, 1] - eye[1]
    dz = means[n, 2] - eye[2]
    length = max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
    return dx / length, dy / length, dz / length, length


@kernel("void(int64, int64, int64, float32[:,::1], float64[::1], float32[:,:,::1], int32[::1], float32[:,::1])")
def _evaluate(begin, end, degree, means, eye, coefficients, radii, colors):  # type: ignore[no-untyped-def]
    Y = np.zeros(16)
    count = (degree + 1) * (degree + 1)
    for n in range(begin, end):
        if radii[n] <= 0:
            continue
        x, y, z, _ = _direction(means, eye, n)
        _basis(degree, x, y, z, Y)
        for c in range(3):
            value = 0.0
            for k in range(count):
                value += Y[k] * coefficients[n, k, c]
            colors[n, c] = value


@kernel(
    "void(int64, int64, int64, float32[:,::1], float64[::1], float32[:,:,::1], int32[::1], float32[:,::1],"
    " float32[:,::1], float32[:,:,::1], float64[:,::1])"
)
def _evaluate_backward(  # type: ignore[no-untyped-def]
    begin, end, degree, means, eye, coefficients, radii, v_colors, v_means, v_coefficients, v_eye
):
    Y = np.zeros(16)
    G = np.zeros((16, 3))
    v_unit = np.empty(3)
    chunk = begin // GRAIN
    count = (degree + 1) * (degree + 1)
    for n in range(begin, end):
        if radii[n] <= 0:
            continue
        x, y, z, length = _direction(means, eye, n)
        _basis(degree, x, y, z, Y)
        _basis_gradient(degree, x, y, z, G)
        v_unit[:] = 0.0
        for k in range(count):
            pull = 0.0
            for c in range(3):
                v_coefficients[n, k, c] += Y[k] * v_colors[n, c]
                pull += coefficients[n, k, c] * v_colors[n, c]
            for i in range(3):
                v_unit[i] += G[k, i] * pull
        along = x * v_unit[0] + y * v_unit[1] + z * v_unit[2]
        v_x = (v_unit[0] - x * along) / length
        v_y = (v_unit[1] - y * along) / length
        v_z = (v_unit[2] - z * along) / length
        v_means[n, 0] += v_x
        v_means[n, 1] += v_y
        v_means[n, 2] += v_z
        v_eye[chunk, 0] -= v_x
        v_eye[chunk, 1] -= v_y
        v_eye[chunk, 2] -= v_z


class SphericalHarmonics(torch.autograd.Function):
    """Colour [C, N, 3] of each Gaussian seen from each eye; zero where its radius is zero (it is not on screen)."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        degree: int,
        means: Tensor,  # [N, 3] world
        eyes: Tensor,  # [C, 3] camera centres, world
        coefficients: Tensor,  # [N, K, 3] or [C, N, K, 3], K >= (degree + 1)²
        radii: Tensor,  # [C, N] int32
    ) -> Tensor:
        C, N = radii.shape
        colors = torch.zeros(C, N, 3)
        values = coefficients.detach().contiguous().numpy()
        points, centres = means.detach().contiguous().numpy(), eyes.detach().double().numpy()
        for c in range(C):
            own = values if values.ndim == 3 else values[c]
            parallel_for(_evaluate, N, GRAIN, degree, points, centres[c], own, radii[c].numpy(), colors[c].numpy())
        ctx.save_for_backward(means, eyes, coefficients, radii)
        ctx.degree = degree
        return colors

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,
        v_colors: Tensor,  # [C, N, 3]
    ) -> tuple[Tensor | None, ...]:
        means, eyes, coefficients, radii = ctx.saved_tensors
        C, N = radii.shape
        v_means, v_eyes = torch.zeros(N, 3), torch.zeros_like(eyes)
        v_coefficients = torch.zeros(coefficients.shape)
        values, v_values = coefficients.detach().contiguous().numpy(), v_coefficients.numpy()
        points, centres = means.detach().contiguous().numpy(), eyes.detach().double().numpy()
        incoming = v_colors.contiguous().numpy()
        for c in range(C):
            v_eye = np.zeros((chunk_count(N, GRAIN), 3))
            own, v_own = (values, v_values) if values.ndim == 3 else (values[c], v_values[c])
            parallel_for(
                _evaluate_backward, N, GRAIN, ctx.degree, points, centres[c], own, radii[c].numpy(), incoming[c],
                v_means.numpy(), v_own, v_eye,
            )  # fmt: skip
            v_eyes[c] = torch.from_numpy(v_eye.sum(axis=0)).to(v_eyes)
        return None, v_means, v_eyes, v_coefficients, None
