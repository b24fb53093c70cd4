"""A file is the old one until the new one is whole."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vlmgs_ns.system.atomic import replacing


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
