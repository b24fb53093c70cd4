"""Folders that cannot be written to are refused by every command, before it makes anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vlmgs_ns.bench.results import alone
from vlmgs_ns.commands.demo import Demo
from vlmgs_ns.commands.new import New
from vlmgs_ns.prepare.run import prepare
from vlmgs_ns.prepare.settings import Preparation
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder
from vlmgs_ns.toy.make import SceneSettings, make_scene


def bench(out: Path) -> None:
    with alone(out):
        pass


def train(out: Path) -> None:
    from vlmgs_ns.config import vlm_fastgs_lite

    replace(vlm_fastgs_lite.config, output_dir=out, experiment_name="a", timestamp="b").save_config()


COMMANDS: dict[str, Callable[[Path], object]] = {
    "scene": lambda out: make_scene(out, SceneSettings()),
    "demo": lambda out: Demo(out).run(),
    "new": lambda out: New(out.parent, out).run(),
    "prepare": lambda out: prepare(out.parent, out, Preparation()),
    "bench": bench,
    "train": train,
}
every_command = pytest.mark.parametrize("command", COMMANDS)


def test_a_folder_may_be_missing_with_those_around_it(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@every_command
def test_a_file_in_the_way(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file, where a folder is to be written; choose another"):
        COMMANDS[command](tmp_path / "file" / "below")


@every_command
def test_a_folder_that_is_not_writable(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Told by the system's answer: root, whom tests may run as, may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} cannot be written to; choose another folder"):
        COMMANDS[command](tmp_path / "out")
    assert not list(tmp_path.iterdir())
