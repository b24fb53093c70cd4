"""A very small benchmark, carried out once by the real command, that tests of repeating compare with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.console.forks import ForkServer

VLMGS = str(Path(sysconfig.get_path("scripts")) / "vlmgs")
SPEC = """
about: {title: Very small, data: made here, licence: Apache-2.0}
scenes:
  room: {toy: {seed: 0, views: 8, held_out: 2, width: 40, height: 30, points: 200}}
  gone: {path: nowhere, get: Look in the attic.}
methods:
  words:
    base: vlm-fastgs-lite
    overrides:
      pipeline.model.guidance.backend: residual
      pipeline.model.semantics.clip: embedded
      pipeline.model.semantics.dino: embedded
  unreachable:
    base: vlm-fastgs-lite
    overrides:
      pipeline.model.semantics.enabled: false
      pipeline.model.guidance.backend: openai
      pipeline.model.guidance.base-url: http://127.0.0.1:9/v1
seeds: [0, 1, 2]
iterations: 6
checks: 2
resolution: 40
protocols: [A, C]
"""
MEASURED = ("psnr", "object_psnr", "background_psnr", "ssim", "gaussians", "words", "photos", "guidance")
"""What repeats to the bit on a CPU; times and memory do not."""


def environment(home: Path) -> dict[str, str]:
    """Environment of a command that keeps nothing outside of the test's folder."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HOME": str(home)}


def bench(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """`vlmgs bench` in a folder, the console script itself."""
    argv = [VLMGS, "bench", *map(str, args)]
    return subprocess.run(argv, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=900, check=False)


def bench_fork(server: ForkServer, folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """`vlmgs bench` whose runs need not import anything."""
    return server.run(["vlmgs", "bench", *map(str, args)], folder, environment(folder))


def rows_of(out: Path, name: str = "results.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text(encoding="utf-8").splitlines()]


def measured(row: dict[str, Any]) -> dict[str, Any]:
    """What a run found, without times."""
    curve = {name: values for name, values in row["curve"].items() if name != "seconds"}
    return {**{name: row[name] for name in MEASURED}, "curve": curve}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds small.yaml."""
    path = tmp_path_factory.mktemp("bench")
    (path / "small.yaml").write_text(SPEC, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(folder: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Two seeds of the benchmark and one that must fail, undisturbed; where it lies, and what the command said."""
    done = bench(folder, "small.yaml", "--out", "finished", "--only", "seed=0", "seed=1")
    # A narrower call afterwards narrows the tables.
    shutil.copy(folder / "finished" / "results.jsonl", folder / "undisturbed.jsonl")
    return folder / "finished", done
