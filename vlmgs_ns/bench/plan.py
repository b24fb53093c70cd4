"""Runs of a specification, each with an address: a digest of its settings, its data and the code.

A run whose address has a result is never repeated, whatever it is called and wherever its data lies; a run of which anything
changed that could change a figure has another address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vlmgs_ns.bench.code import code_version
from vlmgs_ns.bench.fingerprint import Fingerprints, size
from vlmgs_ns.bench.spec import MethodSpec, SceneSpec, Spec, Thresholds, Toy
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar
from vlmgs_ns.system.strict import nearest

LARGE = 1_000_000_000
"""Bytes of a scene from which reading it all is shown."""


@dataclass(frozen=True)
class Run:
    """One training run with everything that it needs to know, as plain values that travel to other processes and machines."""

    scene: str
    method: str
    start: str
    seed: int
    settings: Mapping[str, Any]
    """Everything that decides the figures, as JSON has it."""
    data: str
    """Folder of the scene."""
    labels: str | None
    """Folder of its labels; None: none, or those of the scene itself."""
    address: str
    """Digest of the settings."""
    problem: str = ""
    """Why it cannot be carried out, found before anything starts; empty where it can."""

    @property
    def iterations(self) -> int:
        """Training steps."""
        return int(self.settings["iterations"])

    @property
    def title(self) -> str:
        """Names of the run, for messages."""
        return f"{self.scene}, {self.method}, {self.start}, seed {self.seed}"


def plan(spec: Spec, only: Mapping[str, Sequence[str]], data_root: Path, out: Path) -> list[Run]:
    """Return the runs of a benchmark: every seed of the first scene, method and start, then the next.

    Args:
        spec: what to run.
        only: patterns by key, as :func:`parse_only` gives them; a run is kept where every key has one that fits.
        data_root: folder that the scenes' paths are relative to.
        out: folder of the benchmark; embedded scenes lie in it.

    Raises:
        InputError: a pattern fits nothing.
    """
    fingerprints = Fingerprints(out / "fingerprints.json")
    runs = []
    check_only(spec, only)
    for name, scene in spec.scenes.items():
        if not _fits(only, "scene", name):
            continue
        folder, digest, problem = _data(name, scene, data_root, out, fingerprints)
        labels = data_root / scene.labels.folder if scene.labels is not None and scene.labels.folder is not None else None
        marked = None
        if not problem and labels is not None:
            if labels.is_dir():
                marked = fingerprints.of(labels)
            else:
                problem = f"its labels are not there: {labels}. {scene.get}".strip()
        for method_name, method in spec.methods.items():
            if not _fits(only, "method", method_name):
                continue
            fault = problem
            if method.marks != "none" and scene.masks is None and scene.box is None and not fault:
                fault = f"the method {method_name} marks the scene's object, but the scene has no masks. Add masks: FOLDER."
            elif method.marks == "words" and (scene.toy is None or scene.object is None) and not fault:
                fault = f"the method {method_name} names the scene's object, and only objects of embedded scenes have names here"
            for start in scene.starts:
                for seed in spec.seeds:
                    if _fits(only, "start", start) and _fits(only, "seed", str(seed)):
                        settings = _settings(spec, scene, method, start, seed, digest, marked)
                        place = None if labels is None else str(labels)
                        runs.append(Run(name, method_name, start, seed, settings, str(folder), place, address(settings), fault))
    if not runs:
        raise InputError(f"{spec.path} has no run that --only leaves; leave it out, or give fewer conditions")
    return runs


def address(settings: Mapping[str, Any]) -> str:
    """Return a digest of settings: 20 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _settings(
    spec: Spec, scene: SceneSpec, method: MethodSpec, start: str, seed: int, data: str, labels: str | None
) -> dict[str, Any]:
    """Return what decides a run's figures; names, paths and descriptions do not."""
    words = {"protocols": sorted(scene.protocols), "thresholds": spec.thresholds.model_dump()} if scene.protocols else None
    return {
        "base": method.base,
        "overrides": {**method.overrides, **scene.overrides},
        "start": start,
        "seed": seed,
        "iterations": spec.iterations,
        "resolution": scene.resolution,
        "checks": spec.checks,
        "dataparser": scene.dataparser,
        "words": words,
        "masks": scene.masks,
        "object": scene.object,
        "box": scene.box,
        "marks": method.marks,
        "labels": scene.labels.format if scene.labels is not None and scene.protocols else None,
        "data": data,
        "labels_data": labels,
        "code": code_version(),
    }


def thresholds_of(settings: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds of a run that has protocols."""
    return Thresholds(**settings["words"]["thresholds"])


def _data(name: str, scene: SceneSpec, root: Path, out: Path, fingerprints: Fingerprints) -> tuple[Path, str, str]:
    """Folder and digest of a scene's data, and what is wrong with it."""
    if scene.toy is not None:
        # Its settings and the code decide every byte of it.
        digest = f"toy {json.dumps(scene.toy.model_dump(), sort_keys=True)}"
        return toy_folder(scene.toy, out), digest, ""
    assert scene.path is not None
    folder = root / scene.path
    if not folder.is_dir():
        return folder, "", f"its data is not there: {folder}. {scene.get}".strip()
    if scene.masks is not None and not (folder / scene.masks).is_dir():
        return folder, "", f"its masks are not there: {folder / scene.masks}. {scene.get}".strip()
    bytes_of = size(folder)
    if bytes_of < LARGE:
        return folder, fingerprints.of(folder), ""
    with bar(f"Reading {name}", bytes_of) as report:
        return folder, fingerprints.of(folder, report), ""


def toy_folder(toy: Toy, out: Path) -> Path:
    """Return the folder of an embedded scene of these settings."""
    return out / "scenes" / f"toy-{hashlib.blake2b(repr(toy).encode(), digest_size=5).hexdigest()}"


KEYS = ("scene", "method", "start", "seed")


def parse_only(conditions: Sequence[str]) -> dict[str, list[str]]:
    """Return patterns by key from words such as ``scene=fox,method=fastgs*``; a key given twice means either.

    Raises:
        InputError: no such key, or no condition.
    """
    found: dict[str, list[str]] = {}
    for condition in [part for text in conditions for part in text.split(",") if part]:
        key, equals, pattern = condition.partition("=")
        if not equals or not pattern:
            raise InputError(f"--only {condition} is not a condition; write scene=…,method=…,start=…,seed=…")
        if key not in KEYS:
            raise InputError(f"--only {condition}: {key} is not known. {nearest(key, KEYS)}")
        found.setdefault(key, []).append(pattern)
    return found


def check_only(spec: Spec, only: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError for a pattern that fits nothing of a benchmark."""
    names = {
        "scene": list(spec.scenes),
        "method": list(spec.methods),
        "start": sorted({start for scene in spec.scenes.values() for start in scene.starts}),
        "seed": [str(seed) for seed in spec.seeds],
    }
    for key, patterns in only.items():
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names[key]):
                raise InputError(f"--only {key}={pattern}: {spec.path} has none such. {nearest(pattern, names[key])}")


def _fits(only: Mapping[str, Sequence[str]], key: str, value: str) -> bool:
    return key not in only or any(fnmatchcase(value, pattern) for pattern in only[key])
