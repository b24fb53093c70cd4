"""Runs on a local Ray cluster of two worker processes: the same figures as `local`, also where a worker is killed in the middle.

The models inside are the embedded ones after six steps: figures prove plumbing and repetition, not quality.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.bench.conftest import VLMGS, bench_fork, environment, measured, rows_of
from tests.bench.test_bench import wait_for
from tests.console.forks import ForkServer

pytest.importorskip("ray")

RUNS = ("--only", "scene=room,seed=0")


def test_a_killed_worker_loses_an_attempt_and_no_result(folder: Path, fork_server: ForkServer) -> None:
    bench_fork(fork_server, folder, "small.yaml", "--out", "here", *RUNS)
    out = folder / "on_ray"
    argv = [VLMGS, "bench", "small.yaml", "--out", "on_ray", "--executor", "ray", "--jobs", "2", *RUNS]
    with (folder / "ray.txt").open("w") as said:
        process = subprocess.Popen(argv, cwd=folder, env=environment(folder), stdout=said, stderr=said)

    def training() -> psutil.Process | None:
        """A worker, once the runs have begun to train."""
        if not list(out.glob("runs/*/run/*/*/config.yml")):
            return None
        below = psutil.Process(process.pid).children(recursive=True)
        return next((child for child in below if "".join(child.cmdline()).startswith("ray::_task")), None)

    worker = wait_for(training)
    begun = {path.parts[-5] for path in out.glob("runs/*/run/*/*/config.yml")}
    listening = {c.laddr.ip for child in psutil.Process(process.pid).children(recursive=True) for c in listening_of(child)}
    worker.kill()
    assert process.wait(timeout=900) == 1  # the runs that must fail
    text = (folder / "ray.txt").read_text(encoding="utf-8")
    assert begun and "on a Ray cluster on this machine: 2 cores" in text
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "a cluster of our own serves this machine alone"
    rows = {row["method"]: row for row in rows_of(out)}
    local = {row["method"]: row for row in rows_of(folder / "here")}
    assert rows.keys() == local.keys() == {"words", "unreachable"} and local["words"]["status"] == "done"
    for key, row in rows.items():
        assert row["address"] == local[key]["address"] and row["status"] == local[key]["status"], text
        if row["status"] == "done":
            assert measured(row) == measured(local[key])
        else:
            assert row["error"] == local[key]["error"]


def listening_of(process: psutil.Process) -> list[psutil._common.pconn]:
    try:
        return [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_no_cluster_is_one_line(folder: Path, address: str) -> None:
    argv = [VLMGS, "bench", "small.yaml", "--executor", "ray", "--address", address]
    done = subprocess.run(argv, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and f"--address {address}: no Ray cluster answers" in done.stderr, done.stderr
