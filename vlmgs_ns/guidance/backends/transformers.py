"""A vision-language model on this machine, through transformers: safetensors only, no code from a model's folder.

The model is loaded by the first question, often on a thread beside training, so nothing it does may reach training: it draws no
random numbers, and its weights are read as float32 (4 bytes each of the host's memory) before they are cast. Asked for another
dtype, transformers would make it torch's default while it builds the model, for every thread.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmgs_ns.guidance.backends.pictures import SQUARE, coordinates_of, shrink
from vlmgs_ns.guidance.question import Answer, Coordinates, Question
from vlmgs_ns.semantics.embedded import EMBEDDED, model_folder
from vlmgs_ns.system.errors import InputError

DEFAULT_MODEL = "Qwen/Qwen3-VL-2B-Instruct"
SAMPLE = 2**20
"""Bytes at either end of a file of weights that identify it."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "4bit", "8bit"]


@dataclass(frozen=True)
class _Loaded:
    model: Any
    processor: Any


class TransformersBackend:
    """Asks a model of transformers' image-text-to-text kind, several questions at a time, greedily.

    An answer's details: ``batch`` (questions answered together), ``completion_tokens``, ``finish_reason`` ("stop", or "length":
    cut off at ``max_tokens``) and ``seen_size``: [width, height] of the first picture as the model saw it, in pixels. That is the
    size that the numbers of a reply refer to where ``coordinates`` is "pixels": divided by it they are in [0, 1]. It differs from
    the question's picture by our shrinking and by the processor's rounding to whole patches. ``seconds`` is an equal share of
    the batch's time.

    Args:
        model: name on the hub, a folder, or "embedded" for the tiny one that comes with the package.
        device: a torch device; "auto": CUDA where there is one, else the CPU.
        dtype: of the weights; "auto": bfloat16 on CUDA, float32 on the CPU.
        max_image_size: pictures are shrunk to at most this many pixels at their longer side.
        max_tokens: longest reply.
        batch_size: questions at a time; halved, for good, where CUDA has no memory for so many.
        quantization: weights in 4 or 8 bits; needs CUDA and bitsandbytes.
        download: fetch the model from the hub if it is not here. Otherwise the network is never used.
        coordinates: unit of the coordinates in a reply; "auto": from the model's configuration.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        device: str = "auto",
        dtype: Dtype = "auto",
        max_image_size: int = 640,
        max_tokens: int = 512,
        batch_size: int = 5,
        quantization: Quantization = "none",
        download: bool = False,
        coordinates: Coordinates | Literal["auto"] = "auto",
    ) -> None:
        self.needs_evidence = False
        self.quick = model == EMBEDDED
        self.model = model
        self.device = resolve_device(device)
        self.dtype = dtype if dtype != "auto" else "bfloat16" if self.device.startswith("cuda") else "float32"
        self.max_image_size = max_image_size
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.quantization = quantization
        self.download = download
        self._loaded: _Loaded | None = None
        # Held while the model is loaded, used or dropped: it answers one thread at a time.
        self._lock = threading.RLock()

        folder = find_folder(model)
        family = _model_type(folder) if folder else model
        self.name = f"transformers {model}"
        self.coordinates: Coordinates = coordinates_of(family) if coordinates == "auto" else coordinates
        settings = [self.device.partition(":")[0], self.dtype, quantization, max_image_size, max_tokens, self.coordinates]
        weights = _digest(folder) if folder else ""
        self.fingerprint = "transformers " + hashlib.sha256(json.dumps([model, weights, *settings]).encode()).hexdigest()

    def check(self) -> None:
        """Raise `InputError` for weights that are not here, or a device or quantization that this machine lacks."""
        import torch

        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"--pipeline.model.guidance.device {self.device}: torch sees no CUDA device here; use auto or cpu")
        if self.quantization != "none":
            flag = f"--pipeline.model.guidance.quantization {self.quantization}"
            if not self.device.startswith("cuda"):
                raise InputError(f"{flag}: works on CUDA, and the model is to run on {self.device}; use none")
            if importlib.util.find_spec("bitsandbytes") is None:
                raise InputError(f"{flag}: bitsandbytes is not installed; use none, or: pip install bitsandbytes")
        if not self.download and (fault := missing_weights(self.model)):
            raise InputError(f"{fault}, or do without a model: --pipeline.model.guidance.backend residual")

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order; a question that fails has an answer with the reason."""
        if not questions:
            return []
        with self._lock:
            try:
                self._load()
            except Exception as error:
                return [Answer(None, f"{self.model} could not be loaded: {_describe(error)}") for _ in questions]
            answers: list[Answer] = []
            while len(answers) < len(questions):
                # Read again each time: a lack of memory makes it smaller.
                answers += self._answer(questions[len(answers) : len(answers) + self.batch_size])
            return answers

    def release(self) -> None:
        """Drop the model and give its memory back; the next question loads it again."""
        import torch

        with self._lock:
            self._loaded = None
            # Modules and their hooks refer to each other.
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers to one batch; where that fails, to its halves, down to single questions."""
        import torch

        start = time.monotonic()
        failure = ""
        try:
            answers = self._generate(questions)
        except torch.cuda.OutOfMemoryError:
            failure = "CUDA out of memory; use --pipeline.model.guidance.quantization 4bit or a smaller max-image-size"
            self.batch_size = max(1, min(self.batch_size, len(questions) // 2))
        except Exception as error:
            failure = _describe(error)
        else:
            seconds = (time.monotonic() - start) / len(questions)
            return [Answer(text, None, seconds, details) for text, details in answers]
        # Outside the handlers, whose traceback holds on to the tensors of the failed batch.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if len(questions) == 1:
            return [Answer(None, failure, time.monotonic() - start)]
        half = len(questions) // 2
        return [*self._answer(questions[:half]), *self._answer(questions[half:])]

    def _load(self) -> None:
        if self._loaded is not None:
            return
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if self.download and missing_weights(self.model):
            _download(self.model)
        if fault := missing_weights(self.model):
            raise InputError(fault)
        folder = str(find_folder(self.model))
        loader: Any = AutoModelForImageTextToText  # its return type knows no output_loading_info
        with _quiet():
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, report = loader.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **self._quantized(),
            )
        if report["missing_keys"]:
            # transformers fills them at random.
            raise ValueError(f"its weights lack {len(report['missing_keys'])} tensors, e.g. {sorted(report['missing_keys'])[0]}")
        dtype = getattr(torch, self.dtype)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.to(dtype)
        # Buffers keep their float32: rotary frequencies lose places far from the start in bfloat16.
        if self.quantization == "none":
            model.to(self.device)
        model.eval()
        _make_greedy(model.generation_config)
        # Replies begin where prompts end, at the same place for all of a batch.
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        self._loaded = _Loaded(model, processor)

    def _quantized(self) -> dict[str, Any]:
        """Return the arguments that load the weights in fewer bits."""
        if self.quantization == "none":
            return {}
        import torch
        from transformers import BitsAndBytesConfig

        if self.quantization == "8bit":
            config = BitsAndBytesConfig(load_in_8bit=True)
        else:
            dtype = getattr(torch, self.dtype)
            config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        return {"quantization_config": config, "device_map": {"": self.device}}

    def _generate(self, questions: Sequence[Question]) -> list[tuple[str, dict[str, Any]]]:
        """Return the reply and details for each question of a batch."""
        import torch
        from PIL import Image

        assert self._loaded is not None
        model, processor = self._loaded.model, self._loaded.processor
        square = SQUARE[self.coordinates]
        pictures = [[Image.fromarray(shrink(picture, self.max_image_size, square)) for picture in q.pictures] for q in questions]
        prompts = processor.apply_chat_template(
            [
                [{"role": "user", "content": [*({"type": "image"} for _ in shown), {"type": "text", "text": question.prompt}]}]
                for question, shown in zip(questions, pictures, strict=True)
            ],
            add_generation_prompt=True,
            tokenize=False,
        )
        with torch.inference_mode():
            inputs = processor(text=prompts, images=pictures if any(pictures) else None, padding=True, return_tensors="pt")
            seen = _seen_sizes(inputs, pictures, processor)
            tokens = model.generate(
                **inputs.to(self.device), max_new_tokens=self.max_tokens, pad_token_id=processor.tokenizer.pad_token_id
            )
        new = tokens[:, inputs["input_ids"].shape[1] :].cpu()
        texts = processor.tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ends = model.generation_config.eos_token_id
        ended = torch.isin(new, torch.tensor(ends if isinstance(ends, list) else [ends]))  # [Q, T]
        answers = []
        for text, end, size in zip(texts, ended, seen, strict=True):
            stopped = bool(end.any())
            length = int(end.int().argmax()) + 1 if stopped else len(end)
            details: dict[str, Any] = {
                "batch": len(questions),
                "completion_tokens": length,
                "finish_reason": "stop" if stopped else "length",
            }
            answers.append((text, details if size is None else {**details, "seen_size": size}))
        return answers


def resolve_device(device: str) -> str:
    """ "auto" as the device it stands for: CUDA where torch sees one, else the CPU."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def find_folder(model: str) -> Path | None:
    """Return the folder of a model's files, given or in the hub's cache; None where there is none. Never uses the network."""
    folder = Path(model_folder(model, "vlm")).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(model, "config.json")
    except ValueError:  # neither a folder nor a valid name on the hub
        return None
    return Path(config).parent if isinstance(config, str) else None


def missing_weights(model: str) -> str | None:
    """Return the reason why a model cannot be loaded without the network, with the fix; None where it can."""
    folder = find_folder(model)
    if folder is None:
        from huggingface_hub import constants

        return (
            f"{model}: is neither a folder nor in the hub's cache {constants.HF_HUB_CACHE}; "
            f"download a model with: hf download {DEFAULT_MODEL} (--pipeline.model.guidance.download True does it in training)"
        )
    if not (folder / "config.json").is_file():
        return f"{model}: the folder has no config.json; give the folder that a model was saved to"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            needed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{model}: {index} cannot be read; download the model again"
        if absent := sorted(name for name in needed if not (folder / str(name)).is_file()):
            return f"{model}: {folder} lacks {len(absent)} of {len(needed)} files of weights, e.g. {absent[0]}; download the rest"
    elif not (folder / "model.safetensors").is_file():
        return (
            f"{model}: {folder} has no model.safetensors, and pickled weights are never loaded; "
            f"download a model with: hf download {DEFAULT_MODEL}"
        )
    return None


def _download(model: str) -> None:
    """Fetch a model into the hub's cache, without code and pickled weights."""
    from huggingface_hub import snapshot_download

    snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"])


def _model_type(folder: Path) -> str:
    """The ``model_type`` of a model's configuration; "" where it cannot be read."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _digest(folder: Path) -> str:
    """Identifies a model's files: all of its settings, and size, start and end of its weights, which are too large to read."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".jinja", ".txt", ".safetensors") or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if path.suffix != ".safetensors" or size <= 2 * SAMPLE:
                digest.update(file.read())
            else:
                digest.update(file.read(SAMPLE))
                file.seek(-SAMPLE, 2)
                digest.update(file.read())
    return digest.hexdigest()


def _make_greedy(config: Any) -> None:
    """Turn off the sampler that models come with."""
    config.do_sample = False
    config.num_beams = 1
    config.temperature = config.top_p = config.top_k = None


def _seen_sizes(inputs: Any, pictures: list[list[Any]], processor: Any) -> list[list[int] | None]:
    """Per question [width, height] in pixels of its first picture as the model sees it; None without a picture."""
    grids = inputs.get("image_grid_thw")
    sizes: list[list[int] | None] = []
    first = 0
    for shown in pictures:
        if not shown:
            sizes.append(None)
        elif grids is None:
            sizes.append(list(shown[0].size))
        else:
            _, rows, columns = grids[first].tolist()
            patch = processor.image_processor.patch_size
            sizes.append([columns * patch, rows * patch])
        first += len(shown)
    return sizes


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or warnings of transformers inside the block."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _describe(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
