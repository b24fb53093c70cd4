"""``vlmgs eval`` on a run on disk whose Gaussians and features are laid out by hand (tests/selection/trained.py).

What the maps must be follows from the layout: a feature is red, blue or `object`, so that with the blended shares of each, red
beats the negatives where red > rest, by a relevancy of σ(10 (red - rest)).
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v3 as imageio
import numpy as np
import numpy.typing as npt
import pytest
import torch
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from scipy.spatial.transform import Rotation

from tests.words.trained import NEGATIVES, PARTS, make_run
from vlmgs_ns.commands.evaluate import Evaluate
from vlmgs_ns.evaluation.lerf import read_lerf
from vlmgs_ns.evaluation.trained import Trained
from vlmgs_ns.method import finished_run
from vlmgs_ns.method.default_frame import DefaultFrame
from vlmgs_ns.method.finished_run import OpenRun, open_run
from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.writer import WRITER
from vlmgs_ns.words.query import make_query
from vlmgs_ns.words.question import ask

COMMAND = Path(sysconfig.get_path("scripts")) / "vlmgs"
WIDTH, HEIGHT = 32, 24
FIRST, SECOND = "frame_00001", "frame_00002"
"""Photos that show ball and box."""
RED, BLUE = ("ball", "far", "fog"), ("box",)
Mask = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenRun:
    return open_run(make_run(tmp_path_factory.mktemp("runs")))


@pytest.fixture(autouse=True)
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the run open already, which saves seconds a test."""
    monkeypatch.setattr(finished_run, "open_run", lambda _: request.getfixturevalue("run"))


def camera_of(run: OpenRun, stem: str) -> Any:
    return next(camera for file, camera in run.photos() if file.stem == stem)


def rows_of(parts: tuple[str, ...]) -> list[int]:
    return [row for name in parts for row in PARTS[name]]


def shares(run: OpenRun, stem: str) -> dict[str, npt.NDArray[np.float32]]:
    """How much of every pixel is red, blue and the rest. [H, W] each."""
    colours = torch.zeros(120, 3)
    for channel, parts in enumerate((RED, BLUE, ("rest",))):
        colours[rows_of(parts), channel] = 1.0
    image, _ = blend(run.model.splats(), run.model.pinhole(camera_of(run, stem)), colours)
    return dict(zip(("red", "blue", "rest"), image.movedim(-1, 0).numpy(), strict=True))


def report(run: OpenRun, out: Path, protocol: Any, labels: Any, folder: Path, **flags: Any) -> dict[str, Any]:
    """What the command wrote."""
    Evaluate(run.folder, protocol=protocol, labels=labels, folder=folder, output=out, **flags).run()
    found = json.loads(out.read_text())
    told = {"run": str(run.folder), "mode": "lift", "encoder": "OpenCLIP by hand", "negatives": "; ".join(NEGATIVES)}
    assert found["protocol"] == protocol and found["settings"].items() >= told.items()
    return found


def scores_of(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(Path(row["view"]).stem, row["phrase"]): row for row in found["rows"]}


def overlap(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / (a | b).sum())


def lerf(folder: Path, views: dict[str, dict[str, tuple[float, float]]]) -> Path:
    """Boxes of 12 by 12 pixels around points (x, y), in LERF's format."""
    folder.mkdir()
    for stem, things in views.items():
        shapes = []
        for phrase, (x, y) in things.items():
            corners = [[max(0, x - 6), max(0, y - 6)], [min(WIDTH, x + 6), min(HEIGHT, y + 6)]]
            shapes.append({"label": phrase, "shape_type": "rectangle", "points": corners})
        said = {"imagePath": f"{stem}.png", "imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": shapes}
        (folder / f"{stem}.json").write_text(json.dumps(said))
    return folder


def three_d_ovs(folder: Path, masks: dict[str, Mask]) -> Path:
    """Masks of the first photo, in 3D-OVS' format."""
    (folder / "segmentations" / "0").mkdir(parents=True)
    (folder / "images").mkdir()
    (folder / "images" / f"{FIRST}.png").touch()
    (folder / "segmentations" / "classes.txt").write_text("\n".join(masks))
    for phrase, mask in masks.items():
        imageio.imwrite(folder / "segmentations" / "0" / f"{phrase}.png", mask.astype(np.uint8) * 255)
    return folder


def toy(folder: Path, blue: Mask) -> Path:
    """A mask of the blue box in the first photo, held out, in the embedded scene's format; the rest is called a green hat."""
    (folder / "masks").mkdir(parents=True)
    imageio.imwrite(folder / "masks" / f"{FIRST}.png", blue.astype(np.uint8) * 3)
    view = {"split": "val", "boxes": {"blue box": [0, 0, WIDTH, HEIGHT]}, "visible_pixels": {"blue box": int(blue.sum())}}
    said = {
        "writer": WRITER, "version": 1, "width": WIDTH, "height": HEIGHT, "masks": "masks", "background": ["green hat"],
        "objects": [{"id": 3, "name": "blue box", "phrases": ["blue box", "warm thing"]}], "views": {f"{FIRST}.png": view},
    }  # fmt: skip
    (folder / "labels.json").write_text(json.dumps(said))
    return folder


def place(run: OpenRun, stem: str, point: tuple[float, float, float]) -> tuple[float, float]:
    """Pixel (x, y) of a point of the world. nerfstudio's cameras look along -z with y up."""
    camera = camera_of(run, stem)
    pose = camera.camera_to_worlds[0].numpy()
    x, y, z = pose[:, :3].T @ (np.array(point) - pose[:, 3])
    return float(camera.cx - camera.fx * x / z), float(camera.cy + camera.fy * y / z)


def test_a_looks_where_the_labels_say(run: OpenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ball, box = (0.4, 0.0, 0.0), (-0.4, 0.0, 0.0)
    views = {
        # In the first the ball is labelled where the box is; the last is no photo of the run.
        FIRST: {"blue box": place(run, FIRST, box), "red ball": place(run, FIRST, box)},
        SECOND: {"red ball": place(run, SECOND, ball)},
        "elsewhere": {"red ball": (10.0, 10.0)},
    }
    found = report(run, tmp_path / "a.json", "A", "lerf", lerf(tmp_path / "labels", views))
    rows = scores_of(found)
    assert {pair: row["localisation"] for pair, row in rows.items()} == {
        (FIRST, "blue box"): 1, (FIRST, "red ball"): 0, (SECOND, "red ball"): 1, ("elsewhere", "red ball"): 0
    }  # fmt: skip
    assert [pair for pair, row in rows.items() if row["missing"]] == [("elsewhere", "red ball")]
    assert found["scores"] == {"localisation": 0.5} and (found["pairs"], found["missing"]) == (4, 1)
    assert {view for (view, _), row in rows.items() if row["trained_on"]} == {FIRST, SECOND} and found["trained_on"] == 2
    said = capsys.readouterr().out
    assert (
        "4 pairs of view and phrase, 1 not rendered; 2 of 3 views were trained on" in said
        and "localisation: 0.500" in said
        and "a.json" in said
    )


def test_a_from_lerf_s_keyframes(run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes of renders from where the first photos were taken; the path is in nerfstudio's default frame, the run in another."""
    data, first = run.pipeline.datamanager.train_dataparser_outputs, camera_of(run, FIRST)
    fov = float(2 * torch.rad2deg(torch.atan(HEIGHT / 2 / first.fy)))
    same = DefaultFrame(run).camera(first.camera_to_worlds[0], fov, WIDTH, HEIGHT)
    assert torch.allclose(same.camera_to_worlds[0], first.camera_to_worlds[0], atol=1e-5)
    turn = torch.from_numpy(Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix()).float()
    shift, scale = torch.tensor([0.3, -0.2, 0.1]), 1.7
    # The run's frame is the default one; the default is now another: what was at x is at scale · (turn x + shift).
    other = replace(
        data,
        dataparser_transform=torch.cat(
            [
                turn @ data.dataparser_transform[:, :3],
                (turn @ data.dataparser_transform[:, 3:] + shift[:, None] / data.dataparser_scale),
            ],
            dim=1,
        ),
        dataparser_scale=scale * data.dataparser_scale,
    )
    monkeypatch.setattr(NerfstudioDataParserConfig, "setup", lambda _: SimpleNamespace(get_dataparser_outputs=lambda _: other))
    frames = []
    for stem in (FIRST, SECOND):
        pose = camera_of(run, stem).camera_to_worlds[0]
        moved = torch.eye(4)
        moved[:3] = torch.cat([turn @ pose[:, :3], scale * (turn @ pose[:, 3:] + shift[:, None])], dim=1)
        frames.append({"matrix": json.dumps(moved.T.flatten().tolist()), "properties": json.dumps([["FOV", fov]])})
    ball, box = (0.4, 0.0, 0.0), (-0.4, 0.0, 0.0)
    views = {
        "0_rgb": {"blue box": place(run, FIRST, box), "red ball": place(run, FIRST, ball)},
        "1_rgb": {"red ball": place(run, SECOND, ball)},
    }
    folder = lerf(tmp_path / "labels", views)
    (folder / "keyframes.json").write_text(json.dumps({"keyframes": frames}))
    found = report(run, tmp_path / "a.json", "A", "lerf", folder)
    assert found["scores"] == {"localisation": 1.0} and (found["pairs"], found["missing"], found["trained_on"]) == (3, 0, 0)
    trained = Trained(run)
    for view, stem in zip(read_lerf(folder).views, (FIRST, SECOND), strict=True):
        seen, photo = trained.camera(view), run.model.pinhole(camera_of(run, stem))
        assert seen is not None and torch.allclose(seen.viewmat, photo.viewmat, atol=1e-4)
        assert torch.allclose(seen.K, photo.K, atol=1e-2)
    monkeypatch.setattr(type(run), "data", tmp_path)
    assert "transforms.json, which is missing" in refusal(run.folder, labels="lerf", folder=folder)


def test_a_asks_for_the_mask_where_labels_have_no_boxes(run: OpenRun, tmp_path: Path) -> None:
    share = shares(run, FIRST)
    red = share["red"] > share["rest"]
    folder = three_d_ovs(tmp_path / "labels", {"red ball": red, "blue box": red})
    found = report(run, tmp_path / "a.json", "A", "3d-ovs", folder)
    assert {pair: row["localisation"] for pair, row in scores_of(found).items()} == {
        (FIRST, "red ball"): 1,
        (FIRST, "blue box"): 0,
    }
    assert found["settings"]["inside"] == "mask"


def test_b_compares_maps_above_the_threshold(run: OpenRun, tmp_path: Path) -> None:
    share = shares(run, FIRST)
    red, blue = (share[name] > share["rest"] for name in ("red", "blue"))
    half = red.copy()
    half[12:] = False  # all labelled pixels are found, and as many again
    masks = {"red ball": half, "blue box": blue, "green hat": np.zeros_like(red)}
    folder = three_d_ovs(tmp_path / "labels", masks)
    found = report(run, tmp_path / "b.json", "B", "3d-ovs", folder)
    rows = scores_of(found)
    assert set(rows) == {(FIRST, "red ball"), (FIRST, "blue box")} and found["not_visible"] == 1
    assert found["settings"]["threshold"] == 0.5 and found["settings"]["argmax_floor"] is None
    assert 0.2 < half.sum() / red.sum() < 0.9
    assert rows[FIRST, "red ball"]["iou"] == pytest.approx(half.sum() / red.sum())
    assert rows[FIRST, "blue box"]["iou"] == 1.0
    assert found["scores"]["iou"] == pytest.approx((1 + half.sum() / red.sum()) / 2)
    # Nothing is left over in the arg max: where neither is, the first class wins, as all are equal there.
    bluer = share["blue"] > np.maximum(share["red"], 0)
    redder = (share["red"] >= share["blue"]) & ~bluer
    assert rows[FIRST, "red ball"]["argmax_iou"] == pytest.approx(overlap(redder, half), abs=0.01)
    assert rows[FIRST, "blue box"]["argmax_iou"] == pytest.approx(overlap(bluer, blue), abs=0.01)
    # A higher threshold: σ(10 d) > 0.9 where d > ln(9) / 10.
    strict = report(run, tmp_path / "strict.json", "B", "3d-ovs", folder, threshold=0.9)
    sure = share["blue"] - np.maximum(share["rest"], 0) > np.log(9) / 10
    assert 0 < sure.sum() < blue.sum()
    assert scores_of(strict)[FIRST, "blue box"]["iou"] == pytest.approx(overlap(sure, blue), abs=0.01)


def test_b_where_the_rest_of_a_picture_has_a_name_or_none(run: OpenRun, tmp_path: Path) -> None:
    share = shares(run, FIRST)
    blue = share["blue"] > share["rest"]
    # The rest is called a green hat, which is nowhere: a phrase ties with it where there is nothing blue, and wins as the first.
    named = report(run, tmp_path / "named.json", "B", "auto", toy(tmp_path / "toy", blue))
    assert named["settings"]["argmax_floor"] is None and named["settings"]["labels"] == "toy"
    assert scores_of(named)[FIRST, "blue box"]["argmax_iou"] == pytest.approx(blue.mean(), abs=0.01)
    # Without a name, pixels that do not beat the negatives belong to none.
    folder = tmp_path / "ovs"
    folder.mkdir()
    outline = [[8, 2], [27, 2], [27, 20], [8, 20]]
    thing = {"category": "blue box", "bbox": [8, 2, 27, 20], "segmentation": outline}
    said = {"info": {"name": f"{FIRST}.jpg", "width": WIDTH, "height": HEIGHT}, "objects": [thing]}
    (folder / "one.json").write_text(json.dumps(said))
    found = report(run, tmp_path / "ovs.json", "B", "lerf-ovs", folder)
    inside = np.zeros_like(blue)
    inside[2:21, 8:28] = True
    assert found["settings"]["argmax_floor"] == 0.5
    assert scores_of(found)[FIRST, "blue box"]["argmax_iou"] == pytest.approx(overlap(blue, inside), abs=0.01)


def test_c_renders_the_selected_gaussians_alone(run: OpenRun, tmp_path: Path) -> None:
    def covered(parts: tuple[str, ...], least: float) -> Mask:
        chosen = run.model.splats()[torch.tensor(rows_of(parts))]
        _, alpha = blend(chosen, run.model.pinhole(camera_of(run, FIRST)), torch.zeros(len(chosen), 1))
        return (alpha >= least).numpy()

    red, blue = covered(RED, 0.5), covered(BLUE, 0.5)
    half = red.copy()
    half[12:] = False
    masks = {"red ball": half, "blue box": blue, "warm thing": red}
    folder = three_d_ovs(tmp_path / "labels", masks)
    found = report(run, tmp_path / "c.json", "C", "3d-ovs", folder)
    ious = {phrase: row["iou"] for (_, phrase), row in scores_of(found).items()}
    # Where blue hides red or red blue, each is whole: nothing else is drawn.
    assert ious == pytest.approx({"red ball": half.sum() / red.sum(), "blue box": 1.0, "warm thing": 1.0})
    assert found["settings"]["least_alpha"] == 0.5 and found["scores"]["acc@0.5"] == pytest.approx(
        np.mean([half.sum() / red.sum() > 0.5, 1, 1])
    )
    # The warm thing is 0.8 red: σ(8) = 0.99966, while red itself is σ(10) = 0.99995.
    strict = report(run, tmp_path / "strict.json", "C", "3d-ovs", folder, threshold=0.9998, least_alpha=0.9)
    ious = {phrase: row["iou"] for (_, phrase), row in scores_of(strict).items()}
    whole = covered(BLUE, 0.9)
    assert 0 < whole.sum() < blue.sum()
    assert ious["warm thing"] == 0.0 and ious["blue box"] == pytest.approx(overlap(whole, blue))


def test_c_find_renders_what_export_selects(run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the three Gaussians apart from the ball, which are red as well; here they lie above the box."""
    means = run.model.means.detach().clone()
    means[rows_of(("far",))] = torch.tensor([-0.4, 0.0, 0.4])
    monkeypatch.setitem(run.model.gauss_params, "means", torch.nn.Parameter(means))

    def covered(mask: torch.Tensor) -> Mask:
        chosen = run.model.splats()[mask]
        _, alpha = blend(chosen, run.model.pinhole(camera_of(run, FIRST)), torch.zeros(len(chosen), 1))
        return (alpha >= 0.5).numpy()

    selected = ask(run.model, make_query(["red ball"])).select().mask
    assert selected[rows_of(("ball",))].all() and int(selected.sum()) == len(PARTS["ball"])
    red = torch.zeros(120, dtype=torch.bool)
    red[rows_of(RED)] = True
    assert (covered(red) & ~covered(selected)).any()
    folder = three_d_ovs(tmp_path / "labels", {"red ball": covered(selected)})
    ious = {}
    for protocol in ("C", "C-find"):
        found = report(run, tmp_path / f"{protocol}.json", protocol, "3d-ovs", folder)
        ious[protocol] = scores_of(found)[FIRST, "red ball"]["iou"]
    assert ious["C-find"] == 1.0 and ious["C"] == pytest.approx(overlap(covered(red), covered(selected)))


def test_by_default_the_report_lies_with_the_run(run: OpenRun, tmp_path: Path) -> None:
    labels = lerf(tmp_path / "labels", {SECOND: {"red ball": place(run, SECOND, (0.4, 0.0, 0.0))}})
    Evaluate(run.config, labels="lerf", folder=labels).run()
    found = json.loads((run.folder / "eval_A.json").read_text())
    assert found["scores"] == {"localisation": 1.0} and found["rows"][0]["phrase"] == "red ball"


def test_the_command_itself(tmp_path: Path) -> None:
    """A process of its own, which ends before anything heavy is read."""
    done = subprocess.run([COMMAND, "eval", tmp_path / "nowhere", "--protocol", "C"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: there is no run at") and "nowhere" in done.stderr


def refusal(run_folder: Path, **flags: Any) -> str:
    """The one message with which the command ends."""
    with pytest.raises(InputError) as caught:
        Evaluate(run_folder, **flags).run()
    return str(caught.value)


def test_what_cannot_be_evaluated(run: OpenRun, tmp_path: Path) -> None:
    boxes = lerf(tmp_path / "boxes", {FIRST: {"red ball": (20.0, 10.0)}})
    square = three_d_ovs(tmp_path / "square", {"red ball": np.ones((HEIGHT, HEIGHT), bool)})
    black = three_d_ovs(tmp_path / "black", {"red ball": np.zeros((HEIGHT, WIDTH), bool)})
    other = lerf(tmp_path / "other", {"IMG_1": {"red ball": (9.0, 9.0)}})
    unknown = lerf(tmp_path / "unknown", {FIRST: {"elephant": (9.0, 9.0)}})
    (tmp_path / "empty").mkdir()
    for complaint, flags in (
        ("--threshold 1.0: relevancy is from 0 to 1", {"threshold": 1.0}),
        ("--threshold -0.1", {"threshold": -0.1}),
        ("--threshold nan", {"threshold": float("nan")}),
        ("--least-alpha 0: opacity", {"least_alpha": 0}),
        ("empty has no labels.json; say where", {"folder": tmp_path / "empty"}),
        ("protocol B compares masks, but the labels in", {"protocol": "B", "labels": "lerf", "folder": boxes}),
        ("protocol C compares masks", {"protocol": "C", "labels": "lerf", "folder": boxes}),
        ("none of the 1 labelled pictures (IMG_1.png, …) is a photo of this run", {"labels": "lerf", "folder": other}),
        ("labels have 24 x 24", {"protocol": "B", "labels": "3d-ovs", "folder": square}),
        ("nothing to evaluate", {"protocol": "B", "labels": "3d-ovs", "folder": black}),
        # The encoder is not on this machine, and the run was never asked for this phrase.
        ("no such folder", {"labels": "lerf", "folder": unknown}),
    ):
        assert complaint in refusal(run.folder, **flags)
    assert "there is no run at" in refusal(tmp_path / "nowhere", labels="lerf", folder=boxes)
    assert not list(tmp_path.glob("*.json")) and not list(run.folder.glob("eval_[BC].json"))


def test_the_scene_s_own_labels_are_the_default(run: OpenRun) -> None:
    """They are found beside the photos; the run's encoder, which their phrases need, is not on this machine."""
    assert "no such folder" in refusal(run.folder)


def test_a_run_without_semantics(run: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = lerf(tmp_path / "boxes", {FIRST: {"red ball": (20.0, 10.0)}})
    monkeypatch.setattr(run.model, "semantics", None)
    assert "cannot be searched with words" in refusal(run.folder, labels="lerf", folder=boxes)
