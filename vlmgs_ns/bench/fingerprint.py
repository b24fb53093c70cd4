"""Digest of what a scene's files hold: it depends on neither their place nor their time of change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.json_text import parse_json

Report = Callable[..., None]
_CHUNK = 1 << 22


class Fingerprints:
    """Digests of folders by the content of their files, remembered by size and time of change in one file.

    Hidden files and folders do not count: feature maps made from the photos lie in one.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        try:
            known = parse_json(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self._known: dict[str, list[object]] = known if isinstance(known, dict) else {}

    def of(self, folder: Path, progress: Report | None = None) -> str:
        """Digest of all files below a folder, their names included.

        Args:
            folder: of the scene.
            progress: called with (bytes read so far, note), of which there are `size(folder)`.
        """
        digest, done = hashlib.blake2b(digest_size=16), 0
        for path in _files(folder):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{self._file(path)}\n".encode())
            done += path.stat().st_size
            if progress is not None:
                progress(done)
        self._remember()
        return digest.hexdigest()

    def _file(self, path: Path) -> str:
        stat, key = path.stat(), str(path.resolve())
        known = self._known.get(key)
        if isinstance(known, list) and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(known[2])
        digest = hashlib.blake2b(digest_size=16)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        self._known[key] = [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]
        return digest.hexdigest()

    def _remember(self) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._memory) as partial:
            partial.write_text(json.dumps(self._known), encoding="utf-8")


def size(folder: Path) -> int:
    """Bytes of the files that count."""
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(path for path in found if path.is_file())
