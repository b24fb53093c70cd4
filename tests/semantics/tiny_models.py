"""Tiny models of the real classes with random weights, saved as the real ones are. They prove plumbing, never accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel, ViTConfig, ViTModel
from transformers.utils import logging

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]

DINOS = {
    "dino": (ViTConfig, ViTModel, {}),
    "dinov2": (Dinov2Config, Dinov2Model, {}),
    "dinov3": (DINOv3ViTConfig, DINOv3ViTModel, {"num_register_tokens": 4}),
}


def save_clip(folder: Path, seed: int = 0, config: dict[str, Any] = CLIP) -> open_clip.CLIP:
    """A folder as open_clip pushes it to a hub."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config).eval()
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def save_dino(folder: Path, kind: str = "dino", seed: int = 0, preprocess: dict[str, Any] | None = None) -> torch.nn.Module:
    """A folder as transformers saves it: 2 layers, 2 heads, 32-d, patches of 8 pixels, a 4 x 4 grid of positions."""
    torch.manual_seed(seed)
    configuration, model_class, more = DINOS[kind]
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = model_class(configuration(**sizes, image_size=32, patch_size=8, **more)).eval()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    if preprocess is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocess))
    return model


def put_in_hub_cache(hub: Path, repo: str, folder: Path) -> None:
    """As `hf download` leaves a repository."""
    place = hub / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0123abcd")
    (place / "snapshots").mkdir()
    (place / "snapshots" / "0123abcd").symlink_to(folder)
