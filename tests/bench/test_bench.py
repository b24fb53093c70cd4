"""`vlmgs bench` through its console script: what it writes, what it repeats, and what a kill leaves. The models inside are the
embedded ones after six steps: figures prove plumbing and repetition, not quality."""

from __future__ import annotations

import csv
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bench.conftest import bench, bench_fork, environment, measured, rows_of
from tests.console.forks import ForkServer
from vlmgs_ns.bench.plots import PLOTS

Finished = tuple[Path, subprocess.CompletedProcess[str]]


def test_everything_is_written(finished: Finished) -> None:
    out, done = finished
    rows = {(row["scene"], row["method"], row["seed"]): row for row in rows_of(out)}
    assert len(rows) == 2 * 2 * 2
    for seed in (0, 1):
        row = rows["room", "words", seed]
        assert row["status"] == "done" and row["curve"]["iteration"] == [3, 6] and row["photos"] == {"train": 6, "held_out": 2}
        assert row["psnr"] == row["curve"]["psnr"][-1] and 5 < row["psnr"] < 40 and 0 <= row["ssim"] < 1
        assert 5 < row["background_psnr"] < 40 and 5 < row["object_psnr"] < 40
        assert len({row["psnr"], row["object_psnr"], row["background_psnr"]}) == 3
        assert row["gaussians"] == row["curve"]["gaussians"][-1] > 0 and row["curve"]["loss"][-1] > 0
        assert 0 < row["curve"]["seconds"][0] < row["curve"]["seconds"][1] == row["seconds"] and row["memory_mb"] > 100
        assert set(row["words"]) == {"A", "C"} and row["words"]["A"]["pairs"] > 0
        assert row["words_settings"]["C"]["threshold"] == 0.5 and row["versions"]["torch"] and row["machine"]["cores"] >= 1
    assert measured(rows["room", "words", 0]) != measured(rows["room", "words", 1]), "a seed changes a run"
    summary = (out / "summary.md").read_text(encoding="utf-8")
    assert "2 of 8 runs done" in summary and "| room | words | points |" in summary
    with (out / "summary.csv").open(encoding="utf-8") as file:
        means = {(line["scene"], line["method"]): line["psnr_mean"] for line in csv.DictReader(file)}
    psnr = [rows["room", "words", seed]["psnr"] for seed in (0, 1)]
    assert float(means["room", "words"]) == pytest.approx(sum(psnr) / 2) and means["gone", "words"] == ""
    assert all((out / plot.file).stat().st_size > 5000 for plot in PLOTS)
    assert not list((out / "runs").glob("*/")), "trained scenes are not kept unasked"
    assert not list(out.rglob("*.partial*"))
    assert summary in done.stdout


def test_what_cannot_be_done_is_a_row_that_says_why(finished: Finished) -> None:
    out, done = finished
    rows = rows_of(out)
    broken = [row for row in rows if row["scene"] == "room" and row["method"] == "unreachable"]
    assert [row["status"] for row in broken] == ["failed", "failed"] and all("127.0.0.1:9" in row["error"] for row in broken)
    gone = [row for row in rows if row["scene"] == "gone"]
    assert {row["status"] for row in gone} == {"missing"} and "nowhere. Look in the attic." in gone[0]["error"]
    assert done.returncode == 1 and done.stderr.startswith("Error: 6 of 8 runs are not done") and done.stderr.count("\n") == 1
    assert "failed: no model can be asked" in done.stdout and "left" in done.stdout


def test_what_is_done_is_not_repeated(folder: Path, finished: Finished) -> None:
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*.json")}
    done = bench(folder, "small.yaml", "--out", "finished", "--only", "method=words,scene=room,seed=0,seed=1")
    assert done.returncode == 0 and done.stderr == "" and "2 runs, 2 done, 0 to do" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row["seed"] for row in rows_of(out)] == [0, 1]


def test_a_killed_run_is_a_row_and_a_killed_benchmark_goes_on(folder: Path, finished: Finished, fork_server: ForkServer) -> None:
    out = folder / "killed"
    argv = ["bench", "small.yaml", "--out", "killed", "--only", "method=words,scene=room"]
    with (folder / "killed.txt").open("wb") as said:
        process = fork_server.start(["vlmgs", *argv], folder, environment(folder), said, said)

    def training(seed: int) -> psutil.Process | None:
        """The process of a run, once it has begun to train."""
        address = next((row["address"] for row in rows_of(out) if row["seed"] == seed), "") if out.exists() else ""
        if not address or not list((out / "runs" / address).glob("run/*/*/config.yml")):
            return None
        below = psutil.Process(process.pid).children(recursive=True)
        return max(below, key=lambda child: child.create_time())

    wait_for(lambda: (out / "results.jsonl").exists())
    first = wait_for(lambda: training(0))
    first.kill()
    wait_for(lambda: training(2))
    everything = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(everything, timeout=60)
    assert not alive, "a benchmark's processes end with it"
    states = {row["seed"]: (row["status"], row["error"]) for row in rows_of(out)}
    assert states[0][0] == "failed" and "SIGKILL" in states[0][1]
    assert states[1] == ("done", "") and states[2][0] == "waiting"
    kept = next(row for row in rows_of(out) if row["seed"] == 1)

    done = bench_fork(fork_server, folder, *argv[1:])
    assert done.returncode == 0, done.stderr
    assert "3 runs, 1 done, 2 to do" in done.stdout
    rows = {row["seed"]: row for row in rows_of(out)}
    assert {row["status"] for row in rows.values()} == {"done"} and rows[1] == kept
    undisturbed = {row["seed"]: row for row in rows_of(folder, "undisturbed.jsonl") if row["status"] == "done"}
    for seed in (0, 1):
        assert measured(rows[seed]) == measured(undisturbed[seed]), "what was killed and done again is the same to the bit"
        assert rows[seed]["address"] == undisturbed[seed]["address"]


def test_one_benchmark_in_a_folder_at_a_time(folder: Path, finished: Finished) -> None:
    from vlmgs_ns.bench.results import alone

    with alone(finished[0]):
        done = bench(folder, "small.yaml", "--out", "finished")
    assert done.returncode == 1 and "another benchmark is at work in" in done.stderr


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ((), "there is no specification"),
        (("none.yaml",), "none.yaml cannot be read"),
        (("small.yaml", "--only", "scene=romo"), "Did you mean room?"),
        (("small.yaml", "--jobs", 0), "--jobs 0 does nothing"),
        (("small.yaml", "--address", "auto"), "add --executor ray"),
        (("small.yaml", "other.yaml"), "give one specification"),
        (("compare", "a"), "vlmgs bench compare A B"),
        (("compare", "a", "b"), "a cannot be read"),
    ],
)
def test_bad_input_is_one_line(folder: Path, args: tuple[object, ...], part: str) -> None:
    done = bench(folder, *args)
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert part in done.stderr


def test_compare(folder: Path, finished: Finished) -> None:
    done = bench(folder, "compare", "finished", "finished")
    assert done.returncode == 0 and done.stderr == ""
    assert "| room | words | points | 2 |" in done.stdout and "(+0.00 ± 0.00)" in done.stdout and "(x 1.00)" in done.stdout


def wait_for(ask: Callable[[], Any], seconds: float = 300) -> Any:
    """What `ask` says once it says something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ask()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError
