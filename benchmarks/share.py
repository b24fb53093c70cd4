"""What `vlmgs share` writes of a run, opened in a headless Chromium that renders on the processor: bytes, seconds, frames per
second, PSNR against the held-out photos, and for the embedded scene how well a phrase's colour covers the instance mask.

    python benchmarks/share.py RUN [--gaussians 500000]

--gaussians repeats the run's Gaussians, smaller and scattered, until there are so many, without words.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from torch.nn import Parameter

from vlmgs_ns.evaluation.toy_labels import read_toy
from vlmgs_ns.method.finished_run import OpenRun, open_run
from vlmgs_ns.pages.share import share_page
from vlmgs_ns.system.errors import InputError

FLAGS = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
TINT = np.array([255, 107, 13])
PANEL, NARROW = 300, 760
COUNT_FRAMES = """
const draw = WebGL2RenderingContext.prototype.drawElementsInstanced;
window.frames_drawn = 0;
WebGL2RenderingContext.prototype.drawElementsInstanced = function (...given) {
  window.frames_drawn++;
  return draw.apply(this, given);
};
"""


def still(page: Page) -> None:
    page.locator("canvas[data-state=still]").wait_for(timeout=120_000)


def picture(page: Page, width: int, height: int) -> np.ndarray:
    page.wait_for_timeout(300)
    still(page)
    shot = Image.open(io.BytesIO(page.locator("canvas").screenshot())).convert("RGB")
    return np.array(shot)[:height, :width].astype(float)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(np.square(a - b).mean() / 255**2)


def multiplied(run: OpenRun, count: int) -> None:
    parameters = run.model.gauss_params
    times = math.ceil(count / len(parameters["means"]))
    spread = torch.exp(parameters["scales"]).repeat(times, 1)[:count]
    for name, values in parameters.items():
        parameters[name] = Parameter(values.detach().repeat(times, *[1] * (values.dim() - 1))[:count])
    parameters["means"].data += spread * torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    parameters["scales"].data -= math.log(times) / 2
    parameters["opacities"].data.fill_(-2)  # else those in front would hide most of the others, which are not written then
    run.model.semantics = None


def frames_per_second(page: Page, seconds: float = 10.0) -> float:
    """While the pointer drags."""
    page.mouse.move(200, 200)
    page.mouse.down()
    start, before = time.perf_counter(), page.evaluate("frames_drawn")
    k = 0
    while time.perf_counter() - start < seconds:
        k += 1
        page.mouse.move(200 + 60 * math.sin(k / 20), 200)
    drawn, took = page.evaluate("frames_drawn") - before, time.perf_counter() - start
    page.mouse.up()
    return drawn / took


def agreement(page: Page, run: OpenRun, plain: dict[str, np.ndarray]) -> dict[str, float]:
    """IoU of the pixels that a phrase's button colours and the instance masks, over the held-out views of the page."""
    try:
        labels = read_toy(run.data)
    except (InputError, OSError):
        return {}
    views = {Path(view.image).stem: view for view in labels.views}
    found = {}
    for button in page.locator("#phrases button").all():
        phrase, common, either = button.inner_text(), 0, 0
        button.click()
        for name, before in plain.items():
            page.locator("#viewpoint").select_option(label=f"{name} (held out)")
            now = picture(page, before.shape[1], before.shape[0])
            grey = before * 0.4 + (before @ [0.3, 0.6, 0.1])[..., None] * 0.6
            coloured = np.linalg.norm(now - (before * 0.35 + TINT * 0.65), axis=-1) < np.linalg.norm(now - grey, axis=-1)
            truth = [thing.mask() for thing in views[Path(name).stem].objects if thing.phrase == phrase]
            mask = np.any(truth, axis=0) if truth else np.zeros_like(coloured)
            rows, columns = (np.arange(n) * m // n for n, m in zip(coloured.shape, mask.shape, strict=True))
            mask = mask[rows[:, None], columns]
            common, either = common + int((coloured & mask).sum()), either + int((coloured | mask).sum())
        button.click()
        found[phrase] = common / max(either, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--gaussians", type=int)
    given = parser.parse_args()
    run = open_run(given.run)
    if given.gaussians:
        multiplied(run, given.gaussians)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as session:
        file = Path(folder) / "scene.html"
        for degree in (1, 3):
            start = time.perf_counter()
            shared = share_page(run, (), degree, 15_000_000)
            shared.write(file)
            took = time.perf_counter() - start
            (planes,) = re.findall('id="gaussians">(.*?)</script>', file.read_text(), re.S)
            print(
                f"degree {shared.degree}: {shared.gaussians:,} of {shared.of:,} Gaussians, {shared.size:,} bytes, "
                f"{len(planes) * 3 / 4 / shared.gaussians:.1f} bytes a Gaussian before base64, written in {took:.1f} s, "
                f"{shared.psnr:.1f} dB against the run's own Gaussians"
            )
        browser = session.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        photos = {
            path.name: batch["image"].numpy().astype(float)[..., :3]
            for path, (_, batch) in zip(
                run.pipeline.datamanager.eval_dataset.image_filenames,
                run.pipeline.datamanager.fixed_indices_eval_dataloader, strict=True,
            )
        }  # fmt: skip
        height, width, _ = next(iter(photos.values())).shape
        times = math.ceil((NARROW + 1 - PANEL) / width)
        page = browser.new_page(
            viewport={"width": times * width + PANEL, "height": times * height},
            device_scale_factor=1 / times,
            reduced_motion="reduce",
        )  # a canvas of as many pixels as a photo
        start = time.perf_counter()
        page.goto(file.as_uri())
        still(page)
        print(f"opened in {time.perf_counter() - start:.1f} s")
        held = [
            text.removesuffix(" (held out)") for text in page.locator("#viewpoint option").all_inner_texts() if "held out" in text
        ]
        plain = {}
        for name in held:
            page.locator("#viewpoint").select_option(label=f"{name} (held out)")
            plain[name] = picture(page, width, height)
        if not given.gaussians:
            against = [psnr(plain[name], photos[name][: plain[name].shape[0], : plain[name].shape[1]]) for name in held]
            print(f"held-out photos: {np.mean(against):.2f} dB, the worst {min(against):.2f}")
            for phrase, iou in agreement(page, run, plain).items():
                print(f"{phrase}: IoU {iou:.2f}")
        page.close()
        page = browser.new_page(viewport={"width": 1100, "height": 600})
        page.add_init_script(COUNT_FRAMES)
        page.goto(file.as_uri())
        still(page)
        print(f"{frames_per_second(page):.1f} frames per second while dragging, a canvas of 800 by 600 pixels")
        browser.close()


if __name__ == "__main__":
    main()
