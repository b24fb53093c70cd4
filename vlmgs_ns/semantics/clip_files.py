"""An open_clip model from local files: found by name, by Hugging Face repository or by folder, then built.

open_clip's own `create_model` downloads what it does not find, and before version 3 reads no folders; so the files are found
here, and open_clip builds the model and reads the weights.
"""

from __future__ import annotations

import difflib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vlmgs_ns.semantics.weights import cached_folder, first_file, missing_weights, read_json
from vlmgs_ns.system.errors import InputError

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
KNOWN = {("ViT-B-16", "laion2b_s34b_b88k"): "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"}
"""Where the default lies on Hugging Face: so that it is not here is known without open_clip, which takes seconds to import."""
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Normalisation where a model states none, open_clip's default."""
OWN_FOLDER = "give that folder as the model"


@dataclass
class ClipFiles:
    """Architecture and local files of a CLIP model."""

    name: str
    config: dict[str, Any]
    """open_clip's `model_cfg`."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Path
    tokenizer: Path | None
    """Folder of a Hugging Face tokenizer; None for open_clip's own, whose vocabulary comes with the package."""
    text_tower: Path | None
    """Folder with the architecture of a Hugging Face text tower, for the few models that have one."""


def find_clip(model: str, pretrained: str) -> ClipFiles:
    """Find the local files of a CLIP model; arguments as in `OpenClipEncoder`.

    Raises:
        InputError: the model is unknown, or not all of it is on this machine.
    """
    model = model.removeprefix("local-dir:")
    if Path(model).is_dir():
        return _of_folder(Path(model), Path(model).resolve().name)
    if model.startswith("hf-hub:"):
        repo = model.removeprefix("hf-hub:")
        folder = cached_folder(repo, [CONFIG])
        if folder is None or first_file(folder, WEIGHTS) is None:
            raise missing_weights(f"OpenCLIP {repo}", repo, OWN_FOLDER)
        return _of_folder(folder, repo)
    return _of_name(model.replace("/", "-"), pretrained)


def _of_folder(folder: Path, name: str) -> ClipFiles:
    weights = first_file(folder, WEIGHTS)
    if weights is None or not (folder / CONFIG).is_file():
        raise InputError(f"the folder {folder} is not an OpenCLIP model: it needs {CONFIG} and {WEIGHTS[0]}")
    content = read_json(folder / CONFIG)
    config = content.get("model_cfg") or {}
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise InputError(f"{folder / CONFIG} has no model_cfg with embed_dim, vision_cfg and text_cfg; download it again")
    return _with_text_side(name, config, content.get("preprocess_cfg") or {}, weights, folder)


def _of_name(model: str, pretrained: str) -> ClipFiles:
    known = KNOWN.get((model, pretrained))
    if known is not None and first_file(cached_folder(known, WEIGHTS), WEIGHTS) is None:
        raise _not_here(model, pretrained, f'{known} --include "open_clip*"')
    import open_clip

    config = open_clip.get_model_config(model)
    if config is None:
        near = ", ".join(difflib.get_close_matches(model, open_clip.list_models(), 4, 0.5)) or "none"
        raise InputError(f"{model} is neither a folder nor a model of open_clip; names near it: {near}")
    if Path(pretrained).is_file():
        return _with_text_side(f"{model} {Path(pretrained).name}", config, {}, Path(pretrained), None)
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise InputError(f"{pretrained!r} is neither a file nor weights that open_clip knows for {model}; those are: {tags}")
    repo, _, file = tag["hf_hub"].rpartition("/")
    names = (str(Path(file).with_suffix(".safetensors")), file) if file else WEIGHTS
    weights = first_file(cached_folder(repo, names), names)
    if weights is None:
        download = f"{repo} {file}" if file else f'{repo} --include "open_clip*"'
        raise _not_here(model, pretrained, download)
    if tag.get("quick_gelu"):
        config["quick_gelu"] = True  # what these weights were trained with; open_clip itself only warns
    return _with_text_side(f"{model} {pretrained}", config, tag, weights, weights.parent)


def _not_here(model: str, pretrained: str, download: str) -> InputError:
    return missing_weights(f"OpenCLIP {model} ({pretrained})", download, OWN_FOLDER)


def _with_text_side(name: str, config: dict[str, Any], preprocess: Any, weights: Path, folder: Path | None) -> ClipFiles:
    text = config["text_cfg"]
    beside = "put the files beside the model's weights"
    tokenizer = text_tower = None
    if text.get("hf_tokenizer_name"):
        repo = text["hf_tokenizer_name"]
        tokenizer = folder if first_file(folder, TOKENIZER) else cached_folder(repo, TOKENIZER)
        if tokenizer is None:
            raise missing_weights(f"the tokenizer of {name}", f'{repo} --include "*token*" config.json', beside)
    if text.get("hf_model_name"):
        repo = text["hf_model_name"]
        text_tower = folder if first_file(folder, ["config.json"]) else cached_folder(repo, ["config.json"])
        if text_tower is None:
            raise missing_weights(f"the text tower's settings of {name}", f"{repo} config.json", beside)
    mean, std = preprocess.get("mean") or OPENAI_MEAN, preprocess.get("std") or OPENAI_STD
    return ClipFiles(name, config, tuple(mean), tuple(std), weights, tokenizer, text_tower)


def build(found: ClipFiles) -> nn.Module:
    """Build the model with its weights, in float32 on the CPU; it has `encode_image` and `encode_text`.

    Raises:
        InputError: the weights do not fit the architecture or cannot be read.
    """
    import open_clip

    config = deepcopy(found.config)
    custom = config.pop("custom_text", False) or found.text_tower is not None
    if found.text_tower is not None:
        config["text_cfg"].update(hf_model_name=str(found.text_tower), hf_model_pretrained=False)
    kind = open_clip.CLIP if not custom else open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        model = kind(**config)
        open_clip.load_checkpoint(model, str(found.weights), weights_only=True)
    except Exception as error:  # unpicklers, readers and torch raise many kinds; all become one message
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"the weights {found.weights} are not those of {found.name} or are damaged ({type(error).__name__}: {reason}); "
            "download them again, as safetensors where available"
        ) from None
    return model


def tokenizer_of(found: ClipFiles) -> Any:
    """Return a function from a list of phrases to tokens [P, context length]."""
    import open_clip

    text = found.config["text_cfg"]
    options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
    if found.tokenizer is None:
        return open_clip.SimpleTokenizer(**options)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(found.tokenizer), **options)
    if not hasattr(tokenizer.tokenizer, "batch_encode_plus"):
        # transformers 5 removed it; open_clip 2 still calls it.
        tokenizer.tokenizer.batch_encode_plus = tokenizer.tokenizer.__call__
    return tokenizer
