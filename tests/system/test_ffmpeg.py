from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vlmgs_ns.system.ffmpeg import bundled_ffmpeg, ensure_ffmpeg

pytestmark = pytest.mark.skipif(bundled_ffmpeg() is None, reason="imageio-ffmpeg has no binary for this machine")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH without ffmpeg and an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_a_working_ffmpeg_comes_onto_the_path(bare: Path) -> None:
    link = ensure_ffmpeg()
    assert link is not None and link.is_relative_to(bare / "cache")
    assert shutil.which("ffmpeg") == str(link)
    assert b"ffmpeg version" in subprocess.run(["ffmpeg", "-version"], capture_output=True, check=True).stdout
    assert ensure_ffmpeg() is None  # it is there now


def test_the_systems_own_is_left_alone(bare: Path) -> None:
    (bare / "bin").mkdir()
    own = bare / "bin" / "ffmpeg"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    before = os.environ["PATH"]
    assert ensure_ffmpeg() is None
    assert os.environ["PATH"] == before and shutil.which("ffmpeg") == str(own)


def test_a_home_that_cannot_be_written(bare: Path) -> None:
    (bare / "cache").write_text("a file where the folder should be")
    link = ensure_ffmpeg()
    assert link is not None and link.is_relative_to(bare / "tmp")


def test_nowhere_to_write_is_no_error(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "cache").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(bare / "cache"))
    assert ensure_ffmpeg() is None
    assert shutil.which("ffmpeg") is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_a_folder_that_others_may_write_is_not_trusted(bare: Path) -> None:
    shared = bare / "cache" / "vlmgs_ns" / "bin"
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    link = ensure_ffmpeg()
    assert link is not None and link.is_relative_to(bare / "tmp")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_new_folders_are_private_under_a_generous_umask(bare: Path) -> None:
    before = os.umask(0o002)
    try:
        link = ensure_ffmpeg()
    finally:
        os.umask(before)
    assert link is not None and link.is_relative_to(bare / "cache")
    assert link.parent.stat().st_mode & 0o777 == link.parent.parent.stat().st_mode & 0o777 == 0o700


def test_a_stale_link_is_renewed(bare: Path) -> None:
    link = ensure_ffmpeg()
    assert link is not None
    link.unlink()
    link.symlink_to(bare / "gone")
    os.environ["PATH"] = str(bare / "bin")
    assert ensure_ffmpeg() == link and link.is_file()


def test_many_at_once(bare: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        links = {link for link in pool.map(lambda _: ensure_ffmpeg(), range(16)) if link is not None}
    (link,) = links
    assert link.is_file() and os.listdir(link.parent) == [link.name]
