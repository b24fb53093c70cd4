"""Encoders: an image-text encoder (CLIP) for pictures and phrases, and a dense encoder (DINO) for the outlines of objects.

Both find their model when constructed (so that a missing one is reported before any work), load it at the first use, run on a
device and in a precision of their own, and can be released again. Weights come from the local disk alone; safetensors are
preferred, and of other files nothing but tensors is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmgs_ns.semantics.clip_files import build, find_clip, tokenizer_of
from vlmgs_ns.semantics.dino_files import accepts, find_dino, last_key_projection, load_dino
from vlmgs_ns.semantics.hybrid import TILE_SIZES
from vlmgs_ns.semantics.weights import content_digest
from vlmgs_ns.system.errors import InputError


class ImageTextEncoder(Protocol):
    """Pictures and phrases as unit vectors of one space."""

    name: str
    """Name shown to the user."""
    fingerprint: str
    """Names the weights by their content and every setting that changes a picture's vector."""
    dimension: int
    """D."""
    tile_size: int
    """S, the side in pixels of the pictures it takes."""
    tile_sizes: int = TILE_SIZES
    """Number of FMGS' tile sizes, from the smallest, that are averaged to its map of a photo (`hybrid.largest_tile`)."""

    def embed_images(
        self,
        pictures: Tensor,  # [B, 3, S, S] in [0, 1]
    ) -> Tensor:
        """Return unit vectors [B, D], float32 on the CPU."""
        ...

    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        """Return unit vectors [P, D], float32 on the CPU."""
        ...

    def release(self) -> None:
        """Free the memory; the next use loads the model again."""
        ...


class DenseEncoder(Protocol):
    """A picture as a map of vectors, of any length."""

    name: str
    """Name shown to the user."""
    fingerprint: str
    """Names the weights by their content and every setting that changes a map."""
    dimension: int
    """D."""

    def embed(
        self,
        picture: Tensor,  # [3, H, W] in [0, 1]
    ) -> Tensor:
        """Return a map [h, w, D], float32 on the CPU, whose cells are equal and cover the picture."""
        ...

    def release(self) -> None:
        """Free the memory; the next use loads the model again."""
        ...


def choose_device(device: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA where there is one, otherwise the CPU.

    Raises:
        InputError: the device is unknown or not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InputError(f"device {device} is not known; give auto, cpu or cuda") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device} is not available: torch sees no CUDA device; give auto or cpu")
    return chosen


def choose_dtype(dtype: str, auto: torch.dtype) -> torch.dtype:
    """Return float32, float16 or bfloat16 by name, or the given type for `auto`.

    Raises:
        InputError: the name is unknown.
    """
    known = {"auto": auto, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise InputError(f"dtype {dtype} is not known; give one of {', '.join(known)}")
    return known[dtype]


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _normalised(
    pictures: Tensor,  # [B, 3, H, W] in [0, 1]
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    offset, scale = (torch.tensor(values, device=pictures.device)[:, None, None] for values in (mean, std))
    return (pictures.float() - offset) / scale


class OpenClipEncoder(ImageTextEncoder):
    """Any model of open_clip."""

    def __init__(
        self,
        model: str = "ViT-B-16",
        pretrained: str = "laion2b_s34b_b88k",
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 64,
        tile_sizes: int = TILE_SIZES,
    ) -> None:
        """Find the model; nothing is loaded yet.

        Args:
            model: open_clip's name of an architecture; or `hf-hub:OWNER/NAME`; or a folder with `open_clip_config.json` and
                `open_clip_model.safetensors` (`local-dir:FOLDER` means the same), which also holds the normalisation.
            pretrained: open_clip's tag of the weights, or a file of weights. Not read for the two latter kinds of model.
            device: `auto` is CUDA where there is one.
            dtype: float32, float16 or bfloat16; `auto` is float16 on CUDA and float32 elsewhere.
            batch_size: most pictures or phrases in one pass.
            tile_sizes: number of FMGS' tile sizes in its map of a photo.

        Raises:
            InputError: the model, its weights or the device is not available.
        """
        self.device = choose_device(device)
        self._dtype = choose_dtype(dtype, torch.float16 if self.device.type == "cuda" else torch.float32)
        self._found = find_clip(model, pretrained)
        self._batch_size = batch_size
        self._loaded: tuple[nn.Module, Any] | None = None
        config = self._found.config
        size = config["vision_cfg"].get("image_size", 224)
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            raise InputError(f"{self._found.name} takes pictures of {size} pixels; tiles are square, use another model")
        self.name = self._found.name
        self.dimension = int(config["embed_dim"])
        self.tile_sizes = tile_sizes
        self.tile_size = int(sides.pop())
        digest = content_digest([config, self._found.mean, self._found.std], [self._found.weights])
        self.fingerprint = f"OpenCLIP {self.name} {digest}" + ("" if dtype == "auto" else f" {dtype}")

    @torch.no_grad()
    def embed_images(
        self,
        pictures: Tensor,  # [B, 3, S, S] in [0, 1]
    ) -> Tensor:
        """Return unit vectors [B, D], float32 on the CPU.

        Raises:
            ValueError: another shape.
        """
        if pictures.dim() != 4 or tuple(pictures.shape[1:]) != (3, self.tile_size, self.tile_size):
            side = self.tile_size
            raise ValueError(f"{self.name} takes pictures of shape [B, 3, {side}, {side}], not {list(pictures.shape)}")
        model, _ = self._load()
        vectors = [torch.zeros(0, self.dimension)]
        for first in range(0, len(pictures), self._batch_size):
            batch = pictures[first : first + self._batch_size].to(self.device)
            seen = _normalised(batch, self._found.mean, self._found.std)
            vectors.append(F.normalize(model.encode_image(seen.to(self._dtype)).float(), dim=-1).cpu())  # type: ignore[operator]
        return torch.cat(vectors)

    @torch.no_grad()
    def embed_texts(self, phrases: Sequence[str]) -> Tensor:
        """Return unit vectors [P, D], float32 on the CPU. Phrases beyond the model's length are cut.

        Raises:
            ValueError: a single string.
        """
        if isinstance(phrases, str):
            raise ValueError(f"phrases are a sequence of strings; give [{phrases!r}]")
        model, tokenizer = self._load()
        vectors = [torch.zeros(0, self.dimension)]
        for first in range(0, len(phrases), self._batch_size):
            tokens = tokenizer(list(phrases[first : first + self._batch_size])).to(self.device)
            vectors.append(F.normalize(model.encode_text(tokens).float(), dim=-1).cpu())  # type: ignore[operator]
        return torch.cat(vectors)

    def release(self) -> None:
        """Free the memory; the next use loads the model again."""
        self._loaded = None
        _release(self.device)

    def _load(self) -> tuple[nn.Module, Any]:
        if self._loaded is None:
            model = build(self._found).to(device=self.device, dtype=self._dtype).eval().requires_grad_(False)
            self._loaded = model, tokenizer_of(self._found)
        return self._loaded


class DinoEncoder(DenseEncoder):
    """Any vision transformer of transformers: DINO, DINOv2, DINOv3.

    The vectors are the keys of the last attention layer, all heads side by side, before any rotation by position: what a patch
    offers to be found by, and so alike across one thing. A model without a key projection gives its last hidden state instead.
    """

    def __init__(
        self,
        model: str = "facebook/dino-vits8",
        device: str = "auto",
        dtype: str = "auto",
        shorter_side: int = 500,
    ) -> None:
        """Find the model; nothing is loaded yet.

        Args:
            model: a name on Hugging Face, or a folder with `config.json` and `model.safetensors`. The normalisation is that of
                `preprocessor_config.json` beside them, or ImageNet's where there is none.
            device: `auto` is CUDA where there is one.
            dtype: float32, float16 or bfloat16; `auto` is float32, since keys of large models leave the range of float16.
            shorter_side: pixels to which a picture's shorter side is scaled, up or down, before it is embedded.

        Raises:
            InputError: the model is not on this machine or not a vision transformer, or the device is not available.
        """
        self.device = choose_device(device)
        self._dtype = choose_dtype(dtype, torch.float32)
        if shorter_side < 1:
            raise InputError(f"shorter_side is {shorter_side} pixels; give 1 or more, 500 in the paper")
        self._found = find_dino(model)
        self._shorter_side = shorter_side
        self._model: nn.Module | None = None
        self.name = self._found.name
        self.dimension = int(self._found.config["hidden_size"])
        digest = content_digest([self._found.config, self._found.mean, self._found.std], self._found.weights)
        self.fingerprint = f"DINO {self.name} {digest}, keys at {shorter_side} px" + ("" if dtype == "auto" else f" {dtype}")

    @torch.no_grad()
    def embed(
        self,
        picture: Tensor,  # [3, H, W] in [0, 1]
    ) -> Tensor:
        """Return the map [h, w, D], float32 on the CPU.

        The picture is scaled so that its shorter side has `shorter_side` pixels, each side to the nearest number of whole patches
        (bilinear, antialiased); position embeddings are interpolated to that grid. Cell (r, c) is one patch: it covers
        1/h of the picture's height and 1/w of its width.

        Raises:
            ValueError: another shape.
        """
        if picture.dim() != 3 or picture.shape[0] != 3 or picture.numel() == 0:
            raise ValueError(f"{self.name} takes a picture of shape [3, H, W], not {list(picture.shape)}")
        scale = self._shorter_side / min(picture.shape[1:])
        patch = self._found.config["patch_size"]
        rows, columns = (max(1, round(side * scale / patch)) for side in picture.shape[1:])
        size = (rows * patch, columns * patch)
        scaled = picture.to(self.device).float()[None]
        scaled = F.interpolate(scaled, size=size, mode="bilinear", antialias=True, align_corners=False)
        tokens = self._tokens(_normalised(scaled, self._found.mean, self._found.std).to(self._dtype))
        # The class token and registers come first.
        return tokens[0, -rows * columns :].reshape(rows, columns, -1).float().cpu()

    def release(self) -> None:
        """Free the memory; the next use loads the model again."""
        self._model = None
        _release(self.device)

    def _tokens(
        self,
        pixels: Tensor,  # [1, 3, H, W] normalised
    ) -> Tensor:  # [1, 1 + registers + h · w, D]
        if self._model is None:
            self._model = load_dino(self._found).to(device=self.device, dtype=self._dtype).eval().requires_grad_(False)
        keys = last_key_projection(self._model)
        seen: list[Tensor] = []
        hook = keys.register_forward_hook(lambda _module, _inputs, output: seen.append(output)) if keys is not None else None
        # Those without the flag interpolate always, or have rotary positions.
        flags = {"interpolate_pos_encoding": True} if accepts(self._model, "interpolate_pos_encoding") else {}
        try:
            hidden = self._model(pixel_values=pixels, **flags).last_hidden_state
        finally:
            if hook is not None:
                hook.remove()
        return seen[0] if seen else hidden
