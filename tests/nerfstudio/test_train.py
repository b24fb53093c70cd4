"""ns-train: every method, both kinds of scene, and runs that continue bit for bit."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.console.forks import Job
from tests.nerfstudio.conftest import SMALL, Commands, Result, Run, run_of


def load(path: Path) -> dict[str, Any]:
    import vlmgs_ns.config  # noqa: F401  (lets torch read nerfstudio's checkpoints)

    return torch.load(path, map_location="cpu", weights_only=True)


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Paths at which two nested structures differ in any bit."""
    if isinstance(a, torch.Tensor):
        same = isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [where]
    if isinstance(a, dict):
        keys = [] if isinstance(b, dict) and a.keys() == b.keys() else [f"{where} keys"]
        return keys + [d for key in a.keys() & b.keys() for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple):
        lengths = [] if len(a) == len(b) else [f"{where} length"]
        return lengths + [d for i, (x, y) in enumerate(zip(a, b, strict=False)) for d in differences(x, y, f"{where}/{i}")]
    return [] if a == b else [f"{where}: {a} != {b}"]


def test_lite_from_transforms(trained: Run) -> None:
    state = load(trained.checkpoints[-1])
    assert state["step"] == 9
    assert state["pipeline"]["_model.gauss_params.means"].shape[0] > 0
    chosen = json.loads((trained.folder / "machine.json").read_text())
    assert chosen["device"] in ("cpu", "cuda:0") and chosen["rasterizer"]


@pytest.mark.parametrize("method", ["vlm-fastgs", "vlm-fastgs-big", "fastgs"])
def test_methods_from_a_colmap_folder(commands: Commands, colmap_scene: Path, method: str) -> None:
    parser = ("colmap",) if method == "fastgs" else ()
    result = commands.fork(
        *("ns-train", method, "--data", colmap_scene, "--max-num-iterations", 6, *SMALL, *parser),
    )
    assert result.status == 0, result.output
    state = load(run_of(commands, method, colmap_scene.name).checkpoints[-1])
    # The model's points are the start, not random ones.
    count = state["pipeline"]["_model.gauss_params.means"].shape[0]
    assert count not in (0, 300)
    run = run_of(commands, method, colmap_scene.name).folder
    follows, ends = (
        r"Training 6/6, \d+ s, loss 0\.\d{3}, PSNR \d+\.\d, ",
        rf"Trained {count:,} Gaussians in \d+ s; held out: PSNR \d+\.\d",
    )
    assert re.search(follows, result.output) and re.search(ends, result.output), result.output
    assert f"--load-config outputs/{run.relative_to(commands.cwd / 'outputs')}/config.yml" in result.output.partition("Next:")[2]
    # nothing of nerfstudio's: its settings, lists of photos, table, box, warnings for its developers
    for foreign in ("VlmFastGSTrainerConfig(", "overriding", "% Done", "Training Finished", "Warning"):
        assert foreign not in result.output


def rounds(phase: str, start: int, every: int) -> tuple[object, ...]:
    """Options for rounds of two views until the end of 30 steps."""
    name = f"--pipeline.model.guidance.{phase}"
    return (f"{name}.start", start, f"{name}.every", every, f"{name}.end", 30, f"{name}.views", 2)


def test_resuming_is_bit_exact(commands: Commands, scene: Path) -> None:
    """30 steps at once, and 17 then 13: the same parameters, moments, scores, schedules, camera order and random numbers."""
    half, rest = 17, 13
    # Random Gaussians and backgrounds, births, resets, rising resolution, accumulated gradients, guidance: all that has a state.
    options = (
        *("--data", scene, *SMALL, "--pipeline.model.run-length", half + rest, "--steps-per-save", "1000"),
        *("--pipeline.model.random-init", "True", "--pipeline.model.refine-every", "5", "--pipeline.model.warmup-length", "4"),
        *("--pipeline.model.reset-alpha-every", "3", "--pipeline.model.camera-optimizer.mode", "SO3xR3"),
        *("--gradient-accumulation-steps", "features_rest", "4"),
        *("--pipeline.model.guidance.blocking", "True", *rounds("detail", 3, 5), *rounds("background", 6, 6)),
        *(*rounds("novel", 8, 7), *rounds("compare", 4, 9), "--pipeline.model.guidance.compare.enabled", "True"),
    )

    def train(name: str, steps: int, *more: object, run: Callable[..., Result] = commands.fork) -> Run:
        result = run("ns-train", "vlm-fastgs-lite", *options, "--max-num-iterations", steps, "--experiment-name", name, *more)
        assert result.status == 0, result.output
        return run_of(commands, "vlm-fastgs-lite", name)

    straight = load(train("straight", half + rest).checkpoints[-1])
    first = train("first", half, run=commands.run)  # a process that shares nothing with the others, the order of sets neither
    assert [path.name for path in first.checkpoints] == ["step-000000016.ckpt"]
    second = load(train("second", rest, "--load-dir", first.folder / "nerfstudio_models").checkpoints[-1])
    assert second["step"] == straight["step"] == half + rest - 1
    # Half a run alone differs: the comparison sees what it should.
    assert differences(load(first.checkpoints[-1]), straight)
    assert differences(second, straight) == []
    guidance = straight["pipeline"]["_model._extra_state"]["guidance"]
    assert guidance["tally"]["rounds"] >= 6 + 4 + 3 and guidance["tally"]["added"] > 0 and guidance["targets"]


def test_ctrl_c_leaves_a_checkpoint(commands: Commands, scene: Path, work: Path) -> None:
    output = work / "interrupted.txt"
    process = commands.start(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 100_000, *SMALL),
        *("--experiment-name", "interrupted", "--pipeline.model.run-length", 1000),
        output=output,
    )
    try:
        wait_for(output, "Training ", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 128 + signal.SIGINT
    finally:
        process.kill()
    text = output.read_text(errors="replace")
    assert "Traceback" not in text
    (path,) = run_of(commands, "vlm-fastgs-lite", "interrupted").checkpoints
    state = load(path)
    reached = re.findall(r"Training (\d+)/100000, ", text)
    assert state["step"] + 1 >= int(reached[-1]) > 0 and path.name == f"step-{state['step']:09d}.ckpt"
    assert str(path.relative_to(work)) in text and str(100_000 - state["step"] - 1) in text
    # What it prints to go on with does.
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("ns-train ")]
    words = line.split()[1:]
    words[words.index("--max-num-iterations") + 1] = "3"
    result = commands.fork("ns-train", *words, *SMALL, "--experiment-name", "went_on")
    assert result.status == 0, result.output
    assert load(run_of(commands, "vlm-fastgs-lite", "went_on").checkpoints[-1])["step"] == state["step"] + 3


def wait_for(output: Path, text: str, process: Job, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if output.exists() and text in output.read_text(errors="replace"):
            return
        assert process.poll() is None, output.read_text(errors="replace")
        time.sleep(0.1)
    raise AssertionError(f"{text!r} was not printed in {seconds} s:\n{output.read_text(errors='replace')}")


def test_no_half_written_checkpoint_is_left(trained: Run) -> None:
    assert not [name for name in os.listdir(trained.folder) if name.endswith(".partial")]
    assert len(os.listdir(trained.folder / "nerfstudio_models")) == 1
