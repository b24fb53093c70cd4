"""Which coordinates a .ply of Gaussians is in: the data's, as 3DGS writes, or nerfstudio's, as ns-export writes.

Both are tried: the Gaussians that lie where the photos were taken look like the photos.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.semantics.stage import Views
from vlmgs_ns.splats.ply import Gaussians
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import say
from vlmgs_ns.system.spacing import evenly_spaced

PHOTOS, SIDE = 5, 160
"""Photos that are compared, and their longer side in pixels."""


def choose_frame(placed: Mapping[str, Gaussians], views: Views, file: Path) -> Gaussians:
    """Return the Gaussians of the frame in which they look like the photos, and say which it is.

    Args:
        placed: the same Gaussians, in the coordinates of the run, for each frame that the file may be in.
        views: photos with their cameras.
        file: for messages.

    Raises:
        InputError: in every frame they explain less of the photos than one colour would.
    """
    explained = {frame: likeness(gaussians, views) for frame, gaussians in placed.items()}
    figures = ", ".join(f"{frame} {share:.2f}" for frame, share in explained.items())
    best = max(explained, key=lambda frame: explained[frame])
    if not explained[best] > 0:
        raise InputError(
            f"{file} looks like the photos in neither frame (share of the photos' variance that it explains: {figures}); is it "
            "of another scene? To take it as it is, name its frame with --load-ply-frame"
        )
    say(f"{file} is in the {best} frame (share of the photos' variance that it explains: {figures})")
    return placed[best]


@torch.no_grad()
def likeness(gaussians: Gaussians, views: Views) -> float:
    """Return the share of the photos' variance that the Gaussians explain: 1 for the photos, 0 for their mean colour."""
    device = views.camera(0).viewmat.device
    means, quats = gaussians.means.to(device), gaussians.quats.to(device)
    scales, opacities = torch.exp(gaussians.scales).to(device), torch.sigmoid(gaussians.opacities).squeeze(-1).to(device)
    colours = torch.cat([gaussians.features_dc[:, None], gaussians.features_rest], dim=1).to(device)
    error = variance = 0.0
    for index in evenly_spaced(len(views), PHOTOS):
        camera = views.camera(index).within(SIDE)
        photo = torch.as_tensor(views.photo(index))
        photo = photo.float() / (255 if photo.dtype == torch.uint8 else 1)
        target = _small(photo, camera.height, camera.width)
        picture, _, _ = rasterization(
            means, quats, scales, opacities, colours, camera.viewmat[None], camera.K[None], camera.width, camera.height,
            sh_degree=gaussians.degree,
        )  # fmt: skip
        error += float((picture[0, ..., :3].clamp(0, 1).cpu() - target).square().mean())
        variance += float((target - target.mean(dim=(0, 1))).square().mean())
    return 1 - error / max(variance, 1e-12)


def _small(photo: Tensor, height: int, width: int) -> Tensor:  # [height, width, 3]
    return interpolate(photo.movedim(-1, 0)[None], (height, width), mode="bilinear", antialias=True)[0].movedim(0, -1)
