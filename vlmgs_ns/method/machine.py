"""Devices of this machine, and the settings that follow from them.

Chosen in one place, printed once at the start of a run and stored beside it as ``machine.json``.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from vlmgs_ns.rasterize.threads import get_num_threads
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import say

DeviceType = Literal["cpu", "cuda", "mps"]


def default_device() -> DeviceType:
    """Return "cuda" where torch sees a CUDA device, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def suited_method() -> str:
    """Return the method of ns-train that suits this machine."""
    return "vlm-fastgs" if default_device() == "cuda" else "vlm-fastgs-cpu"


def hint_for_cpu(device: str, iterations: int, max_image_size: int) -> str:
    """Return a hint at the methods for a CPU if a run on one would draw over three times vlm-fastgs-cpu's pixels; else ""."""
    if device != "cpu" or iterations * max_image_size**2 < 10**10:
        return ""
    return (
        f"{iterations:,} iterations on photos of up to {max_image_size:,} pixels take many hours without a GPU. Made for a CPU: "
        "ns-train vlm-fastgs-cpu (5,000 iterations at 800 pixels) and vlm-fastgs-lite (1,500 at 300, some minutes)"
    )


def cuda_of_torch() -> str:
    """Return what torch was built for, in words."""
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs alone"


def gsplat_kernels() -> tuple[str, str]:
    """Return in which state gsplat's CUDA kernels are, empty where they cannot be had; and then what would help.

    gsplat's own modules are not imported: they would begin to compile.
    """
    spec = find_spec("gsplat")
    folders = spec.submodule_search_locations or [] if spec else []
    if any(file for folder in folders for file in Path(folder).glob("csrc*.so")):
        return "kernels in its wheel", ""
    cache = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")
    if any(cache.glob("**/gsplat_cuda/gsplat_cuda.so")):
        return "kernels compiled on this machine", ""
    if shutil.which("nvcc"):
        return "kernels that are compiled at the first use, for some minutes", ""
    return "", f"gsplat has no compiled kernels: install the CUDA toolkit of torch ({cuda_of_torch()}) with nvcc on the PATH"


def check_device(device_type: str) -> None:
    """Refuse a device that this machine, or the rasteriser, does not have.

    Raises:
        InputError: names the device and the one to use.
    """
    if device_type == "cuda" and not torch.cuda.is_available():
        raise InputError("--machine.device-type cuda: torch sees no CUDA device here; use --machine.device-type cpu")
    if device_type == "cuda" and not (kernels := gsplat_kernels())[0]:
        raise InputError(f"--machine.device-type cuda: {kernels[1]}, see docs/gpu.md; or use --machine.device-type cpu")
    if device_type not in ("cpu", "cuda"):
        raise InputError(f"--machine.device-type {device_type}: the rasteriser runs on cpu and cuda; use one of them")


def choose_cache(device: torch.device | str, bytes_of_photos: int) -> Literal["cpu", "gpu"]:
    """Return the memory that shall hold the training photos, in nerfstudio's terms.

    "gpu" means the training device, whichever it is: with a CPU nothing is copied or pinned. On CUDA, photos that would fill
    over a quarter of the free memory stay in pinned memory of the host.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return "gpu"
    free, _ = torch.cuda.mem_get_info(device)
    return "gpu" if bytes_of_photos < free / 4 else "cpu"


def share_cores(device: torch.device | str) -> None:
    """On a CPU, leave the cores to the rasteriser's threads: torch's own wait by spinning between operations.

    Measured on two shared cores: a training step took 1.4 s with torch's threads and 0.15 s without.
    """
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)


@dataclass(frozen=True)
class Machine:
    """Hardware and libraries of a run."""

    device: str
    """torch device, e.g. ``cuda:0``"""
    device_name: str
    """the processor or GPU in words"""
    threads: int
    """CPU threads of the rasteriser"""
    rasterizer: str
    """kernels that rasterise Gaussians"""
    photos_in: str
    """memory that holds the training photos"""
    guidance: str
    """the guidance backend, and why it was chosen"""
    compiled: bool
    """whether parts of the model go through torch.compile; never: it costs 16 s at the first step and gains nothing"""
    torch: str
    nerfstudio: str
    gsplat: str
    python: str


def describe(device: str, cache: Literal["cpu", "gpu"], guidance: str) -> Machine:
    """Describe a run on ``device`` with photos cached in ``cache``; ``guidance`` names its backend, if any."""
    on_cuda = device.startswith("cuda")
    return Machine(
        device=device,
        device_name=torch.cuda.get_device_name(device) if on_cuda else platform.processor() or platform.machine(),
        threads=get_num_threads(),
        rasterizer=f"gsplat {version('gsplat')} (CUDA)" if on_cuda else "numba kernels (CPU)",
        photos_in="GPU memory" if on_cuda and cache == "gpu" else "memory",
        guidance=guidance,
        compiled=False,
        torch=torch.__version__,
        nerfstudio=version("nerfstudio"),
        gsplat=version("gsplat"),
        python=platform.python_version(),
    )


def announce(machine: Machine, folder: Path) -> None:
    """Print the machine's settings and store them in ``folder/machine.json``."""
    say(
        f"Machine: {machine.device} ({machine.device_name}, {machine.threads} threads) · "
        f"{machine.rasterizer} · photos in {machine.photos_in} · torch {machine.torch}, not compiled\n"
        f"{machine.guidance}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine.json").write_text(json.dumps(asdict(machine), indent=2) + "\n", encoding="utf-8")
