"""Which code a run is made with, and on what."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = (
    *("torch", "torchvision", "nerfstudio", "gsplat", "numba", "numpy", "transformers", "open_clip_torch"),
    *("opencv-python-headless", "pillow", "scikit-learn"),
)
"""Whose versions decide what a run computes."""
APART = ("bench", "cli.py", "commands", "pages", "splats/orbit.py", "system/video.py")
"""Parts of the package that no run goes through; a change in them makes no result old."""
INSIDE = ("bench/configure.py", "bench/measure.py", "bench/run_one.py")
"""But runs do go through these."""


def sources() -> list[Path]:
    """Return the package's files that a run goes through, embedded weights included, relative to it."""
    found = []
    for path in sorted(PACKAGE.rglob("*")):
        relative = path.relative_to(PACKAGE)
        if path.suffix not in (".py", ".json", ".safetensors") or not path.is_file():
            continue
        apart = relative.parts[0] in APART or relative.as_posix() in APART
        if not apart or relative.as_posix() in INSIDE:
            found.append(relative)
    return found


@functools.cache
def code_version() -> str:
    """Digest of those files and of the libraries' versions: whatever changes a figure changes it."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sources():
        digest.update(f"{path.as_posix()}\n".encode())
        digest.update(hashlib.blake2b((PACKAGE / path).read_bytes()).digest())
    digest.update(repr(sorted(versions().items())).encode())
    return digest.hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int]:
    """Processor, cores that this process may use, and memory; the device is for the run to say."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
