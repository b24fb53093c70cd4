"""Project 3-D Gaussians into cameras on the CPU: EWA splatting (Zwicker 2002) as in gsplat 1.4, forward and backward.

World to camera: p = R m + t (OpenCV camera: x right, y down, z forward). With the rotation Q of the normalised quaternion
and the scales S, P = J R Q S is the 2x3 factor of the 2-D covariance P Pᵀ; keeping the factor makes the backward pass short.
Arithmetic is in float64, storage in float32.
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
SIGMAS = 3.0  # gsplat 1.4 calls a Gaussian on screen, and gives it tiles, within a square of 3 standard deviations


@device_function
def _rotation(quats, n):  # type: ignore[no-untyped-def]
    """Rotation matrix entries, row by row, of the normalised quaternion (w, x, y, z), and that quaternion and its norm."""
    w = float(quats[n, 0])
    x = float(quats[n, 1])
    y = float(quats[n, 2])
    z = float(quats[n, 3])
    norm = max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w /= norm
    x /= norm
    y /= norm
    z /= norm
    return (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
        w,
        x,
        y,
        z,
        norm,
    )


@device_function
def _camera_point(means, view, n):  # type: ignore[no-untyped-def]
    mx = float(means[n, 0])
    my = float(means[n, 1])
    mz = float(means[n, 2])
    return (
        view[0, 0] * mx + view[0, 1] * my + view[0, 2] * mz + view[0, 3],
        view[1, 0] * mx + view[1, 1] * my + view[1, 2] * mz + view[1, 3],
        view[2, 0] * mx + view[2, 1] * my + view[2, 2] * mz + view[2, 3],
    )


@device_function
def _clamped(x, z, focal, centre, size):  # type: ignore[no-untyped-def]
    """x / z kept within the picture plus 30 % of its half width, where the affine approximation is bounded."""
    margin = 0.15 * size / focal
    return min(max(x / z, -(centre / focal + margin)), (size - centre) / focal + margin)


@kernel(
    "void(int64, int64, float32[:,::1], float32[:,::1], float32[:,::1], float64[:,::1], float64[:,::1], int64, int64,"
    " float64, float64, float64, float64, int32[::1], float32[:,::1], float32[::1], float32[:,::1], float32[::1])"
)
def _project(  # type: ignore[no-untyped-def]
    begin, end, means, quats, scales, view, K, width, height, eps2d, near, far, radius_clip, radii, means2d, depths,
    conics, compensations,
):  # fmt: skip
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    for n in range(begin, end):
        radii[n] = 0
        x, y, z = _camera_point(means, view, n)
        if z < near or z > far:
            continue
        q = _rotation(quats, n)
        tx = _clamped(x, z, fx, cx, width)
        ty = _clamped(y, z, fy, cy, height)
        c00 = 0.0
        c01 = 0.0
        c11 = 0.0
        for j in range(3):
            s = float(scales[n, j])
            n0 = (view[0, 0] * q[j] + view[0, 1] * q[3 + j] + view[0, 2] * q[6 + j]) * s
            n1 = (view[1, 0] * q[j] + view[1, 1] * q[3 + j] + view[1, 2] * q[6 + j]) * s
            n2 = (view[2, 0] * q[j] + view[2, 1] * q[3 + j] + view[2, 2] * q[6 + j]) * s
            p0 = fx / z * (n0 - tx * n2)
            p1 = fy / z * (n1 - ty * n2)
            c00 += p0 * p0
            c01 += p0 * p1
            c11 += p1 * p1
        sharp = c00 * c11 - c01 * c01
        c00 += eps2d
        c11 += eps2d
        det = c00 * c11 - c01 * c01
        if det <= 0.0:
            continue
        mid = 0.5 * (c00 + c11)
        radius = math.ceil(SIGMAS * math.sqrt(mid + math.sqrt(max(0.01, mid * mid - det))))
        if radius <= radius_clip:
            continue
        u = fx * x / z + cx
        v = fy * y / z + cy
        if u + radius <= 0 or u - radius >= width or v + radius <= 0 or v - radius >= height:
            continue
        radii[n] = np.int32(min(radius, 1e9))
        means2d[n, 0] = u
        means2d[n, 1] = v
        depths[n] = z
        conics[n, 0] = c11 / det
        conics[n, 1] = -c01 / det
        conics[n, 2] = c00 / det
        compensations[n] = math.sqrt(max(0.0, sharp / det))


@kernel(
    "void(int64, int64, float32[:,::1], float32[:,::1], float32[:,::1], float64[:,::1], float64[:,::1], int64, int64,"
    " float64, int32[::1], float32[:,::1], float32[::1], float32[:,::1], float32[::1],"
    " float32[:,::1], float32[:,::1], float32[:,::1], float64[:,:,::1])"
)
def _project_backward(  # type: ignore[no-untyped-def]
    begin, end, means, quats, scales, view, K, width, height, eps2d, radii, v_means2d, v_depths, v_conics,
    v_compensations, v_means, v_quats, v_scales, v_view,
):  # fmt: skip
    """Adds to v_means, v_quats, v_scales; writes this chunk's share of the pose's gradient to v_view[chunk]."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    chunk = begin // GRAIN
    N = np.empty((3, 3))
    v_N = np.empty((3, 3))
    v_Q = np.empty((3, 3))
    v_p = np.empty(3)
    for n in range(begin, end):
        if radii[n] <= 0:
            continue
        x, y, z = _camera_point(means, view, n)
        q = _rotation(quats, n)
        tx = _clamped(x, z, fx, cx, width)
        ty = _clamped(y, z, fy, cy, height)
        c00 = 0.0
        c01 = 0.0
        c11 = 0.0
        for j in range(3):
            s = float(scales[n, j])
            for i in range(3):
                N[i, j] = (view[i, 0] * q[j] + view[i, 1] * q[3 + j] + view[i, 2] * q[6 + j]) * s
            p0 = fx / z * (N[0, j] - tx * N[2, j])
            p1 = fy / z * (N[1, j] - ty * N[2, j])
            c00 += p0 * p0
            c01 += p0 * p1
            c11 += p1 * p1
        a00 = c00 + eps2d
        a11 = c11 + eps2d
        det = a00 * a11 - c01 * c01
        k00 = a11 / det
        k01 = -c01 / det
        k11 = a00 / det
        # d(K⁻¹): v_cov = -K G K with G the symmetric gradient of the conic
        g00 = float(v_conics[n, 0])
        g01 = 0.5 * v_conics[n, 1]
        g11 = float(v_conics[n, 2])
        h00 = g00 * k00 + g01 * k01
        h01 = g00 * k01 + g01 * k11
        h10 = g01 * k00 + g11 * k01
        h11 = g01 * k01 + g11 * k11
        w00 = -(k00 * h00 + k01 * h10)
        w01 = -(k00 * h01 + k01 * h11)
        w11 = -(k01 * h01 + k11 * h11)
        if v_compensations[n] != 0.0:
            sharp = c00 * c11 - c01 * c01
            ratio = max(0.0, sharp / det)
            f = 0.5 * v_compensations[n] / (math.sqrt(ratio) + 1e-6) / det
            w00 += f * (c11 - ratio * a11)
            w01 -= f * (c01 - ratio * c01)
            w11 += f * (c00 - ratio * a00)
        # cov = P Pᵀ, P = J N, J = [[fx/z, 0, -fx tx/z], [0, fy/z, -fy ty/z]]
        v_j00 = 0.0
        v_j02 = 0.0
        v_j11 = 0.0
        v_j12 = 0.0
        for j in range(3):
            p0 = fx / z * (N[0, j] - tx * N[2, j])
            p1 = fy / z * (N[1, j] - ty * N[2, j])
            v_p0 = 2 * (w00 * p0 + w01 * p1)
            v_p1 = 2 * (w01 * p0 + w11 * p1)
            v_j00 += v_p0 * N[0, j]
            v_j02 += v_p0 * N[2, j]
            v_j11 += v_p1 * N[1, j]
            v_j12 += v_p1 * N[2, j]
            v_N[0, j] = fx / z * v_p0
            v_N[1, j] = fy / z * v_p1
            v_N[2, j] = -(fx * tx / z) * v_p0 - (fy * ty / z) * v_p1
        v_u = float(v_means2d[n, 0])
        v_v = float(v_means2d[n, 1])
        v_p[0] = fx / z * v_u
        v_p[1] = fy / z * v_v
        v_p[2] = (
            v_depths[n]
            - (fx * x * v_u + fy * y * v_v) / (z * z)
            - (fx * v_j00 + fy * v_j11) / (z * z)
            + (fx * tx * v_j02 + fy * ty * v_j12) / (z * z)
        )
        if tx == x / z:  # not clamped: the third column of J moves with x / z
            v_p[0] -= fx / (z * z) * v_j02
            v_p[2] += fx * tx / (z * z) * v_j02
        if ty == y / z:
            v_p[1] -= fy / (z * z) * v_j12
            v_p[2] += fy * ty / (z * z) * v_j12
        for i in range(3):
            v_means[n, i] += view[0, i] * v_p[0] + view[1, i] * v_p[1] + view[2, i] * v_p[2]
            v_view[chunk, i, 3] += v_p[i]
            for k in range(3):
                share = v_p[i] * means[n, k]
                for j in range(3):
                    share += v_N[i, j] * q[3 * k + j] * scales[n, j]
                v_view[chunk, i, k] += share
        for j in range(3):
            v_s = 0.0
            for i in range(3):
                v_m = view[0, i] * v_N[0, j] + view[1, i] * v_N[1, j] + view[2, i] * v_N[2, j]
                v_s += q[3 * i + j] * v_m
                v_Q[i, j] = v_m * scales[n, j]
            v_scales[n, j] += v_s
        w, qx, qy, qz, norm = q[9], q[10], q[11], q[12], q[13]
        v_w = 2 * (qx * (v_Q[2, 1] - v_Q[1, 2]) + qy * (v_Q[0, 2] - v_Q[2, 0]) + qz * (v_Q[1, 0] - v_Q[0, 1]))
        v_x = 2 * (
            -2 * qx * (v_Q[1, 1] + v_Q[2, 2]) + qy * (v_Q[1, 0] + v_Q[0, 1])
            + qz * (v_Q[2, 0] + v_Q[0, 2]) + w * (v_Q[2, 1] - v_Q[1, 2])
        )  # fmt: skip
        v_y = 2 * (
            qx * (v_Q[1, 0] + v_Q[0, 1]) - 2 * qy * (v_Q[0, 0] + v_Q[2, 2])
            + qz * (v_Q[2, 1] + v_Q[1, 2]) + w * (v_Q[0, 2] - v_Q[2, 0])
        )  # fmt: skip
        v_z = 2 * (
            qx * (v_Q[2, 0] + v_Q[0, 2]) + qy * (v_Q[2, 1] + v_Q[1, 2])
            - 2 * qz * (v_Q[0, 0] + v_Q[1, 1]) + w * (v_Q[1, 0] - v_Q[0, 1])
        )  # fmt: skip
        along = w * v_w + qx * v_x + qy * v_y + qz * v_z
        v_quats[n, 0] += (v_w - w * along) / norm
        v_quats[n, 1] += (v_x - qx * along) / norm
        v_quats[n, 2] += (v_y - qy * along) / norm
        v_quats[n, 3] += (v_z - qz * along) / norm


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().contiguous().numpy()


class Project(torch.autograd.Function):
    """means, quats, scales, viewmats → radii, 2-D means, depths, conics, compensations."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        means: Tensor,  # [N, 3] world
        quats: Tensor,  # [N, 4] wxyz, any length
        scales: Tensor,  # [N, 3]
        viewmats: Tensor,  # [C, 4, 4] world → OpenCV camera
        Ks: Tensor,  # [C, 3, 3] pixels
        width: int,
        height: int,
        eps2d: float,
        near_plane: float,
        far_plane: float,
        radius_clip: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        C, N = len(viewmats), len(means)
        radii = torch.zeros(C, N, dtype=torch.int32)
        means2d, depths = torch.zeros(C, N, 2), torch.zeros(C, N)
        conics, compensations = torch.zeros(C, N, 3), torch.zeros(C, N)
        views, intrinsics = _array(viewmats.double()), _array(Ks.double())
        gaussians = _array(means), _array(quats), _array(scales)
        outputs = [out.numpy() for out in (radii, means2d, depths, conics, compensations)]
        for c in range(C):
            parallel_for(
                _project, N, GRAIN, *gaussians, views[c], intrinsics[c], width, height, eps2d, near_plane, far_plane,
                radius_clip, *(out[c] for out in outputs),
            )  # fmt: skip
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, radii)
        ctx.settings = width, height, eps2d
        ctx.mark_non_differentiable(radii)
        return radii, means2d, depths, conics, compensations

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,
        _v_radii: Tensor,
        v_means2d: Tensor,  # [C, N, 2]
        v_depths: Tensor,  # [C, N]
        v_conics: Tensor,  # [C, N, 3]
        v_compensations: Tensor,  # [C, N]
    ) -> tuple[Tensor | None, ...]:
        means, quats, scales, viewmats, Ks, radii = ctx.saved_tensors
        C, N = radii.shape
        v_means, v_quats, v_scales = torch.zeros(N, 3), torch.zeros(N, 4), torch.zeros(N, 3)
        v_viewmats = torch.zeros_like(viewmats)
        views, intrinsics = _array(viewmats.double()), _array(Ks.double())
        gaussians = _array(means), _array(quats), _array(scales)
        incoming = [_array(v) for v in (v_means2d, v_depths, v_conics, v_compensations)]
        for c in range(C):
            v_view = np.zeros((chunk_count(N, GRAIN), 3, 4))
            parallel_for(
                _project_backward, N, GRAIN, *gaussians, views[c], intrinsics[c], *ctx.settings, radii[c].numpy(),
                *(v[c] for v in incoming), v_means.numpy(), v_quats.numpy(), v_scales.numpy(), v_view,
            )  # fmt: skip
            v_viewmats[c, :3] = torch.from_numpy(v_view.sum(axis=0)).to(v_viewmats)
        return v_means, v_quats, v_scales, v_viewmats, *(None,) * 7
