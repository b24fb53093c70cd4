"""Writing an mp4 that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vlmgs_ns.system.atomic import replacing


def write_mp4(path: Path, frames: Iterable[npt.NDArray[np.uint8]], width: int, height: int, fps: float) -> None:
    """Encode frames [height, width, 3] as H.264 and write the file atomically.

    Args:
        path: file to write; one that exists is replaced.
        frames: consumed one at a time, so that they may be rendered on the way.
        width, height: even, as 4:2:0 colour requires.
        fps: frames per second.

    Raises:
        ValueError: the width or height is odd.
    """
    import imageio_ffmpeg

    if width % 2 or height % 2:
        raise ValueError(f"a video {width} pixels wide and {height} high: H.264 halves its colours; give even numbers")
    with replacing(path) as partial:
        encoder = imageio_ffmpeg.write_frames(
            str(partial),
            (width, height),
            fps=fps,
            codec="libx264",
            macro_block_size=2,
            output_params=["-crf", "20", "-preset", "fast", "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        encoder.send(None)
        try:
            for frame in frames:
                encoder.send(np.ascontiguousarray(frame))
        finally:
            encoder.close()
