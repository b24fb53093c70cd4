"""The sharpest frame of each stretch of a video."""

from __future__ import annotations

import heapq
import logging
import re
import subprocess
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar
from vlmgs_ns.system.text import one_line

Frame = npt.NDArray[np.uint8]  # [H, W, 3]

SUFFIXES = {".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".3gp", ".mts"}
PER_SECOND = 3.0
"""Most frames of a second: more show the same."""
KEPT = 3
"""Sharpest frames of a stretch among which the exposure decides."""
SAME = 1.5
"""Mean difference of two frames, of 255, below which the camera has not moved between them."""
EXPOSURE = 0.2
"""Difference from a stretch's median brightness, as a part of it, from which a frame shows a jump of the exposure."""
_HDR = re.compile(r"smpte2084|arib-std-b67")
_TONE_MAP = "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,zscale=t=bt709:m=bt709:r=tv,format=yuv420p,"


def write_frames(video: Path, folder: Path, frames: int, longest: int) -> int:
    """Write the sharpest frame of each of ``frames`` stretches of a video as frame_00001.jpg and so on.

    A frame that repeats the one before is left out. Videos are turned as their metadata say; HDR is mapped to what a JPEG holds.

    Args:
        video: file in any format that ffmpeg reads.
        folder: where to write.
        frames: most frames; never over `PER_SECOND`.
        longest: most pixels of a frame's longer side.

    Returns:
        How many were written.

    Raises:
        InputError: ffmpeg cannot read the file, or there is no picture in it.
    """
    seconds, count, stream = _open(video, longest)
    wanted = max(1, min(frames, int(seconds * PER_SECOND)))
    stretch = max(1.0, count / wanted)
    written, last = 0, None
    with bar("Reading the video", wanted) as report:
        for number, group in groupby(enumerate(stream), key=lambda item: int(item[0] / stretch)):
            frame = sharpest(frame for _, frame in group)
            grey = _small_grey(frame)
            if last is None or float(np.abs(grey - last).mean()) >= SAME:
                written += 1
                _, jpeg = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
                with replacing(folder / f"frame_{written:05d}.jpg") as partial:
                    partial.write_bytes(jpeg.tobytes())
                last = grey
            report(min(number + 1, wanted))
    return written


def sharpest(frames: Iterable[Frame]) -> Frame:
    """Return the frame with the most detail (variance of the Laplacian) of those whose exposure is like the others'."""
    brightness: list[float] = []
    best: list[tuple[float, int, Frame]] = []
    for number, frame in enumerate(frames):
        grey = _small_grey(frame)
        brightness.append(float(grey.mean()))
        sharpness = float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())
        heapq.heappush(best, (sharpness, -number, frame))
        if len(best) > KEPT:
            heapq.heappop(best)
    usual = float(np.median(brightness))
    steady = [one for one in best if abs(brightness[-one[1]] - usual) <= EXPOSURE * usual]
    return max(steady or best)[2]


def _small_grey(frame: Frame) -> npt.NDArray[np.float32]:
    return cv2.cvtColor(cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)


def _open(video: Path, longest: int) -> tuple[float, int, Iterator[Frame]]:
    """Return length in seconds, number of frames, and the frames."""
    import imageio_ffmpeg

    told = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(video)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    ).stderr
    # It warns of every video that is turned or scaled.
    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)
    scale = f"scale='min(iw,{longest})':'min(ih,{longest})':force_original_aspect_ratio=decrease:force_divisible_by=2"
    filters = (_TONE_MAP if _HDR.search(told) else "") + scale
    try:
        # Counted, because not every file says how long it is.
        count, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
        reader = imageio_ffmpeg.read_frames(str(video), output_params=["-vf", filters])
        about = next(reader)
    except (OSError, RuntimeError, StopIteration, IndexError) as error:
        reason = one_line(told.splitlines()[-1] if told.strip() else str(error))
        raise InputError(f"the video {video} cannot be read ({reason}); give a file that plays, or a folder of photos") from None
    width, height = about["size"]
    stream = (np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader)
    return float(seconds), count, stream
