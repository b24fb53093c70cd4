"""A trained scene from Python: the example of the docs, and what it returns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vlmgs_ns
from tests.words.trained import PARTS, make_run
from vlmgs_ns.commands.export import Export
from vlmgs_ns.commands.query import Query
from vlmgs_ns.method import finished_run
from vlmgs_ns.scene import TrainedScene
from vlmgs_ns.splats.ply import read_ply
from vlmgs_ns.system.errors import InputError

EXAMPLE = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> TrainedScene:
    return vlmgs_ns.open(make_run(tmp_path_factory.mktemp("runs")))


def test_the_example_of_the_docs(scene: TrainedScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", EXAMPLE.read_text(encoding="utf-8"), re.DOTALL)
    code = code.replace("outputs/scene/vlm-fastgs/2026-01-31_120000", str(scene.run.folder)).replace('["table"]', '["object"]')
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["count"] == len(read_ply(tmp_path / "red-ball.ply")) == len(PARTS["ball"])


def test_it_finds_what_the_commands_find(
    scene: TrainedScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finished_run, "open_run", lambda _: scene.run)
    found = scene.find("blue box")
    assert found.gaussians.nonzero()[:, 0].tolist() == list(PARTS["box"])
    Export(scene.run.folder, (("blue box",),), out=tmp_path, as_json=True).run()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["gaussians"] == found.export(tmp_path / "box.ply")
    assert (tmp_path / "box.ply").read_bytes() == (tmp_path / "blue-box.ply").read_bytes()
    Query(scene.run.folder, ("blue box",), out=tmp_path).run()
    (answer,) = json.loads((tmp_path / "query.json").read_text(encoding="utf-8"))["phrases"]
    assert found.box is not None
    assert answer["box_3d"]["scene"]["centre"] == pytest.approx(found.box.centre.tolist(), abs=1e-6)


def test_renders_and_masks_have_the_size_of_the_photo(scene: TrainedScene) -> None:
    assert len(scene.cameras) == 4
    for camera in scene.cameras.values():
        size = int(camera.height.item()), int(camera.width.item())
        rendered = scene.render(camera, ["rgb", "depth"])
        assert rendered["rgb"].shape == (*size, 3) and rendered["depth"].shape == (*size, 1)
        assert torch.equal(rendered["rgb"], scene.render(camera)["rgb"])
        assert scene.find("red ball").mask(camera).shape == size


def test_what_is_not_there(scene: TrainedScene, tmp_path: Path) -> None:
    found = scene.find("green hat")
    assert not found.gaussians.any() and found.box is None
    with pytest.raises(InputError, match="finds no Gaussian"):
        found.export(tmp_path / "nothing.ply")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"'normals' is not an output.*rgb"):
        scene.render(next(iter(scene.cameras.values())), ["normals"])


def test_the_package_is_light() -> None:
    program = "import sys, vlmgs_ns; sys.exit(bool({'torch', 'numpy', 'nerfstudio'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
