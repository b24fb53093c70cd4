"""A video of one turn around a scene."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from vlmgs_ns.evaluation.overlays import Picture
from vlmgs_ns.pages.held_out import to_bytes
from vlmgs_ns.splats.orbit import orbit
from vlmgs_ns.system.progress import bar
from vlmgs_ns.system.video import write_mp4

FPS = 20
"""Frames per second."""
LONGER_SIDE = 640
"""Most pixels of a frame's longer side."""


@torch.no_grad()
def write_turntable(pipeline: Any, path: Path, seconds: float) -> None:
    """Render one turn around the scene of a pipeline to an mp4 of about the photos' size, at most ``LONGER_SIDE``.

    Raises:
        ValueError: fewer than 3 photos.
    """
    cameras = pipeline.datamanager.train_dataset.cameras
    poses = orbit(cameras.camera_to_worlds, max(1, round(seconds * FPS)))
    lens = deepcopy(cameras[:1])
    longest = max(int(lens.width.item()), int(lens.height.item()))
    if longest > LONGER_SIDE:
        lens.rescale_output_resolution(LONGER_SIDE / longest)
    lens.width, lens.height = lens.width // 2 * 2, lens.height // 2 * 2  # H.264 halves its colours
    training = pipeline.training
    pipeline.eval()

    def frames() -> Iterator[Picture]:
        with bar("Rendering", len(poses)) as report:
            for k, pose in enumerate(poses):
                lens.camera_to_worlds = pose[None]
                yield to_bytes(pipeline.model.get_outputs_for_camera(lens)["rgb"])
                report(k + 1)

    write_mp4(path, frames(), int(lens.width.item()), int(lens.height.item()), FPS)
    pipeline.train(training)


def turntable(pipeline: Any, seconds: float) -> bytes:
    """Return one turn around the scene as the content of an mp4."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "turntable.mp4"
        write_turntable(pipeline, path, seconds)
        return path.read_bytes()
