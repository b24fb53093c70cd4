"""Kernels are compiled once, kept on disk, and the wait is announced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RENDER = """
import torch
from vlmgs_ns.rasterize import rasterization
image, _, _ = rasterization(
    torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.1), torch.tensor([0.9]),
    torch.ones(1, 3), torch.eye(4)[None], torch.tensor([[[20.0, 0, 10], [0, 20.0, 10], [0, 0, 1]]]), 20, 20,
)
assert image.max() > 0.5
"""


def run(cache: Path) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", RENDER]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_first_run_compiles_and_says_so_and_the_second_uses_what_it_left(tmp_path: Path) -> None:
    assert "Compiling the CPU kernels" in run(tmp_path)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nb?")}
    assert len(kept) >= 16  # an index and code for each of eight kernels
    run(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nb?")} == kept
