"""Which backend a setting leads to, and that nothing is loaded or sent by choosing it."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from vlmgs_ns.guidance.backends.choose import BackendSettings, make_backend
from vlmgs_ns.guidance.backends.openai import OpenAIBackend
from vlmgs_ns.guidance.backends.residual import ResidualBackend
from vlmgs_ns.guidance.backends.transformers import TransformersBackend
from vlmgs_ns.guidance.prompts import REPLY_SCHEMA
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.toy.writer import WRITER


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any connection fails the test; the hub's cache is empty."""

    def refuse(*args: Any) -> None:
        pytest.fail("choosing a backend opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder that looks like a model: choosing never reads further."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def with_cuda(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


def test_auto_takes_a_model_whose_weights_are_here(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, True)
    backend, sentence = make_backend(BackendSettings(model=str(weights)))
    assert isinstance(backend, TransformersBackend) and backend.device == "cuda"
    assert sentence == f"Guidance: {weights} on cuda: its weights are on this machine"


def test_auto_does_without_a_model_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, True)
    for download in (False, True):
        backend, sentence = make_backend(BackendSettings(download=download))
        assert isinstance(backend, ResidualBackend)
        assert "hf download Qwen/Qwen3-VL-2B-Instruct" in sentence and "residual" in sentence


def test_auto_never_puts_a_model_on_the_cpu(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for there, device in ((False, "auto"), (False, "cpu"), (True, "cpu")):
        with_cuda(monkeypatch, there)
        backend, sentence = make_backend(BackendSettings(model=str(weights), device=device))
        assert isinstance(backend, ResidualBackend)
        assert sentence.startswith("Guidance: residual, without a model: on cpu a model would hold up training")
        assert "--pipeline.model.guidance.backend transformers" in sentence


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """What an embedded scene is known by."""
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "labels.json").write_text(json.dumps({"writer": WRITER, "objects": [{"name": "red ball"}]}))
    return folder


def test_auto_asks_the_embedded_model_in_the_embedded_scenes_alone(
    weights: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cuda(monkeypatch, False)
    backend, sentence = make_backend(BackendSettings(model=str(weights)), room)
    assert isinstance(backend, TransformersBackend) and (backend.model, backend.quick) == ("embedded", True)
    assert sentence == "Guidance: the embedded tiny Qwen3-VL on cpu, which knows the embedded scenes and no other"
    backend.check()
    assert isinstance(make_backend(BackendSettings(model=str(weights)), tmp_path)[0], ResidualBackend)
    assert isinstance(make_backend(BackendSettings("residual"), room)[0], ResidualBackend), "what is asked for is taken"
    with_cuda(monkeypatch, True)
    backend, _ = make_backend(BackendSettings(model=str(weights)), room)
    assert isinstance(backend, TransformersBackend) and (backend.model, backend.quick) == (str(weights), False)
    backend, sentence = make_backend(BackendSettings(), room)
    assert isinstance(backend, TransformersBackend) and backend.model == "embedded" and "on cuda" in sentence


def test_a_photo_is_shown_to_the_embedded_model_only_where_that_is_asked(tmp_path: Path) -> None:
    backend, sentence = make_backend(BackendSettings("transformers", model="embedded", device="cpu"), tmp_path)
    assert isinstance(backend, TransformersBackend) and sentence == "Guidance: embedded on cpu, as configured"
    backend.check()


def test_what_is_asked_for_is_taken(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, False)
    backend, sentence = make_backend(BackendSettings("transformers", model=str(weights)))
    assert isinstance(backend, TransformersBackend) and backend.device == "cpu" and "on cpu, as configured" in sentence
    backend, sentence = make_backend(BackendSettings("residual", model=str(weights)))
    assert isinstance(backend, ResidualBackend) and "as configured" in sentence
    # Not here: `check` will say so; it is not replaced by something else.
    assert isinstance(make_backend(BackendSettings("transformers"))[0], TransformersBackend)
    backend, sentence = make_backend(BackendSettings("openai", base_url="http://somewhere/v1"))
    assert isinstance(backend, OpenAIBackend) and sentence == "Guidance: renders are sent to http://somewhere/v1, as configured"


def test_only_openai_may_send_renders_anywhere(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-present-and-working")
    for there in (False, True):
        with_cuda(monkeypatch, there)
        for model in (str(weights), "Qwen/Qwen3-VL-2B-Instruct"):
            for kind in ("auto", "residual", "transformers"):
                settings = BackendSettings(kind, model=model, base_url="http://somewhere/v1", server_model="m")
                assert not isinstance(make_backend(settings)[0], OpenAIBackend)


def test_every_setting_reaches_its_backend(weights: Path) -> None:
    settings = BackendSettings(
        model=str(weights),
        device="cpu",
        dtype="bfloat16",
        quantization="4bit",
        download=True,
        max_image_size=100,
        max_tokens=7,
        batch_size=2,
        base_url="http://somewhere/v1",
        server_model="m",
        key_variable="MY_KEY",
        timeout=3.0,
        retries=1,
        parallel=4,
        coordinates="pixels",
    )
    default = BackendSettings()
    changed = {
        field.name for field in dataclasses.fields(settings) if getattr(settings, field.name) != getattr(default, field.name)
    }
    assert changed | {"backend"} == {field.name for field in dataclasses.fields(settings)}

    local: Any = make_backend(dataclasses.replace(settings, backend="transformers"))[0]
    for name in (
        *("model", "device", "dtype", "quantization", "download"),
        *("max_image_size", "max_tokens", "batch_size", "coordinates"),
    ):
        assert getattr(local, name) == getattr(settings, name), name
    remote: Any = make_backend(dataclasses.replace(settings, backend="openai"))[0]
    for name in (
        *("base_url", "key_variable", "timeout", "retries", "parallel"),
        *("max_image_size", "max_tokens", "coordinates"),
    ):
        assert getattr(remote, name) == getattr(settings, name), name
    assert remote.model == "m" and remote.schema == REPLY_SCHEMA


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("max_image_size", "max_tokens", "batch_size", "parallel") for value in (0, -1)],
        ("retries", -1),
        *[("timeout", value) for value in (0.0, -1.0, float("nan"), float("inf"))],
    ],
)
def test_settings_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"--pipeline.model.guidance.{name.replace('_', '-')} {value} is out of range; give "):
        make_backend(BackendSettings(**{name: value}))


def test_choosing_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom vlmgs_ns.guidance.backends.choose import BackendSettings, make_backend\n"
        "make_backend(BackendSettings(device='cpu'))\nmake_backend(BackendSettings('openai'))\n"
        "found = {'transformers', 'huggingface_hub', 'requests'} & set(sys.modules)\nassert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("address", ["http://me:secret@host/v1", "me:secret@host/v1", "http://host/v1?key=secret"])
def test_a_secret_in_the_address_is_refused_as_the_command_line_is_read(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Before nerfstudio prints the settings and writes them to config.yml."""
    with pytest.raises(SystemExit) as raised:
        tyro.cli(BackendSettings, args=["--base-url", address])
    assert raised.value.code not in (0, None)
    told = str(raised.value) + "".join(capfd.readouterr())
    assert "environment variable" in told and "secret" not in told
