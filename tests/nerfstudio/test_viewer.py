"""ns-viewer, looked at in a headless browser."""

from __future__ import annotations

import io
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.nerfstudio.conftest import Commands, Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, process: Any, output: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, output.read_text(errors="replace")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"no viewer after {seconds} s:\n{output.read_text(errors='replace')}")


def picture(page: Any) -> np.ndarray:  # [H, W, 3] float
    """What the page shows in the middle of its left half, away from the panels."""
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), dtype=float)
    height, width, _ = shot.shape
    return shot[height // 4 : 3 * height // 4, width // 8 : width // 2]


def settled(page: Any, seconds: float = 60) -> np.ndarray:
    """The picture once it shows a scene and no longer changes."""
    end, before = time.monotonic() + seconds, picture(page)
    while time.monotonic() < end:
        time.sleep(1.0)
        now = picture(page)
        if now.std() > 5 and np.abs(now - before).mean() < 0.5:
            return now
        before = now
    raise AssertionError(f"the page shows no settled picture after {seconds} s (deviation {before.std():.1f})")


@pytest.mark.browser
def test_viewer_shows_the_panel_and_renders_that_follow_the_camera(commands: Commands, trained: Run, work: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package (the dev extra)")
    browser_path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser_path is None:
        pytest.skip(f"needs a Chromium on the PATH: none of {', '.join(BROWSERS)}")
    port, output = free_port(), work / "viewer.txt"
    process = commands.start(
        *("ns-viewer", "--load-config", trained.config, "--viewer.websocket-host", "127.0.0.1"),
        *("--viewer.websocket-port", port),
        output=output,
    )
    try:
        wait_for_port(port, process, output)
        with playwright.sync_playwright() as session:
            browser = session.chromium.launch(executable_path=browser_path, args=list(FLAGS))
            page = browser.new_page(viewport={"width": 1000, "height": 600})
            # The page asks for a logo and a visitor counter elsewhere; the viewer must do without.
            page.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
            page.goto(f"http://127.0.0.1:{port}")
            page.wait_for_selector("canvas", timeout=60_000)
            page.get_by_text("Hide Train Cams").click()  # what is left to see is the render
            page.get_by_text("Find with words").wait_for()
            page.get_by_text("cannot be searched with words yet").wait_for()
            first = settled(page)
            page.mouse.move(300, 300)
            page.mouse.down()
            page.mouse.move(420, 330, steps=8)
            page.mouse.up()
            second = settled(page)
            browser.close()
        assert np.abs(first - second).mean() > 2, "the picture did not follow the camera"
        assert process.poll() is None, output.read_text(errors="replace")
        assert "Traceback" not in output.read_text(errors="replace")
    finally:
        process.kill()
        process.wait()
