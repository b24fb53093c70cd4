"""Encoders of benchmarks/semantics.py, and the feature maps of each, cached before the stage reads them.

The oracle knows the instance masks: every label has a prototype, and a place's feature is that of its label, blurred over a
window in the CLIP map, sharp in the DINO map, and noisy in both. What a field makes of it depends on the field alone. Prototypes
are a·u + b·e with orthonormal e and a common u, as CLIP's vectors lie in a cone; "object" is u, so that a phrase beats the
negatives where its label fills a share above a / (1 + a) = 0.44 of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmgs_ns.semantics.cache import FeatureCache, photo_digest
from vlmgs_ns.semantics.config import SemanticsConfig
from vlmgs_ns.semantics.features import clip_key, dino_key
from vlmgs_ns.semantics.hybrid import TILE_SIZES, hybrid_map, largest_tile
from vlmgs_ns.semantics.relevancy import NEGATIVES
from vlmgs_ns.semantics.stage import Encoders, choose_encoders

COMMON = 0.8  # a
WINDOW = (
    0.1  # side of the oracle's window, shares of the height: the two smallest tiles of FMGS' seven, which the tiny CLIP takes
)
MIDDLE = 0.275  # the middle one of FMGS' seven tile sizes
CLIP_GRID, DINO_GRID = 20, 30  # rows of the maps, as the tiny encoders give them
NOISE, OFFSET = 0.3, 0.2  # lengths of a cell's own noise and of what a whole view is off


class Oracle:
    """Both encoder protocols of `vlmgs_ns.semantics.encoders`, as far as the stage uses them; it never receives pictures."""

    tile_size, tile_sizes = 32, 2
    negatives = NEGATIVES

    def __init__(self, name: str, dimension: int, labels: Sequence[str], background: Sequence[str]) -> None:
        self.name = self.fingerprint = name
        self.dimension = dimension
        axes = torch.linalg.qr(torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(dimension)))[0]
        own = (1 - COMMON**2) ** 0.5
        self.prototypes = COMMON * axes[0] + own * axes[1 : len(labels) + 2]  # [1 + labels, D]; the room itself first
        texts = {NEGATIVES[0]: axes[0]}
        texts |= {word: F.normalize(axes[0] + 0.3 * axes[-1 - k], dim=0) for k, word in enumerate(NEGATIVES[1:])}
        texts |= {phrase: self.prototypes[0] for phrase in background}
        self.texts = texts | {phrase: self.prototypes[1 + k] for k, phrase in enumerate(labels)}

    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        return torch.stack([self.texts[phrase] for phrase in phrases])

    def embed_images(self, pictures: Tensor) -> Tensor:
        raise RuntimeError(f"{self.name}: a map is missing in the cache")

    embed = embed_images

    def release(self) -> None:
        """Nothing is held."""

    def map(self, ids: Tensor, rows: int, window: float, noise: float, view: int) -> Tensor:  # [rows, w, D]
        """Return a label image [H, W], box-blurred over `window` · H, at the cells' centres, with noise, as unit vectors."""
        height, width = ids.shape
        shares = F.one_hot(ids, len(self.prototypes)).float().movedim(-1, 0)[None]
        reach = round(window * height) // 2
        if reach:
            padded = F.pad(shares, (reach,) * 4, mode="replicate")
            shares = F.avg_pool2d(padded, 2 * reach + 1, stride=1)
        size = (rows, round(rows * width / height))
        shares = F.interpolate(shares, size, mode="bilinear" if reach else "nearest-exact")[0]
        features = shares.movedim(0, -1) @ self.prototypes
        chance = torch.Generator().manual_seed(view)
        apart = NOISE * torch.randn(features.shape, generator=chance) + OFFSET * torch.randn(self.dimension, generator=chance)
        return F.normalize(features + noise * apart / self.dimension**0.5, dim=-1)


@dataclass
class Eyes:
    """The encoders that a stage is given, and how their maps of a photo are made."""

    encoders: Encoders
    clip: Callable[[int], Tensor]
    dino: Callable[[int], Tensor]

    def look(self, photos: Tensor, cache: FeatureCache, wrong: bool) -> None:
        """Put the maps of photos [V, H, W, 3] uint8 into the cache; `wrong`: each photo gets those of the one half a round on."""
        count = len(photos)
        for index in range(count):
            shown = (index + count // 2) % count if wrong else index
            digest = photo_digest(photos[index].numpy())
            cache.get(digest, clip_key(self.encoders.clip), lambda shown=shown: self.clip(shown))
            cache.get(digest, dino_key(self.encoders.dino), lambda shown=shown: self.dino(shown))


def eyes(
    kind: str,
    config: SemanticsConfig,
    scene: Path,
    names: Sequence[str],
    photos: Tensor,
    labels: Any,
    tiles: Literal["", "one", "seven"] = "",
    wrong: bool = False,
) -> Eyes:
    """`tiny`: the embedded CLIP and DINO; `oracle`; `sharp oracle`: every pixel's own label and no noise, in CLIP's maps too.

    Args:
        scene: folder of the embedded scene, names: stems of the photos [V, H, W, 3] uint8.
        labels: its `LabelledScene`.
        tiles: one: of the middle size alone; the oracle's window is as large as they. seven: FMGS' (not for oracles).
        wrong: only marks the maps as such, see `Eyes.look`.
    """
    mark = (f", tiles of {MIDDLE} alone" if tiles == "one" else "") + (", of wrong photos" if wrong else "")
    if kind == "tiny":
        encoders = choose_encoders(config)
        clip, dino = encoders.clip, encoders.dino
        if tiles == "seven":
            clip.tile_sizes = TILE_SIZES
        sizes: dict[str, Any] = {"scales": clip.tile_sizes, "largest": largest_tile(clip.tile_sizes)}
        if tiles == "one":
            sizes = {"scales": 1, "smallest": MIDDLE, "largest": MIDDLE}

        def picture(index: int) -> Tensor:  # [3, H, W]
            return photos[index].movedim(-1, 0).float() / 255

        looking = Eyes(
            encoders,
            lambda index: hybrid_map(picture(index), clip.embed_images, clip.tile_size, **sizes),
            lambda index: dino.embed(picture(index)),
        )
    else:
        sharp = kind == "sharp oracle"
        seer = Oracle(f"{kind} of CLIP", 64, labels.phrases, labels.background)
        outline = Oracle(f"{kind} of DINO", 48, labels.phrases, labels.background)
        looking = Eyes(
            Encoders(seer, outline, kind, kind),  # type: ignore[arg-type]
            lambda index: seer.map(
                _ids(scene, names[index], photos),
                photos.shape[1] if sharp else CLIP_GRID,
                0.0 if sharp else MIDDLE if tiles == "one" else WINDOW,
                0.0 if sharp else 1.0,
                index,
            ),
            lambda index: outline.map(_ids(scene, names[index], photos), DINO_GRID, 0.0, 0.0 if sharp else 1.0, 1000 + index),
        )
    # A cache of each encoder and variant: maps are known by the fingerprint.
    looking.encoders.clip.fingerprint += mark
    looking.encoders.dino.fingerprint += mark
    return looking


def _ids(scene: Path, name: str, photos: Tensor) -> Tensor:  # [H, W] int64
    from PIL import Image

    height, width = photos.shape[1:3]
    mask = Image.open(scene / "masks_instance" / f"{name}.png").resize((width, height), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(mask).astype(np.int64))
