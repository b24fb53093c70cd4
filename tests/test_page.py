"""The page of before and after is whole, self-contained and says what it is given."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmgs_ns.page import View, error_map, write_page

METRICS = {
    "psnr": 27.123,
    "ssim": 0.8765,
    "gaussians": 12_345,
    "psnr_before_training": 9.5,
    "ssim_before_training": 0.25,
    "gaussians_before_training": 10_000,
    "training_seconds": 61.0,
}


def flat(value: int) -> np.ndarray:
    return np.full((12, 16, 3), value, np.uint8)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "poster")]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "index.html"
    views = [View(f"frame_{k}.png", flat(200), flat(0), flat(200 - 10 * k), 30.0 - k, 0.9) for k in range(3)]
    write_page(path, views, METRICS, {"device": "<cpu>"}, ["ns-viewer --load-config 'a b.yml'"], "turntable.mp4")
    return path


def test_it_shows_every_picture_and_loads_nothing_from_elsewhere(page: Path) -> None:
    links = Links()
    links.feed(page.read_text(encoding="utf-8"))
    pictures = [link for link in links.found if link.startswith("data:image/jpeg;base64,")]
    assert [link for link in links.found if link not in pictures] == ["turntable.mp4"]
    assert len(pictures) == 3 * 4
    assert not re.search(r"https?://|url\(|@import", page.read_text(encoding="utf-8"))
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2])))) for link in pictures]
    # In the third row: photo, before, trained, error.
    assert [int(picture.mean()) for picture in decoded[8:11]] == [200, 0, 180]


def test_it_states_metrics_settings_and_commands(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for expected in ("27.12 dB", "0.876", "12,345", "10,000 at the start", "61 s", "9.50 before", "frame_2.png", "PSNR 28.00 dB"):
        assert expected in text
    assert "&lt;cpu&gt;" in text and "<cpu>" not in text
    assert "ns-viewer --load-config &#x27;a b.yml&#x27;" in text


def test_nothing_is_left_beside_it(page: Path) -> None:
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_error_map_is_black_without_error_and_grows_with_it() -> None:
    assert error_map(flat(90), flat(90)).max() <= 4  # inferno's first colour
    brightness = [error_map(flat(90), flat(90 + change)).astype(int).sum() for change in (0, 10, 30, 60)]
    assert brightness == sorted(brightness) and len(set(brightness)) == 4
    assert (error_map(flat(0), flat(255)) == error_map(flat(0), flat(100))).all()  # both beyond the scale
