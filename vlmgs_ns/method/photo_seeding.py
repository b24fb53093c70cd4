"""The start of a run from its own photos."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vlmgs_ns.densify.depth_maps import PASSES, SeedPhoto
from vlmgs_ns.densify.photo_seeds import seeds_from_photos
from vlmgs_ns.method.guided_scene import GuidedScene
from vlmgs_ns.method.model import VlmFastGSModel
from vlmgs_ns.method.training_views import TrainingViews
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar, say

PICTURE_SIZE = 300
"""Longer side of photos as they are compared, in pixels."""
MOST_PHOTOS = 60
"""Photos that are compared, evenly spaced among all where there are more."""
FEWEST = 4
"""Points fewer than which are no start."""


def seed_from_photos(model: VlmFastGSModel, views: TrainingViews) -> None:
    """Let a model that is not trained yet begin with Gaussians found in its photos; with its other points too, but for `photos`.

    Raises:
        InputError: photos agree on hardly a point, and the scene's own are not wanted.
    """
    photos, device = seed_photos(model, views), model.device
    extent, wanted = model.extent()[1], model.config.num_seeds
    seeds = None
    if len(photos) > 1:
        with bar("Seeding from photos", PASSES * len(photos)) as progress:
            seeds = seeds_from_photos(photos, extent, wanted, progress)
    if seeds is not None and len(seeds.means) >= FEWEST:
        model.begin_with(seeds, alone=model.config.seeding == "photos")
        model.to(device)
        say(f"Seeding: {len(seeds.means):,} points found in {len(photos)} photos")
        return
    found = 0 if seeds is None else len(seeds.means)
    reason = f"seeding compares photos taken from different places, and finds {found} points in {len(photos)} training photos"
    if model.config.seeding == "photos":
        raise InputError(f"{reason}; add photos, or start from the scene's points with --pipeline.model.seeding points")
    say(f"{reason[0].upper()}{reason[1:]}: starting without them", "yellow")


def seed_photos(model: VlmFastGSModel, views: TrainingViews) -> list[SeedPhoto]:
    """Return the training photos as they are compared: at most `MOST_PHOTOS`, with their masks; what is transparent is masked."""
    scene = GuidedScene(model, views, PICTURE_SIZE)
    points = scene.viewpoints()
    photos = []
    for k in range(min(len(points), MOST_PHOTOS)):
        point = points[k * len(points) // min(len(points), MOST_PHOTOS)]
        assert point.photo is not None
        batch = views.training_view(point.photo)[1]
        mask = batch["mask"][..., 0] > 0.5 if "mask" in batch else None
        if batch["image"].shape[-1] == 4:
            opaque = batch["image"][..., 3] > (127 if batch["image"].dtype == torch.uint8 else 0.5)
            mask = opaque if mask is None else mask & opaque.to(mask.device)
        small = None if mask is None else _shrunk(mask.to(model.device), point.height, point.width)
        photos.append(SeedPhoto(scene.photo(point).contiguous(), point.K, point.opencv, mask=small))
    return photos


def _shrunk(
    mask: Tensor,  # [H, W] bool
    height: int,
    width: int,
) -> Tensor:  # [height, width] bool
    """Return the pixels all of whose area counts."""
    return interpolate(mask[None, None].float(), (height, width), mode="area")[0, 0] > 0.999
