"""Per-Gaussian features blended into a picture, on frozen Gaussians (FMGS, 3.3).

A pixel's feature is Σ w f over the Gaussians in front of it, w = alpha · transmittance. Only Gaussians with opacity above 0.25
and a radius of more than 2 pixels on screen take part; there is no background and no normalisation afterwards. Blending is
linear, which saves channels exactly: `blend_field` blends the field's codes instead of its features, and one score per text can
be blended instead of the feature (⟨Σ w f, t⟩ = Σ w ⟨f, t⟩).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.rasterize.lift import cell_weights, lift
from vlmgs_ns.semantics.field import SemanticField
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats

MIN_OPACITY = 0.25
MIN_RADIUS = 2.0
"""Pixels."""


@torch.no_grad()
def drawn(
    splats: Splats,
    camera: Pinhole,
    min_opacity: float = MIN_OPACITY,
    min_radius: float = MIN_RADIUS,
) -> Tensor:
    """Return the ids of the Gaussians that reach a pixel: opaque and large enough, on screen, not hidden. [M] int64, ascending.

    Blending these alone gives the same picture, so that features need to be computed only for them.
    """
    ids = torch.nonzero(splats.opacities > min_opacity)[:, 0]
    if len(ids) == 0:
        return ids
    kept = splats[ids].detached()
    _, _, info = _rasterize(kept, camera, kept.means.new_ones(len(kept), 1), min_radius)
    ones = kept.means.new_ones(1, camera.height, camera.width, 1)
    return ids[lift(info, ones)[0, :, 0] > 0]


def blend(
    splats: Splats,
    camera: Pinhole,
    features: Tensor,  # [N, D]
    min_opacity: float = MIN_OPACITY,
    min_radius: float = MIN_RADIUS,
) -> tuple[Tensor, Tensor]:
    """Blend features into a picture. Differentiable in the features alone.

    Args:
        splats: Gaussians; they receive no gradient.
        camera: the view.
        features: one row per Gaussian, any number of channels.
        min_opacity: Gaussians take part above it.
        min_radius: pixels; Gaussians take part above it.

    Returns:
        the picture [H, W, D], 0 where there is no Gaussian, and the opacity blended with it [H, W].

    Raises:
        ValueError: the number of rows is not the number of Gaussians.
    """
    if features.dim() != 2 or len(features) != len(splats):
        raise ValueError(f"features has shape {list(features.shape)}: it must be [N, D] with N={len(splats)}, one row a Gaussian")
    splats = splats.detached()
    opaque = splats.opacities > min_opacity
    if not opaque.all():
        splats, features = splats[opaque], features[opaque]
    if features.is_cuda or len(splats) == 0:
        image, alpha, _ = _rasterize(splats, camera, features, min_radius)
    else:
        image, alpha = FrozenBlend.apply(features, splats, camera, min_radius)
    return image[0], alpha[0, ..., 0].detach()


def shown(
    splats: Splats,
    camera: Pinhole,
    maps: Tensor,  # [H, W, D]
    min_opacity: float = MIN_OPACITY,
    min_radius: float = MIN_RADIUS,
) -> Tensor:  # [N, D]
    """Return what each Gaussian shows of maps: their sum over the picture, by its blending weight. The adjoint of `blend`."""
    with torch.enable_grad():
        features = splats.means.new_zeros(len(splats), maps.shape[-1], requires_grad=True)
        image, _ = blend(splats, camera, features, min_opacity, min_radius)
    # Blending is linear in the features, so that its gradient is the lift of the maps.
    (weights,) = torch.autograd.grad(image, features, maps.to(image))
    return weights


def blend_field(
    field: SemanticField,
    splats: Splats,
    camera: Pinhole,
    grid: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Render the field's CLIP [h, w, clip_dim] and DINO [h, w, dino_dim] maps through its codes.

    Args:
        grid: h and w, rows and columns of cells that divide the picture evenly; a cell is the mean of its pixels. None: the
            camera's pixels.
    """
    part = splats[drawn(splats, camera)]
    codes, _ = blend(part, camera, field.codes(part.means))
    return field.decode(codes if grid is None else cell_means(codes, grid))


def cell_means(
    maps: Tensor,  # [H, W, D]
    grid: tuple[int, int],
) -> Tensor:  # [h, w, D]
    """Return means over the pixels of each cell of a grid of h rows and w columns."""
    return F.adaptive_avg_pool2d(maps.movedim(-1, 0), grid).movedim(0, -1)


@dataclass(frozen=True)
class CellView:
    """A view of frozen Gaussians as a matrix from features to means over a grid's cells, to render it many times on the CPU."""

    ids: Tensor  # [M] int64, ascending: the Gaussians that reach a pixel
    weights: csr_matrix  # [h·w, M]
    grid: tuple[int, int]

    @classmethod
    def of(cls, splats: Splats, camera: Pinhole, grid: tuple[int, int]) -> CellView:
        """Return the matrix of a view; `splats` are on the CPU."""
        opaque = torch.nonzero(splats.opacities > MIN_OPACITY)[:, 0]
        kept = splats[opaque].detached()
        if len(kept) == 0:
            return cls(opaque, csr_matrix((grid[0] * grid[1], 0), dtype="float32"), grid)
        _, _, info = _rasterize(kept, camera, kept.means.new_ones(len(kept), 1), MIN_RADIUS)
        weights = cell_weights(info, grid)
        ids, columns = weights.indices()[1].unique(return_inverse=True)
        places = weights.indices()[0].numpy(), columns.numpy()
        return cls(opaque[ids], csr_matrix((weights.values().numpy(), places), (len(weights), len(ids))), grid)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        weights = self.weights
        return self.ids.nbytes + weights.data.nbytes + weights.indices.nbytes + weights.indptr.nbytes

    def maps(
        self,
        field: SemanticField,
        means: Tensor,  # [N, 3] world, of all Gaussians
    ) -> tuple[Tensor, Tensor]:
        """Return what `blend_field` returns."""
        codes: Tensor = SparseProduct.apply(self.weights, field.codes(means[self.ids]))
        return field.decode(codes.unflatten(0, self.grid))


class SparseProduct(torch.autograd.Function):
    """A constant sparse matrix times a dense one on the CPU: torch takes three times as long, and sorts at each backward step."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        weights: csr_matrix,  # [C, M]
        features: Tensor,  # [M, D]
    ) -> Tensor:  # [C, D]
        ctx.weights = weights
        return torch.from_numpy(weights @ features.detach().numpy())

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,
        v_sums: Tensor,  # [C, D]
    ) -> tuple[Tensor | None, ...]:
        return None, torch.from_numpy(ctx.weights.T @ v_sums.numpy())


class FrozenBlend(torch.autograd.Function):
    """The rasteriser as a linear map of the features; backwards its adjoint, which leaves out the geometry's gradients.

    For the CPU, where that takes two thirds of the time. gsplat computes these gradients in any case.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        features: Tensor,  # [N, D]
        splats: Splats,
        camera: Pinhole,
        min_radius: float,
    ) -> tuple[Tensor, Tensor]:
        image, alpha, ctx.info = _rasterize(splats, camera, features, min_radius)
        ctx.mark_non_differentiable(alpha)
        return image, alpha

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,
        v_image: Tensor,  # [1, H, W, D]
        _v_alpha: Tensor,
    ) -> tuple[Tensor | None, ...]:
        return lift(ctx.info, v_image)[0], None, None, None


def _rasterize(
    splats: Splats,
    camera: Pinhole,
    features: Tensor,  # [N, D]
    min_radius: float,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    return rasterization(
        splats.means, splats.quats, splats.scales, splats.opacities, features, camera.viewmat[None], camera.K[None],
        camera.width, camera.height, radius_clip=min_radius,
    )  # fmt: skip
