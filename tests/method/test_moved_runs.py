"""A run that was copied or renamed is the one beside its config.yml; the one it was copied from is neither read nor written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.words.trained import make_run
from vlmgs_ns.commands.export import Export
from vlmgs_ns.method.finished_run import find_config, open_run
from vlmgs_ns.system.errors import InputError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("original"))


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    """A copy whose Gaussians were all moved by one unit."""
    folder = shutil.copytree(original, tmp_path / "a copy")
    (checkpoint,) = folder.glob("nerfstudio_models/*.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    state["pipeline"]["_model.gauss_params.means"] += 1
    torch.save(state, checkpoint)
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_copy_opens_what_lies_beside_its_config(original: Path, copied: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = files(original)
    run, first = open_run(copied), open_run(original)
    moved = run.model.means - first.model.means
    assert torch.equal(moved.round(), torch.ones_like(moved))
    said = " ".join(capfd.readouterr().out.split())
    assert said.count("is opened in") == 1 and str(copied) in said and str(original) in said
    Export(copied).run()
    assert list((copied / "exports").glob("*.ply")) and files(original) == before


def test_nerfstudios_commands_open_the_copy(copied: Path, original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*command: str) -> Path:
        monkeypatch.setattr("sys.argv", list(command))
        config = yaml.load((copied / "config.yml").read_text(encoding="utf-8"), Loader=yaml.Loader)
        assert config.get_checkpoint_dir() == config.get_base_dir() / "nerfstudio_models" == config.pipeline.checkpoint_dir
        return config.get_base_dir()

    file = str(copied / "config.yml")
    assert opened("/bin/ns-viewer", "--load-config", file) == copied
    assert opened("/bin/ns-export", "gaussian-splat", f"--load_config={file}", "--output-dir", "x") == copied
    assert opened("/bin/ns-train", "vlm-fastgs-lite", "--load-config", file) == original
    assert opened("/bin/ns-viewer") == original


def test_a_scene_opens_its_newest_run(original: Path, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, data = tmp_path / "outputs" / "room", tmp_path / "room"
    data.mkdir()
    for number, name in enumerate(("first", "second", "third")):
        folder = shutil.copytree(original, runs / "vlm-fastgs" / name)
        os.utime(folder / "config.yml", (1e9, 1e9 + number))
    shutil.rmtree(runs / "vlm-fastgs" / "third" / "nerfstudio_models")  # stopped before its first checkpoint
    newest = runs / "vlm-fastgs" / "second" / "config.yml"
    assert find_config(runs) == find_config(runs / "vlm-fastgs") == find_config(data) == newest
    assert find_config(runs / "vlm-fastgs" / "first") == runs / "vlm-fastgs" / "first" / "config.yml"
    monkeypatch.chdir(tmp_path)
    assert find_config(Path("room")).resolve() == newest
    for nothing in (tmp_path / "elsewhere", tmp_path / "a copy" / "nerfstudio_models", copied / "config.json"):
        with pytest.raises(InputError, match="there is no run at"):
            find_config(nothing)
