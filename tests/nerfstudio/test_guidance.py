"""ns-train with guidance: residual, and what is said where a model cannot be asked; what a model would say is played here."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.guidance.test_openai_backend import Reply, Request, Server, lists, says
from tests.nerfstudio.conftest import SMALL, Commands, Run, run_of
from tests.nerfstudio.test_inputs import assert_one_message
from tests.nerfstudio.test_train import rounds

GUIDANCE = "--pipeline.model.guidance"


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "guidance" / "rounds.jsonl").read_text().splitlines()]


def test_a_run_is_guided_without_a_model(commands: Commands, scene: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = commands.fork(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 30, "--experiment-name", "guided", *SMALL),
        *(
            "--logging.steps-per-log",
            5,
            f"{GUIDANCE}.backend",
            "residual",
            *rounds("detail", 5, 10),
            *rounds("background", 9, 10),
        ),
    )
    assert result.status == 0, result.output
    assert "Guidance: residual, without a model" in result.output
    run = run_of(commands, "vlm-fastgs-lite", "guided")
    found = lines(run)
    assert {(line["phase"], line["step"]) for line in found} >= {
        ("detail", 5),
        ("detail", 25),
        ("background", 9),
        ("background", 19),
    }
    for line in (line for line in found if "left_out" not in line):
        assert line["backend"] == "residual" and line["views"] and "Reply with JSON only" in line["prompt"]
        assert all(view["reply"].startswith("[") and view["error"] is None for view in line["views"])
    pictures = sorted((run.folder / "guidance").glob("*.jpg"))
    assert [path.name for path in pictures] == sorted(name for line in found for name in line["pictures"])
    assert len(pictures) >= sum(len(line["views"]) for line in found)
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
    events = EventAccumulator(str(run.folder))
    events.Reload()
    curve = next(tag for tag in events.Tags()["scalars"] if tag.endswith("guidance_rounds"))
    assert events.Scalars(curve)[-1].value >= 4


def test_in_an_embedded_scene_a_vision_language_model_is_asked_by_default(commands: Commands, scene: Path) -> None:
    """The embedded one, of trained weights; here it shows plumbing: what it knows is measured in tests/toy."""
    result = commands.fork(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 6, "--experiment-name", "asked", *SMALL),
        *(f"{GUIDANCE}.instruct", "wooden table", *rounds("background", 3, 10), *rounds("ground", 2, 10)),
    )
    assert result.status == 0, result.output
    assert "Guidance: the embedded tiny Qwen3-VL" in result.output
    asked = {line["phase"]: line for line in lines(run_of(commands, "vlm-fastgs-lite", "asked"))}
    assert asked.keys() >= {"background", "ground"}
    for line in asked.values():
        assert line["backend"] == "transformers embedded"
        assert all(isinstance(json.loads(view["reply"]), list) and view["error"] is None for view in line["views"])


def test_what_the_user_marks_is_traced_and_recorded_without_a_model(commands: Commands, scene: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    names = sorted(path.name for path in (scene / "images").iterdir())
    boxes.write_text(json.dumps({name: [[16, 12, 48, 36]] for name in names}))  # held-out photos too: they are left alone
    result = commands.fork(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 30, "--experiment-name", "marked", *SMALL),
        *(f"{GUIDANCE}.instruct-boxes", boxes, f"{GUIDANCE}.detail.enabled", "False", f"{GUIDANCE}.background.enabled", "False"),
    )
    assert result.status == 0, result.output
    run = run_of(commands, "vlm-fastgs-lite", "marked")
    (line,) = lines(run)
    assert (line["phase"], line["backend"]) == ("ground", "the user") and line["selected"] > 0
    assert all(len(view["boxes"]) == 1 for view in line["views"])
    assert sorted(line["pictures"]) == sorted(path.name for path in (run.folder / "guidance").glob("*.jpg"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("instruct-boxes", "boxes.json"), ("boxes.json", "the scene has no photo 'nowhere.jpg'")),
        (
            ("instruct", "the cup", "backend", "residual"),
            ("finding 'the cup' in photos takes a vision-language model", "instruct-boxes"),
        ),
        (("instruct", "the cup", "enabled", "False"), ("guidance is off", "guidance.enabled True")),
    ],
)
def test_an_instruction_that_cannot_be_followed_is_one_message_at_once(
    options: tuple[str, ...], words: tuple[str, ...], commands: Commands, scene: Path
) -> None:
    (commands.cwd / "boxes.json").write_text('{"nowhere.jpg": [[0, 0, 5, 5]]}')
    flags = [word for k in range(0, len(options), 2) for word in (f"{GUIDANCE}.{options[k]}", options[k + 1])]
    result = commands.fork("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 3, *SMALL, *flags)
    assert_one_message(result, *words)


def test_a_server_that_is_not_there_is_one_message_at_once(commands: Commands, scene: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        result = commands.fork(
            *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 3, *SMALL),
            *(f"{GUIDANCE}.backend", "openai", f"{GUIDANCE}.base-url", url),
        )
    assert_one_message(result, url, "Connection refused", "start the server", f"{GUIDANCE}.backend residual")


def test_a_model_that_is_not_here_is_one_message_at_once(commands: Commands, scene: Path, tmp_path: Path) -> None:
    result = commands.fork(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 3, *SMALL),
        *(f"{GUIDANCE}.backend", "transformers", f"{GUIDANCE}.model", tmp_path / "no-model"),
    )
    assert_one_message(result, str(tmp_path / "no-model"))


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def test_a_server_that_dies_in_the_middle_costs_warnings(commands: Commands, scene: Path, server: Server, tmp_path: Path) -> None:
    asked = 0

    def behave(request: Request) -> Reply:
        nonlocal asked
        if request.payload is None:
            return lists("tiny-vl")
        asked += 1
        return says('[{"bbox_2d": [100, 100, 600, 700], "label": "a thing"}]') if asked <= 2 else Reply(drop=True)

    server.behave = behave
    own = Commands(commands.cwd, commands.server)
    own.env |= {"PYTHONWARNINGS": "default", "XDG_CACHE_HOME": str(tmp_path), "OPENAI_API_KEY": ""}
    result = own.fork(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 20, "--experiment-name", "dies", *SMALL),
        *(f"{GUIDANCE}.backend", "openai", f"{GUIDANCE}.base-url", server.url, f"{GUIDANCE}.retries", 0),
        *(f"{GUIDANCE}.blocking", "True", f"{GUIDANCE}.background.enabled", "False", f"{GUIDANCE}.novel.enabled", "False"),
        *rounds("detail", 2, 3),
    )
    assert result.status == 0, result.output
    assert "Traceback" not in result.output and f"renders are sent to {server.url}, as configured" in result.output
    run = run_of(commands, "vlm-fastgs-lite", "dies")
    assert run.checkpoints
    found = [line for line in lines(run) if "left_out" not in line]
    assert [line["step"] for line in found] == [2, 5, 8, 11]
    paused = [line for line in lines(run) if "left_out" in line]
    assert [line["step"] for line in paused][:1] == [14] and all("pause" in line["left_out"] for line in paused)
    assert [len(view["boxes"]) for view in found[0]["views"]] == [1, 1]
    assert all(view["reply"] is None and view["error"] for line in found[1:] for view in line["views"])
    assert "the detail round of step 5 failed and selects nothing" in result.output
    assert "guidance pauses for the rest of the run after 3 failed rounds in a row" in result.output
    assert asked == 8 and len(list((tmp_path / "vlmgs_ns" / "replies").iterdir())) == 2
