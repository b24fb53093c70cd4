"""The feature maps of all photos of a scene: computed, cached on disk and opened one photo at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmgs_ns.semantics.cache import FeatureCache, Map, format_size, photo_digest
from vlmgs_ns.semantics.encoders import DenseEncoder, ImageTextEncoder
from vlmgs_ns.semantics.hybrid import hybrid_map, largest_tile
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import Report

EDITION = 2
"""Part of every key: to be raised with a change to `hybrid_map`, an encoder's `embed` or how maps are kept: older ones are wrong
then."""


class Photos(Protocol):
    """Photos of a scene, each loaded when it is used."""

    def __len__(self) -> int: ...

    def photo(self, index: int) -> Tensor | npt.NDArray[Any]:
        """[H, W, 3], uint8, or floating point in [0, 1]."""


@dataclass(frozen=True)
class PhotoMaps:
    """The maps of one photo. Cells are equal and cover the photo."""

    clip: Map
    """[h, w, D], unit vectors but for the rounding to 8 bits."""
    dino: Map | None
    """[h', w', D'], or None without a dense encoder."""


class FeatureMaps:
    """Maps by photo, in the order of the photos; opened on access, so that no file stays open."""

    def __init__(self, cache: FeatureCache, digests: list[bytes], keys: tuple[str, ...]) -> None:
        self._cache = cache
        self._digests = digests
        self._keys = keys
        self._widths: list[int] = []

    def __len__(self) -> int:
        return len(self._digests)

    def __getitem__(self, index: int) -> PhotoMaps:
        """Return the maps of a photo by its number.

        Raises:
            InputError: the maps were removed or damaged since they were made.
        """
        maps = [self._cache.find(self._digests[index], key) for key in self._keys]
        widths = [0 if found is None else found.shape[2] for found in maps]
        self._widths = self._widths or widths
        if not all(widths) or widths != self._widths:
            raise InputError(
                f"feature maps in {self._cache.folder} were removed or damaged while in use; start again to remake them"
            )
        return PhotoMaps(*maps, *[None] * (2 - len(maps)))  # type: ignore[arg-type]


def clip_key(clip: ImageTextEncoder) -> str:
    """Return the cache key of hybrid maps: everything but the photo that decides them."""
    return f"{clip.fingerprint}, hybrid map of {clip.tile_sizes} tile sizes at {clip.tile_size} px, edition {EDITION}"


def dino_key(dino: DenseEncoder) -> str:
    """Return the cache key of dense maps: everything but the photo that decides them."""
    return f"{dino.fingerprint}, edition {EDITION}"


def feature_maps(
    photos: Photos,
    clip: ImageTextEncoder,
    dino: DenseEncoder | None,
    cache: FeatureCache,
    progress: Report = lambda done, note="": None,
) -> FeatureMaps:
    """Make sure that the maps of all photos are on disk; both encoders are released afterwards.

    What was made stays when it is interrupted: the next call goes on from there.

    Args:
        photos: as training sees them (size, undistortion): maps are known by a photo's pixels.
        clip: for the hybrid maps.
        dino: for the dense maps; None: none are made.
        cache: where they are kept.
        progress: called with (photos done, note).

    Raises:
        InputError: the cache cannot be written.
        ValueError: a photo is not [H, W, 3], or an encoder gave values that are not finite.
    """
    keys = (clip_key(clip),) if dino is None else (clip_key(clip), dino_key(dino))
    digests = []
    made = 0
    try:
        for number in range(len(photos)):
            photo = np.asarray(photos.photo(number))
            if photo.ndim != 3 or photo.shape[2] != 3:
                raise ValueError(f"photo {number} has shape {list(photo.shape)}; encoders take [H, W, 3]")
            digests.append(photo_digest(photo))
            made += _ensure(photo, digests[-1], clip, dino, cache)
            at_end = number + 1 == len(photos)
            progress(number + 1, f"{made} new" + (f", {format_size(cache.size())} on disk" if at_end else ""))
    finally:
        clip.release()
        if dino is not None:
            dino.release()
    return FeatureMaps(cache, digests, keys)


def _ensure(
    photo: npt.NDArray[Any], digest: bytes, clip: ImageTextEncoder, dino: DenseEncoder | None, cache: FeatureCache
) -> bool:
    """Make sure that a photo's maps are on disk; return whether any was computed."""
    made = False

    def picture() -> Tensor:  # [3, H, W] in [0, 1]
        nonlocal made
        made = True
        pixels = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))
        pixels = pixels.float() / 255 if photo.dtype == np.uint8 else pixels.float()
        # Tiles are cut and scaled on the encoder's device, if it has one.
        return pixels.to(getattr(clip, "device", "cpu"))

    sizes = clip.tile_sizes
    cache.get(
        digest,
        clip_key(clip),
        lambda: hybrid_map(picture(), clip.embed_images, clip.tile_size, scales=sizes, largest=largest_tile(sizes)),
    )
    if dino is not None:
        cache.get(digest, dino_key(dino), lambda: dino.embed(picture()))
    return made
