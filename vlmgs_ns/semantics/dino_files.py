"""A vision transformer of transformers from local files, and its key projection."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vlmgs_ns.semantics.weights import cached_folder, first_file, missing_weights, read_json
from vlmgs_ns.system.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class DinoFiles:
    """Architecture and local files of a vision transformer."""

    name: str
    folder: Path
    config: dict[str, Any]
    """Its `config.json`; has `patch_size` and `hidden_size`."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: list[Path]
    """One file, or the parts of one that is split."""


def find_dino(model: str) -> DinoFiles:
    """Find the local files of a vision transformer by its name on Hugging Face or its folder.

    Raises:
        InputError: the model is not on this machine, or is not a vision transformer.
    """
    local = Path(model).is_dir()
    folder = Path(model) if local else cached_folder(model, ["config.json"])
    weights = _weights(folder)
    if folder is None or not weights:
        if local:
            raise InputError(f"the folder {model} is not a model of transformers: it needs config.json and model.safetensors")
        raise missing_weights(f"DINO {model}", model, "give that folder as the model")
    config = read_json(folder / "config.json")
    if not isinstance(config.get("patch_size"), int) or not isinstance(config.get("hidden_size"), int):
        raise InputError(f"{model} is not a vision transformer: its config.json lacks a single patch_size and hidden_size")
    preprocess = folder / "preprocessor_config.json"
    stated = read_json(preprocess) if preprocess.is_file() else {}
    mean, std = stated.get("image_mean") or IMAGENET_MEAN, stated.get("image_std") or IMAGENET_STD
    return DinoFiles(folder.resolve().name if local else model, folder, config, tuple(mean), tuple(std), weights)


def _weights(folder: Path | None) -> list[Path]:
    if folder is None or not (folder / "config.json").is_file():
        return []
    whole = first_file(folder, ["model.safetensors"])
    parts = sorted(folder.glob("model-*-of-*.safetensors"))
    old = first_file(folder, ["pytorch_model.bin"])
    return [whole] if whole else parts or ([old] if old else [])


def load_dino(found: DinoFiles) -> nn.Module:
    """Build the model with its weights, on the CPU.

    Raises:
        InputError: the files cannot be read, or lack a part of the model.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        # A vision transformer's pooler is not in DINO's weights and not used here.
        options = {"add_pooling_layer": False} if found.config.get("model_type") == "vit" else {}
        model, report = AutoModel.from_pretrained(found.folder, local_files_only=True, output_loading_info=True, **options)
    except Exception as error:  # readers, unpicklers and torch raise many kinds; all become one message
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the model in {found.folder} cannot be loaded ({type(error).__name__}: {reason}); download it again"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
    # transformers fills what is missing with random numbers.
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"{found.folder} lacks {len(missing)} tensors of the model, first {missing[0]}; download it again")
    return model


def last_key_projection(model: nn.Module) -> nn.Module | None:
    """Return the layer that computes the keys of the last attention, by either name that transformers gives it."""
    found = [m for name, m in model.named_modules() if name.rpartition(".")[2] in ("k_proj", "key") and isinstance(m, nn.Linear)]
    return found[-1] if found else None


def accepts(model: nn.Module, name: str) -> bool:
    """Return whether the model's forward takes an argument of that name."""
    return name in inspect.signature(model.forward).parameters
