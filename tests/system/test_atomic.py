"""A file is the old one until the new one is whole."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vlmgs_ns.method import checkpoint
from vlmgs_ns.system.atomic import replacing, sweep
from vlmgs_ns.system.errors import InputError


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as partial:
        partial.write_text("new")
        assert not path.exists() and partial.parent == tmp_path and partial.suffix == ".txt"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path, together = tmp_path / "a.bin", threading.Barrier(4)
    errors: list[BaseException] = []

    def write(byte: int) -> None:
        try:
            with replacing(path) as partial:
                together.wait(timeout=30)  # all are open before any writes
                partial.write_bytes(bytes([byte]) * (1 << 20))
                together.wait(timeout=30)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(byte,)) for byte in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    content = path.read_bytes()
    assert not errors and len(content) == 1 << 20 and len(set(content)) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of more than 100 kB cannot be written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_no_room_says_how_much_was_written_and_is_free(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    words = r"File too large: 100 kB of it were written, [\d.]+ [kMGT]B are free"
    with pytest.raises(OSError, match=words) as raised, replacing(path) as partial:
        partial.write_bytes(bytes(200_000))
    assert raised.value.filename == str(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_without_room_leaves_the_one_before(tmp_path: Path, small_files: None) -> None:
    before, path = (checkpoint.path_of(tmp_path / "models", step) for step in (1, 2))
    checkpoint.save({"step": 1, "values": torch.zeros(10)}, before)
    with pytest.raises(InputError, match=r"File too large.*takes 800 kB, [\d.]+ [kMGT]B are free"):
        checkpoint.save({"step": 2, "values": torch.zeros(200_000)}, path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "models", before]
    assert checkpoint.load(before)["step"] == 1


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "猫" * 83 + ".txt", "a\udcff.txt"])
def test_any_name_that_a_file_can_have(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    old, fresh, other = (tmp_path / "below" / name for name in (".a.1.partial.npy", ".b.2.partial.npy", "c.partial.npy"))
    for path in (old, fresh, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    sweep(tmp_path)
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == [fresh.name, other.name]
