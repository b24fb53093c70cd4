"""The mp4 plays back what was written, and a failure leaves no file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from vlmgs_ns.system.video import write_mp4

LEVELS = (20, 120, 220)


def frames() -> Iterator[np.ndarray]:
    for level in LEVELS:
        yield np.full((48, 62, 3), level, np.uint8)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, frames(), 62, 48, fps=10)
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["size"] == (62, 48) and meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    means = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    np.testing.assert_allclose(means, LEVELS, atol=4)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def failing() -> Iterator[np.ndarray]:
        yield from frames()
        raise RuntimeError("no more frames")

    with pytest.raises(RuntimeError, match="no more frames"):
        write_mp4(path, failing(), 62, 48, fps=10)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_odd_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        write_mp4(tmp_path / "a.mp4", iter(()), 63, 48, fps=10)
