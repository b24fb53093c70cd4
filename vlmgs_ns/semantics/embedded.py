"""The tiny models that come with the package: where they are, and on which scenes they are of use."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Literal

EMBEDDED = "embedded"
"""Name of the tiny models that come with the package, wherever it is installed."""


def model_folder(model: str, kind: Literal["clip", "dino", "vlm"] = "clip") -> str:
    """Return the folder of the embedded model of a kind for the name `EMBEDDED`, any other name as it is."""
    if model != EMBEDDED:
        return model
    from vlmgs_ns.toy.tiny import tiny_clip_folder, tiny_dino_folder, tiny_vlm_folder

    return str({"clip": tiny_clip_folder, "dino": tiny_dino_folder, "vlm": tiny_vlm_folder}[kind]())


def things_in(scene: Path) -> list[str]:
    """Return the names of the things in an embedded room, by its folder; none for any other scene."""
    from vlmgs_ns.toy.scene import is_scene

    if not is_scene(scene):
        return []
    return [thing["name"] for thing in json.loads((scene / "labels.json").read_text(encoding="utf-8"))["objects"]]


def caution(clip: str, scene: Path, run: Path) -> str:
    """Return a line for where the embedded CLIP looked at a scene that is no embedded room, so that words find noise, with the
    command that mends it; "" for any other encoder or an embedded room."""
    if Path(model_folder(clip)) != Path(model_folder(EMBEDDED)) or things_in(scene):
        return ""
    command = f"ns-train vlm-fastgs --data {shlex.quote(str(scene))} --load-dir {shlex.quote(str(run / 'nerfstudio_models'))}"
    return (
        "What words find here is noise: the embedded encoder knows the embedded rooms alone. Where there is a network: hf "
        f"download laion/CLIP-ViT-B-16-laion2B-s34B-b88K && hf download facebook/dino-vits8 && {command} --max-num-iterations 0"
    )
