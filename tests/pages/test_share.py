"""The page of `vlmgs share`, in a browser, against our own rasteriser: the Gaussians of the run are laid out by hand."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.pages.conftest import Opened
from tests.words.trained import PARTS, make_run
from vlmgs_ns.commands.share import Share
from vlmgs_ns.method import finished_run
from vlmgs_ns.method.finished_run import OpenRun, open_run
from vlmgs_ns.pages.share import Shared, share_page
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.semantics.visibility import LEAST_WEIGHT
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.ply import C0, Gaussians
from vlmgs_ns.splats.quantised import Quantised, restored
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.scene import write_scene
from vlmgs_ns.words.query import make_query
from vlmgs_ns.words.question import ask

ZOOM = 15
"""Pixels of the canvas for one of a photo, odd: the middle one of them sees what the photo's pixel sees."""
WIDTH, HEIGHT = 32 * ZOOM + 300, 24 * ZOOM
"""A window whose canvas, beside the panel of 300 pixels, has the photos' shape."""
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
PHRASES = ["red ball", "blue box", HOSTILE]
MOST = 15_000_000


@dataclass
class Page:
    """A file that `write_share` wrote, taken apart."""

    path: Path
    shared: Shared

    def part(self, name: str) -> str:
        (content,) = re.findall(f'<script type="application/[a-z-]+" id="{name}">(.*?)</script>', self.path.read_text(), re.S)
        return str(content)

    @property
    def scene(self) -> dict[str, Any]:
        return dict(json.loads(self.part("scene")))

    def planes(self, name: str) -> npt.NDArray[np.uint8]:
        content = zlib.decompress(base64.b64decode(self.part(name)))
        return np.frombuffer(content, np.uint8).reshape(-1, self.shared.gaussians)

    def gaussians(self) -> Gaussians:
        header = self.scene["gaussians"]
        names = ("degree", "middle", "unit", "reach", "scales", "colours")
        return restored(Quantised(self.planes("gaussians"), **{name: header[name] for name in names}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    folder = tmp_path_factory.mktemp("share")
    write_scene(folder / "room", views=13, width=32, height=24, held_out=1, points=50, supersample=1)
    run = open_run(make_run(folder))
    semantics = run.model.semantics
    assert semantics is not None
    semantics.texts[semantics.texts.index("green hat")] = HOSTILE
    return run


@pytest.fixture(scope="module")
def page(run: OpenRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    out = tmp_path_factory.mktemp("page") / "scene <b>1.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenRun, "data", Path(f"/room {HOSTILE}"))
        shared = share_page(run, PHRASES, 3, MOST)
    shared.write(out)
    yield Page(out, shared)


def camera(run: OpenRun, page: Page, name: str) -> Pinhole:
    (camera,) = (camera for file, camera in run.photos() if file.name == name)
    return run.model.pinhole(camera)


def drawn(gaussians: Gaussians, camera: Pinhole, background: Tensor) -> Tensor:  # [H, W, 3]
    """Our own rasteriser's picture of what a file holds."""
    image, alpha, _ = rasterization(
        gaussians.means, gaussians.quats, torch.exp(gaussians.scales), torch.sigmoid(gaussians.opacities)[:, 0],
        torch.cat([gaussians.features_dc[:, None], gaussians.features_rest], dim=1), camera.viewmat[None], camera.K[None],
        camera.width, camera.height, sh_degree=gaussians.degree,
    )  # fmt: skip
    return (image[0] + (1 - alpha[0]) * background).clamp(0, 1)


def coloured_by(gaussians: Gaussians, values: Tensor) -> Gaussians:
    """The Gaussians, each as bright as its value [N]."""
    flat = ((values - 0.5) / C0)[:, None].expand(-1, 3)
    return replace(gaussians, features_dc=flat, features_rest=torch.zeros_like(gaussians.features_rest))


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


class Shown(Opened):
    """The page in a browser."""

    def wait(self) -> None:
        self.page.locator("canvas[data-state=still]").wait_for()

    def picture(self, zoom: int = ZOOM) -> Tensor:  # [24, 32, 3]
        """The canvas with what lies on it, one pixel for one of the photo."""
        self.wait()
        shot = Image.open(io.BytesIO(self.page.locator("canvas").screenshot())).convert("RGB")
        return torch.from_numpy(np.array(shot)).float()[zoom // 2 :: zoom, zoom // 2 :: zoom] / 255

    def background(self) -> Tensor:
        colour = re.findall(r"\d+", self.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        return torch.tensor([float(value) for value in colour[:3]]) / 255

    def click(self, place: tuple[float, float]) -> str:
        """Click at a place in pixels of the photo; what the page answers."""
        self.page.mouse.click(place[0] * ZOOM, place[1] * ZOOM)
        return str(self.page.locator("#answer").inner_text())


@pytest.fixture
def opened(browser: Any, page: Page) -> Iterator[Shown]:
    opened = Shown(browser, page.path, WIDTH, HEIGHT, reduced_motion="reduce")
    yield opened
    assert opened.complaints == [] and opened.elsewhere() == []
    opened.page.close()


def weights(run: OpenRun) -> tuple[Tensor, Tensor]:
    """The blending weight of each Gaussian in each training photo, by a colour of its own for each, and whether it is inside."""
    splats = run.model.splats()
    count, rows, inside = len(splats), [], []
    for name in (file.name for file in run.pipeline.datamanager.train_dataset.image_filenames):
        (pinhole,) = (run.model.pinhole(one) for file, one in run.photos() if file.name == name)
        image, _, _ = rasterization(
            splats.means, splats.quats, splats.scales, splats.opacities, torch.eye(count), pinhole.viewmat[None], pinhole.K[None],
            pinhole.width, pinhole.height,
        )  # fmt: skip
        rows.append(image[0].sum(dim=(0, 1)))
        homogeneous = torch.cat([splats.means, torch.ones(count, 1)], dim=1) @ pinhole.viewmat.T
        x, y, z = (homogeneous[:, :3] @ pinhole.K.T).unbind(dim=1)
        inside.append((z > 0) & (x >= 0) & (x <= 32 * z) & (y >= 0) & (y <= 24 * z))
    return torch.stack(rows), torch.stack(inside)


def test_only_what_two_photos_show_is_in_the_file(run: OpenRun, page: Page) -> None:
    weight, inside = weights(run)
    kept = ((weight >= LEAST_WEIGHT) & inside).sum(dim=0) >= 2
    assert 60 < int(kept.sum()) < 120
    assert page.shared.gaussians == int(kept.sum()) and page.shared.of == 120
    distance = torch.cdist(page.gaussians().means, run.model.means.detach()[kept])
    assert distance.argmin(dim=1).sort().values.equal(torch.arange(int(kept.sum())))
    assert float(distance.amin(dim=1).max()) < 1e-3
    assert page.scene["start"] == int(((weight >= LEAST_WEIGHT) & inside).sum(dim=1).argmax())


def test_bytes_of_relevancy_select_what_export_selects(run: OpenRun, page: Page) -> None:
    """At the threshold: what cleaning takes out (dust far away, fog) is not above it."""
    found = ask(run.model, make_query(PHRASES)).select()
    rows = torch.cdist(page.gaussians().means, run.model.means.detach()).argmin(dim=1)
    levels = page.planes("relevancies")
    assert levels.shape == (3, page.shared.gaussians)
    assert ((levels / 255 > 0.5) == found.masks[rows].T.numpy()).all()
    assert (levels[0] / 255 > 0.5).sum() > 30
    far = torch.isin(rows, torch.tensor(list(PARTS["far"]) + list(PARTS["fog"]))).numpy()
    assert far.any() and (levels[0][far] <= 127).all() and (found.relevancy[rows][far, 0] > 0.5).any()
    clean = ~far
    assert np.abs(levels[:, clean] / 255 - found.relevancy[rows].T.numpy()[:, clean]).max() < 2 / 255


@pytest.mark.browser
def test_it_draws_what_our_rasteriser_draws(opened: Shown, run: OpenRun, page: Page) -> None:
    gaussians, background = page.gaussians(), opened.background()
    views = page.scene["views"]
    assert [view.get("held", False) for view in views] == [False] * 12 + [True]
    assert opened.page.locator("#viewpoint").input_value() == str(page.scene["start"])
    for number in (page.scene["start"], 12):
        opened.page.locator("#viewpoint").select_option(str(number))
        picture, ours = opened.picture(), drawn(gaussians, camera(run, page, views[number]["name"]), background)
        assert psnr(picture, ours) > 38
        assert psnr(background.expand_as(ours), ours) < 25  # it shows something
    assert page.shared.psnr > 38 or page.shared.gaussians < 120


@pytest.mark.browser
def test_a_phrase_isolates_hides_and_colours_its_gaussians(opened: Shown, run: OpenRun, page: Page) -> None:
    gaussians, background, levels = page.gaussians(), opened.background(), page.planes("relevancies")
    here = camera(run, page, page.scene["views"][page.scene["start"]]["name"])
    selected = torch.from_numpy(levels[0] / 255 > 0.5)
    button = opened.page.get_by_role("button", name="red ball")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert opened.page.locator("#answer").inner_text() == f"“red ball”: {int(selected.sum())} of {len(gaussians)} Gaussians"
    plain = drawn(gaussians, here, background)
    ball = drawn(gaussians[selected], here, background)
    # Pixels of which the ball has more than half, and those that are nearer to the tint than to grey.
    weight = drawn(coloured_by(gaussians, selected.float()), here, torch.zeros(3))[..., 0]
    tint, grey = torch.tensor([1, 0.42, 0.05]), (plain @ torch.tensor([0.3, 0.6, 0.1]))[..., None]
    picture, mask = opened.picture(), weight > 0.5
    tinted = (picture - plain.lerp(tint, 0.65)).norm(dim=-1) < (picture - plain.lerp(grey, 0.6)).norm(dim=-1)
    assert mask.sum() > 10 and (mask & tinted).sum() / (mask | tinted).sum() > 0.8
    opened.page.get_by_label("isolate").check()
    assert psnr(opened.picture(), ball) > 38
    opened.page.get_by_label("hide").check()
    assert psnr(opened.picture(), drawn(gaussians[~selected], here, background)) > 38
    highest = levels[0].max() / 255
    opened.page.locator("#threshold").fill(f"{highest:.2f}" if highest < 1 else "1")
    assert opened.page.locator("#answer").inner_text().startswith("“red ball”: 0 of")
    assert psnr(opened.picture(), plain) > 38
    opened.page.get_by_label("box").check()
    assert "in the units of the data" in opened.page.locator("#answer").inner_text()
    x, y, w, h = opened.page.locator("#box path").bounding_box().values()
    rows, columns = mask.nonzero().unbind(dim=1)
    outer = max(x, columns.min() * ZOOM), max(y, rows.min() * ZOOM)
    inner = min(x + w, (columns.max() + 1) * ZOOM) - outer[0], min(y + h, (rows.max() + 1) * ZOOM) - outer[1]
    union = w * h + len(columns) * ZOOM**2 - inner[0] * inner[1]
    assert inner[0] * inner[1] / union > 0.4  # of a thing of which a pixel's side is a twentieth
    button.click()
    opened.wait()
    assert opened.page.locator("#box path").get_attribute("d") == ""
    assert button.get_attribute("aria-pressed") == "false" and opened.page.locator("#answer").inner_text() == ""


@pytest.mark.browser
def test_a_click_says_what_is_there(opened: Shown, run: OpenRun, page: Page) -> None:
    here = camera(run, page, page.scene["views"][page.scene["start"]]["name"])
    every, levels = page.gaussians(), page.planes("relevancies")
    for phrase, row in zip(PHRASES[:2], levels, strict=False):
        means = every.means[torch.from_numpy(row / 255 > 0.5)]
        x, y, z = ((means @ here.viewmat[:3, :3].T + here.viewmat[:3, 3]) @ here.K.T).unbind(dim=1)
        answer = opened.click((float((x / z).median()), float((y / z).median())))
        match = re.fullmatch(f"That is “{phrase}”, relevancy (0\\.\\d\\d|1\\.00)\\.", answer)
        assert match and float(match[1]) > 0.5
        assert opened.page.get_by_role("button", name=phrase).get_attribute("aria-pressed") == "true"
    views = page.scene["views"]
    white = [drawn(every, camera(run, page, view["name"]), torch.full((3,), 5.0)).amin(dim=-1) for view in views]
    number, y, x = (torch.stack(white) > 0.99).nonzero()[0].tolist()
    opened.page.locator("#viewpoint").select_option(str(number))
    opened.picture()
    assert opened.click((x + 0.5, y + 0.5)) == "Nothing is there."


@pytest.mark.browser
def test_the_photo_lies_over_the_render_as_far_as_the_slider_says(opened: Shown, run: OpenRun, page: Page) -> None:
    assert not opened.page.locator("#slider").is_visible()  # no photo was trained on is in the page
    opened.page.locator("#viewpoint").select_option("12")
    render = opened.picture()
    opened.page.locator("#slider").fill("50")
    opened.page.locator("#photo").evaluate("image => image.decode()")
    half = opened.picture()
    _, batch = run.pipeline.datamanager.fixed_indices_eval_dataloader[0]
    photo = batch["image"].float() / 255
    assert psnr(half[:, :15], photo[:, :15]) > 25 > psnr(render[:, :15], photo[:, :15])
    assert torch.equal(half[:, 17:], render[:, 17:])
    opened.page.keyboard.press("Tab")
    opened.page.locator("canvas").focus()
    opened.page.keyboard.press("ArrowRight")
    opened.wait()
    assert not opened.page.locator("#photo").is_visible() and opened.page.locator("#viewpoint").input_value() == ""


@pytest.mark.browser
def test_pointer_and_keys_move_the_camera_and_lead_back(opened: Shown, page: Page) -> None:
    start = opened.picture()
    moved = []
    canvas = opened.page.locator("canvas")
    canvas.focus()

    def drag(button: str) -> None:
        opened.page.mouse.move(200, 150)
        opened.page.mouse.down(button=button)
        opened.page.mouse.move(260, 170, steps=2)
        opened.page.mouse.up(button=button)

    for act in (
        lambda: drag("left"),
        lambda: drag("right"),
        lambda: opened.page.mouse.wheel(0, 200),
        lambda: opened.page.keyboard.press("w"),
        lambda: opened.page.keyboard.press("ArrowUp"),
    ):
        act()
        opened.page.wait_for_timeout(250)  # it rests a moment after the last movement
        moved.append(opened.picture())
        assert opened.page.locator("#viewpoint").input_value() == ""
    assert all(psnr(a, b) < 45 for a, b in zip([start, *moved], moved, strict=False))
    opened.page.locator("#viewpoint").select_option(str(page.scene["start"]))
    opened.page.wait_for_timeout(250)
    assert psnr(opened.picture(), start) > 45
    canvas.focus()
    opened.page.keyboard.press("1")
    assert opened.page.get_by_role("button", name="red ball").get_attribute("aria-pressed") == "true"


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_it_fits_and_names_are_text(browser: Any, page: Page, width: int, scheme: str) -> None:
    opened = Shown(browser, page.path, width, color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert (float(opened.background().sum()) > 1.5) == (scheme == "light")
    box = opened.page.locator("canvas").bounding_box()
    assert box["width"] >= min(width, 760) - 1 and box["height"] > 350
    assert opened.page.locator("h1").inner_text() == opened.page.title() == f"room {HOSTILE}".split("/")[-1]
    assert opened.page.locator("#phrases button").all_inner_texts() == PHRASES
    assert opened.page.locator("aside img").count() == 0
    assert opened.complaints == [] and opened.elsewhere() == []
    opened.page.close()


@pytest.mark.browser
def test_without_webgl_it_says_so_and_shows_a_photo(browser: Any, page: Page) -> None:
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    here = context.new_page()
    here.goto(page.path.as_uri())
    here.get_by_text("This browser has no WebGL2").wait_for()
    assert here.locator("#photo").is_visible()
    context.close()


def test_the_file_is_as_small_as_asked(run: OpenRun, page: Page, tmp_path: Path) -> None:
    sizes, whole = {}, share_page(run, PHRASES, 3, MOST)
    flat = share_page(run, PHRASES, 0, MOST)
    assert whole.degree == 3 and flat.degree == 0
    for name, most in (("less", whole.size - 1), ("few", flat.size - 500)):
        shared = share_page(run, PHRASES, 3, most)
        shared.write(tmp_path / name)
        assert (tmp_path / name).stat().st_size == shared.size <= most
        sizes[name] = shared
    assert sizes["less"].degree < 3 and sizes["less"].gaussians == page.shared.gaussians
    assert sizes["few"].degree == 0 and 10 < sizes["few"].gaussians < page.shared.gaussians
    with pytest.raises(InputError, match=r"takes 0\.\d\d MB without its Gaussians"):
        share_page(run, PHRASES, 3, 20_000)


@pytest.fixture
def without_words(run: OpenRun) -> Iterator[None]:
    kept, run.model.semantics = run.model.semantics, None
    yield
    run.model.semantics = kept


def test_the_command(
    run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], without_words: None
) -> None:
    monkeypatch.setattr(finished_run, "open_run", lambda _: run)
    Share(run.folder, out=tmp_path / "a.html").run()
    text = (tmp_path / "a.html").read_text()
    assert 'id="relevancies"></script>' in text and '"phrases": []' in text
    said = " ".join(capsys.readouterr().out.split())
    assert "of 120 Gaussians, harmonics of degree 3" in said and "dB against all of them" in said and "Wrote" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(InputError, match="cannot be searched"):
        Share(run.folder, out=tmp_path / "b.html", prompt="red ball").run()
    for wrong in (0.0, -1.0, float("nan"), 1e6):
        with pytest.raises(InputError, match="--max-mb"):
            Share(run.folder, max_mb=wrong).run()
    with pytest.raises(InputError, match="is a folder"):
        Share(run.folder, out=tmp_path).run()
