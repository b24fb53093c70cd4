"""Choice of the guidance backend: the configured one, or the best that this machine can run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vlmgs_ns.guidance.backends.exchange import fault_of
from vlmgs_ns.guidance.backends.transformers import (
    DEFAULT_MODEL,
    Dtype,
    Quantization,
    TransformersBackend,
    missing_weights,
    resolve_device,
)
from vlmgs_ns.guidance.question import Backend
from vlmgs_ns.semantics.embedded import EMBEDDED, things_in
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.ranges import Count, Positive, Some, check_ranges


@dataclass
class BackendSettings:
    """Guidance backend and options. Nothing leaves this machine unless ``backend`` is "openai" or ``download`` is True."""

    backend: Literal["auto", "residual", "transformers", "openai"] = "auto"
    """residual: no model, regions from what training knows; transformers: a model on this machine; openai: a server that speaks
    OpenAI's interface (vLLM, Ollama, hosted), which is sent the renders; auto: transformers where there is CUDA and the model's
    weights are on this machine, else the embedded tiny Qwen3-VL for the embedded scenes, which it knows alone, else residual"""
    model: str = DEFAULT_MODEL
    """transformers: the model's name on the Hugging Face hub, a folder, or embedded: the tiny one of the package"""
    device: str = "auto"
    """transformers: a torch device; auto: CUDA where there is one, else the CPU"""
    dtype: Dtype = "auto"
    """transformers: type of the weights; auto: bfloat16 on CUDA, float32 on the CPU"""
    quantization: Quantization = "none"
    """transformers: weights in 4 or 8 bits, for GPUs with little memory; needs bitsandbytes"""
    download: bool = False
    """transformers: fetch the model from the hub if it is not on this machine; auto does not"""
    max_image_size: Some = 640
    """transformers, openai: pictures are shrunk to at most this many pixels at their longer side"""
    max_tokens: Some = 512
    """transformers, openai: longest reply, in tokens"""
    batch_size: Some = 5
    """transformers: views the model looks at together; fewer need less memory"""
    base_url: str = "http://127.0.0.1:8000/v1"
    """openai: the server's address, up to and with its /v1"""
    server_model: str = ""
    """openai: the model, as the server calls it; empty: the first that the server lists"""
    key_variable: str = "OPENAI_API_KEY"
    """openai: the environment variable that holds the server's key; it is sent if it is set, and stored nowhere"""
    timeout: Positive = 60.0
    """openai: seconds for one request and the whole of its reply, whatever the server does"""
    retries: Count = 3
    """openai: how often a request is repeated after an error of the server (HTTP 429, 5xx) or a dropped connection"""
    parallel: Some = 5
    """openai: requests in flight at a time"""
    coordinates: Literal["auto", "thousandths", "pixels"] = "auto"
    """transformers, openai: unit of the coordinates in replies; auto: pixels for Qwen2.5-VL, thousandths for all others"""

    def __post_init__(self) -> None:
        """Refuse a faulty address, such as one with a password, before anything is written to the run's config.yml."""
        if fault := fault_of(self.base_url):
            raise InputError(fault)


def make_backend(settings: BackendSettings, scene: Path | None = None) -> tuple[Backend, str]:
    """Return the backend for ``settings`` and a sentence for the user that names it and the reason.

    Loads no model and uses no network; the backend's ``check`` has not been called. ``scene`` is the folder of the data.

    Raises:
        InputError: a setting that is out of its range.
    """
    check_ranges(settings, "--pipeline.model.guidance.")
    if settings.backend == "openai":
        return _openai(settings), f"Guidance: renders are sent to {settings.base_url}, as configured"
    if settings.backend == "transformers":
        return _transformers(settings), f"Guidance: {settings.model} on {resolve_device(settings.device)}, as configured"
    if settings.backend == "residual":
        return _residual(), "Guidance: residual, without a model, as configured"
    device = resolve_device(settings.device)
    on_cuda = device.startswith("cuda")
    fault = missing_weights(settings.model) if on_cuda else None
    if on_cuda and not fault:
        return _transformers(settings), f"Guidance: {settings.model} on {device}: its weights are on this machine"
    if scene is not None and things_in(scene):
        sentence = f"Guidance: the embedded tiny Qwen3-VL on {device}, which knows the embedded scenes and no other"
        return _transformers(replace(settings, model=EMBEDDED)), sentence
    if not on_cuda:
        # Billions of multiplications per token would compete with training for the cores.
        reason = (
            f"on {device} a model would hold up training; --pipeline.model.guidance.backend transformers uses one all the same"
        )
        return _residual(), f"Guidance: residual, without a model: {reason}"
    return _residual(), f"Guidance: residual, without a model: {fault}"


def _residual() -> Backend:
    from vlmgs_ns.guidance.backends.residual import ResidualBackend

    return ResidualBackend()


def _transformers(settings: BackendSettings) -> Backend:
    own = ("model", "device", "dtype", "batch_size", "quantization", "download")
    return TransformersBackend(**_options(settings, *own))


def _openai(settings: BackendSettings) -> Backend:
    from vlmgs_ns.guidance.backends.openai import OpenAIBackend
    from vlmgs_ns.guidance.prompts import REPLY_SCHEMA

    own = _options(settings, "base_url", "key_variable", "timeout", "retries", "parallel")
    return OpenAIBackend(model=settings.server_model, schema=REPLY_SCHEMA, **own)


def _options(settings: BackendSettings, *names: str) -> dict[str, Any]:
    """Return the named settings and those that both models share."""
    return {name: getattr(settings, name) for name in (*names, "max_tokens", "max_image_size", "coordinates")}
