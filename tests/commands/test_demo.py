"""``vlmgs demo`` through its console script, small: what it writes, and that nerfstudio's commands go on from there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from tests.console.forks import ForkServer
from vlmgs_ns.method import checkpoint

SCRIPTS = Path(sysconfig.get_path("scripts"))
SMALL = (
    *("--views", "12", "--held-out", "3", "--width", "65", "--height", "48", "--points", "1000"),
    *("--turntable-seconds", "0.5"),
)


def run(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """The console script itself."""
    command = [str(SCRIPTS / name), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def fork(server: ForkServer, name: str, *args: object) -> subprocess.CompletedProcess[str]:
    """The console script's function, ten seconds faster."""
    return server.run([name, *map(str, args)], Path.cwd(), os.environ)


@dataclass
class Result:
    out: Path
    stdout: str

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.out / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("demo") / "my demo"
    done = run("vlmgs", "demo", out, "--max-num-iterations", 200, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return Result(out, done.stdout)


def test_it_writes_all_that_it_names_and_nothing_else(demo: Result) -> None:
    assert {path.name for path in demo.out.iterdir()} == {
        *("scene", "outputs", "index.html", "scene.html", "turntable.mp4", "metrics.json")
    }
    for path in re.findall(r"^  (/.*?)(?:  \(.*)?$", demo.stdout.partition("Wrote:")[2], flags=re.MULTILINE):
        assert Path(path).exists(), path


def test_training_brings_the_renders_nearer_to_the_photos(demo: Result) -> None:
    metrics = demo.metrics
    assert metrics["psnr"] > metrics["psnr_before_training"] + 2
    assert metrics["ssim"] > metrics["ssim_before_training"] + 0.1
    assert 0 < metrics["gaussians_before_training"] <= 1000 and metrics["gaussians"] > 0
    assert f"PSNR {metrics['psnr']:.2f} dB" in demo.stdout
    assert f"{metrics['psnr']:.2f} dB" in (demo.out / "index.html").read_text(encoding="utf-8")


def test_progress_is_told(demo: Result) -> None:
    for step in ("1/4", "2/4", "3/4", "4/4", "Photographing 12/12", "Training 200/200", "Rendering 3/3", "Rendering 10/10"):
        assert step in demo.stdout
    assert "Gaussians" in demo.stdout


def test_the_turntable_has_its_length_and_moves(demo: Result) -> None:
    reader = imageio_ffmpeg.read_frames(str(demo.out / "turntable.mp4"))
    assert next(reader)["size"] == (64, 48)  # even, as H.264 asks for
    frames = list(reader)
    assert len(frames) == 10
    assert len(set(frames)) == 10


def test_the_page_shows_every_held_out_view(demo: Result) -> None:
    text = (demo.out / "index.html").read_text(encoding="utf-8")
    transforms = json.loads((demo.out / "scene" / "transforms.json").read_text(encoding="utf-8"))
    for name in transforms["test_filenames"]:
        assert Path(name).name in text
    for kind in ("photo", "before", "trained", "error"):
        assert text.count(f'data-kind="{kind}"') == 3
    # The scene's own objects are searched for, and the turntable is inside.
    assert text.count('data-kind="query-mask"') >= 3 and text.count("data:video/mp4") == 1


def test_ns_eval_finds_the_same_metrics(demo: Result, fork_server: ForkServer) -> None:
    """Through the command that the demo prints: paths with spaces, a config that loads, schedules that fit the run."""
    (command,) = re.findall(r"^  ns-eval .*$", demo.stdout, flags=re.MULTILINE)
    name, *args = shlex.split(command)
    done = fork(fork_server, name, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((demo.out / "eval.json").read_text(encoding="utf-8"))["results"]
    (demo.out / "eval.json").unlink()
    assert results["psnr"] == pytest.approx(demo.metrics["psnr"], abs=1e-3)
    assert results["ssim"] == pytest.approx(demo.metrics["ssim"], abs=1e-3)


def test_ctrl_c_leaves_a_checkpoint_and_a_second_demo_may_follow(tmp_path: Path, fork_server: ForkServer) -> None:
    out = tmp_path / "demo"
    with (tmp_path / "log").open("wb") as log:
        command = ["vlmgs", "demo", str(out), "--max-num-iterations", "1000000", *SMALL]
        process = fork_server.start(command, tmp_path, os.environ, log, log)
    deadline = time.monotonic() + 120
    while not list(out.glob("outputs/*/*/*/dataparser_transforms.json")):  # written as training begins
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    text = (tmp_path / "log").read_text()
    assert "Stopped after step" in text and "Traceback" not in text
    (folder,) = out.glob("outputs/*/*/*/nerfstudio_models")
    checkpoint.register_safe_globals()
    assert checkpoint.load(checkpoint.newest(folder))["pipeline"]
    assert not (out / "index.html").exists()
    _report_of_a_stopped_run(folder.parent, fork_server)

    done = fork(fork_server, "vlmgs", "demo", out, "--max-num-iterations", 2, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(out.glob("outputs/*/*/*/config.yml"))) == 2


def _report_of_a_stopped_run(folder: Path, server: ForkServer) -> None:
    """It shows what there is, and says what there is not."""
    done = fork(server, "vlmgs", "render-report", folder, "--turntable-seconds", "0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    page = folder / "report.html"
    assert f"Wrote {page}" in done.stdout and "Rendering 3/3" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "of 1,000,000 iterations" in text and "no semantic stage" in text
    assert text.count('data-kind="trained"') == 3 and 'data-kind="before"' not in text and text.count("data:video/mp4") == 1


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--max-num-iterations", "0"), "--max-num-iterations 0"),
        (("--turntable-seconds", "0"), "--turntable-seconds 0"),
        (("--held-out", "0"), "--held-out 0"),
        (("--views", "5"), "--views 6 or more"),
    ],
)
def test_a_setting_out_of_range_is_one_line_and_writes_nothing(tmp_path: Path, flags: tuple[str, ...], part: str) -> None:
    done = run("vlmgs", "demo", tmp_path / "demo", *SMALL, *flags)
    assert done.returncode == 1 and part in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run("vlmgs", "demo", tmp_path, *SMALL)
    assert done.returncode == 1 and str(tmp_path) in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
