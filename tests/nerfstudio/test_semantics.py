"""The semantic stage through nerfstudio's own commands. Encoders have random weights: plumbing and exactness, never accuracy."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import pytest
import torch

from tests.nerfstudio.conftest import SMALL, Commands, Result, Run, run_of
from tests.nerfstudio.test_train import differences, load, wait_for
from tests.semantics.tiny_models import save_clip, save_dino
from vlmgs_ns.semantics.config import SemanticsConfig
from vlmgs_ns.semantics.embedded import EMBEDDED
from vlmgs_ns.semantics.stage import choose_encoders

STEPS = 120
"""Rendered steps: enough to be stopped among them."""


@pytest.fixture(scope="module")
def words(work: Path) -> tuple[str, ...]:
    """Options that switch the stage on, small, with tiny models."""
    save_clip(work / "clip")
    save_dino(work / "dino")
    stage = {
        "enabled": True, "mode": "warm", "clip": work / "clip", "dino": work / "dino", "dino-shorter-side": 48, "warm-steps": 10,
        "warm-batch": 64, "refine-steps": STEPS, "sizes.levels": 2, "sizes.log2-hashmap-size": 8,
    }  # fmt: skip
    return tuple(str(word) for name, value in stage.items() for word in (f"--pipeline.model.semantics.{name}", value))


def train(commands: Commands, scene: Path, name: str, *more: object) -> Result:
    common = ("--data", scene, *SMALL, "--experiment-name", name, "--pipeline.model.run-length", 1000)
    return commands.fork("ns-train", "vlm-fastgs-lite", *common, *more)


def finished(commands: Commands, scene: Path, name: str, *more: object) -> Run:
    result = train(commands, scene, name, *more)
    assert result.status == 0, result.output
    return run_of(commands, "vlm-fastgs-lite", name)


@pytest.fixture(scope="module")
def searchable(commands: Commands, scene: Path, words: tuple[str, ...]) -> Run:
    """Ten steps and the stage at once."""
    prompt = ("--prompt", "red ball; wooden table")
    return finished(commands, scene, "searchable", "--max-num-iterations", 10, *words, *prompt)


def without_semantics(state: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in state["pipeline"].items() if not name.startswith("_model.semantics.")}
    return {**state, "pipeline": kept}


def gaussians(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state["pipeline"].items() if "gauss_params" in name}


def test_the_stage_leaves_all_else_as_it_is(searchable: Run, trained: Run) -> None:
    """Beside a run without the stage: the same parameters, moments, schedules, strategy and random numbers, bit for bit."""
    with_words, plain = load(searchable.checkpoints[-1]), load(trained.checkpoints[-1])
    assert differences(with_words, plain)
    assert differences(without_semantics(with_words), plain) == []
    said = json.loads((searchable.folder / "semantics.json").read_text())
    assert said["mode"] == "warm" and "OpenCLIP clip" in said["encoders"] and said["seconds"]


def test_words_are_outputs_of_nerfstudio_s_commands(commands: Commands, searchable: Run, work: Path) -> None:
    out = work / "words"
    result = commands.fork(
        *("ns-render", "dataset", "--load-config", searchable.config, "--output-path", out, "--split", "test"),
        *("--rendered-output-names", "rgb", "relevancy_0", "relevancy_1", "semantics_pca", "--image-format", "png"),
    )
    assert result.status == 0, result.output
    for name in ("rgb", "relevancy_0", "relevancy_1", "semantics_pca"):
        pictures = sorted((out / "test" / name).glob("*.png"))
        assert len(pictures) == 2 and imageio.imread(pictures[0]).shape == (48, 64, 3)
    result = commands.fork(
        *("ns-export", "gaussian-splat", "--load-config", searchable.config, "--output-dir", work / "words_export"),
    )
    assert result.status == 0, result.output


def test_stopped_among_its_steps_and_resumed(
    commands: Commands, scene: Path, words: tuple[str, ...], searchable: Run, work: Path
) -> None:
    output = work / "stopped.txt"
    process = commands.start(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, *SMALL, "--experiment-name", "stopped", "--max-num-iterations", 10),
        *("--pipeline.model.run-length", 1000, *words, "--prompt", "red ball; wooden table"),
        output=output,
    )
    try:
        wait_for(output, "Fitting the field 10/10", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 128 + signal.SIGINT
    finally:
        process.kill()
    text = output.read_text(errors="replace")
    assert "Traceback" not in text and "--max-num-iterations 0" in text
    stopped = run_of(commands, "vlm-fastgs-lite", "stopped")
    half = load(stopped.checkpoints[-1])
    assert half["pipeline"]["_model.semantics._extra_state"]["step"] < STEPS
    resumed = finished(
        commands, scene, "resumed", "--max-num-iterations", 0, "--load-dir", stopped.folder / "nerfstudio_models", *words,
        "--prompt", "red ball; wooden table",
    )  # fmt: skip
    assert differences(load(resumed.checkpoints[-1]), load(searchable.checkpoints[-1])) == []


def test_on_a_finished_run(commands: Commands, scene: Path, words: tuple[str, ...], trained: Run) -> None:
    """And once more: then there is nothing to do. More iterations drop what was built, and build it again."""
    before = gaussians(load(trained.checkpoints[-1]))
    run = finished(commands, scene, "only", "--max-num-iterations", 0, "--load-dir", trained.folder / "nerfstudio_models", *words)
    state = load(run.checkpoints[-1])
    assert state["step"] == 9 and differences(gaussians(state), before) == []
    assert state["pipeline"]["_model.semantics._extra_state"]["complete"]
    again = train(
        commands, scene, "again", "--max-num-iterations", 0, "--load-dir", run.folder / "nerfstudio_models", *words
    )  # fmt: skip
    assert again.status == 0 and "already built" in again.output, again.output
    more = train(commands, scene, "more", "--max-num-iterations", 2, "--load-dir", run.folder / "nerfstudio_models", *words)
    assert more.status == 0 and "built again" in more.output and "Semantics built in" in more.output, more.output


def test_on_a_checkpoint_of_splatfacto(commands: Commands, scene: Path, words: tuple[str, ...], trained: Run, work: Path) -> None:
    """Splatfacto itself needs CUDA: the file is what its trainer writes, with our Gaussians."""
    ours = load(trained.checkpoints[-1])
    folder = work / "splatfacto" / "nerfstudio_models"
    folder.mkdir(parents=True)
    state = {**ours, "pipeline": gaussians(ours), "step": 29_999}
    del state["vlmgs"]
    torch.save(state, folder / "step-000029999.ckpt")
    run = finished(commands, scene, "from_splatfacto", "--max-num-iterations", 0, "--load-dir", folder, *words)
    found = load(run.checkpoints[-1])
    assert differences(gaussians(found), gaussians(ours)) == []
    assert found["pipeline"]["_model.semantics._extra_state"]["complete"]


def test_on_a_ply(commands: Commands, scene: Path, words: tuple[str, ...], trained: Run, work: Path) -> None:
    exported = commands.fork("ns-export", "gaussian-splat", "--load-config", trained.config, "--output-dir", work / "ply")
    assert exported.status == 0, exported.output
    ours = gaussians(load(trained.checkpoints[-1]))["_model.gauss_params.means"]
    start = ("--max-num-iterations", 0, "--load-ply", work / "ply" / "splat.ply", *words)
    here = finished(commands, scene, "from_ply", *start, "--load-ply-frame", "nerfstudio")
    state = load(here.checkpoints[-1])
    assert torch.equal(gaussians(state)["_model.gauss_params.means"], ours)
    assert state["pipeline"]["_model.semantics._extra_state"]["complete"]
    rendered = commands.fork(
        *("ns-render", "dataset", "--load-config", here.config, "--output-path", work / "of_ply", "--split", "test"),
        *("--rendered-output-names", "rgb", "--image-format", "png"),
    )
    assert rendered.status == 0, rendered.output
    # In the data's own coordinates it is moved to where nerfstudio put the cameras.
    there = finished(commands, scene, "from_data_ply", *start, "--load-ply-frame", "data")
    said = json.loads((there.folder / "dataparser_transforms.json").read_text())
    transform, scale = torch.tensor(said["transform"]), said["scale"]
    wanted = scale * (ours @ transform[:, :3].T + transform[:, 3])
    assert torch.allclose(gaussians(load(there.checkpoints[-1]))["_model.gauss_params.means"], wanted, atol=1e-5)


@pytest.mark.parametrize(("encoder", "built"), [("auto", False), ("embedded", True)])
def test_words_that_would_be_noise_are_left_out_unless_asked_for(
    commands: Commands, scene: Path, tmp_path: Path, encoder: str, built: bool
) -> None:
    if choose_encoders(SemanticsConfig()).clip_model != EMBEDDED:
        pytest.skip("needs a machine without the weights of OpenCLIP")
    copy = tmp_path / "copy"
    shutil.copytree(scene, copy)
    (copy / "labels.json").unlink()  # no embedded room any more
    options = ("--pipeline.model.semantics.enabled", "True", "--pipeline.model.semantics.clip", encoder)
    result = train(commands, copy, "noise", "--max-num-iterations", 3, *options)
    assert result.status == 0 and ("Semantics: left out" in result.output) != built, result.output[-2000:]
    assert built or "--pipeline.model.semantics.clip embedded" in " ".join(result.output.split())
    assert bool(list(commands.cwd.rglob("outputs/noise/**/semantics.json"))) == built


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--max-num-iterations", 5, "--prompt", "x" * 10_000), "10000 characters"),
        (("--max-num-iterations", 5, "--prompt", ";"), "names nothing"),
        (("--max-num-iterations", 5, "--pipeline.model.semantics.enabled", "False", "--prompt", "lamp"), "semantic stage"),
        (("--max-num-iterations", 0), "needs Gaussians to start from"),
        (("--max-num-iterations", 0, "--load-ply", "nowhere.ply"), "nowhere.ply"),
        (("--max-num-iterations", 5, "--pipeline.model.semantics.clip", "nowhere"), "nowhere is neither"),
    ],
)
def test_what_cannot_be_used_is_one_message(
    commands: Commands, scene: Path, words: tuple[str, ...], options: tuple[object, ...], complaint: str
) -> None:
    result = train(commands, scene, "refused", *words, *options)
    assert result.status == 1 and complaint in result.output and "Traceback" not in result.output, result.output[-2000:]
    assert result.output.count("Error:") == 1
