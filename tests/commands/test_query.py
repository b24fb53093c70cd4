"""``vlmgs query`` on a run on disk whose Gaussians and features are laid out by hand (tests/selection/trained.py)."""

from __future__ import annotations

import json
import resource
import subprocess
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from tests.words.trained import NEGATIVES, PARTS, make_run, name_toys
from vlmgs_ns.commands.query import NOT_FOUND, Query
from vlmgs_ns.method import finished_run
from vlmgs_ns.method.finished_run import OpenRun, open_run
from vlmgs_ns.pages.viewpoints import read_camera_path
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words.query import make_query
from vlmgs_ns.words.question import ask as put

COMMAND = Path(sysconfig.get_path("scripts")) / "vlmgs"
WIDTH, HEIGHT, FOCAL = 96, 63, 75.0
"""Size of the camera path's pictures. The height is odd, as no video's can be."""
BALL, BOX = (0.4, 0.0, 0.0), (-0.4, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path) -> OpenRun:
    return open_run(make_run(folder))


@pytest.fixture
def opened(run: OpenRun, monkeypatch: pytest.MonkeyPatch) -> OpenRun:
    """The command finds this run open already, which saves seconds a test."""
    monkeypatch.setattr(finished_run, "open_run", lambda _: run)
    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three cameras 1.5 above ball and box, looking down: both whole, the ball cut by the left edge, neither in view."""
    frames = []
    for x in (0.0, 1.3, 9.0):
        pose = [[1, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 1.5], [0, 0, 0, 1]]
        fov = 2 * np.degrees(np.arctan(HEIGHT / 2 / FOCAL))
        frames.append({"camera_to_world": np.ravel(pose).tolist(), "fov": fov, "aspect": WIDTH / HEIGHT})
    said = {"camera_type": "perspective", "render_width": WIDTH, "render_height": HEIGHT, "seconds": 1.5, "camera_path": frames}
    file = tmp_path / "path.json"
    file.write_text(json.dumps(said))
    return file


def ask(run: OpenRun, out: Path, *phrases: str, status: int = 0, **flags: Any) -> dict[str, Any]:
    """The answer on the disk of a call that ended with this status."""
    command = Query(run.folder, phrases, out=out, **flags)
    if status:
        with pytest.raises(SystemExit) as caught:
            command.run()
        assert caught.value.code == status
    else:
        command.run()
    answer: dict[str, Any] = json.loads((out / "query.json").read_text(encoding="utf-8"))
    return answer


def test_ball_and_box_are_found_where_they_are(opened: OpenRun, path: Path, tmp_path: Path) -> None:
    answer = ask(opened, tmp_path / "out", "red ball", "blue box", camera_path=path, frames=True)
    assert answer["all_found"] and answer["negatives"] == list(NEGATIVES)
    assert [view["name"] for view in answer["views"]] == ["frame_00000", "frame_00001", "frame_00002"]
    transform = opened.pipeline.datamanager.train_dataparser_outputs.dataparser_transform
    scale = opened.pipeline.datamanager.train_dataparser_outputs.dataparser_scale
    for phrase, centre, part in zip(answer["phrases"], (BALL, BOX), ("ball", "box"), strict=True):
        assert phrase["found"] and phrase["score"] > 0.9 and phrase["best_view"] == phrase["views"][0]["view"] == "frame_00000"
        assert phrase["gaussians"] == len(PARTS[part])
        (box,) = phrase["views"][0]["boxes"]
        x1, y1, x2, y2 = box["pixels"]
        x, y = WIDTH / 2 + FOCAL * centre[0] / 1.5, HEIGHT / 2
        assert x1 < x - 5 and x2 > x + 5 and y1 < y - 5 and y2 > y + 5, "it encloses the thing"
        assert x2 - x1 < 35 and y2 - y1 < 35, "and not much else"
        assert np.allclose(box["normalised"], [x1 / WIDTH, y1 / HEIGHT, x2 / WIDTH, y2 / HEIGHT], atol=1e-5)
        mask = imageio.imread(tmp_path / "out" / phrase["views"][0]["files"]["mask"])
        assert set(np.unique(mask)) == {0, 255} and mask.shape == (HEIGHT, WIDTH)
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
        assert box["area_pixels"] == len(rows) and box["area"] == pytest.approx(len(rows) / (WIDTH * HEIGHT), abs=1e-5)

        place, data = phrase["box_3d"]["scene"], phrase["box_3d"]["data"]
        assert np.allclose(place["centre"], centre, atol=0.05) and 0.1 < min(place["size"]) <= max(place["size"]) < 0.6
        there = scale * (transform[:, :3].double() @ torch.tensor(data["centre"]).double() + transform[:, 3].double())
        assert np.allclose(there, place["centre"], atol=1e-4)
        assert np.allclose(np.multiply(data["size"], scale), place["size"], atol=1e-4) and len(data["corners"]) == 8
    ball = {view["view"]: view for view in answer["phrases"][0]["views"]}
    assert ball["frame_00001"]["boxes"][0]["pixels"][0] == 0 and not ball["frame_00002"]["boxes"]
    assert ball["frame_00000"]["clarity"] > ball["frame_00001"]["clarity"] > ball["frame_00002"]["clarity"] == 0


def test_the_place_of_several_things_is_of_the_clearest_or_of_all(
    opened: OpenRun, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_toys(opened.model.semantics, monkeypatch)
    clearest, every = (
        ask(opened, tmp_path / parts, "toy", camera_path=path, parts=parts)["phrases"][0] for parts in ("clearest", "all")
    )
    assert clearest["gaussians"] == every["gaussians"] == len(PARTS["ball"]) + len(PARTS["box"])
    one, both = (phrase["box_3d"]["scene"] for phrase in (clearest, every))
    assert min(np.linalg.norm(np.subtract(one["centre"], place)) for place in (BALL, BOX)) < 0.1 and max(one["size"]) < 0.6
    assert np.allclose(both["centre"], 0, atol=0.1) and 0.8 < max(both["size"]) < 1.4


def test_every_file_of_the_answer_is_there_and_no_other(opened: OpenRun, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for flags in ({"frames": True, "raw": True}, {}):
        answer = ask(opened, out, "red ball", "blue box", camera_path=path, **flags)
        named = {"index.html", "query.json"} | {view["render"] for view in answer["views"] if view["render"]}
        for phrase in answer["phrases"]:
            named |= {phrase["video"], *(file for view in phrase["views"] for file in (view["files"] or {}).values())}
        there = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
        if flags:
            assert there == named and len(named) == 2 + 3 + 2 * (1 + 3 * 4)
            before = there
        else:  # of each phrase its best view alone; what was there before stays
            assert len(named) == 2 + 1 + 2 * (1 + 3) and there == before
    video = imageio.imread(out / "red-ball" / "relevancy.mp4")
    assert len(video) == 3 and video.shape[1] % 2 == 0 and video.shape[2] == WIDTH
    assert imageio.immeta(out / "red-ball" / "relevancy.mp4")["fps"] == pytest.approx(2)
    html = (out / "index.html").read_text(encoding="utf-8")
    assert all(f'src="red-ball/{name}"' in html for name in ("frame_00000_found.png", "relevancy.mp4"))


def test_relevancy_is_that_of_the_model(opened: OpenRun, path: Path, tmp_path: Path) -> None:
    ask(opened, tmp_path, "red ball", "blue box", raw=True, frames=True, camera_path=path)
    for view in read_camera_path(path).views:
        opened.model.prompts = ["red ball", "blue box"]
        outputs = opened.model.get_outputs(view.camera)
        opened.model.prompts = []
        for k, name in enumerate(("red-ball", "blue-box")):
            wanted = outputs[f"relevancy_{k}"][..., 0]
            values = np.load(tmp_path / name / f"{view.name}_relevancy.npy", allow_pickle=False)
            assert values.dtype == np.float32 and np.allclose(values, wanted, atol=1e-5)


def test_what_gaussians_show_in_masks_adds_up_to_the_opacity_there(run: OpenRun) -> None:
    question = put(run.model, make_query(["red ball", "blue box"]))
    _, camera = next(run.photos())
    pinhole = run.model.pinhole(camera)
    look, shown = question.trace(pinhole, 0.5)
    assert shown.shape == (len(question.splats), 3)
    in_masks = [look.alpha[(one > 0.5) & (look.alpha >= 0.5)].sum() for one in look.relevancy]
    assert torch.allclose(shown.sum(dim=0), torch.tensor([*in_masks, look.alpha[look.alpha >= 0.5].sum()]), rtol=1e-3)
    assert min(in_masks) > 1 and np.array_equal(look.relevancy, question.look(pinhole).relevancy)


def test_a_place_on_a_photo_needs_no_words(opened: OpenRun, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, camera = next(opened.photos())
    pinhole = opened.model.pinhole(camera)
    means = opened.model.means.detach()[list(PARTS["ball"])]
    seen = pinhole.K @ (pinhole.viewmat[:3, :3] @ means.mean(dim=0) + pinhole.viewmat[:3, 3])
    x, y = (seen[:2] / seen[2]).tolist()
    assert 0 <= x < pinhole.width and 0 <= y < pinhole.height
    place = f"{name.name}:{x:.0f},{y:.0f}"
    answer = ask(opened, tmp_path / "out", at=place, width=3.0, camera_path=path)
    (found,) = answer["phrases"]
    assert found["phrase"] == place and found["found"] and found["like"]["phrase"] == "red ball"
    assert np.allclose(found["box_3d"]["scene"]["centre"], BALL, atol=0.08) and answer["caution"] == ""
    monkeypatch.setitem(opened.model._modules, "semantics", None)
    (found,) = ask(opened, tmp_path / "out", at=f"{name.name}:0,0,{pinhole.width},{pinhole.height}", camera_path=path)["phrases"]
    assert found["found"] and found["like"] is None
    with pytest.raises(InputError, match="32 x 24 pixels"):
        Query(opened.folder, (), at=f"{name.name}:40,3").run()
    with pytest.raises(InputError, match=r"--at 'frame_99999'.*did you mean"):
        Query(opened.folder, (), at="frame_99999:4,3").run()


def test_what_looks_like_a_picture(opened: OpenRun, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder is told what a picture of one colour shows."""

    def embed_images(pictures: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(pictures.mean(dim=(2, 3))[:, [0, 2]], (0, 4))

    encoder = SimpleNamespace(tile_size=8, embed_images=embed_images, release=lambda: None)
    monkeypatch.setattr(opened.model.semantics, "_encoder", encoder)
    imageio.imwrite(tmp_path / "crop.png", np.full((5, 9, 3), (0, 0, 255), np.uint8))
    (found,) = ask(opened, tmp_path / "out", like=tmp_path / "crop.png", camera_path=path)["phrases"]
    assert found["phrase"] == "crop.png" and found["gaussians"] == len(PARTS["box"])
    assert np.allclose(found["box_3d"]["scene"]["centre"], BOX, atol=0.05)
    (tmp_path / "crop.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        Query(opened.folder, (), like=tmp_path / "crop.png").run()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"phrases": ("ball",), "at": "a:1,2"}, "give one of them"),
        ({"at": "a:1,2", "negative": ("floor",)}, "--negative is for phrases"),
        ({"at": "a:1"}, "is not a place on a photo"),
        ({"at": "1,2"}, "is not a place on a photo"),
        ({"at": "a:1,-2"}, "is not a place on a photo"),
        ({"at": "a:5,5,5,9"}, "empty box"),
        ({"at": "a:1,2", "width": 0.0}, "--width 0 is out of range"),
        ({"like": Path("no such file.png")}, "is not a file"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_run_is_opened(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Query(Path("no such run"), flags.pop("phrases", ()), **flags).run()


def test_a_phrase_that_is_nowhere_leaves_the_others(opened: OpenRun, path: Path, tmp_path: Path, capfd: Any) -> None:
    answer = ask(opened, tmp_path / "out", "green hat", "red ball", camera_path=path, status=NOT_FOUND)
    hat, ball = answer["phrases"]
    assert not answer["all_found"] and not hat["found"] and hat["box_3d"] is None and hat["seen_in"] == hat["gaussians"] == 0
    assert hat["score"] <= 0.5 and ball["found"]
    assert not imageio.imread(tmp_path / "out" / hat["views"][0]["files"]["mask"]).any()
    said = capfd.readouterr().out
    assert "green hat: found in none of 3 views; the highest relevancy is exactly 0.50, the threshold 0.5" in said
    assert "--select 'red ball'" in said and str(tmp_path / "out" / "index.html") in said


def test_a_scene_that_the_encoder_does_not_know_is_said(
    opened: OpenRun, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    assert ask(opened, tmp_path / "known", "red ball", camera_path=path)["caution"] == ""
    monkeypatch.setattr(OpenRun, "caution", "What words find here is noise")
    assert ask(opened, tmp_path / "unknown", "red ball", camera_path=path)["caution"] == OpenRun.caution
    assert capfd.readouterr().out.count(str(OpenRun.caution)) == 1
    assert str(OpenRun.caution) in (tmp_path / "unknown" / "index.html").read_text(encoding="utf-8")


def test_a_phrase_has_to_beat_further_negatives(opened: OpenRun, path: Path, tmp_path: Path) -> None:
    alone = ask(opened, tmp_path / "alone", "warm thing", camera_path=path)
    assert alone["phrases"][0]["score"] > 0.9
    beaten = ask(opened, tmp_path / "beaten", "warm thing", camera_path=path, negative=("red ball",), status=NOT_FOUND)
    assert beaten["negatives"] == [*NEGATIVES, "red ball"]
    assert beaten["phrases"][0]["score"] <= 0.5 and beaten["phrases"][0]["box_3d"] is None


def test_the_next_command_selects_the_same(opened: OpenRun, path: Path, tmp_path: Path, capfd: Any) -> None:
    ask(opened, tmp_path, "red ball", camera_path=path, threshold=0.6, negative=("blue box", "green hat"))
    assert "--select 'red ball' --threshold 0.6 --negative 'blue box' 'green hat'\n" in capfd.readouterr().out


def test_a_higher_threshold_finds_less(opened: OpenRun, path: Path, tmp_path: Path) -> None:
    areas = [
        ask(opened, tmp_path / "out", "red ball", camera_path=path, threshold=threshold)["phrases"][0]["views"][0]["boxes"][0][
            "area"
        ]
        for threshold in (0.5, 0.996, 0.9998)
    ]
    assert areas[0] > areas[1] > areas[2] > 0


def test_views_by_split_and_by_name(opened: OpenRun, tmp_path: Path) -> None:
    photos = [file.stem for file, _ in opened.photos()]
    for flags, wanted in (
        ({}, photos[3:]),
        ({"split": "train"}, photos[:3]),
        ({"split": "all"}, photos),
        ({"views": (f"{photos[1]}.png", photos[0])}, [photos[1], photos[0]]),
    ):
        command = Query(opened.folder, ("red ball",), out=tmp_path, threshold=0.05, **flags)
        command.run()
        answer = json.loads((tmp_path / "query.json").read_text())
        assert [view["name"] for view in answer["views"]] == wanted


@pytest.mark.parametrize(
    ("phrases", "flags", "message"),
    [
        ((), {}, "no phrase to look for"),
        (("",), {}, "is empty"),
        (("  ",), {}, "is empty"),
        (("a" * 10_000,), {}, "has 10000 characters"),
        (tuple(map(str, range(33))), {}, "33 phrases; give at most 32"),
        (("red ball",), {"threshold": 1.0}, "--threshold 1 is out of range"),
        (("red ball",), {"threshold": -0.1}, "--threshold -0.1"),
        (("red ball",), {"threshold": float("nan")}, "--threshold nan"),
        (("red ball",), {"negative": ()}, "--negative has no phrase after it"),
        (("red ball",), {"negative": (" ",)}, "--negative ' ' is empty"),
        (("red ball",), {"negative": ("red ball",)}, "cannot beat itself"),
        (("red ball",), {"camera_path": Path("no.json")}, "no.json cannot be read"),
        (("red ball",), {"camera_path": Path("no.json"), "split": "all"}, "leave out --views and --split"),
        (("red ball",), {"views": ("a",), "split": "all"}, "leave out --split"),
        (("red ball",), {"frames": True}, "--frames is about the frames of a --camera-path"),
        (("red ball",), {"run_folder": Path("/no/run")}, "there is no run at /no/run"),
        (("red ball",), {"views": ("frame_9",)}, "the run has no photo of this name; did you mean 'frame_0"),
    ],
)
def test_what_cannot_be_asked_is_told_and_nothing_is_written(
    opened: OpenRun, tmp_path: Path, phrases: tuple[str, ...], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Query(**{"run_folder": opened.folder, "phrases": phrases, "out": None, **flags}).run()
    assert "\n" not in str(caught.value)
    assert not (opened.folder / "query").exists()


def test_a_run_that_cannot_be_searched(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_run(make_run(folder, searchable=False))
    monkeypatch.setattr(finished_run, "open_run", lambda _: plain)
    with pytest.raises(InputError, match="cannot be searched with words yet"):
        Query(plain.folder, ("red ball",), out=tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [{}, {"video": True}])
def test_a_disk_without_room(opened: OpenRun, path: Path, tmp_path: Path, flags: dict[str, bool]) -> None:
    """The system refuses files above a few bytes. The file of an earlier query stays as it was, and nothing half-written does."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "query.json").write_text("earlier")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(InputError, match=r"out.* cannot be written .*File too large.*; make room or choose another"):
            Query(opened.folder, ("red ball",), out=out, camera_path=path if flags else None).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file for file in out.rglob("*") if file.is_file()] == [out / "query.json"]
    assert (out / "query.json").read_text() == "earlier"


def test_one_json_object_on_standard_output(opened: OpenRun, path: Path) -> None:
    """A real process, on the run's own folder: what is told goes elsewhere, and nerfstudio is quiet."""
    done = subprocess.run(
        [str(COMMAND), "query", str(opened.folder), "red ball", "green hat", "--json", "--camera-path", str(path)],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == NOT_FOUND, done.stderr.decode()
    answer = json.loads(done.stdout)
    folder = opened.folder / "query"
    assert answer["folder"] == str(folder) and answer == json.loads((folder / "query.json").read_text())
    assert [phrase["found"] for phrase in answer["phrases"]] == [True, False]
    assert all((folder / file).is_file() for file in answer["phrases"][0]["views"][0]["files"].values())
    assert b"green hat: found in none" in done.stderr and b"Dataset is overriding" not in done.stderr
