"""The README's pictures, made from what `vlmgs demo` wrote: ``python docs/pictures.py vlmgs-demo``."""

from __future__ import annotations

import base64
import io
import shutil
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import imageio_ffmpeg
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

from vlmgs_ns.system.progress import say

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
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


class Pictures(HTMLParser):
    """The JPEGs inside a report, by what they show."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.of_kind: dict[str | None, list[Image.Image]] = defaultdict(list)
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep a picture."""
        if tag == "img":
            attributes = dict(attrs)
            content = base64.b64decode((attributes["src"] or "").partition(",")[2])
            self.of_kind[attributes.get("data-kind")].append(Image.open(io.BytesIO(content)))


def before_after(page: Path, views: int = 3) -> Image.Image:
    """Photo, render before training, trained render and error map of the report's first views."""
    kinds = {"photo": "photo", "before": "before training", "trained": "trained", "error": "error"}
    found = Pictures(page).of_kind
    sheet = grid([found[kind][k] for k in range(views) for kind in kinds], 4, header=20)
    draw = ImageDraw.Draw(sheet)
    for k, title in enumerate(kinds.values()):
        draw.text((k * (sheet.width + GAP) // 4, 3), title, fill="black", font_size=13)
    return sheet


def screenshot(page: Path, browser: str, width: int = 1200, height: int = 1180) -> Image.Image:
    """The top of the report in a browser."""
    with sync_playwright() as session:
        running = session.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        shown = running.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        shown.goto(page.resolve().as_uri())
        # The video stands still, without the bar that browsers show over one that plays.
        shown.evaluate("() => { const v = document.querySelector('video'); v.controls = false; v.pause(); v.currentTime = 1; }")
        shown.wait_for_timeout(1000)
        taken = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
        running.close()
    return taken


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
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        say(f"No screenshot of the report: none of {', '.join(BROWSERS)} is on the PATH")
    else:
        screenshot(demo / "index.html", browser).save(IMAGES / "report.jpg", quality=82)


if __name__ == "__main__":
    main()
