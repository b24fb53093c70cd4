"""Overrides: one that names no setting, or does not fit it, is told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlmgs_ns.bench.configure import base_config, configure, override
from vlmgs_ns.system.errors import InputError


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("pipeline.model.sh_degree", 2, 2),
        ("pipeline.model.warmup_length", 500, 500),
        ("pipeline.model.warmup_length", 0.5, 0.5),
        ("pipeline.model.pause_after_reset", 0.25, 0.25),
        ("pipeline.model.compact_box", 0.5, 0.5),
        ("pipeline.model.compact_box", None, None),
        ("pipeline.model.densification", "default", "default"),
        ("pipeline.model.semantics.negatives", ["thing", "stuff"], ("thing", "stuff")),
        ("pipeline.model.guidance.blocking", True, True),
        ("optimizers.opacities.optimizer.lr", 0.05, 0.05),
    ],
)
def test_sets_one_setting(path: str, value: Any, expected: Any) -> None:
    config = base_config("fastgs")
    override(config, path, value)
    target: Any = config
    for name in path.split("."):
        target = target[name] if isinstance(target, dict) else getattr(target, name)
    assert target == expected and type(target) is type(expected)


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("pipeline.model.sh_degre", 2, "pipeline.model has no setting sh_degre. Did you mean sh_degree?"),
        ("pipelin.model.sh_degree", 2, "the config has no setting pipelin. Did you mean pipeline?"),
        ("optimizers.opacity.optimizer.lr", 0.1, "Did you mean opacities?"),
        ("pipeline.model.sh_degree", 2.5, "2.5 does not fit; it is 3 now, so give a whole number"),
        ("pipeline.model.sh_degree", True, "give a whole number"),
        ("pipeline.model.score_error_thresh", "1e-3", "write 1.0e-3"),
        ("pipeline.model.guidance.blocking", 1, "give true or false"),
        ("pipeline.model.densification", "fastsg", "'fastsg' is none of its values. Did you mean fastgs?"),
        ("pipeline.model.sh_degree", None, "give a whole number"),
        ("pipeline.model", 1, "is a group of settings"),
        ("pipeline.model.sh_degree.x", 1, "pipeline.model.sh_degree has no setting x"),
    ],
)
def test_what_does_not_fit_is_refused(path: str, value: Any, part: str) -> None:
    with pytest.raises(InputError) as error:
        override(base_config("fastgs"), path, value)
    assert part in str(error.value) and path in str(error.value)


def test_a_copy_is_changed() -> None:
    override(base_config("fastgs"), "pipeline.model.sh_degree", 1)
    assert base_config("fastgs").pipeline.model.sh_degree == 3


SERVER, KEY = "pipeline.model.guidance.base_url", "pipeline.model.guidance.key_variable"


def made(tmp_path: Path, **overrides: Any) -> Any:
    settings = {"base": "vlm-fastgs", "dataparser": "auto", "start": "points", "seed": 0, "resolution": 0, "words": False}
    return configure({**settings, "iterations": 10, "overrides": overrides}, tmp_path, tmp_path).pipeline.model.guidance


def test_a_server_of_a_specification_is_sent_no_key(tmp_path: Path) -> None:
    assert made(tmp_path, **{SERVER: "http://theirs.example/v1"}).key_variable == ""
    assert made(tmp_path).key_variable == "OPENAI_API_KEY"
    assert made(tmp_path, **{KEY: "MY_KEY"}).key_variable == "MY_KEY"
    with pytest.raises(InputError, match="would send a secret of this machine"):
        made(tmp_path, **{SERVER: "http://theirs.example/v1", KEY: "AWS_SECRET_ACCESS_KEY"})
    with pytest.raises(InputError, match="holds a user name"):
        made(tmp_path, **{SERVER: "http://me:secret@theirs.example/v1"})
