"""Unseen viewpoints among the training cameras, for the novel-view round (docs/methods.md).

A new camera stands at a random convex combination of a few neighbouring cameras that are turned alike, so it stays inside the
convex hull of the positions, where photos from around it say what it should see. Its rotation is their weighted mean, slightly
turned. The mean of rotations knows no axes: it serves OpenGL and OpenCV cameras alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

ALIKE = math.radians(75.0)
"""Parents are turned by at most this much against the first of them; below 90 degrees their mean is unique and as near to it."""
TURN = math.radians(5.0)
"""Most by which a new camera is turned away from its parents' mean."""
PARENTS = 3
APART = 0.2
"""Wanted distance to every training camera, as a fraction of the typical distance between neighbours."""
DRAWS = 8
"""Draws for a place that is far enough from the training cameras; the farthest of them serves if none is."""
COVERED = 0.5


@torch.no_grad()
def novel_viewpoints(
    camera_to_worlds: Tensor,  # [C, 3, 4]
    count: int,
    generator: torch.Generator,
    clearance: Callable[[Tensor], float] | None = None,
    min_clearance: float = 0.0,
    attempts: int = 10,
) -> Tensor:
    """Up to `count` viewpoints inside the convex hull of the cameras, each turned within `ALIKE` + `TURN` of a camera beside it.

    Every camera starts about as many viewpoints as any other. Where all cameras share one place, or none has a neighbour turned
    alike, the new ones stand where a camera stands and are turned only.

    Args:
        camera_to_worlds: training cameras, camera → world, axes of any right-handed convention (nerfstudio: OpenGL).
        count: viewpoints wanted.
        generator: all randomness comes from it.
        clearance: distance from a viewpoint [3, 4] to what is rendered around it, world units, e.g. by `clearance_from_depth`.
        min_clearance: a viewpoint with less, or with NaN, is drawn again. Only used with `clearance`.
        attempts: draws for one viewpoint before it is given up.

    Returns:
        [M, 3, 4] with the dtype and device of the cameras; M < count where viewpoints were given up.

    Raises:
        ValueError: no camera, wrong shape, poses that are not finite, or a count below 0.
    """
    if camera_to_worlds.dim() != 3 or camera_to_worlds.shape[1:] != (3, 4) or len(camera_to_worlds) == 0:
        raise ValueError(f"camera_to_worlds has shape {list(camera_to_worlds.shape)}: give [C, 3, 4] with at least one camera")
    if not camera_to_worlds.isfinite().all():
        raise ValueError("camera_to_worlds has values that are NaN or infinite: leave out the cameras without a pose")
    if count < 0:
        raise ValueError(f"count={count} viewpoints cannot be drawn: give 0 or more")
    poses = camera_to_worlds.detach().cpu().double()
    apart = APART * _spacing(poses[:, :, 3])
    accepted: list[Tensor] = []
    order: list[int] = []
    for _ in range(count):
        for _ in range(attempts):
            if not order:
                order = torch.randperm(len(poses), generator=generator, device=generator.device).tolist()
            candidate = _far_enough(poses, order.pop(), apart, generator).to(camera_to_worlds)
            if clearance is None or clearance(candidate) >= min_clearance:
                accepted.append(candidate)
                break
    return torch.stack(accepted) if accepted else camera_to_worlds.new_empty(0, 3, 4)


def clearance_from_depth(
    depth: Tensor,  # [H, W]
    coverage: Tensor,  # [H, W]
    share: float = 0.02,
) -> float:
    """Depth, world units, that all but the nearest `share` of the covered pixels exceed; infinite where nothing is covered.

    A pixel is covered where its accumulated opacity exceeds one half and its depth is finite.
    """
    seen = depth[(coverage > COVERED) & depth.isfinite()].flatten()
    if len(seen) == 0:
        return math.inf
    return float(seen.kthvalue(int(share * (len(seen) - 1)) + 1).values)


def _spacing(
    positions: Tensor,  # [C, 3]
) -> float:
    """Median distance from a camera to the nearest one at another place; 0 if there is one place only."""
    distances = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    distances[distances <= _same_place(positions)] = math.inf
    nearest = distances.amin(dim=1)
    return float(nearest.median()) if nearest.isfinite().all() else 0.0


def _same_place(
    positions: Tensor,  # [C, 3]
) -> float:
    """Distance below which two cameras stand at one place."""
    return 1e-6 * float((positions.amax(dim=0) - positions.amin(dim=0)).max())


def _far_enough(
    poses: Tensor,  # [C, 3, 4]
    first: int,
    apart: float,
    generator: torch.Generator,
) -> Tensor:
    """A viewpoint [3, 4] beside camera `first`: of some draws the first that is `apart` from all cameras, else the farthest."""
    parents = poses[_parents(poses, first)]
    farthest, distance = parents[0], -1.0
    for _ in range(DRAWS):
        candidate = _between(parents, generator)
        nearest = float((poses[:, :, 3] - candidate[:, 3]).norm(dim=1).min())
        if nearest > distance:
            farthest, distance = candidate, nearest
        if distance >= apart:
            break
    return farthest


def _parents(
    poses: Tensor,  # [C, 3, 4]
    first: int,
) -> list[int]:
    """Camera `first` and its nearest neighbours that are turned alike, each at another place."""
    positions, rotations = poses[:, :, 3], poses[:, :, :3]
    cosine = ((rotations * rotations[first]).sum(dim=(1, 2)) - 1) / 2  # trace(AᵀB) = 1 + 2 cos of the angle between them
    parents = [first]
    for camera in (positions - positions[first]).norm(dim=1).argsort(stable=True).tolist():
        if len(parents) == PARENTS:
            break
        elsewhere = (positions[parents] - positions[camera]).norm(dim=1).min() > _same_place(positions)
        if elsewhere and cosine[camera] >= math.cos(ALIKE):
            parents.append(camera)
    return parents


def _between(
    parents: Tensor,  # [P, 3, 4]
    generator: torch.Generator,
) -> Tensor:
    """A random convex combination of poses, slightly turned. [3, 4].

    Weights are uniform on the simplex: a flat Dirichlet distribution, drawn as normalised exponentials.
    """
    draws = torch.rand(len(parents) + 4, generator=generator, device=generator.device, dtype=torch.float64).cpu()
    weights = -torch.log1p(-draws[4:])
    weights = weights / weights.sum() if weights.sum() > 0 else torch.full_like(weights, 1 / len(weights))
    mean = (weights[:, None, None] * parents).sum(dim=0)
    # The nearest rotation: its determinant is positive because that of the mean of rotations turned alike is.
    left, _, right = torch.linalg.svd(mean[:, :3])
    axis = 2 * draws[:3] - 1
    turn = torch.linalg.matrix_exp(_cross(axis / axis.norm().clamp_min(1e-12) * draws[3] * TURN))
    return torch.cat([turn @ left @ right, mean[:, 3:]], dim=1)


def _cross(
    vector: Tensor,  # [3]
) -> Tensor:
    """The matrix [3, 3] of the cross product with a vector."""
    x, y, z = vector.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=vector.dtype)
