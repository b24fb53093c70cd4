"""One small scene, written once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmgs_ns.toy.scene import write_scene

SMALL = {"seed": 3, "views": 24, "width": 96, "height": 72, "held_out": 6, "points": 1500}


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "scene"
    write_scene(out, **SMALL)
    return out
