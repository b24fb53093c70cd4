"""What this machine has, what our methods therefore use on it, and the command that adds what is missing. Loads no model."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from vlmgs_ns.guidance.backends.choose import BackendSettings, make_backend
from vlmgs_ns.guidance.backends.transformers import DEFAULT_MODEL, missing_weights
from vlmgs_ns.method.machine import cuda_of_torch, default_device, gsplat_kernels, suited_method
from vlmgs_ns.semantics.clip_files import find_clip
from vlmgs_ns.semantics.config import LITE_SEMANTICS, SemanticsConfig
from vlmgs_ns.semantics.dino_files import find_dino
from vlmgs_ns.semantics.stage import CLIP, DINO, choose_encoders
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.ffmpeg import bundled_ffmpeg

TINY_CUDA_NN = 'pip install "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"'


@dataclass(frozen=True)
class Finding:
    """One thing that a run can use."""

    name: str
    found: str
    """Version, size or place; empty where it is missing."""
    matters: str
    """What it is for."""
    remedy: str = ""
    """Command or advice that adds it; empty where it is there, or where nothing here needs it."""


@dataclass(frozen=True)
class Diagnosis:
    """A machine as a run would find it."""

    findings: list[Finding]
    choices: list[str]
    """What is used therefore, a sentence each."""


def diagnose() -> Diagnosis:
    """Look at this machine, and at the disk of the folder that runs are written below."""
    on_cuda = default_device() == "cuda"
    kernels, fault = gsplat_kernels()
    findings = [
        Finding("Python", platform.python_version(), "3.10 or later"),
        Finding("torch", f"{torch.__version__}, built for {cuda_of_torch()}", "all tensors"),
        _gpu(),
        Finding("gsplat", f"{version('gsplat')}, {kernels}" if kernels else "", "CUDA kernels", fault if on_cuda else ""),
        Finding("CUDA compiler", shutil.which("nvcc") or "", "gsplat's kernels, at their first use"),
        Finding(
            "tiny-cuda-nn", "installed" if find_spec("tinycudann") else "", "faster hash grids on CUDA; torch's own serve too",
            TINY_CUDA_NN if on_cuda and find_spec("tinycudann") is None else "",
        ),
        _weights("Qwen3-VL", lambda: _raise(missing_weights(DEFAULT_MODEL)), DEFAULT_MODEL, "a model that says where to densify"),
        _weights("CLIP", lambda: find_clip(CLIP, SemanticsConfig().clip_pretrained), CLIP, "words on real photos"),
        _weights("DINO", lambda: find_dino(DINO), DINO, "outlines of things on real photos"),
        Finding("ffmpeg", shutil.which("ffmpeg") or str(bundled_ffmpeg() or ""), "videos"),
        Finding(
            "pycolmap", version("pycolmap") if find_spec("pycolmap") else "", "camera poses of your own photos (vlmgs prepare)",
            "" if find_spec("pycolmap") else 'pip install "vlmgs-ns[prepare]"',
        ),
        Finding("COLMAP", shutil.which("colmap") or "", "the same with nerfstudio's ns-process-data; vlmgs prepare needs none"),
        Finding("memory", _free_memory(), "photos and Gaussians"),
        Finding("disk", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB free", "runs"),
    ]  # fmt: skip
    rasteriser = "gsplat's CUDA kernels" if on_cuda else "numba kernels on the CPU"
    choices = [
        f"Training: ns-train {suited_method()}, {rasteriser}",
        make_backend(BackendSettings())[1],
        choose_encoders(SemanticsConfig() if on_cuda else LITE_SEMANTICS).message,
    ]
    return Diagnosis(findings, choices)


def _gpu() -> Finding:
    matters = "full-size photos"
    if not torch.cuda.is_available():
        return Finding("GPU", "", matters)
    free, total = torch.cuda.mem_get_info()
    return Finding("GPU", f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free", matters)


def _weights(name: str, find: Callable[[], object], model: str, matters: str) -> Finding:
    try:
        find()
    except InputError as error:
        return Finding(name, "", matters, " ".join(str(error).removeprefix("Error: ").split()))
    return Finding(name, model, matters)


def _raise(fault: str | None) -> None:
    if fault:
        raise InputError(fault)


def _free_memory() -> str:
    if sys.platform != "linux":
        return "unknown"
    sizes = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return f"{int(sizes['MemAvailable'].split()[0]) / 2**20:.0f} GiB free"
