"""The encoders that come with the package: where they are, and which phrases they were taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

EMBEDDED = "embedded"
"""Name of the tiny models that come with the package, wherever it is installed."""


def model_folder(model: str, kind: Literal["clip", "dino"] = "clip") -> str:
    """Return the folder of the embedded model of a kind for the name `EMBEDDED`, any other name as it is."""
    if model != EMBEDDED:
        return model
    from vlmgs_ns.toy.tiny import tiny_clip_folder, tiny_dino_folder

    return str(tiny_clip_folder() if kind == "clip" else tiny_dino_folder())


def taught_phrases(model: str) -> list[str]:
    """Return what a CLIP model was trained on: the phrases in `phrases.json` of its folder, none where there is no such file."""
    file = Path(model_folder(model)) / "phrases.json"
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []
