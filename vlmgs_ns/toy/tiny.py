"""The three tiny models that come with the package: a CLIP, a DINO and a Qwen3-VL of the real classes that know the toy world
and nothing else.

They are read like any other model of their kind (`OpenClipEncoder(model=…)`, `DinoEncoder(model=…)`,
`TransformersBackend(model=…)`); what they can do is in `models/MODEL_CARD.md`.
"""

from __future__ import annotations

from pathlib import Path

_MODELS = Path(__file__).parent / "models"


def tiny_clip_folder() -> Path:
    """Folder of the tiny CLIP: open_clip's configuration and weights, and its tokenizer."""
    return _MODELS / "clip"


def tiny_dino_folder() -> Path:
    """Folder of the tiny DINO: a Dinov2 model of transformers."""
    return _MODELS / "dino"


def tiny_vlm_folder() -> Path:
    """Folder of the tiny Qwen3-VL: a vision-language model of transformers, its processor and tokenizer."""
    return _MODELS / "qwen3_vl"
