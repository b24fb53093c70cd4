"""Location and identity of a model's weights on this machine. Nothing is ever downloaded from here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json

BLOCK = 128 * 1024
BLOCKS = 256


def cached_folder(repo: str, files: Sequence[str]) -> Path | None:
    """Return the folder of Hugging Face's local copy of a repository with any of the files in it, or None."""
    from huggingface_hub import constants, try_to_load_from_cache

    for file in files:
        try:
            found = try_to_load_from_cache(repo, file, cache_dir=constants.HF_HUB_CACHE)
        except ValueError:  # not a valid name of a repository
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def first_file(folder: Path | None, names: Iterable[str]) -> Path | None:
    """Return the first of the files that is in the folder, or None."""
    return next((folder / name for name in names if folder is not None and (folder / name).is_file()), None)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file.

    Raises:
        InputError: the file does not hold a JSON object.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a JSON object; download it again")
    return content


def content_digest(settings: object, files: Iterable[Path]) -> str:
    """Return twelve hexadecimal digits for settings (any JSON value) and the content of weight files.

    Files up to 32 MiB are read whole. Of a larger one the size and 256 blocks of 128 KiB are, evenly spaced from its first byte
    (the header) to its last: that takes milliseconds, is the same on every machine and differs between any two trainings,
    but a change to a few single numbers of large weights can escape it.
    """
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=6)
    for path in files:
        size = path.stat().st_size
        digest.update(f"{size} ".encode())
        with open(path, "rb") as file:
            if size <= BLOCK * BLOCKS:
                digest.update(file.read())
                continue
            for k in range(BLOCKS):
                file.seek((size - BLOCK) * k // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


def missing_weights(what: str, download: str, then: str) -> InputError:
    """Return the error for a model that is not on this machine.

    Args:
        what: the model.
        download: arguments of `hf download`.
        then: what to do once the files lie in a folder of one's own.
    """
    from huggingface_hub import constants

    return InputError(
        f"{what} is not on this machine, and nothing is downloaded by itself. Where there is a network, run: hf download "
        f"{download} (it goes to {constants.HF_HUB_CACHE}; copy that folder to a machine without a network, or add "
        f"--local-dir FOLDER and {then}). To do without it, use the embedded tiny models, or train without the semantic stage"
    )
