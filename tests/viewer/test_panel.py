"""The panel without a browser: callbacks called as the page would, pictures rendered as the viewer's thread would."""

from __future__ import annotations

import gc
import json
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.utils import CameraState, parse_object
from nerfstudio.viewer.viewer_elements import ViewerControl
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException, SetTrace
from PIL import Image
from torch import Tensor
from torch.nn import Parameter

from tests.guidance.small_world import Scripted, says
from tests.method.test_model import build, camera, cloud, photo, train
from tests.words.trained import NEGATIVES, PARTS, hand_made_semantics, laid_out
from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.guidance.question import Answer
from vlmgs_ns.guidance.reply import Box
from vlmgs_ns.guidance.round import Round, ViewRegions
from vlmgs_ns.method.model import VlmFastGSModel
from vlmgs_ns.semantics.embedded import EMBEDDED
from vlmgs_ns.splats.ply import read_ply
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.scene import write_scene
from vlmgs_ns.viewer import frame, rounds
from vlmgs_ns.viewer.controls import escaped
from vlmgs_ns.viewer.panel import ALONE, FEATURES, FINDS, FOCUS, MASK, OUTSIDE, PICK, REGIONS, RESET, Panel
from vlmgs_ns.viewer.session import MOST_PHRASES

PACKAGE = str(Path(frame.__file__).parents[1])
SIDE = (0.2, 2.0, 0.5)
"""From here the ball is on one side and the box on the other."""


def searchable() -> VlmFastGSModel:
    """A red ball, a blue box and dust, with features by hand."""
    model = build(cloud())
    parameters, features = laid_out()
    for name, values in parameters.items():
        model.gauss_params[name] = Parameter(values)
    model.semantics = hand_made_semantics(features)
    return model.eval()


@pytest.fixture
def model() -> VlmFastGSModel:
    return searchable()


def as_viewer(call: Callable[[], Any]) -> Any:
    """What a call returns or raises on a thread of the kind on which nerfstudio's viewer renders."""
    thread, got = RenderStateMachine(None, 10.0, None), []  # type: ignore[arg-type]

    def run() -> None:
        try:
            got.append(call())
        except BaseException as error:
            got.append(error)

    thread.run = run  # type: ignore[method-assign]
    thread.start()
    thread.join(60)
    assert got, "the render hangs"
    if isinstance(got[0], BaseException):
        raise got[0]
    return got[0]


@torch.no_grad()
def render(model: VlmFastGSModel) -> dict[str, Tensor]:
    return model.get_outputs_for_camera(camera(SIDE))


def shown(model: VlmFastGSModel) -> Tensor:
    """The picture on the page. [H, W, 3]"""
    return as_viewer(lambda: render(model))["rgb"]


def press(panel: Panel, *actions: Callable[[], str]) -> str:
    """Press buttons one after the other; the status after the last."""
    for action in actions:
        panel.act(action).result(timeout=60)
    return panel.status


def find(panel: Panel, phrases: str, negatives: str = "") -> str:
    panel.phrases.default_value, panel.negatives.default_value = phrases, negatives
    return press(panel, panel.find)


def rows(*names: str) -> Tensor:  # [120] bool
    mask = torch.zeros(120, dtype=torch.bool)
    for name in names:
        mask[list(PARTS[name])] = True
    return mask


def silhouette(model: VlmFastGSModel, mask: Tensor) -> Tensor:  # [H, W] bool
    """Pixels that these Gaussians cover for the most part, in a picture of the whole scene."""
    pinhole = model.pinhole(camera(SIDE))
    image, _ = frame.blend(model.splats(), pinhole, mask[:, None].float())
    return image[..., 0] > 0.5


# how it comes to the page


def test_nerfstudio_finds_it_before_training_and_in_a_finished_run() -> None:
    model = build(cloud())
    assert [control for _, control in parse_object(model, ViewerControl, "") if isinstance(control, Panel)] == [model.panel]


class Handle:
    """An element of a page that is not there."""

    order = 5.0

    def __init__(self, label: str = "", value: Any = None, **rest: Any) -> None:
        self.label, self.value, self.content, self.callbacks = label, value, "", []
        self.__dict__.update(rest)

    def on_click(self, callback: Any) -> None:
        self.callbacks.append(callback)

    on_update = on_click

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Page:
    """Stands in for viser's: keeps what was added, in order."""

    def __init__(self) -> None:
        self.added: list[Handle] = []

    def __getattr__(self, name: str) -> Any:
        def add(label: str, *values: Any, **rest: Any) -> Handle:
            value = values[-1] if values else None
            self.added.append(Handle(label, value, **{key: rest[key] for key in ("hint", "order") if key in rest}))
            return self.added[-1]

        return add

    def __getitem__(self, label: str) -> Handle:
        return next(handle for handle in self.added if handle.label == label)


def viewer_of(folder: Path) -> Any:
    """As much of nerfstudio's viewer as the panel uses."""
    page = Page()
    return SimpleNamespace(
        viser_server=SimpleNamespace(gui=page, on_client_connect=lambda _: None, get_clients=dict),
        page=page, log_filename=folder / "viewer.log", datapath=folder,
        train_lock=threading.Lock(), stats_markdown=Handle(), trainer=None, _trigger_rerender=lambda: None,
        control_panel=SimpleNamespace(output_render="depth", _output_render=Handle(value="depth")),
    )  # fmt: skip


def test_the_order_is_find_select_edit_export(model: VlmFastGSModel, tmp_path: Path) -> None:
    viewer = viewer_of(tmp_path)
    model.panel._setup(viewer)
    labels = [handle.label for handle in viewer.page.added if handle.label and "\\" not in handle.label]
    assert labels == [
        *("Find with words", "Find", "or pick", "But not", "Find", "Show", "Threshold", "Opacity"),
        *("Select and edit", "Width", "Click", "Box", "Select", "Refine", "View", "Back", "Export selection"),
    ]  # fmt: skip
    assert model.panel.negatives.value == "; ".join(NEGATIVES)
    assert all(handle.order > 5 for handle in (viewer.page["Find with words"], viewer.page["Select and edit"]))


def pointing(panel: Panel, folder: Path) -> Callable[..., str]:
    """Return what presses a button of the panel and then points at places of the picture, as fractions of it."""
    viewer = viewer_of(folder)
    viewer.viser_server.scene = Pointer()
    viewer.get_camera_state = lambda _: CameraState(
        fov=2 * float(np.arctan(24 / 40)), aspect=4 / 3, c2w=camera(SIDE).camera_to_worlds[0], camera_type=CameraType.PERSPECTIVE
    )
    panel._setup(viewer)

    def point(action: Callable[[], str], *places: tuple[float, float]) -> str:
        press(panel, action)
        drag(viewer, *places)
        assert viewer.viser_server.scene.callback is None, "the camera is free again"
        return press(panel, lambda: "")

    return point


def place_of(model: VlmFastGSModel, part: str) -> tuple[float, float]:
    """Where the middle of a part is, as a fraction of the picture from `SIDE`."""
    pinhole = model.pinhole(camera(SIDE))
    x, y, depth = pinhole.K @ (
        pinhole.viewmat[:3, :3] @ model.means.detach()[list(PARTS[part])].mean(dim=0) + pinhole.viewmat[:3, 3]
    )
    return float(x / depth / pinhole.width), float(y / depth / pinhole.height)


def test_clicks_select_add_remove_and_widen(model: VlmFastGSModel, tmp_path: Path) -> None:
    with torch.no_grad():
        model.gauss_params["features_dc"].zero_()
    panel = model.panel
    point, ball, box = pointing(panel, tmp_path), place_of(model, "ball"), place_of(model, "box")
    said = point(lambda: panel.click("select"), ball)
    chosen = panel.session().selection.mask
    assert chosen[list(PARTS["ball"])].float().mean() > 0.8 and not chosen[list(PARTS["box"])].any()
    assert said == f"Selected. {int(chosen.sum())} Gaussians selected. Most like “red ball”, relevancy 1.00."
    assert "“blue box”" in point(lambda: panel.click("add"), box)
    both = panel.session().selection.mask
    assert both[chosen].all() and both[list(PARTS["box"])].float().mean() > 0.8
    point(lambda: panel.click("remove"), ball)
    assert torch.equal(panel.session().selection.mask, both & ~chosen)
    point(lambda: panel.click("select"), ball)
    counts = []
    for width in (0.1, 1.0, 3.0):
        panel.width.default_value = width
        press(panel, panel._widen)
        counts.append(int(panel.session().selection.mask.sum()))
    assert 1 <= counts[0] <= counts[1] == int(chosen.sum()) <= counts[2]


def test_a_click_needs_no_words_and_misses_what_is_hidden(model: VlmFastGSModel, tmp_path: Path) -> None:
    model.semantics = None
    with torch.no_grad():
        model.gauss_params["features_dc"].zero_()
    panel, ball = model.panel, place_of(model, "ball")
    point = pointing(panel, tmp_path)
    said = point(lambda: panel.click("select"), ball)
    assert "Most like" not in said and panel.session().selection.mask[list(PARTS["ball"])].float().mean() > 0.8
    panel.session().hide()
    assert "nothing at" in point(lambda: panel.click("select"), ball)
    assert "nothing at" in point(lambda: panel.click("select"), (0.001, 0.001))


def overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_box_selects_what_it_shows(model: VlmFastGSModel, tmp_path: Path) -> None:
    panel, (x, y) = model.panel, place_of(model, "ball")
    said = pointing(panel, tmp_path)(lambda: panel.drag("select"), (x - 0.15, y - 0.2), (x + 0.15, y + 0.2))
    chosen = panel.session().selection.mask
    assert chosen[list(PARTS["ball"])].float().mean() > 0.2 and not chosen[list(PARTS["box"])].any() and "Selected." in said
    assert overlap(silhouette(model, chosen), silhouette(model, rows("ball"))) > 0.6, "its front, not what that hides"
    assert panel._widen() == "", "a box has no width"


def test_a_find_turns_the_page_to_the_picture(model: VlmFastGSModel, tmp_path: Path) -> None:
    viewer = viewer_of(tmp_path)
    model.panel._setup(viewer)
    model.panel.phrases.value, model.panel.show.value = "red ball", ALONE
    assert "Gaussians above" in press(model.panel, model.panel.find)
    assert viewer.control_panel._output_render.value == "rgb" and model.panel.show.value == FINDS


def test_every_button_of_a_row_counts_each_time(model: VlmFastGSModel, tmp_path: Path) -> None:
    """viser calls nothing where a click changes no value: between clicks a row has none."""
    viewer = viewer_of(tmp_path)
    model.panel._setup(viewer)
    row = viewer.page["Select"]
    for _ in range(3):
        assert row.value == ""
        row.value = "Invert"
        row.callbacks[0](SimpleNamespace(client_id=1, target=row))
        row.callbacks[0](SimpleNamespace(client_id=None, target=row))  # the echo of our own change
    press(model.panel, lambda: "")
    assert model.panel.session().selection.mask.all()


def test_a_page_that_fails_costs_a_warning(model: VlmFastGSModel) -> None:
    with pytest.warns(UserWarning, match="could not be added"):
        model.panel._setup(SimpleNamespace(viser_server=None))  # type: ignore[arg-type]


def test_picking_a_name_finds_it(model: VlmFastGSModel, tmp_path: Path) -> None:
    viewer = viewer_of(tmp_path)
    model.panel._setup(viewer)
    assert model.panel.names.options == [PICK, "red ball", "blue box", "green hat", "warm thing"]
    model.panel.names.value = "blue box"
    model.panel._pick()
    press(model.panel, lambda: "")
    assert model.panel.phrases.value == "blue box" and "“blue box”: 40 Gaussians" in model.panel.status
    assert model.panel.names.value == PICK, "so that it can be picked again"


@pytest.mark.parametrize("known", [True, False])
def test_only_phrases_of_the_scene_are_offered(model: VlmFastGSModel, tmp_path: Path, known: bool) -> None:
    """Where the embedded encoder knows the scene, the names in it; elsewhere none, and every answer says what it is worth."""
    viewer, names = viewer_of(tmp_path), []
    if known:
        viewer.datapath = tmp_path / "room"
        write_scene(viewer.datapath, views=2, width=24, height=18, held_out=1, points=9, supersample=1)
        names = [thing["name"] for thing in json.loads((viewer.datapath / "labels.json").read_text())["objects"]]
    texts, vectors = model.semantics.texts, model.semantics.vectors
    model.semantics.about = replace(model.semantics.about, clip=EMBEDDED)
    model.semantics.texts, model.semantics.vectors = texts[-2:], vectors[-2:]  # the negatives
    model.panel._setup(viewer)
    assert model.panel.names.options == [PICK, *names] and known == bool(names)
    assert model.panel.status.startswith("Type what to look for." if known else "What words find here is noise")
    model.semantics.texts, model.semantics.vectors = texts, vectors
    model.panel.phrases.value = "red ball"
    said = press(model.panel, model.panel.find)
    assert said.startswith("“red ball”: 66 Gaussians") and (f"--data {viewer.datapath}" in said) == (not known)


def test_typing_is_looked_for_after_a_pause_and_once(model: VlmFastGSModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmgs_ns.viewer.panel.PAUSE", 0.05)
    panel, asked = model.panel, []
    monkeypatch.setattr(panel, "find", lambda: asked.append(panel.phrases.value) or "")
    for text in ("r", "red", "red ball"):
        panel.phrases.default_value = text
        panel._find_after_pause()
    threading.Event().wait(0.5)
    press(panel, lambda: "")
    assert asked == ["red ball"]


# finding


def test_what_is_found_shows_where_it_is(model: VlmFastGSModel) -> None:
    before = shown(model)
    said = find(model.panel, "red ball")
    assert said == "“red ball”: 66 Gaussians above 0.50, the highest relevancy is 1.00."
    ball = silhouette(model, rows("ball", "far", "fog"))
    after = shown(model)
    tint = torch.tensor(frame.COLOURS[0])
    assert ((after - tint).norm(dim=-1) < (before - tint).norm(dim=-1))[ball].all()
    dimmed = before * (1 - frame.DIMMED * model.panel.opacity.value)
    away = ~frame.outline(ball) & ~ball
    torch.testing.assert_close(after[away], dimmed[away], atol=1e-5, rtol=0)
    model.panel.show.default_value = MASK
    white = shown(model)
    assert (white[ball & ~frame.outline(ball)] == 1).all() and (white[away] == 0).all()
    press(model.panel, model.panel.select)
    assert (shown(model)[ball & ~frame.outline(ball)] == 1).all(), "a selection makes nothing less relevant"


def test_several_phrases_have_colours_of_their_own(model: VlmFastGSModel) -> None:
    said = find(model.panel, " red ball ;blue  box; ; red ball")
    assert said == "Above 0.50: “red ball” 66 Gaussians, up to 1.00; “blue box” 40 Gaussians, up to 1.00."
    model.panel.show.default_value = MASK
    picture = shown(model)
    for k, names in enumerate((("ball", "far", "fog"), ("box",))):
        inside = silhouette(model, rows(*names))
        inside &= ~frame.outline(inside)
        assert inside.sum() > 5 and torch.allclose(picture[inside], torch.tensor(frame.COLOURS[k]))


def test_negatives_of_ones_own(model: VlmFastGSModel) -> None:
    """A warm thing is much like a red ball, until it has to beat one."""
    assert "66 Gaussians" in find(model.panel, "warm thing")
    assert "nothing found" in find(model.panel, "warm thing", negatives="object; red ball")


def test_without_their_own_negatives_phrases_are_looked_for_again(model: VlmFastGSModel) -> None:
    find(model.panel, "warm thing", negatives="object; red ball")
    assert model.panel._find_new() == "", "they are the same still"
    model.panel.negatives.default_value = ""
    assert "66 Gaussians" in press(model.panel, model.panel._find_new)


def test_nothing_found_says_so_and_leaves_the_picture(model: VlmFastGSModel) -> None:
    before = shown(model)
    assert find(model.panel, "green hat") == "“green hat”: nothing found above 0.50, the highest relevancy is exactly 0.50."
    assert torch.equal(shown(model), before)
    assert "no gaussian is above" in press(model.panel, model.panel.select).lower()
    assert not model.panel.session().selection.mask.any()


@pytest.mark.parametrize(
    ("phrases", "complaint"),
    [
        ("x" * 10_000, "has 10000 characters"),
        ("red\x00ball", "cannot be read"),
        ("; ".join(f"thing {k}" for k in range(MOST_PHRASES + 1)), "too many"),
        ("a phrase that was never embedded", "neither a folder nor"),
    ],
)
def test_what_cannot_be_looked_for_is_one_line(model: VlmFastGSModel, phrases: str, complaint: str) -> None:
    find(model.panel, "red ball")
    said = find(model.panel, phrases)
    assert complaint in said and "\n" not in said and not said.startswith("Error") and len(said) < 400
    assert model.panel.session().found.query.phrases == ("red ball",), "what was found before stays"


def test_an_empty_field_clears(model: VlmFastGSModel) -> None:
    before = shown(model)
    find(model.panel, "red ball")
    assert find(model.panel, " ; ") == "Nothing is looked for."
    assert torch.equal(shown(model), before)


def test_the_threshold_counts_again(model: VlmFastGSModel) -> None:
    find(model.panel, "warm thing")
    model.panel.threshold.default_value = 0.9999
    assert "nothing found above 1.00" in press(model.panel, model.panel._describe_found)


def test_without_semantics_it_says_how_to_get_them(tmp_path: Path) -> None:
    model = build(cloud()).eval()
    model.panel._setup(viewer_of(tmp_path))
    assert "--load-dir" in model.panel.status
    model.panel.phrases.value = "ball"
    assert "--load-dir" in press(model.panel, model.panel.find)
    assert "--load-dir" in press(build(cloud()).panel, lambda: model.searchable() and "")


# selecting and editing


def test_select_grow_tidy_invert_undo(model: VlmFastGSModel) -> None:
    panel = model.panel
    find(panel, "red ball")
    press(panel, panel.select)
    selected = panel.session().selection.mask
    assert torch.equal(selected & ~rows("fog"), rows("ball")), "the corner is apart and light"
    press(panel, panel.invert)
    assert torch.equal(panel.session().selection.mask, ~selected)
    assert press(panel, panel.undo).startswith("Undone.")
    assert torch.equal(panel.session().selection.mask, selected)
    one = torch.zeros(120, dtype=torch.bool)
    one[0] = True
    panel.session().selection.replace(one)
    assert press(panel, panel.grow).startswith("Grown by")
    grown = panel.session().selection.mask
    assert (grown <= rows("ball", "fog")).all() and grown.sum() > 50
    panel.session().selection.replace(grown | rows("far", "fog"))
    assert "faint" in press(panel, panel.tidy)
    assert (panel.session().selection.mask <= rows("ball")).all()


def test_grow_without_words_takes_what_touches(model: VlmFastGSModel) -> None:
    panel = model.panel
    one = torch.zeros(120, dtype=torch.bool)
    one[0] = True
    panel.session().selection.replace(one)
    said = press(panel, panel.grow)
    grown = panel.session().selection.mask
    assert "what touches it" in said and 1 < grown.sum() < 66 and (grown <= rows("ball", "fog")).all()


def test_hide_isolate_and_show_all_change_what_the_viewer_draws_and_nothing_else(model: VlmFastGSModel) -> None:
    panel = model.panel
    panel.show.default_value = ALONE
    parameters = {name: values.detach().clone() for name, values in model.gauss_params.items()}
    whole = shown(model)
    find(panel, "red ball")
    panel.show.default_value = ALONE
    press(panel, panel.select, panel.hide)
    mask = panel.session().selection.mask

    def alone(which: Tensor) -> Tensor:
        part = searchable()
        for name, values in parameters.items():
            part.gauss_params[name] = Parameter(values[which])
        part.semantics = None
        return render(part)["rgb"]

    torch.testing.assert_close(shown(model), alone(~mask))
    assert torch.equal(render(model)["rgb"], whole), "metrics and commands see the scene as it was trained"
    press(panel, panel.isolate)
    outlined = frame.outline(silhouette(model, mask))
    isolated = shown(model)
    inside = ~torch.nn.functional.max_pool2d(outlined[None, None].float(), 5, 1, 2)[0, 0].bool()
    torch.testing.assert_close(isolated[inside], alone(mask)[inside])
    press(panel, panel.show_all, lambda: panel.session().selection.replace(torch.zeros_like(mask)) or "")
    assert torch.equal(shown(model), whole)
    for name, values in model.gauss_params.items():
        assert torch.equal(values, parameters[name])


def test_everything_hidden_is_an_empty_picture(model: VlmFastGSModel) -> None:
    press(model.panel, model.panel.invert, model.panel.hide)
    assert (shown(model) == model.background_color).all()


def test_hidden_and_cropped(model: VlmFastGSModel) -> None:
    from nerfstudio.data.scene_box import OrientedBox

    find(model.panel, "red ball")
    model.panel.show.default_value = ALONE
    press(model.panel, model.panel.select, model.panel.hide)
    left = OrientedBox(torch.eye(3), torch.tensor([0.5, 0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0]))
    with torch.no_grad():
        outputs = as_viewer(lambda: model.get_outputs_for_camera(camera(SIDE), obb_box=left))
    drawn = left.within(model.means).reshape(-1) & ~model.panel.session().selection.hidden
    assert drawn.sum() < 15 and outputs["rgb"].shape[-1] == 3


@pytest.mark.parametrize("button", ["hide", "isolate", "grow", "tidy", "export"])
def test_nothing_selected_says_so(model: VlmFastGSModel, tmp_path: Path, button: str) -> None:
    model.panel._setup(viewer_of(tmp_path))
    assert press(model.panel, getattr(model.panel, button)).startswith("Nothing is selected")
    assert not model.panel.session().selection.hidden.any()


def test_the_selection_is_outlined(model: VlmFastGSModel) -> None:
    find(model.panel, "blue box")
    press(model.panel, model.panel.select)
    model.panel.show.default_value = ALONE
    picture, edge = shown(model), frame.outline(silhouette(model, rows("box")))
    assert edge.any() and (picture[edge] == torch.tensor(frame.OUTLINE)).all()


def test_export_writes_what_is_selected(model: VlmFastGSModel, tmp_path: Path) -> None:
    model.panel._setup(viewer_of(tmp_path))
    model.panel.phrases.value = "Red ball"
    model.semantics.texts[0] = "Red ball"
    said = press(model.panel, model.panel.find, model.panel.select, model.panel.tidy, model.panel.export)
    path = tmp_path / "exports" / "selection-red-ball.ply"
    assert said == f"Wrote 60 Gaussians to {path}"
    written = read_ply(path)
    for name, values in vars(written).items():
        assert torch.equal(values, model.gauss_params[name].detach()[rows("ball")])


def test_export_into_a_folder_that_cannot_be(model: VlmFastGSModel, tmp_path: Path) -> None:
    (tmp_path / "exports").write_text("a file")
    model.panel._setup(viewer_of(tmp_path))
    said = press(model.panel, model.panel.invert, model.panel.export)
    assert "cannot be written" in said and (tmp_path / "exports").read_text() == "a file"


# where one looks from


class Client:
    """As much of viser's client as the panel uses."""

    def __init__(self) -> None:
        self.camera = SimpleNamespace(position=np.zeros(3), look_at=np.ones(3), fov=1.0)
        self.downloads: list[tuple[str, bytes]] = []

    def atomic(self) -> Any:
        return nullcontext()

    def send_file_download(self, name: str, content: bytes) -> None:
        self.downloads.append((name, content))

    def state(self) -> CameraState:
        back = torch.from_numpy(self.camera.position - self.camera.look_at).double()
        back = back / back.norm()
        right = torch.linalg.cross(torch.tensor([0.0, 0, 1]).double(), back)
        right = right / right.norm()
        c2w = torch.stack([right, torch.linalg.cross(back, right), back, torch.from_numpy(self.camera.position) / 10], dim=1)
        return CameraState(fov=self.camera.fov, aspect=4 / 3, c2w=c2w, camera_type=CameraType.PERSPECTIVE)


def test_clients_start_at_a_photo_and_go_to_what_was_found(model: VlmFastGSModel, tmp_path: Path) -> None:
    here, other, welcome = Client(), Client(), []
    viewer, photo_camera = viewer_of(tmp_path), camera(SIDE)
    viewer.viser_server.get_clients = lambda: {3: here, 5: other}
    viewer.viser_server.on_client_connect = welcome.append
    viewer.get_camera_state = lambda client: client.state()
    viewer.pipeline = SimpleNamespace(datamanager=SimpleNamespace(train_dataset=SimpleNamespace(cameras=photo_camera)))
    panel = model.panel
    panel._setup(viewer)
    welcome[0](here)
    press(panel, lambda: "")
    np.testing.assert_allclose(here.camera.position, 10 * np.array(SIDE), rtol=1e-5)
    forward, wanted = here.camera.look_at - here.camera.position, -photo_camera.camera_to_worlds[0, :, 2].numpy()
    np.testing.assert_allclose(forward / np.linalg.norm(forward), wanted, atol=1e-5)

    panel.phrases.value = "red ball"
    for client in (here, other):
        client.camera.position, client.camera.look_at = np.array([5.0, 40.0, 5.0]), np.array([5.0, 60.0, 5.0])
    assert OUTSIDE in press(panel, panel.find)
    panel.act(panel.select).result(timeout=60)
    panel.act(panel.isolate, 3).result(timeout=60)
    assert panel.status.endswith("It is in the middle of the picture.")
    ball = 10 * model.means[list(PARTS["ball"])].detach().mean(dim=0).numpy()
    assert np.linalg.norm(here.camera.look_at - ball) < 1, "in viser's units"
    near = np.linalg.norm(here.camera.position - ball)
    assert 1 < near < np.linalg.norm(10 * np.array(SIDE) - ball), "nearer than the photo"
    assert other.camera.position[1] == 40, "nobody else was moved"
    assert OUTSIDE not in press(panel, panel.find)
    panel.act(panel.export, 3).result(timeout=60)
    (path,) = (tmp_path / "exports").glob("*.ply")
    assert here.downloads == [(path.name, path.read_bytes())] and not other.downloads


# threads


def test_a_render_that_is_cut_off_at_any_line_leaves_everything_as_it_was(model: VlmFastGSModel) -> None:
    find(model.panel, "red ball")
    press(model.panel, model.panel.select, model.panel.hide, model.panel.undo)
    wanted, status, state = shown(model), model.panel.status, model.panel.session().selection.state
    lines = stop = 0

    def tracer(at: Any, event: str, _: Any) -> Any:
        nonlocal lines
        # Elsewhere garbage may be collected, which swallows exceptions.
        if event == "line" and any(part in at.f_code.co_filename for part in (PACKAGE, "threading", "concurrent")):
            lines += 1
            if lines == stop:
                raise IOChangeException
        return tracer

    def traced() -> None:
        with SetTrace(tracer):
            render(model)

    gc.collect()
    gc.disable()  # what earlier tests left ends in code that is traced here, and swallows exceptions
    try:
        as_viewer(traced)
        everywhere = range(1, lines + 1)
        for stop in everywhere:  # noqa: B007
            lines = 0
            with warnings.catch_warnings(), pytest.raises(IOChangeException):
                warnings.simplefilter("error")
                as_viewer(traced)
    finally:
        gc.enable()
    assert len(everywhere) > 100
    assert model.panel.status == status and model.panel.session().selection.state is state
    assert torch.equal(shown(model), wanted)


def test_a_picture_that_cannot_be_painted_is_shown_as_it_is(model: VlmFastGSModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shown(model)
    find(model.panel, "red ball")
    monkeypatch.setattr(frame, "blend", lambda *_, **__: 1 / 0)
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        assert torch.equal(shown(model), before)


def test_training_that_changes_the_gaussians_voids_the_selection_with_a_note() -> None:
    """Also where as many were born as died: then the tensor is another, and the count the same."""
    model = build(cloud(), warmup_length=0, refine_every=5, densify_absgrad_thresh=0.0, importance_thresh=-1.0)
    press(model.panel, model.panel.invert, model.panel.hide)
    assert model.panel.session().selection.hidden.all()
    train(model, photo(), 12)
    assert len(model.means) != 200
    press(model.panel, lambda: "")
    assert RESET in model.panel.status
    model.eval()
    assert (
        model.panel.session().selection.mask.shape == model.means.shape[:1] and not model.panel.session().selection.hidden.any()
    )
    press(model.panel, model.panel.invert, model.panel.hide)
    model.gauss_params["means"] = Parameter(model.gauss_params["means"].detach().clone())
    assert torch.equal(shown(model), render(model)["rgb"]), "a stale selection is never drawn"
    assert press(model.panel, model.panel.undo) == f"{RESET} Nothing to undo. 0 Gaussians selected."


def test_an_action_that_fails_ends_in_the_status(model: VlmFastGSModel) -> None:
    assert press(model.panel, lambda: 1 / 0).startswith("That failed (ZeroDivisionError")  # type: ignore[arg-type, return-value]

    def refused() -> str:
        raise InputError("one two")

    assert press(model.panel, refused) == "One two."


# guidance


def test_it_tells_what_was_asked_and_what_came_of_it(model: VlmFastGSModel) -> None:
    regions = [ViewRegions(Answer("[]"), (Box(0, 0, 0.5, 0.5), Box(0.5, 0, 1, 1))), ViewRegions(Answer(None, "dead"))]
    model.panel.show_round(Round("detail", 500, [], regions=regions), Densification(520, focused=40, doomed=3))
    assert model.panel.last_round == "Last round of guidance: detail, step 500: 2 regions, 40 added, 3 pruned"


def test_focus_is_as_strong_as_the_scene_covers(model: VlmFastGSModel) -> None:
    model.panel.show.default_value, model.panel.opacity.default_value = FOCUS, 1.0
    plain = shown(model)
    assert press(model.panel, model.panel._describe_show).startswith("No round of guidance and no mark")
    model.strategy_state["focus"] = torch.ones(len(model.means))
    outputs = render(model)
    wanted = outputs["rgb"] + outputs["accumulation"] * (torch.tensor(frame.COLOURS[0]) - outputs["rgb"])
    torch.testing.assert_close(shown(model), wanted, atol=1e-4, rtol=0)
    model.strategy_state["focus"] = torch.ones(len(model.means) + 1)
    assert torch.equal(shown(model), plain), "of other Gaussians"


def record(folder: Path, backend: str) -> None:
    (folder / "guidance").mkdir()
    boxes = [{"box": [0, 0, 1, 1], "label": label} for label in ("chair", "desk;  lamp", "chair", "", "x" * 100)]
    entries = [{"backend": backend, "phase": "detail", "step": 7, "added": 5, "views": [{"boxes": boxes}]}]
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "guidance" / "rounds.jsonl").write_text('["half a\n' + text)
    for step, colour in ((3, "red"), (7, "blue"), (7, "lime")):
        Image.new("RGB", (8, 6), colour).save(folder / "guidance" / f"{step:06d}_detail_{colour == 'lime':d}.jpg", quality=100)


def test_names_come_from_the_model_that_was_asked(model: VlmFastGSModel, tmp_path: Path) -> None:
    record(tmp_path, "qwen")
    model.panel._setup(viewer_of(tmp_path))
    assert model.panel.names.options[:3] == [PICK, "chair", "desk lamp"]
    assert model.panel.last_round == "Last round of guidance: detail, step 7: 5 regions, 5 added"


def test_the_residual_backend_names_nothing(tmp_path: Path) -> None:
    record(tmp_path, "residual")
    assert rounds.labels(tmp_path) == [] and rounds.labels(tmp_path / "nowhere") == []


def test_regions_are_the_last_round_s_pictures(model: VlmFastGSModel, tmp_path: Path) -> None:
    model.panel._setup(viewer_of(tmp_path))
    model.panel.show.value = REGIONS
    assert press(model.panel, model.panel._describe_show).startswith("No pictures")
    assert torch.equal(shown(model), render(model)["rgb"])
    record(tmp_path, "residual")
    press(model.panel, model.panel._describe_show)
    picture = shown(model)
    height, width = picture.shape[:2]
    assert (picture[height // 2, width // 4] - torch.tensor([0.0, 0.0, 1.0])).abs().max() < 0.05
    assert (picture[height // 2, 3 * width // 4] - torch.tensor([0.0, 1.0, 0.0])).abs().max() < 0.05


def test_regions_are_shown_as_they_were_asked_about_not_from_after_the_round(tmp_path: Path) -> None:
    record(tmp_path, "qwen")
    (tmp_path / "guidance" / "000007_detail_1.jpg").rename(tmp_path / "guidance" / "000007_detail_1_after.jpg")
    last = rounds.last_pictures(tmp_path)
    assert last is not None and last.shape == (6, 8, 3) and (last[3, 4] - torch.tensor([0.0, 0.0, 1.0])).abs().max() < 0.05
    assert rounds.last_pictures(tmp_path / "nowhere") is None


def test_a_round_that_did_not_take_place_is_not_the_last(tmp_path: Path) -> None:
    record(tmp_path, "qwen")
    with (tmp_path / "guidance" / "rounds.jsonl").open("a") as file:
        file.write(json.dumps({"phase": "novel", "step": 9, "left_out": "busy"}))
    assert rounds.last_round(tmp_path).startswith("Last round of guidance: detail, step 7")
    assert rounds.last_round(tmp_path / "nowhere") == ""


def test_features_as_colours(model: VlmFastGSModel) -> None:
    model.panel.show.default_value = FEATURES
    assert torch.equal(shown(model), render(model)["semantics_pca"])


def test_text_is_shown_as_it_is() -> None:
    assert escaped("<b>{x}</b> *a*") == r"\<b\>\{x\}\<\/b\> \*a\*"


def test_after_training_the_words_are_there(model: VlmFastGSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmgs_ns.viewer.panel.POLL_EVERY", 0.01)
    words, model.semantics = model.semantics, None
    viewer = viewer_of(tmp_path)
    viewer.trainer = object()
    model.panel._setup(viewer)
    assert model.panel.status.startswith("Training:") and model.panel.names.options == [PICK]
    model.semantics = words
    end = time.monotonic() + 30
    while "can be searched now" not in model.panel.status and time.monotonic() < end:
        time.sleep(0.02)
    assert "red ball" in model.panel.names.options and model.panel.negatives.value == "; ".join(NEGATIVES)


# more detail, while training


class Pointer:
    """As much of viser's scene as a drag needs."""

    def __init__(self) -> None:
        self.callback: Any = None

    def on_pointer_event(self, event_type: str) -> Callable[[Any], None]:
        assert event_type in ("click", "rect-select")
        return lambda callback: setattr(self, "callback", callback)

    def remove_pointer_callback(self) -> None:
        self.callback = None


def training_viewer(folder: Path) -> Any:
    viewer = viewer_of(folder)
    viewer.trainer, viewer.viser_server.scene = object(), Pointer()
    state = CameraState(fov=0.8, aspect=4 / 3, c2w=torch.eye(4)[:3].double(), camera_type=CameraType.PERSPECTIVE)
    viewer.get_camera_state = lambda client: state
    return viewer


def drag(viewer: Any, *corners: tuple[float, float]) -> None:
    viewer.viser_server.scene.callback(SimpleNamespace(client=None, client_id=1, screen_pos=corners))


def test_a_box_drawn_while_training_is_wanted_in_detail(tmp_path: Path) -> None:
    model = searchable()
    model.start_guidance(cast(Any, None), Scripted(says("[]")), None)
    viewer = training_viewer(tmp_path)
    model.panel._setup(viewer)
    assert viewer.page["Train"].hint.startswith("While training")
    assert press(model.panel, model.panel.more_detail) == "Drag a box over what shall be more detailed."
    drag(viewer, (0.75, 0.2), (0.25, 0.8))
    assert press(model.panel, lambda: "") == "From the next densification on, Gaussians are added there sooner."
    assert viewer.viser_server.scene.callback is None and model.steering is not None  # one box for one press
    (view,) = model.steering.instructions.views
    assert (view.viewpoint.width, view.viewpoint.height, view.viewpoint.photo) == (640, 480, None)
    expected = torch.zeros(480, 640, dtype=torch.bool)
    expected[96:384, 160:480] = True
    assert torch.equal(view.mask, expected)
    assert torch.equal(view.viewpoint.camera_to_world, torch.eye(4)[:3])


def test_a_box_that_changes_nothing_says_so(tmp_path: Path) -> None:
    model = searchable()
    viewer = training_viewer(tmp_path)
    model.panel._setup(viewer)

    def status(*corners: tuple[float, float]) -> str:
        press(model.panel, model.panel.more_detail)
        drag(viewer, *corners)
        return press(model.panel, lambda: "")

    assert "while training with guidance" in status((0.2, 0.2), (0.8, 0.8))
    model.start_guidance(cast(Any, None), Scripted(says("[]")), None)
    assert "too small" in status((0.2, 0.2), (0.2, 0.2001))
    model.step = int(model.config.stop_split_at)
    assert f"No Gaussian is added after step {model.step}" in status((0.2, 0.2), (0.8, 0.8))
    assert model.steering is not None and not model.steering.instructions.views


def test_in_a_finished_run_nothing_can_be_added(tmp_path: Path) -> None:
    model = searchable()
    viewer = viewer_of(tmp_path)
    model.panel._setup(viewer)
    assert "Train" not in [handle.label for handle in viewer.page.added]
