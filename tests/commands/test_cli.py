"""The ``vlmgs`` command through its console script."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

VLMGS = str(Path(sysconfig.get_path("scripts")) / "vlmgs")
TINY = ("--views", "6", "--held-out", "2", "--width", "32", "--height", "24", "--points", "100")


def run(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([VLMGS, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def assert_one_line_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("command", [(), ("scene",), ("demo",)])
def test_help_explains_every_flag(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.replace("│", " ").split())
    if not command:
        assert "scene" in text and "demo" in text and "cache" in text
        return
    for flag in ("--seed INT", "--views INT", "--held-out INT", "--width INT", "--height INT", "--points INT"):
        after = text.partition(flag)[2]
        assert len(after.partition("(default:")[0]) > 15, f"{flag} is not explained"


def test_the_version_and_a_name_that_is_nearly_one() -> None:
    done = run("--version")
    assert done.returncode == 0 and done.stdout.startswith(f"vlm-fastgs {version('vlmgs-ns')} (nerfstudio 1.1.5, torch ")
    for wrong, alike in (("qurey", "query"), ("reder-report", "render-report"), ("evaluate", "eval")):
        done = run(wrong, "a run", "red ball")
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith(f"Error: vlmgs has no command {wrong!r}; did you mean {alike}"), done.stderr
    assert "demo or new or prepare or scene or" in run("xyzzy").stderr


@pytest.mark.parametrize(
    "command",
    [
        'Query(Path("nowhere"), ("red ball",))',
        'Query(Path("."), (" ",))',
        'Export(Path("nowhere"))',
        'Evaluate(Path("nowhere"))',
        'RenderReport(Path("nowhere"))',
        'RenderReport(Path("."), prompt=";")',
    ],
)
def test_what_is_mistyped_is_said_before_torch_is_imported(command: str) -> None:
    module = {"Query": "query", "Export": "export", "Evaluate": "evaluate", "RenderReport": "render_report"}
    name = command.partition("(")[0]
    program = (
        f"import sys\nfrom pathlib import Path\nfrom vlmgs_ns.commands.{module[name]} import {name}\n"
        f"try:\n    {command}.run()\nexcept SystemExit as error:\n    print(error)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith("Error: ") and done.stdout.endswith("\nFalse\n"), done.stdout


def test_scene_writes_what_it_says(tmp_path: Path) -> None:
    done = run("scene", "my room", *TINY, "--seed", 5, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    transforms = json.loads((tmp_path / "my room" / "transforms.json").read_text(encoding="utf-8"))
    labels = json.loads((tmp_path / "my room" / "labels.json").read_text(encoding="utf-8"))
    assert len(transforms["train_filenames"]) == 4 and len(transforms["val_filenames"]) == 2
    assert labels["seed"] == 5
    assert Image.open(tmp_path / "my room" / "images" / "frame_00001.png").size == (32, 24)
    assert "4 photos to train on, 2 held out" in done.stdout
    assert f"{len(labels['objects'])} objects" in done.stdout
    assert all(thing["name"] in done.stdout for thing in labels["objects"])
    assert "6/6" in done.stdout  # progress
    assert "ns-train vlm-fastgs-lite --data 'my room'" in done.stdout


def test_scene_is_decided_by_its_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("scene", tmp_path / name, *TINY, "--seed", seed).returncode == 0
    photo = {name: (tmp_path / name / "images" / "frame_00001.png").read_bytes() for name in "abc"}
    assert photo["a"] == photo["b"] != photo["c"]


def test_scene_with_depth_and_no_view_held_out(tmp_path: Path) -> None:
    done = run("scene", tmp_path / "room", *TINY, "--held-out", 0, "--depth")
    assert done.returncode == 0
    assert "depth maps" in done.stdout and "held out" not in done.stdout
    assert np.asarray(Image.open(next((tmp_path / "room" / "depth").iterdir()))).max() > 500  # millimetres


def test_scene_replaces_only_a_scene_and_only_when_told(tmp_path: Path) -> None:
    out = tmp_path / "room"
    assert run("scene", out, *TINY, "--seed", 1).returncode == 0
    before = (out / "labels.json").read_bytes()
    assert_one_line_error(run("scene", out, *TINY, "--seed", 2), str(out), "--overwrite")
    assert (out / "labels.json").read_bytes() == before
    assert run("scene", out, *TINY, "--seed", 2, "--overwrite").returncode == 0
    assert (out / "labels.json").read_bytes() != before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert_one_line_error(run("scene", mine, *TINY, "--overwrite"), str(mine))
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--held-out", "6"), ("held_out is 6", "0 to 5")),
        (("--seed", "-1"), ("seed is -1",)),
        (("--width", "8"), ("8 x 24", "16 or more")),
    ],
)
def test_a_setting_out_of_range_is_one_line(tmp_path: Path, flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_one_line_error(run("scene", tmp_path / "room", *TINY, *flags), *parts)
    assert not (tmp_path / "room").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line_error(run("scene", tmp_path / "file" / "room", *TINY), str(tmp_path / "file"))


@pytest.mark.parametrize("args", [("scene",), ("scene", "room", "--views", "many"), ("sceen",), ()])
def test_a_wrong_command_line_is_status_2(args: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ctrl_c_ends_cleanly_and_leaves_nothing(tmp_path: Path) -> None:
    slow = ("--views", "400", "--width", "640", "--height", "480")
    # A shell that runs the tests in the background may make its children ignore Ctrl-C.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([VLMGS, "scene", "room", *slow], cwd=tmp_path, stdout=-1, stderr=-1, text=True, preexec_fn=heed)
    cpu_seconds = 0.0
    while cpu_seconds < 1.0 and process.poll() is None:  # until it is at work
        time.sleep(0.05)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu_seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "Stopped."
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen([VLMGS, "scene", "room", *TINY], cwd=tmp_path, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)


def test_torch_is_told_not_to_waste_the_cores_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vlmgs_ns.cli import entrypoint

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "7")
    monkeypatch.setattr("sys.argv", ["vlmgs", "cache", str(tmp_path)])
    try:
        entrypoint()
        assert (os.environ["OMP_WAIT_POLICY"], os.environ["TORCHINDUCTOR_COMPILE_THREADS"]) == ("PASSIVE", "7")
    finally:
        os.environ.pop("OMP_WAIT_POLICY", None)
