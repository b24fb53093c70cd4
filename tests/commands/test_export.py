"""``vlmgs export`` on a run on disk whose Gaussians and features are laid out by hand (tests/selection/trained.py)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plyfile import PlyData
from safetensors import safe_open
from torch import Tensor

from tests.console.forks import ForkServer
from tests.words.trained import NEGATIVES, PARTS, make_run, name_toys
from vlmgs_ns.commands.export import Export
from vlmgs_ns.method import finished_run
from vlmgs_ns.method.finished_run import OpenRun, open_run
from vlmgs_ns.semantics.embedded import EMBEDDED
from vlmgs_ns.splats import formats
from vlmgs_ns.splats.ply import Gaussians, read_ply
from vlmgs_ns.system.errors import InputError


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


def export(run: OpenRun, out: Path, *phrases: str, **flags: Any) -> Path:
    """The .ply of a call that worked."""
    before = set(out.glob("*.ply"))
    Export(run.folder, select=(phrases,) if phrases else (), out=out, **flags).run()
    (ply,) = set(out.glob("*.ply")) - before
    return ply


def rows_of(run: OpenRun, ply: Path) -> list[int]:
    """Rows of the run's Gaussians that a file holds, told by their places."""
    distance = torch.cdist(read_ply(ply).means, run.model.means.detach(), compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distance.amin(dim=1).max()) < 1e-6
    return sorted(distance.argmin(dim=1).tolist())


def rows(*names: str) -> list[int]:
    return sorted(row for name in names for row in PARTS[name])


def picture(run: OpenRun, gaussians: dict[str, Tensor]) -> Tensor:
    """Through the model, from where the ball and the box are in view."""
    pose = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1.5]]])
    with torch.no_grad():
        image, alpha, _ = run.model.rasterize(
            gaussians, pose, torch.tensor([[[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]]), 48, 32, "RGB"
        )
    return torch.cat([image, alpha], dim=-1)[0]


def test_a_scene_that_the_encoder_does_not_know_is_said(
    opened: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(opened, tmp_path, "red ball")
    assert "noise" not in capsys.readouterr().out
    monkeypatch.setattr(opened.model.semantics, "about", replace(opened.model.semantics.about, clip=EMBEDDED))
    export(opened, tmp_path / "room", "red ball")
    assert "noise" not in capsys.readouterr().out, "the run's scene is an embedded room"
    monkeypatch.setattr(OpenRun, "data", tmp_path)
    export(opened, tmp_path / "photos", "red ball")
    said = capsys.readouterr().out
    assert "What words find here is noise" in said and f"--load-dir {opened.folder}/nerfstudio_models" in said
    export(opened, tmp_path / "all")
    assert "noise" not in capsys.readouterr().out, "no words, no noise"


def test_the_object_without_dust(opened: OpenRun, tmp_path: Path) -> None:
    ply = export(opened, tmp_path, "red ball")
    assert ply.name == "red-ball.ply" and rows_of(opened, ply) == rows("ball")
    assert list(tmp_path.iterdir()) == [ply]


def test_each_cleaning_can_be_turned_off(opened: OpenRun, tmp_path: Path) -> None:
    assert rows_of(opened, export(opened, tmp_path / "a", "red ball", least_opacity=0.0)) == rows("ball", "fog")
    assert rows_of(opened, export(opened, tmp_path / "b", "red ball", least_share=0.0)) == rows("ball", "far")
    raw = export(opened, tmp_path / "c", "red ball", least_opacity=0.0, least_share=0.0, average=False)
    assert rows_of(opened, raw) == rows("ball", "far", "fog")


def test_several_phrases_are_a_union_and_inverting_gives_the_rest(opened: OpenRun, tmp_path: Path) -> None:
    assert rows_of(opened, export(opened, tmp_path / "a", "red ball", "blue box")) == rows("ball", "box")
    # The fog goes with the ball; what is far stays, as it is no part of it.
    ply = export(opened, tmp_path / "b", "red ball", "blue box", invert=True)
    assert ply.name == "without-red-ball+blue-box.ply" and rows_of(opened, ply) == rows("far", "rest")


def test_of_several_things_all_or_the_clearest(
    opened: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name_toys(opened.model.semantics, monkeypatch)
    assert rows_of(opened, export(opened, tmp_path / "a", "toy")) == rows("ball", "box")
    capsys.readouterr()
    one = rows_of(opened, export(opened, tmp_path / "b", "toy", parts="clearest"))
    assert (
        one in (rows("ball"), rows("box"))
        and f"{len(rows('ball', 'box', 'far')) - len(one)} apart from the rest" in capsys.readouterr().out
    )
    each = export(opened, tmp_path / "c", "red ball", "blue box", parts="clearest")
    assert rows_of(opened, each) == rows("ball", "box"), "of each phrase"
    with pytest.raises(InputError, match="--parts clearest needs a phrase"):
        export(opened, tmp_path / "d", parts="clearest")


def test_a_negative_takes_away_what_fits_it_better(opened: OpenRun, tmp_path: Path) -> None:
    """To "warm thing" the red ones score 0.8 and to "red ball" 1."""
    assert rows_of(opened, export(opened, tmp_path, "warm thing")) == rows("ball")
    with pytest.raises(InputError, match=r"'warm thing' finds nothing: the highest relevancy of any Gaussian is exactly 0\.\d\d"):
        export(opened, tmp_path / "b", "warm thing", negative=(("red ball",),))


def test_without_phrases_the_whole_scene_as_ns_export_writes_it(opened: OpenRun, tmp_path: Path, fork_server: ForkServer) -> None:
    ply = export(opened, tmp_path / "ours")
    assert ply.name == "scene.ply"
    theirs = ["ns-export", "gaussian-splat", "--load-config", str(opened.config), "--output-dir", str(tmp_path / "theirs")]
    done = fork_server.run(theirs, Path.cwd(), os.environ)
    assert done.returncode == 0, done.stderr
    ours, theirs = (PlyData.read(str(path), mmap=False)["vertex"] for path in (ply, tmp_path / "theirs" / "splat.ply"))
    assert [prop.name for prop in ours.properties] == [prop.name for prop in theirs.properties]
    for prop in ours.properties:
        assert (ours[prop.name] == theirs[prop.name]).all(), prop.name


def test_its_picture_is_that_of_the_selected_gaussians_alone(opened: OpenRun, tmp_path: Path) -> None:
    read = read_ply(export(opened, tmp_path, "red ball"))
    chosen = {name: values.detach()[rows("ball")] for name, values in opened.model.gauss_params.items()}
    ours, theirs = picture(opened, vars(read)), picture(opened, chosen)
    assert theirs[..., 3].max() > 0.9 and torch.equal(ours, theirs)


def test_colours_of_a_scene_without_harmonics(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmgs_ns.rasterize import rasterization

    flat = open_run(make_run(folder, sh_degree=0))
    monkeypatch.setattr(finished_run, "open_run", lambda _: flat)
    read = read_ply(export(flat, tmp_path))
    assert read.degree == 0
    view = torch.diag(torch.tensor([1.0, -1, -1, 1]))
    view[2, 3] = 1.5
    image, alpha, _ = rasterization(
        read.means, read.quats, read.scales.exp(), read.opacities.sigmoid()[:, 0], read.features_dc[:, None], view[None],
        torch.tensor([[[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]]), 48, 32, sh_degree=0, near_plane=0.01, far_plane=1e10,
    )  # fmt: skip
    theirs = picture(flat, {name: values.detach() for name, values in flat.model.gauss_params.items()})
    assert theirs[..., 3].max() > 0.9 and torch.allclose(torch.cat([image, alpha], dim=-1)[0], theirs, atol=1e-5)


def test_in_the_coordinates_of_the_data(opened: OpenRun, tmp_path: Path) -> None:
    ply = export(opened, tmp_path, "blue box", coordinates="data")
    said = json.loads((opened.folder / "dataparser_transforms.json").read_text())
    matrix, means = torch.tensor(said["transform"]), read_ply(ply).means
    there = said["scale"] * (means @ matrix[:, :3].T + matrix[:, 3])
    assert not torch.allclose(there, means, atol=0.1)
    assert torch.allclose(there, opened.model.means.detach()[rows("box")], atol=1e-5)


def test_features_beside_it(opened: OpenRun, tmp_path: Path) -> None:
    Export(opened.folder, select=(("blue box",), ("red ball",)), out=tmp_path, features=True).run()
    chosen = rows("ball", "box")
    with safe_open(tmp_path / "blue-box+red-ball.safetensors", "pt") as file:
        about, found = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert found["ids"].tolist() == chosen
    assert found["features"].dtype == torch.float16 and torch.equal(found["features"], opened.model.semantics.features[chosen])
    assert found["labels"].tolist() == [1 if row in PARTS["ball"] else 0 for row in chosen]
    assert found["relevancy"].shape == (100, 2) and float(found["relevancy"].amax(dim=1).min()) > 0.5
    assert about["encoder"] == "OpenCLIP by hand" and json.loads(about["phrases"]) == ["blue box", "red ball"]
    assert json.loads(about["negatives"]) == list(NEGATIVES)
    # Not the first rows of the run.
    Export(opened.folder, select=(("blue box",),), out=tmp_path, features=True).run()
    with safe_open(tmp_path / "blue-box.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("features"), opened.model.semantics.features[rows("box")])
    # The whole scene, of no phrase.
    Export(opened.folder, out=tmp_path, features=True).run()
    with safe_open(tmp_path / "scene.safetensors", "pt") as file:
        assert file.get_tensor("labels").unique().tolist() == [-1] and len(file.get_tensor("ids")) == 120


def test_a_compressed_one_looks_alike(opened: OpenRun, tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply")
    Export(opened.folder, select=(("red ball", "blue box"),), out=tmp_path, format="compressed.ply").run()
    assert [path.name for path in tmp_path.iterdir()] == ["red-ball+blue-box.compressed.ply"]
    found = gsply.plyread(tmp_path / "red-ball+blue-box.compressed.ply")
    read = {
        **{name: torch.from_numpy(getattr(found, name)) for name in ("means", "scales", "quats")},
        "features_dc": torch.from_numpy(found.sh0),
        "features_rest": torch.from_numpy(found.shN),
        "opacities": torch.from_numpy(found.opacities)[:, None],
    }
    chosen = {name: values.detach()[rows("ball", "box")] for name, values in opened.model.gauss_params.items()}
    ours, theirs = picture(opened, read), picture(opened, chosen)
    assert (ours - theirs).abs().mean() < 0.01 < theirs.std()


@pytest.mark.parametrize("suffix", ["compressed.ply", "spz"])
def test_some_formats_need_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: Any) -> None:
    monkeypatch.setitem(sys.modules, "gsply", None)
    with pytest.raises(InputError, match="pip install gsply"):
        Export(tmp_path, format=suffix).run()


def test_each_format_has_its_suffix(opened: OpenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix, size in (("splat", 60 * 32), ("spz", None)):
        if suffix == "spz":
            pytest.importorskip("gsply")
        Export(opened.folder, select=(("red ball",),), out=tmp_path, format=suffix, as_json=True).run()
        said = json.loads(capsys.readouterr().out)
        assert said["file"] == str(tmp_path / f"red-ball.{suffix}") and said["gaussians"] == 60
        assert said["bytes"] == Path(said["file"]).stat().st_size and size in (said["bytes"], None)


def test_a_page_of_what_is_found_alone(opened: OpenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Export(opened.folder, select=(("red ball",),), out=tmp_path, format="html", as_json=True).run()
    said = json.loads(capsys.readouterr().out)
    text = (tmp_path / "red-ball.html").read_text()
    assert 0 < said["gaussians"] <= 60 and f'"count": {said["gaussians"]}' in text and "<canvas" in text


def test_a_page_of_what_no_photo_shows(opened: OpenRun, tmp_path: Path) -> None:
    means = opened.model.gauss_params["means"]
    before = means.data.clone()
    means.data[list(PARTS["box"])] += 50.0
    try:
        with pytest.raises(InputError, match=r"shows any of the \d+ Gaussians selected, .*; select more, or take another format"):
            Export(opened.folder, select=(("blue box",),), out=tmp_path, format="html").run()
    finally:
        means.data = before
    assert not list(tmp_path.iterdir())


def test_what_photos_do_not_show_is_cropped(opened: OpenRun, tmp_path: Path) -> None:
    """Two far behind the walls among them."""
    means = opened.model.gauss_params["means"]
    before = means.data.clone()
    means.data[:2] = torch.tensor([[50.0, 50, 50], [-60, 0, 0]])
    try:
        whole, cropped = (rows_of(opened, export(opened, tmp_path / str(crop), crop=crop)) for crop in (False, True))
    finally:
        means.data = before
    assert whole == list(range(120)) and len(cropped) > 20 and not {0, 1} & set(cropped)


def test_what_hangs_apart_is_dropped(opened: OpenRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fog hangs together with the ball."""
    assert rows_of(opened, export(opened, tmp_path, drop_floaters=True)) == rows("ball", "box", "fog", "rest")
    assert "Left out of the rest: 3 that float about" in " ".join(capsys.readouterr().out.split())
    opacities = opened.model.gauss_params["opacities"]
    before = opacities.data.clone()
    opacities.data[list(PARTS["far"])] = -3.0
    try:
        assert rows_of(opened, export(opened, tmp_path / "faint", drop_floaters=True)) == rows("ball", "box", "fog", "rest")
        with pytest.raises(InputError, match="nothing is left to export by --crop and --drop-floaters"):
            opacities.data[:] = -3.0
            export(opened, tmp_path / "none", drop_floaters=True)
    finally:
        opacities.data = before


def test_as_web_viewers_take_it(opened: OpenRun, tmp_path: Path) -> None:
    """In the embedded room and in its run z is up; in the file y is."""
    there, here = (read_ply(export(opened, tmp_path / name, coordinates=name)) for name in ("viewer", "run"))
    turn = torch.linalg.lstsq(here.means - here.means[0], there.means - there.means[0]).solution.T
    up = opened.pipeline.datamanager.train_dataset.cameras.camera_to_worlds[:, :, 1].mean(dim=0)
    assert (turn @ up)[1] > 0.99 * up.norm() and torch.det(turn) == pytest.approx(1, abs=1e-3)


# what goes wrong


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"select": (("",),)}, "--select '' is empty"),
        ({"select": ((),)}, "--select has no phrase"),
        ({"select": (("x" * 10_000,),)}, "has 10000 characters"),
        ({"select": (("ball",),), "negative": (("\n\n",),)}, "--negative .* is empty"),
        ({"select": (("ball",),), "negative": (("ball",),)}, "cannot beat itself"),
        ({"invert": True}, "--invert needs a phrase"),
        ({"negative": (("floor",),)}, "--negative needs a phrase"),
        ({"select": (("ball",),), "threshold": 1.0}, "--threshold 1 is out of range"),
        ({"select": (("ball",),), "threshold": float("nan")}, "--threshold nan is out of range"),
        ({"select": (("ball",),), "least_opacity": -0.1}, r"--least-opacity -0\.1 is out of range"),
        ({"select": (("ball",),), "least_share": 2.0}, "--least-share 2 is out of range"),
        (
            {"format": "html", "coordinates": "viewer"},
            "--coordinates viewer cannot be used with --format html: .*; leave --co",
        ),
        ({"format": "html", "features": True}, "--features cannot be used with --format html: .*; leave --features out"),
        ({}, "there is no run at"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_read(tmp_path: Path, flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Export(tmp_path / "no such run", **flags).run()
    assert not list(tmp_path.iterdir())


def test_a_phrase_that_finds_nothing(opened: OpenRun, tmp_path: Path) -> None:
    """The red ones tie with the negatives: 0.5 is not above 0.5."""
    with pytest.raises(
        InputError, match=r"'green hat' finds nothing: the highest relevancy of any Gaussian is exactly 0\.50, the thr.*0\.45"
    ):
        export(opened, tmp_path / "out", "red ball", "green hat")
    with pytest.raises(InputError, match="finds 66 Gaussians, all fainter than --least-opacity 1"):
        export(opened, tmp_path / "out", "red ball", least_opacity=1.0, least_share=0.0)
    with pytest.raises(InputError, match="select every Gaussian"):
        export(opened, tmp_path / "out", "red ball", threshold=0.0, invert=True, least_share=0.0)
    assert not (tmp_path / "out").exists()


def test_a_run_that_cannot_be_searched(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_run(make_run(folder, searchable=False))
    monkeypatch.setattr(finished_run, "open_run", lambda _: plain)
    for flags in ({"select": (("ball",),)}, {"features": True}):
        with pytest.raises(InputError, match="cannot be searched with words yet"):
            Export(plain.folder, out=tmp_path / "out", **flags).run()
    assert not (tmp_path / "out").exists()
    assert len(read_ply(export(plain, tmp_path / "out"))) == 120  # but exported whole


@pytest.fixture
def little_room(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB, too little for 120 Gaussians of 248 bytes."""
    place = tmp_path / "little"
    place.mkdir()
    if os.name != "posix" or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", place], check=False).returncode:
        pytest.skip("needs leave to mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk(opened: OpenRun, little_room: Path) -> None:
    (little_room / "scene.ply").write_bytes(b"the old one")
    with pytest.raises(InputError, match=r"little cannot be written to: .*; make room there"):
        Export(opened.folder, out=little_room).run()
    assert [path.name for path in little_room.iterdir()] == ["scene.ply"]
    assert (little_room / "scene.ply").read_bytes() == b"the old one"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space"), r"No space: 4 bytes of it were written, [\d.]+ .B are free; make room there"),
        (OSError("100 requested and 7 written"), "100 requested and 7 written; make room there"),
    ],
)
def test_an_error_half_way_leaves_no_half_file(
    opened: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def fail(path: Path, gaussians: Gaussians) -> None:
        path.write_bytes(b"ply\n")
        raise error

    monkeypatch.setitem(formats.WRITERS, "ply", fail)
    with pytest.raises(InputError, match=said):
        Export(opened.folder, out=tmp_path, features=True).run()
    assert not list(tmp_path.iterdir())


def test_folders_that_are_none(opened: OpenRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file, where a folder is to be written"):
        Export(opened.folder, out=tmp_path / "file").run()
    with pytest.raises(InputError, match="file is a file, where a folder is to be written"):
        Export(opened.folder, out=tmp_path / "file" / "below").run()
    if os.path.exists("/proc/self"):  # where not even root makes folders
        with pytest.raises(InputError, match="/proc/out cannot be written to"):
            Export(opened.folder, out=Path("/proc/out")).run()


def test_two_exports_at_once_leave_one_whole_file(opened: OpenRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Different files of one name; each waits for the other where both have begun to write."""
    both, write, errors = threading.Barrier(2), formats.WRITERS["ply"], []

    def write_together(path: Path, gaussians: Gaussians) -> None:
        both.wait(timeout=30)
        write(path, gaussians)
        both.wait(timeout=30)

    monkeypatch.setitem(formats.WRITERS, "ply", write_together)

    def run_one(coordinates: Any) -> None:
        try:
            Export(opened.folder, select=(("red ball",),), out=tmp_path / "out", coordinates=coordinates).run()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run_one, args=(coordinates,)) for coordinates in ("run", "data")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and [path.name for path in (tmp_path / "out").iterdir()] == ["red-ball.ply"]
    monkeypatch.setitem(formats.WRITERS, "ply", write)
    either = [export(opened, tmp_path / name, "red ball", coordinates=name).read_bytes() for name in ("run", "data")]
    assert either[0] != either[1] and (tmp_path / "out" / "red-ball.ply").read_bytes() in either


# the command itself


def vlmgs(server: ForkServer, *words: object) -> subprocess.CompletedProcess[str]:
    return server.run(["vlmgs", "export", *map(str, words)], Path.cwd(), os.environ)


def test_the_command_prints_one_object_and_nothing_else(run: OpenRun, tmp_path: Path, fork_server: ForkServer) -> None:
    done = vlmgs(fork_server, run.folder, "--json", "--out", tmp_path, "--select", "red ball", "blue box", "--select", "red ball")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and said["file"] == str(tmp_path / "red-ball+blue-box.ply")
    assert (said["gaussians"], said["of"], said["features"], said["coordinates"]) == (100, 120, None, "run")
    assert [figures["gaussians"] for figures in said["phrases"].values()] == [60, 40]
    assert said["dropped"] == {"faint": 3, "apart": 3, "outside": 0, "invisible": 0, "floating": 0}
    assert said["bytes"] == (tmp_path / "red-ball+blue-box.ply").stat().st_size
    assert rows_of(run, Path(said["file"])) == rows("ball", "box")


def test_an_error_is_one_line_and_status_1(tmp_path: Path, fork_server: ForkServer) -> None:
    done = vlmgs(fork_server, tmp_path / "nothing here", "--json", "--select", "red ball")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: there is no run at") and done.stderr.count("\n") == 1
