from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vlmgs_ns.method import checkpoint
from vlmgs_ns.method.trainer import VlmFastGSTrainer
from vlmgs_ns.system.errors import InputError


def write(folder: Path, step: int) -> Path:
    path = checkpoint.path_of(folder, step)
    checkpoint.save({"step": step, "values": torch.arange(1000.0)}, path)
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "models", 12)
    assert path.name == "step-000000012.ckpt"
    state = checkpoint.load(path)
    assert state["step"] == 12 and torch.equal(state["values"], torch.arange(1000.0))
    assert os.listdir(tmp_path / "models") == [path.name] and os.listdir(tmp_path) == ["models"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "models", 12)
    before = path.read_bytes()
    with pytest.raises(AttributeError):  # torch has by then begun to write
        checkpoint.save({"step": 13, "values": torch.arange(1000.0), "no": lambda: None}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["models"] and os.listdir(tmp_path / "models") == [path.name]


def test_newest_is_by_step_not_by_name_or_time(tmp_path: Path) -> None:
    for step in (2000, 30, 1_000_000_000):
        write(tmp_path / "models", step)
    assert checkpoint.newest(tmp_path / "models").name == "step-1000000000.ckpt"
    assert checkpoint.steps_in(tmp_path / "models") == [30, 2000, 1_000_000_000]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_cut_checkpoint_names_the_one_before(tmp_path: Path, kept: float) -> None:
    folder = tmp_path / "models"
    before, path = write(folder, 10), write(folder, 20)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    for use in (checkpoint.check, checkpoint.load):
        with pytest.raises(InputError, match=rf"{path.name} cannot be read.*{before.name}"):
            use(path)
    before.unlink()
    with pytest.raises(InputError, match="train again"):
        checkpoint.check(path)


def test_a_checkpoint_damaged_inside(tmp_path: Path) -> None:
    path = write(tmp_path, 10)
    data = bytearray(path.read_bytes())
    data[100:400] = bytes(300)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(path)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """In the numbers, where torch would load them silently; anywhere else, the file is whole or refused in one line."""
    path = write(tmp_path, 10)
    whole = path.read_bytes()
    values = whole.index(torch.arange(500.0, 1000.0).numpy().tobytes())
    chosen = random.Random(0)
    for place in [values + chosen.randrange(2000) for _ in range(30)] + [chosen.randrange(len(whole)) for _ in range(120)]:
        data = bytearray(whole)
        data[place] ^= 1 << chosen.randrange(8)
        path.write_bytes(data)
        try:
            state = checkpoint.load(path)
        except InputError as error:
            assert str(error).count("\n") == 0 and "cannot be read" in str(error)
        else:  # in what aligns the parts, or a date
            assert not values <= place < values + 2000
            assert state["step"] == 10 and torch.equal(state["values"], torch.arange(1000.0))


@pytest.mark.parametrize(
    "wrong", [b"\x80\x02}q\x00(X\x04\x00\x00\x00st\xff\xfeq\x01K\nu.", b"", b"\x80\x02\x8a\xff", b"garbage", b"."]
)
def test_wrong_pickle_bytes_are_one_line(tmp_path: Path, wrong: bytes) -> None:
    path = checkpoint.path_of(tmp_path, 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": wrong, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", content)
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(path)


def test_a_checkpoint_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, 10)
    with pytest.raises(InputError, match="steps that do: 10"):
        checkpoint.load(checkpoint.path_of(tmp_path, 11))
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.newest(tmp_path / "nothing")


def test_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    """Reading stays in torch's safe mode: a checkpoint can hold data, not calls."""

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    path = checkpoint.path_of(tmp_path, 1)
    torch.save({"step": 1, "attack": Attack()}, path)
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(path)
    assert not (tmp_path / "owned").exists()


def test_numpy_scalars_of_schedulers_are_read(tmp_path: Path) -> None:
    checkpoint.register_safe_globals()
    path = checkpoint.path_of(tmp_path, 1)
    checkpoint.save({"schedulers": {"means": {"_last_lr": [np.float64(1.6e-4)]}}}, path)
    assert checkpoint.load(path)["schedulers"]["means"]["_last_lr"] == [1.6e-4]


def test_random_sequences_continue(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), torch.rand(()).item(), float(np.random.randn())]  # noqa: NPY002

    saved = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
    try:
        draw()  # randn leaves half of a pair behind, which is part of the state
        checkpoint.save({"random": checkpoint.random_state()}, tmp_path / "models" / "a.ckpt")
        expected = draw()
        assert draw() != expected
        checkpoint.restore_random_state(checkpoint.load(tmp_path / "models" / "a.ckpt")["random"])
        assert draw() == expected
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])  # noqa: NPY002
        torch.set_rng_state(saved[2])


def test_training_goes_on_without_room_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = write(tmp_path, 1)

    def full(state: dict[str, object], path: Path) -> None:
        raise InputError("no room")

    trainer = object.__new__(VlmFastGSTrainer)
    model, datamanager = SimpleNamespace(run_length=3), SimpleNamespace(get_state=dict)
    trainer.pipeline = SimpleNamespace(state_dict=dict, model=model, datamanager=datamanager, get_param_groups=dict)
    trainer.optimizers = SimpleNamespace(optimizers={}, schedulers={})
    trainer.grad_scaler, trainer.checkpoint_dir = SimpleNamespace(state_dict=dict), tmp_path
    trainer.config, trainer.training_state = SimpleNamespace(save_only_latest_checkpoint=True), "training"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        trainer.save_checkpoint(2)
        assert "no room; training goes on" in capsys.readouterr().out and before.exists()
        trainer.training_state = "completed"
        with pytest.raises(InputError, match="no room"):
            trainer.save_checkpoint(3)
    trainer.save_checkpoint(3)
    assert checkpoint.steps_in(tmp_path) == [3]
