"""Runs that earlier versions wrote still open, and look as they did.

``tests/runs/before_the_move`` was trained and rendered by the version before the modules moved to their folders (commit
e7d65bd). config.yml has PLACE where the folder of its scene and of its outputs stood.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from vlmgs_ns.config import MOVED
from vlmgs_ns.method.finished_run import open_run

STORED = Path(__file__).parents[1] / "runs" / "before_the_move"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder, where nerfstudio looks for it."""
    place = tmp_path_factory.mktemp("before_the_move")
    shutil.copytree(STORED / "scene", place / "scene")
    folder = place / "outputs" / "before" / "vlm-fastgs-lite" / "now"
    shutil.copytree(STORED / "run", folder)
    config = folder / "config.yml"
    config.write_text(config.read_text(encoding="utf-8").replace("PLACE", str(place)), encoding="utf-8")
    return folder


def assert_looks_as_before(pipeline: Any) -> None:
    """The first held-out view, with the relevancy of the prompt that the run was trained with."""
    camera = pipeline.datamanager.eval_dataset.cameras[0:1]
    with torch.no_grad():
        outputs = pipeline.model.get_outputs_for_camera(camera)
    before = np.load(STORED / "rendered_before.npz")
    assert sorted(before) == ["depth", "relevancy_0", "rgb"]
    for name, picture in before.items():
        assert picture.std() > 0.01, "a picture of nothing would prove nothing"
        np.testing.assert_allclose(outputs[name].cpu().numpy(), picture, rtol=1e-4, atol=1e-5, err_msg=name)


def test_an_old_run_opens_and_renders_as_before(run: Path) -> None:
    opened = open_run(run)
    assert opened.folder == run and opened.data == run.parents[3] / "scene"
    assert_looks_as_before(opened.pipeline)


def test_nerfstudio_opens_an_old_run(run: Path) -> None:
    from nerfstudio.utils.eval_utils import eval_setup

    config, pipeline, _, step = eval_setup(run / "config.yml", test_mode="test")
    assert config.method_name == "vlm-fastgs-lite" and step == 23
    assert_looks_as_before(pipeline)


def test_an_old_config_is_of_todays_classes(run: Path) -> None:
    """Every entry of MOVED is needed by this run, so that none can go unnoticed."""
    text = (run / "config.yml").read_text(encoding="utf-8")
    for old, new in MOVED.items():
        assert f":{old}." in text, f"the stored run does not name {old}"
        assert old != new
    config = yaml.load(text, Loader=yaml.Loader)
    modules = {type(config), type(config.pipeline), type(config.pipeline.model), type(config.pipeline.model.guidance.detail)}
    assert all(not any(kind.__module__ == old for old in MOVED) for kind in modules)


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_config_needs_every_entry(run: Path, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its entry in MOVED, a module's classes are not found."""
    monkeypatch.delitem(sys.modules, old)
    with pytest.raises(yaml.constructor.ConstructorError, match=r"cannot find module|No module named"):
        yaml.load((run / "config.yml").read_text(encoding="utf-8"), Loader=yaml.Loader)
