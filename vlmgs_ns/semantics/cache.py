"""Feature maps on disk: computed once per photo and setting, read one at a time.

    <data>/.vlmgs_cache/features/<hash of the key>/manifest.json          what the maps of this folder were made with
                                                  /<hash of photo>.npy    one map, [h, w, D + 4] int8

Each cell of a map [h, w, D] is kept as its values divided by their greatest / 127 and rounded, then that divisor as a float32:
about half of what half precision takes, and a vector turns by less than a degree.

A file is named by its inputs: the photo by its content, the encoder and its settings by the key. So no file ever becomes stale;
a changed input has another name. Files are written atomically: after a kill a file is complete or absent, and of two processes
that compute the same map the last one wins with the same content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlmgs_ns.system.atomic import replacing, sweep
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json
from vlmgs_ns.system.progress import say
from vlmgs_ns.system.text import format_size
from vlmgs_ns.system.user_cache import user_cache

if TYPE_CHECKING:
    from torch import Tensor

Map = npt.NDArray[np.float32]
"""[h, w, D]."""
Codes = npt.NDArray[np.int8]
"""[h, w, D + 4], a map as it is kept."""

MANIFEST = "manifest.json"
_FOLDER = re.compile(r"[0-9a-f]{16}")
_OURS = re.compile(r"[0-9a-f]{64}\.npy|manifest\.json")
_PARTIAL = re.compile(r"\.([0-9a-f]{64}|manifest)\.\d+\.partial\.(npy|json)")

_WRITING = threading.Lock()
_WHOLE: dict[Path, tuple[int, int, int]] = {}
"""Maps that were found whole in this process: inode, size and time of change."""


def photo_digest(photo: npt.NDArray[np.generic]) -> bytes:
    """Return the hash of an array's pixels, shape and type. 32 bytes."""
    digest = hashlib.blake2b(f"{photo.shape} {photo.dtype.str} ".encode(), digest_size=32)
    digest.update(np.ascontiguousarray(photo).data)
    return digest.digest()


@dataclass(frozen=True)
class Entry:
    """The maps of one key."""

    key: str
    """Encoder and settings, in words."""
    folder: Path
    photos: int
    """Maps, one per photo."""
    size: int
    """Bytes on disk."""


class FeatureCache:
    """Feature maps under one folder, which need not exist yet.

    Safe to use from several threads and processes at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, photo: bytes, key: str) -> Path:
        """Return the path of a photo's map, whether it exists or not; arguments as in `get`."""
        if len(photo) != 32:
            raise ValueError(f"a digest of {len(photo)} bytes; a photo is named by 32, as `photo_digest` gives them")
        return self.folder / hashlib.blake2b(key.encode(), digest_size=8).hexdigest() / f"{photo.hex()}.npy"

    def find(self, photo: bytes, key: str) -> Map | None:
        """Return the map, or None where it is missing or damaged; a damaged one is reported."""
        return _open(self.path(photo, key))

    def get(self, photo: bytes, key: str, compute: Callable[[], Tensor]) -> Map:
        """Return the map of a photo; compute and write it where it is missing.

        Args:
            photo: digest of its content (`photo_digest`).
            key: the encoder's fingerprint and the settings that decide the map, in words: `vlmgs cache` shows them.
            compute: makes the map, [h, w, D]; called only where it is needed.

        Raises:
            InputError: the map cannot be written. Nothing is left half-written.
            ValueError: `compute` did not return a map of finite numbers.
        """
        path = self.path(photo, key)
        found = _open(path)
        if found is not None:
            return found
        made = compute()
        if made.dim() != 3 or made.numel() == 0:
            raise ValueError(f"a feature map is [h, w, D], but {key} made {list(made.shape)}")
        values = made.detach().cpu().float().numpy()
        if not np.isfinite(values).all():
            raise ValueError(f"{key} made a feature map with values that are not finite; try dtype float32")
        self._write(path, key, _encoded(values))
        found = _open(path)
        if found is None:
            raise InputError(f"the feature map {path} was written but cannot be read back; check the disk")
        return found

    def entries(self) -> list[Entry]:
        """Return the cached maps by key, sorted. Files that a killed process left unfinished do not count."""
        found = []
        for folder in self._folders():
            maps = [path for path in folder.iterdir() if path.suffix == ".npy" and _OURS.fullmatch(path.name)]
            if maps:
                found.append(Entry(_key_of(folder), folder, len(maps), sum(path.stat().st_size for path in maps)))
        return sorted(found, key=lambda entry: entry.key)

    def size(self) -> int:
        """Return the bytes of all maps."""
        return sum(entry.size for entry in self.entries())

    def clear(self) -> int:
        """Remove every map and partial file of this cache, and no other file; return the bytes freed."""
        freed = 0
        for folder in self._folders():
            for path in list(folder.iterdir()):
                if _OURS.fullmatch(path.name) or _PARTIAL.fullmatch(path.name):
                    freed += path.stat().st_size
                    path.unlink(missing_ok=True)
            _remove_if_empty(folder)
        if _remove_if_empty(self.folder) and self.folder.parent.name == ".vlmgs_cache":
            _remove_if_empty(self.folder.parent)
        return freed

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from (path for path in sorted(self.folder.iterdir()) if _FOLDER.fullmatch(path.name) and path.is_dir())

    def _write(self, path: Path, key: str, codes: Codes) -> None:
        buffer = BytesIO()
        np.save(buffer, codes, allow_pickle=False)
        # A comment in the padding of the header: the file stays one that numpy reads, of the same size.
        header, digest = 10 + int.from_bytes(buffer.getbuffer()[8:10], "little"), _digest(codes)
        buffer.getbuffer()[header - 1 - len(digest) : header - 1] = digest
        try:
            with _WRITING:
                try:
                    _put(path, key, buffer)
                except FileNotFoundError:
                    # Another process cleared the cache in between.
                    _put(path, key, buffer)
        except OSError as error:
            raise InputError(
                f"the feature cache {self.folder} cannot be written ({error.strerror or error}): a map of "
                f"{format_size(len(buffer.getbuffer()))} did not fit in; make room there, or remove old maps with vlmgs cache"
            ) from None


def _put(path: Path, key: str, content: BytesIO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    manifest = path.parent / MANIFEST
    if not manifest.exists():
        with replacing(manifest) as partial:
            partial.write_text(json.dumps({"maps_of": key}, indent=2) + "\n", encoding="utf-8")
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(content.getbuffer())
        file.flush()
        # Otherwise a power failure could leave the new name on an empty file.
        os.fsync(file.fileno())


def _encoded(values: Map) -> Codes:
    scale = np.abs(values).max(axis=2, keepdims=True) / np.float32(127)
    codes = np.rint(values / np.where(scale > 0, scale, 1)).clip(-127, 127).astype(np.int8)
    return np.concatenate([codes, scale.view(np.int8)], axis=2)


def _decoded(codes: Codes) -> Map:
    return np.multiply(codes[..., :-4], np.ascontiguousarray(codes[..., -4:]).view(np.float32), dtype=np.float32)


def _digest(codes: Codes) -> bytes:
    return b"#" + hashlib.blake2b(np.ascontiguousarray(codes).data, digest_size=8).hexdigest().encode()


def _open(path: Path) -> Map | None:
    try:
        found = np.lib.format.open_memmap(path, mode="r")
        whole, reason = False, "its size is wrong"
        if found.dtype == np.int8 and found.ndim == 3 and found.offset + found.nbytes == path.stat().st_size:
            whole, reason = _content_is_whole(path, found), "its values changed"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        whole, reason = False, "it is a folder"
    except OSError:
        raise
    except Exception as error:  # numpy raises many kinds of exception for a damaged header
        whole, reason = False, str(error)
    if whole:
        return _decoded(found)
    say(f"The feature map {path} is damaged ({reason}); it is computed again.")
    return None


def _content_is_whole(path: Path, codes: np.memmap[Any, np.dtype[np.int8]]) -> bool:
    """Whether a map is as it was written, by its digest. Looked at once for each file as it is now."""
    now = path.stat()
    state = (now.st_ino, now.st_size, now.st_mtime_ns)
    if _WHOLE.get(path) != state:
        with path.open("rb") as file:
            digest = re.search(rb"#[0-9a-f]{16}(?=\n)", file.read(int(codes.offset)))
        if digest is None or digest[0] != _digest(codes):
            return False
        _WHOLE[path] = state
    return True


def _key_of(folder: Path) -> str:
    try:
        return str(parse_json((folder / MANIFEST).read_text(encoding="utf-8"))["maps_of"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"unknown ({folder.name})"


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _beside(data: Path) -> Path:
    return (data if data.is_dir() else data.parent) / ".vlmgs_cache" / "features"


def _of_user(data: Path) -> Path:
    """For data that cannot be written to: named by the data's place, so that `vlmgs cache` finds it again."""
    place = (data if data.is_dir() else data.parent).resolve()
    name = re.sub(r"[^\w.-]+", "_", place.name) or "data"
    return user_cache("features") / f"{name}-{hashlib.blake2b(os.fsencode(place), digest_size=6).hexdigest()}"


def default_cache(data: Path) -> FeatureCache:
    """Return the cache of a scene: `.vlmgs_cache/features` in its folder, or in the user's cache folder where that is read-only.

    Args:
        data: the scene's folder, or a file in it.

    Raises:
        InputError: the scene does not exist, or neither folder can be written.
    """
    _check(data)
    beside = _beside(data)
    try:
        _try_to_write(beside)
        sweep(beside)
        return FeatureCache(beside)
    except OSError as error:
        reason = error.strerror or str(error)
    instead = _of_user(data)
    try:
        _try_to_write(instead)
    except OSError as error:
        raise InputError(
            f"feature maps can be kept neither in {beside} ({reason}) nor in {instead} ({error.strerror or error}); "
            "make one of them writable, or set XDG_CACHE_HOME to a folder that is"
        ) from None
    say(f"{beside} cannot be written ({reason}); feature maps go to {instead}")
    return FeatureCache(instead)


def caches_of(data: Path) -> list[FeatureCache]:
    """Return the places where maps of a scene are: in its folder, in the user's cache folder, both or none.

    Raises:
        InputError: the scene does not exist.
    """
    _check(data)
    return [FeatureCache(folder) for folder in (_beside(data), _of_user(data)) if folder.is_dir()]


def _check(data: Path) -> None:
    if not data.exists():
        raise InputError(f"{data} does not exist; give the folder of a scene")


def _try_to_write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
