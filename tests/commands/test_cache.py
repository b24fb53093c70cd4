"""`vlmgs cache` through its console script."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

from vlmgs_ns.semantics.cache import FeatureCache, default_cache

VLMGS = str(Path(sysconfig.get_path("scripts")) / "vlmgs")


def run(home: Path, *args: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_CACHE_HOME": str(home)}
    return subprocess.run([VLMGS, "cache", *map(str, args)], env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def fill(cache: FeatureCache, key: str, photos: int) -> None:
    for k in range(photos):
        cache.get(bytes([k]) * 32, key, lambda: torch.zeros(10, 10, 8))


def test_lists_by_encoder_and_clears(tmp_path: Path, home: Path) -> None:
    data = tmp_path / "my room"
    data.mkdir()
    (data / "transforms.json").write_text("{}")
    fill(default_cache(data), "OpenCLIP [tiny] of the room", 3)
    fill(default_cache(data), "DINO tiny", 2)
    listed = run(home, data)
    assert listed.returncode == 0 and listed.stderr == ""
    assert listed.stdout.splitlines() == [
        str(data / ".vlmgs_cache" / "features"),
        "  2 photos, 2.7 kB: DINO tiny",
        "  3 photos, 4.0 kB: OpenCLIP [tiny] of the room",
        "6.6 kB in all; remove them with",
        f"  vlmgs cache '{data}' --clear",
    ]
    cleared = run(home, data, "--clear")
    assert cleared.returncode == 0 and "Removed 6." in cleared.stdout and str(data) in cleared.stdout
    assert [path.name for path in data.iterdir()] == ["transforms.json"]
    assert run(home, data).stdout == f"No feature maps of {data} are cached.\n" == run(home, data, "--clear").stdout


def test_finds_maps_of_data_that_was_read_only(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "room"
    data.mkdir()
    (data / ".vlmgs_cache").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    fill(default_cache(data), "DINO tiny", 1)
    listed = run(home, data)
    assert listed.returncode == 0 and str(home) in listed.stdout and "DINO tiny" in listed.stdout
    assert run(home, data, "--clear").returncode == 0
    assert not list(home.rglob("*.npy"))


def test_data_that_is_not_there_is_one_line(tmp_path: Path, home: Path) -> None:
    done = run(home, tmp_path / "nowhere")
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert str(tmp_path / "nowhere") in done.stderr


def test_help_explains_what_it_does(home: Path) -> None:
    text = " ".join(run(home, "--help").stdout.replace("│", " ").split())
    assert "List the feature maps kept for a scene" in text and "--clear" in text and "--data" in text
