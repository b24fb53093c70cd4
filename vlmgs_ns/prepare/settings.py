"""Settings of `vlmgs prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Preparation:
    """How photos become a scene."""

    frames: int = 120
    """Most frames that are taken of a video, the sharpest of as many stretches; never over three a second."""
    max_image_size: int = 1600
    """Longer side of the scene's photos, in pixels, at most."""
    masks: Path | None = None
    """Folder of PNGs named as the photos (12.png or 12.jpg.png): what is black there, as people or a tripod, places no camera."""
    seed: int = 0
    """Seed of the robust estimators; the same gives much the same cameras."""
