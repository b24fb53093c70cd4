"""The README's pictures, made from what `vlmgs demo` wrote: ``python docs/pictures.py vlmgs-demo``."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import imageio_ffmpeg
from PIL import Image, ImageDraw

IMAGES = Path(__file__).resolve().parent / "images"
GAP = 6


def grid(pictures: list[Image.Image], columns: int, header: int = 0) -> Image.Image:
    """Pictures of one size in rows, on white."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, header + rows * (height + GAP) - GAP), "white")
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * (width + GAP), header + k // columns * (height + GAP)))
    return sheet


def before_after(page: Path, views: int = 3) -> Image.Image:
    """Photo, render before training, trained render and error map of the page's first views."""
    encoded = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page.read_text(encoding="utf-8"))[: 4 * views]
    sheet = grid([Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded], 4, header=20)
    draw = ImageDraw.Draw(sheet)
    for k, title in enumerate(("photo", "before training", "trained", "error")):
        draw.text((k * (sheet.width + GAP) // 4, 3), title, fill="black", font_size=13)
    return sheet


def turntable(video: Path, count: int = 10) -> Image.Image:
    """Frames of the turntable, evenly spaced."""
    reader = imageio_ffmpeg.read_frames(str(video))
    size = next(reader)["size"]
    frames = [Image.frombytes("RGB", size, frame) for frame in reader]
    chosen = [frames[k * len(frames) // count].resize((240, 240 * size[1] // size[0])) for k in range(count)]
    return grid(chosen, 5)


def main() -> None:
    demo = Path(sys.argv[1])
    before_after(demo / "index.html").save(IMAGES / "before_after.jpg", quality=85)
    turntable(demo / "turntable.mp4").save(IMAGES / "turntable.jpg", quality=80)


if __name__ == "__main__":
    main()
