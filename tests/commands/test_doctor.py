"""`vlmgs doctor` on this machine, whatever it has."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests.console.forks import ForkServer
from vlmgs_ns.method import diagnosis


def test_it_names_what_is_there_what_is_used_and_what_would_help(tmp_path: Path, fork_server: ForkServer) -> None:
    """Without any model's weights, and with a COLMAP of ours."""
    (tmp_path / "colmap").touch(mode=0o755)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = fork_server.run(["vlmgs", "doctor"], tmp_path, environment)
    assert said.returncode == 0, said.stderr
    method = "vlm-fastgs" if torch.cuda.is_available() else "vlm-fastgs-cpu"
    assert f"- Training: ns-train {method}, " in said.stdout
    assert "- Guidance: residual" in said.stdout and "- Semantics: " in said.stdout and "embedded tiny" in said.stdout
    lines = {line.split("  ")[0]: line for line in said.stdout.partition("Used here")[0].splitlines()}
    assert str(tmp_path / "colmap") in lines["COLMAP"] and torch.__version__ in lines["torch"]
    assert "hf download" in said.stdout.partition("To add what is missing")[2]
    found = json.loads(fork_server.run(["vlmgs", "doctor", "--json"], tmp_path, environment).stdout)
    assert [thing["name"] for thing in found["findings"]] == list(lines)[: len(found["findings"])]
    assert len(found["choices"]) == 3


def test_what_is_there_needs_no_remedy_and_what_is_not_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_spec", lambda name: None)
    remedies = {finding.name: finding.remedy for finding in diagnosis.diagnose().findings}
    assert "[prepare]" in remedies["pycolmap"]
    assert remedies["torch"] == remedies["memory"] == remedies["disk"] == ""
