"""An ``ffmpeg`` on the PATH for ns-render, from the wheel of ``imageio-ffmpeg`` where the system has none."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import uuid
from importlib.util import find_spec
from pathlib import Path

from vlmgs_ns.system.user_cache import user_cache


def bundled_ffmpeg() -> Path | None:
    """Return the binary inside ``imageio_ffmpeg`` without importing it; None where the wheel has none for this machine."""
    spec = find_spec("imageio_ffmpeg")
    if spec is None or spec.origin is None:
        return None
    for path in sorted((Path(spec.origin).parent / "binaries").glob("ffmpeg*")):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def _folders() -> list[Path]:
    """Return folders of this user that may hold the link, best first; the second is for a home that cannot be written."""
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    return [user_cache("bin"), Path(tempfile.gettempdir()) / f"vlmgs_ns-{owner}" / "bin"]


def _private_folder(folder: Path) -> None:
    """Make a folder that only its owner may write; raise OSError where someone else could put a program into it."""
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for part in (folder.parent, folder):
        part.mkdir(exist_ok=True, mode=0o700)
        info = part.stat()
        if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise OSError(f"{part} may be written by others")


def _link(binary: Path, folder: Path) -> Path:
    """Link ``folder/ffmpeg`` to ``binary``; several processes may do so at once, since the rename is atomic."""
    _private_folder(folder)
    name = folder / ("ffmpeg.exe" if os.name == "nt" else "ffmpeg")
    if name.is_file() and name.resolve() == binary.resolve():
        return name
    fresh = folder / f".{name.name}.{uuid.uuid4().hex}"
    try:
        os.symlink(binary, fresh)
    except (OSError, NotImplementedError):
        shutil.copy2(binary, fresh)
    os.replace(fresh, name)
    return name


def ensure_ffmpeg() -> Path | None:
    """Put an ``ffmpeg`` on this process's PATH if there is none.

    Returns:
        The link that was made, or None where the system has its own, the wheel has none, or no folder can be written.
    """
    if shutil.which("ffmpeg") is not None:
        return None
    binary = bundled_ffmpeg()
    if binary is None:
        return None
    for folder in _folders():
        try:
            link = _link(binary, folder)
        except OSError:
            continue
        os.environ["PATH"] = os.pathsep.join([*filter(None, [os.environ.get("PATH")]), str(folder)])
        return link
    return None
