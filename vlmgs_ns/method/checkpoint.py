"""Checkpoints written atomically, with everything that a run needs to continue bit for bit."""

from __future__ import annotations

import contextlib
import os
import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from vlmgs_ns.system.atomic import free_space
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.text import format_size


def register_safe_globals() -> None:
    """Let ``torch.load`` read nerfstudio's checkpoints without giving up its safe mode.

    They hold the learning rates of the schedulers as numpy scalars: the three names that those pickle to are all that is added.
    numpy 2 moved the first, so it is known under both of its names.
    """
    scalar: Any = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [
            (scalar, "numpy.core.multiarray.scalar"),
            (scalar, "numpy._core.multiarray.scalar"),
            np.dtype,
            type(np.dtype(np.float64)),
        ]
    )


def path_of(folder: Path, step: int) -> Path:
    """Return nerfstudio's path for the checkpoint of a step."""
    return folder / f"step-{step:09d}.ckpt"


def steps_in(folder: Path) -> list[int]:
    """Return the steps that have a checkpoint in ``folder``, ascending."""
    numbers = (path.stem.removeprefix("step-") for path in folder.glob("step-*.ckpt"))
    return sorted(int(number) for number in numbers if number.isdigit())


def newest(folder: Path) -> Path:
    """Return the checkpoint of the last step in ``folder``.

    Raises:
        InputError: where the folder is missing or holds none.
    """
    steps = steps_in(folder) if folder.is_dir() else []
    if not steps:
        raise InputError(f"{folder} has no checkpoint; give the nerfstudio_models folder of a run, or train first (ns-train)")
    return path_of(folder, steps[-1])


def check(path: Path) -> None:
    """Raise InputError where ``path`` is missing, cut short or changed: the checksums of all that it holds are compared."""
    if not path.is_file():
        others = ", ".join(str(step) for step in steps_in(path.parent)) or "none"
        raise InputError(f"the checkpoint {path} does not exist; steps that do: {others}")
    if not zipfile.is_zipfile(path):
        raise InputError(_broken(path, "it was cut short or is not a checkpoint"))
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(_broken(path, f"it is damaged: {error}")) from None
    if damaged is not None:
        raise InputError(_broken(path, f"it is damaged: the checksum of {damaged} is another"))


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, in torch's safe mode.

    Raises:
        InputError: where it is missing, cut short or unreadable.
    """
    check(path)
    register_safe_globals()
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever wrong bytes make of unpickling
        raise InputError(_broken(path, (str(error).splitlines() or [type(error).__name__])[0])) from error


def _broken(path: Path, reason: str) -> str:
    others = [step for step in steps_in(path.parent) if path_of(path.parent, step) != path]
    if others:
        remedy = f"remove it and use the one before, {path_of(path.parent, others[-1]).name}"
    else:
        remedy = "train again, or copy the file again from where it is whole"
    return f"the checkpoint {path} cannot be read: {reason}; {remedy}"


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that ``path`` is at all times absent, the old file, or the whole new one.

    The half-written file lies beside the checkpoint folder, since nerfstudio takes every name in that folder for a checkpoint.

    Raises:
        InputError: it cannot be written, as on a full disk; says how many bytes it takes and how many are free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch raises the latter where a write fails
        needed = sum(leaf.nbytes for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor))
        reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or str(error)
        raise InputError(
            f"the checkpoint {path} cannot be written ({reason}): it takes {format_size(needed)}, {free_space(path)} are free; "
            "make room; the checkpoint before is untouched"
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def random_state() -> dict[str, Any]:
    """Return the state of every random number generator in use, in tensors and plain numbers."""
    name, words, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  (nerfstudio draws from the global generator)
    return {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(words).astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Continue the sequences of ``random_state``; those of GPUs only where there are as many."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, array, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, array.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
