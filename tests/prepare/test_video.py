from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.prepare.disk import largest_file
from vlmgs_ns.prepare.video import sharpest, write_frames
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.ffmpeg import bundled_ffmpeg
from vlmgs_ns.system.video import write_mp4

pytestmark = pytest.mark.skipif(bundled_ffmpeg() is None, reason="imageio-ffmpeg has no binary for this machine")

Frame = npt.NDArray[np.uint8]


def texture(number: int) -> Frame:
    """Return a picture with detail, another for each number."""
    rng = np.random.default_rng(number)
    return cv2.resize(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), (128, 96), interpolation=cv2.INTER_NEAREST)


def blurred(frame: Frame, sigma: float = 3.0) -> Frame:
    return cv2.GaussianBlur(frame, (0, 0), sigma).astype(np.uint8)


def written(folder: Path) -> list[Frame]:
    return [cv2.imread(str(path))[..., ::-1] for path in sorted(folder.glob("frame_*.jpg"))]


def test_the_sharpest_frame_wins() -> None:
    frames = [blurred(texture(0), sigma) for sigma in (4, 1, 2)]
    assert sharpest(frames) is frames[1]


def test_a_frame_whose_exposure_jumps_loses() -> None:
    steady = [blurred(texture(0), sigma) for sigma in (1.0, 1.5, 2.0, 2.5)]
    overexposed = (128 + texture(0) // 2).astype(np.uint8)
    assert sharpest([*steady, overexposed]) is steady[0]


def test_of_each_stretch_the_sharp_frame_is_written(tmp_path: Path) -> None:
    """Two seconds at 10 frames a second: four stretches, each of another thing, sharp in one frame of five."""
    frames = [texture(k // 5) if k % 5 == 3 else blurred(texture(k // 5)) for k in range(20)]
    write_mp4(tmp_path / "v.mp4", frames, 128, 96, 10)
    assert write_frames(tmp_path / "v.mp4", tmp_path, 4, 1000) == 4
    for number, frame in enumerate(written(tmp_path)):
        sharp, soft = (float(np.abs(frame.astype(int) - other).mean()) for other in (texture(number), blurred(texture(number))))
        assert sharp < soft


def test_a_camera_that_stands_still_gives_one_frame(tmp_path: Path) -> None:
    write_mp4(tmp_path / "v.mp4", [texture(0)] * 20, 128, 96, 10)
    assert write_frames(tmp_path / "v.mp4", tmp_path, 4, 64) == 1
    assert written(tmp_path)[0].shape == (48, 64, 3)


def test_no_more_frames_than_three_a_second(tmp_path: Path) -> None:
    write_mp4(tmp_path / "v.mp4", [texture(k) for k in range(20)], 128, 96, 10)
    assert write_frames(tmp_path / "v.mp4", tmp_path, 100, 1000) == 6


def test_a_phones_hdr_video_is_turned_upright_with_its_colours(tmp_path: Path) -> None:
    """HLG in 10 bits, on its side with a note to turn it: quarters of four colours come out where and as they were."""
    quarters = np.array([[[128, 128, 128], [170, 60, 50]], [[60, 140, 70], [50, 70, 160]]], np.uint8)
    upright = quarters.repeat(64, 0).repeat(48, 1)
    sideways = "format=gbrp,setparams=color_primaries=bt709:color_trc=iec61966-2-1:colorspace=gbr:range=pc,transpose=cclock"
    hlg = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt2020:t=arib-std-b67:m=bt2020nc:r=tv:npl=203,format=yuv420p10le"
    tags = "log-level=error:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "96x128", "-r", "10", "-i", "-")
    x265 = ("-vf", f"{sideways},{hlg}", "-c:v", "libx265", "-x265-params", tags)
    ffmpeg(*raw, *x265, str(tmp_path / "flat.mp4"), content=upright.tobytes() * 10)
    ffmpeg("-display_rotation:v:0", "-90", "-i", str(tmp_path / "flat.mp4"), "-c", "copy", str(tmp_path / "v.mp4"))
    assert write_frames(tmp_path / "v.mp4", tmp_path, 1, 1000) == 1
    (frame,) = written(tmp_path)
    assert frame.shape == upright.shape
    assert frame[32::64, 24::48].astype(int) == pytest.approx(quarters.astype(int), abs=25)


def ffmpeg(*arguments: str, content: bytes | None = None) -> None:
    subprocess.run([str(bundled_ffmpeg()), "-loglevel", "error", *arguments], input=content, check=True)


def test_a_disk_without_room_is_an_error(tmp_path: Path) -> None:
    write_mp4(tmp_path / "v.mp4", [texture(k) for k in range(20)], 128, 96, 10)
    with largest_file(1000), pytest.raises(OSError, match=r"File too large: 1\.0 kB of it were written"):
        write_frames(tmp_path / "v.mp4", tmp_path, 4, 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize("content", [b"", b"a recipe", b"\0" * 4000])
def test_what_does_not_play_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"the video .*v\.mp4 cannot be read \(.*\); give a file that plays"):
        write_frames(tmp_path / "v.mp4", tmp_path, 10, 1000)
