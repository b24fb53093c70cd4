"""The panel of nerfstudio's viewer in a headless browser: type, press, look.

The scene is the embedded room as Gaussians at its sparse points, opaque, and each point's feature is that of the object it lies
on: what is tested is the way from the page to the picture and back, not what an encoder can find.
"""

from __future__ import annotations

import copy
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData
from scipy.ndimage import binary_dilation, distance_transform_edt

from tests.nerfstudio.test_viewer import BROWSERS, FLAGS, free_port
from tests.words.trained import NEGATIVES
from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.guidance.backends.residual import ResidualBackend
from vlmgs_ns.guidance.instructions import trace
from vlmgs_ns.method.guided_scene import GuidedScene
from vlmgs_ns.semantics.field import FieldConfig
from vlmgs_ns.semantics.lifting import Lifted
from vlmgs_ns.semantics.scene_semantics import About, SceneSemantics
from vlmgs_ns.splats.ply import read_ply
from vlmgs_ns.toy.scene import write_scene

WIDTH, HEIGHT = 96, 72


def objects(scene: Path) -> list[dict[str, Any]]:
    return json.loads((scene / "labels.json").read_text())["objects"]


def oracle(scene: Path) -> tuple[SceneSemantics, torch.Tensor]:
    """Semantics in which every object has a direction of its own, and the object [N] of each seed point, 0: none."""
    points = PlyData.read(str(scene / "seed_points.ply"))["vertex"]
    xyz = np.stack([points[axis] for axis in "xyz"], axis=1)
    things = objects(scene)
    of = np.zeros(len(xyz), int)
    for thing in things:  # later ones stand on the table
        low, high = np.array(thing["bbox_min"]) - 0.02, np.array(thing["bbox_max"]) + 0.02
        low[2] = max(low[2], 0.02)
        of[((xyz > low) & (xyz < high)).all(axis=1)] = thing["id"]
    dims = len(things) + 1 + len(NEGATIVES)
    texts = {thing["name"]: thing["id"] for thing in things} | {text: len(things) + 1 + k for k, text in enumerate(NEGATIVES)}
    semantics = SceneSemantics(
        About("lift", FieldConfig(clip_dim=dims, dino_dim=4), "no such folder", "none", "by hand", NEGATIVES, "")
    )
    seen = torch.ones(len(of), dtype=torch.bool)
    semantics.keep_lifted(Lifted(torch.eye(dims)[of], seen.float(), seen))
    semantics.texts, semantics.vectors, semantics.complete = list(texts), torch.eye(dims)[list(texts.values())], True
    return semantics, torch.from_numpy(of)


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, torch.Tensor]:
    """A trainer's config and its pipeline with the room in it, the run's folder, and each Gaussian's object."""
    work = tmp_path_factory.mktemp("panel")
    write_scene(work / "room", views=10, width=WIDTH, height=HEIGHT, held_out=2, points=20_000, supersample=1)
    config = copy.deepcopy(vlm_fastgs_lite.config)
    config.output_dir, config.experiment_name, config.timestamp = work / "outputs", "panel", "now"
    config.data = config.pipeline.datamanager.data = work / "room"
    config.pipeline.model.semantics.enabled = False
    config.pipeline.model.guidance.enabled = False
    pipeline = config.pipeline.setup(device="cpu", test_mode="test", world_size=1, local_rank=0)
    model = pipeline.model.eval()
    model.semantics, of = oracle(work / "room")
    assert len(model.means) == len(of)
    with torch.no_grad():
        model.gauss_params["opacities"].fill_(4.0)
        model.gauss_params["scales"].clamp_(max=np.log(0.012))
    return pipeline, config.get_base_dir(), of


class Page:
    """The page as a user sees it."""

    def __init__(self, page: Any, client: Any, camera: Any) -> None:
        self.page, self.client = page, client
        self.first = self.picture()
        """What the page showed once it was open."""
        self.look_through(camera)

    def look_through(self, camera: Any) -> None:
        """Have the client look as a camera of the data set does."""
        c2w = camera.camera_to_worlds.numpy()
        # One by one in absolute terms: what the page reports meanwhile changes nothing.
        self.client.camera.fov = 2 * float(np.arctan(HEIGHT / 2 / camera.fy.item()))
        self.client.camera.position = c2w[:, 3] * 10
        self.client.camera.look_at = (c2w[:, 3] - c2w[:, 2]) * 10
        self.client.camera.up_direction = c2w[:, 1]
        self.page.wait_for_timeout(500)

    def type(self, text: str) -> None:
        """Into the field Find."""
        field = self.page.locator("xpath=//*[self::p or self::label][normalize-space()='Find']/following::input[1]")
        field.fill(text)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def wait_for(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for(timeout=30_000)

    def drag(self, left: int, top: int, right: int, bottom: int) -> None:
        """From one corner of a box to the other, in pixels of the picture."""
        x, y = self.corner
        self.page.mouse.move(x + left, y + top)
        self.page.mouse.down()
        self.page.mouse.move(x + right, y + bottom, steps=5)
        self.page.mouse.up()

    def picture(self) -> np.ndarray:  # [H, W, 3] in [0, 1]
        """What the canvas shows once it no longer changes."""
        box = max((handle.bounding_box() for handle in self.page.locator("canvas").all()), key=lambda box: box["width"])
        left = self.page.get_by_text("Find with words").bounding_box()["x"] - 40
        clip = {**box, "width": min(box["width"], left - box["x"])}
        self.corner = box["x"], box["y"]
        before = None
        end = time.monotonic() + 30
        while time.monotonic() < end:
            now = np.asarray(Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB"), dtype=float) / 255
            if before is not None and np.abs(now - before).max() < 0.02:
                return now
            before = now
            self.page.wait_for_timeout(1_200)
        raise AssertionError("the picture never came to rest")


@pytest.fixture(scope="module")
def opened(room: tuple[Any, Path, torch.Tensor]) -> Iterator[tuple[Page, Any]]:
    """nerfstudio's viewer on the room, as ns-viewer starts it, and a browser that looks through the third photo's camera."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package (the dev extra)")
    browser_path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser_path is None:
        pytest.skip(f"needs a Chromium on the PATH: none of {', '.join(BROWSERS)}")
    from nerfstudio.configs.base_config import ViewerConfig
    from nerfstudio.viewer.viewer import Viewer

    pipeline, run, _ = room
    run.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = ViewerConfig(websocket_host="127.0.0.1", websocket_port=port, max_num_display_images=0, image_format="png")
    viewer = Viewer(settings, run / "viewer.log", pipeline.datamanager.get_datapath(), pipeline, train_lock=threading.Lock())
    viewer.init_scene(pipeline.datamanager.train_dataset, "completed", pipeline.datamanager.eval_dataset)
    try:
        with playwright.sync_playwright() as session:
            browser = session.chromium.launch(executable_path=browser_path, args=list(FLAGS))
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())
            page.goto(f"http://127.0.0.1:{port}")
            page.wait_for_selector("canvas", timeout=60_000)
            end = time.monotonic() + 120
            while not viewer.viser_server.get_clients() and time.monotonic() < end:
                page.wait_for_timeout(100)  # not time.sleep: the page waits for requests that only playwright can turn away
            (client,) = viewer.viser_server.get_clients().values()
            yield Page(page, client, pipeline.datamanager.train_dataset.cameras[2]), viewer
            browser.close()
    finally:
        viewer.viser_server.stop()


def on_page(mask: np.ndarray, like: np.ndarray) -> np.ndarray:  # [H, W]
    """A photo's pixels as the page shows them: as high as the picture, in its middle."""
    height, width = like.shape[:2]
    rows = (np.arange(height) + 0.5) * HEIGHT / height
    columns = (np.arange(width) + 0.5 - width / 2) * HEIGHT / height + WIDTH / 2
    inside = (columns >= 0) & (columns < WIDTH)
    out = mask[rows.astype(int)][:, columns.clip(0, WIDTH - 1).astype(int)]
    return np.where(inside[None], out, -1)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def assert_in_the_middle(picture: np.ndarray) -> None:
    """Assert about a picture of one thing on an empty ground: it is there, large, and its pixels lie about the middle."""
    ground = np.median(picture[:20].reshape(-1, 3), axis=0)
    rows, columns = np.nonzero(np.abs(picture - ground).max(axis=2) > 0.1)
    height, width = picture.shape[:2]
    assert 0.02 < len(rows) / height**2 < 0.8
    assert abs(rows.mean() / height - 0.5) < 0.15 and abs(columns.mean() - width / 2) / height < 0.15


@pytest.mark.browser
def test_the_viewer_opens_on_the_scene(room: tuple[Any, Path, torch.Tensor], opened: tuple[Page, Any]) -> None:
    """The first picture on the page is more like the first photo than like any other; these Gaussians are its points."""
    data, first = room[0].datamanager, opened[0].first
    there = on_page(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH), first)
    inside = there != -1
    photos = [data.train_dataset.get_image_float32(k)[..., :3].numpy().reshape(-1, 3)[there[inside]] for k in range(8)]
    assert first[inside].mean() > 0.5 * photos[0].mean(), "not a dark void"
    errors = [float(np.abs(first[inside] - photo).mean()) for photo in photos]
    assert errors[0] == min(errors) and errors[0] < 0.8 * float(np.median(errors)), errors


@pytest.mark.browser
def test_what_is_found_outside_the_picture_is_gone_to(room: tuple[Any, Path, torch.Tensor], opened: tuple[Page, Any]) -> None:
    pipeline, _, of = room
    page, _ = opened
    scene = Path(pipeline.datamanager.get_datapath())
    name = next(thing["name"] for thing in objects(scene) if thing["noun"] != "table" and (of == thing["id"]).sum() > 50)
    page.client.camera.look_at = 2 * page.client.camera.position - page.client.camera.look_at  # turned round
    page.type(name)
    page.wait_for("It lies outside the picture: press Go to.")
    page.press("Go to")
    page.wait_for("It is in the middle of the picture.")
    page.press("By phrase")
    page.wait_for("Selected by phrase")
    page.press("Isolate")
    page.wait_for("It is in the middle of the picture")
    assert_in_the_middle(page.picture())
    assert not pipeline.model.panel._outside()
    for _ in range(2):
        page.press("Undo")
    page.type("")
    page.wait_for("Nothing is looked for.")
    page.look_through(pipeline.datamanager.train_dataset.cameras[2])


@pytest.mark.browser
def test_find_select_hide_export(room: tuple[Any, Path, torch.Tensor], opened: tuple[Page, Any]) -> None:
    pipeline, run, of = room
    page, _ = opened
    scene = Path(pipeline.datamanager.get_datapath())
    name = pipeline.datamanager.train_dataset.image_filenames[2].stem
    instances = np.asarray(Image.open(scene / "masks_instance" / f"{name}.png")).astype(int)
    counts = {thing["id"]: int((instances == thing["id"]).sum()) for thing in objects(scene) if thing["noun"] != "table"}
    thing = next(thing for thing in objects(scene) if thing["id"] == max(counts, key=lambda k: counts[k]))
    before = page.picture()
    there = on_page(instances, before)
    inside, outside = there == thing["id"], (there != thing["id"]) & (there != -1)

    page.type(thing["name"])  # nothing else is pressed: it is looked for after a pause
    page.wait_for(f"“{thing['name']}”")
    found = page.picture()
    changed = np.abs(found - before).max(axis=2) > 0.02
    assert changed[inside].mean() > 0.9
    brighter = found.max(axis=2) / np.maximum(before.max(axis=2), 0.02)
    assert np.median(brighter[outside]) < 0.8 < np.median(brighter[inside]), "the find stands out of a darker picture"

    page.press("By phrase")
    page.wait_for("Selected by phrase")
    page.press("Isolate")
    page.wait_for("It is in the middle of the picture")
    assert_in_the_middle(page.picture())
    page.look_through(pipeline.datamanager.train_dataset.cameras[2])
    alone = page.picture()
    empty = np.median(alone[there != -1], axis=0)
    assert overlap(np.abs(alone - empty).max(axis=2) > 0.1, inside) > 0.5

    page.press("Undo")
    page.wait_for("Undone")
    page.press("Hide")
    page.wait_for("Hidden")
    with page.page.expect_download(timeout=30_000) as download:
        page.press("Export selection")
    page.wait_for("Wrote")
    (path,) = (run / "exports").glob("*.ply")
    assert download.value.suggested_filename == path.name
    assert Path(download.value.path()).read_bytes() == path.read_bytes()
    mask = pipeline.model.panel.session().selection.mask
    assert str(path.resolve()).replace("-", "") in page.page.locator("body").inner_text().replace("-", "").replace("\n", "")
    written = read_ply(path)
    assert torch.equal(written.means, pipeline.model.means.detach()[mask])
    assert (of[mask] == thing["id"]).float().mean() > 0.95 and mask.sum() > 0.8 * (of == thing["id"]).sum()

    page.type("a spaceship")
    page.wait_for("neither a folder nor a model")
    page.type("")
    page.wait_for("Nothing is looked for.")
    gone = page.picture()
    changed = np.abs(gone - before).max(axis=2) > 0.05
    assert changed[inside].mean() > 0.6 > 0.1 > changed[outside].mean(), "what is hidden is missing, and nothing else"
    for _ in range(2):
        page.press("Undo")
    page.wait_for("Undone. 0 Gaussians selected")
    assert np.abs(page.picture() - before).max(axis=2).mean() < 0.01


@pytest.mark.browser
def test_a_thing_clicked_on_the_page_is_selected_named_and_taken_out(
    room: tuple[Any, Path, torch.Tensor], opened: tuple[Page, Any]
) -> None:
    pipeline, _, of = room
    page, _ = opened
    scene = Path(pipeline.datamanager.get_datapath())
    name = pipeline.datamanager.train_dataset.image_filenames[2].stem
    instances = np.asarray(Image.open(scene / "masks_instance" / f"{name}.png")).astype(int)
    counts = {thing["id"]: int((instances == thing["id"]).sum()) for thing in objects(scene) if thing["noun"] != "table"}
    thing = next(thing for thing in objects(scene) if thing["id"] == max(counts, key=lambda k: counts[k]))
    before = page.picture()
    there = on_page(instances, before) == thing["id"]
    depth = distance_transform_edt(there)
    y, x = (int(place) for place in np.unravel_index(depth.argmax(), depth.shape))
    for button, said in (("Select", f"Most like “{thing['name']}”"), ("Remove", "Removed. 0 Gaussians selected")):
        page.page.get_by_role("button", name=button, exact=True).first.click()
        page.wait_for("Click a thing on the picture.")
        page.page.mouse.click(page.corner[0] + x, page.corner[1] + y)
        page.wait_for(said)
        if button == "Select":
            mask = pipeline.model.panel.session().selection.mask
            assert (of[mask] == thing["id"]).float().mean() > 0.9 and mask.sum() > 0.7 * (of == thing["id"]).sum()
            rim = (page.picture() - before).min(axis=2) > 0.25
            assert rim[binary_dilation(there, iterations=12)].sum() > 50, "the thing is outlined"
    page.press("Undo")
    page.press("Undo")
    page.wait_for("Undone. 0 Gaussians selected")


@pytest.mark.browser
def test_a_box_dragged_over_a_thing_puts_it_in_focus(room: tuple[Any, Path, torch.Tensor], opened: tuple[Page, Any]) -> None:
    """As while training: from the mouse through viser, the viewer's camera and the rasteriser to the Gaussians."""
    pipeline, _, of = room
    page, _ = opened
    model, scene = pipeline.model, Path(pipeline.datamanager.get_datapath())
    name = pipeline.datamanager.train_dataset.image_filenames[2].stem
    instances = np.asarray(Image.open(scene / "masks_instance" / f"{name}.png")).astype(int)
    counts = {thing["id"]: int((instances == thing["id"]).sum()) for thing in objects(scene) if thing["noun"] != "table"}
    wanted = max(counts, key=lambda k: counts[k])
    rows, columns = np.nonzero(on_page(instances, page.picture()) == wanted)
    guided = GuidedScene(model, cast(Any, None), 640)
    model.start_guidance(guided, ResidualBackend(), None)
    try:
        model.panel.act(model.panel.more_detail)
        page.wait_for("Drag a box over")
        page.drag(*(int(edge) for edge in (columns.min(), rows.min(), columns.max(), rows.max())))
        page.wait_for("Gaussians are added there sooner")
        focus = trace(model.steering.instructions.at(0), guided)
    finally:
        model.steering = model.guided_scene = None
    in_focus = (focus > 0) & (of > 0)
    assert in_focus.sum() > 50 and (of[in_focus] == wanted).float().mean() > 0.6
