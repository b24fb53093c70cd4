"""Feature maps of a scene's photos ahead of training: the same photos, at the same size, that training will see."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vlmgs_ns.semantics.cache import FeatureCache
from vlmgs_ns.system.progress import Report, bar


@dataclass(frozen=True)
class Photos:
    """Some training photos of a scene, and who looks at them; travels to other processes and machines."""

    data: str
    """Folder of the scene."""
    method: str
    """The method that will be trained: its photo size, dataparser and encoders."""
    max_image_size: int | None = None
    """Longest side of a photo in pixels; None: the method's."""
    mode: str | None = None
    """Semantic mode; None: the method's. lift needs no DINO maps."""
    clip: str | None = None
    """Image-text encoder; None: the method's."""
    dino: str | None = None
    """Dense encoder; None: the method's."""
    first: int = 0
    last: int | None = None
    """One beyond the last photo; None: to the end."""


def count(photos: Photos, report: Report) -> int:
    """Return the number of training photos of the scene; only the first is read."""
    return int(_datamanager(replace(photos, first=0, last=1)).photos_in_all)


def look(photos: Photos, report: Report | None = None) -> int:
    """Make the maps that the cache lacks.

    Args:
        photos: which.
        report: called with (photos done, note); None: a bar is shown.

    Returns:
        How many photos were looked at or found done.

    Raises:
        InputError: the scene, an encoder or the cache cannot be used.
    """
    from functools import partial

    import torch
    from nerfstudio.models.splatfacto import SplatfactoModel
    from nerfstudio.utils.colors import get_color

    from vlmgs_ns.method.model import VISER_GREY
    from vlmgs_ns.method.photo_views import PhotoViews
    from vlmgs_ns.semantics.cache import default_cache
    from vlmgs_ns.semantics.features import feature_maps
    from vlmgs_ns.semantics.stage import choose_encoders

    config = _config(photos)
    encoders = choose_encoders(config.pipeline.model.semantics)
    colour = config.pipeline.model.background_color
    # What a model does to transparent photos, without a model.
    composite: Any = SplatfactoModel.composite_with_background
    model: Any = SimpleNamespace(
        background_color=torch.tensor(VISER_GREY) if colour == "random" else get_color(colour),
        composite_with_background=partial(composite, None),
    )
    views = PhotoViews(model, _datamanager(photos))
    dino = None if config.pipeline.model.semantics.mode == "lift" else encoders.dino
    with nullcontext(report) if report else bar("Looking at photos", len(views)) as shown:
        feature_maps(views, encoders.clip, dino, default_cache(Path(photos.data)), shown)
    return len(views)


def maps_there(data: Path) -> dict[str, int]:
    """Photos with maps, by encoder and settings in words."""
    from vlmgs_ns.semantics.cache import caches_of

    caches: list[FeatureCache] = caches_of(data)
    return {entry.key: entry.photos for cache in caches for entry in cache.entries()}


def _config(photos: Photos) -> Any:
    from vlmgs_ns.bench.configure import base_config

    config = base_config(photos.method)
    semantics = config.pipeline.model.semantics
    for name in ("mode", "clip", "dino"):
        if getattr(photos, name) is not None:
            setattr(semantics, name, getattr(photos, name))
    if photos.max_image_size is not None:
        config.pipeline.datamanager.max_image_size = photos.max_image_size
    return config


def _datamanager(photos: Photos) -> Any:
    """Return a data manager whose training photos are those asked for, so that no other is read."""
    from vlmgs_ns.method.datamanager import VlmFastGSDatamanager
    from vlmgs_ns.method.photos import PhotoDataset

    class SomePhotos(VlmFastGSDatamanager):
        photos_in_all = 0

        def create_train_dataset(self) -> PhotoDataset:
            outputs = self.train_dataparser_outputs
            self.photos_in_all = len(outputs.image_filenames)
            some = slice(photos.first, photos.last)
            masks = outputs.mask_filenames
            self.train_dataparser_outputs = replace(
                outputs,
                image_filenames=outputs.image_filenames[some],
                cameras=outputs.cameras[some],
                mask_filenames=None if masks is None else masks[some],
                metadata={key: value for key, value in outputs.metadata.items() if key != "depth_filenames"},
            )
            return super().create_train_dataset()

    config = deepcopy(_config(photos).pipeline.datamanager)
    config.data = Path(photos.data)
    return SomePhotos(config, device="cpu", test_mode="val")  # type: ignore[abstract]
