from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vlmgs_ns.method.machine import announce, check_device, choose_cache, default_device, describe, gsplat_kernels, hint_for_cpu
from vlmgs_ns.rasterize.threads import get_num_threads
from vlmgs_ns.system.errors import InputError


def test_the_default_device_is_one_that_is_there() -> None:
    check_device(default_device())
    torch.zeros(1, device=default_device())


def test_devices_that_cannot_train_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == "cpu"
    with pytest.raises(InputError, match=r"cuda.*--machine\.device-type cpu"):
        check_device("cuda")
    with pytest.raises(InputError, match="mps"):
        check_device("mps")


def test_cuda_without_kernels_is_refused_before_anything_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"gsplat has no compiled kernels: install the CUDA toolkit.*--machine\.device-type cpu"):
        check_device("cuda")
    (tmp_path / "nvcc").touch(mode=0o755)
    check_device("cuda")
    assert gsplat_kernels()[0] == "kernels that are compiled at the first use, for some minutes"
    (tmp_path / "py311_cu126" / "gsplat_cuda").mkdir(parents=True)
    (tmp_path / "py311_cu126" / "gsplat_cuda" / "gsplat_cuda.so").touch()
    assert gsplat_kernels() == ("kernels compiled on this machine", "")


def test_photos_stay_on_a_cpu_without_pinning() -> None:
    assert choose_cache("cpu", 10**15) == "gpu"


def test_photos_go_to_the_gpu_where_they_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4_000, 8_000))
    assert choose_cache("cuda:0", 999) == "gpu"
    assert choose_cache("cuda:0", 1_001) == "cpu"


def test_the_choice_is_printed_and_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce(describe("cpu", "gpu", "Guidance: nobody, for a test"), tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "machine.json").read_text())
    assert stored["device"] == "cpu" and stored["threads"] == get_num_threads()
    assert stored["compiled"] is False and stored["torch"] == torch.__version__
    assert stored["guidance"] == "Guidance: nobody, for a test"
    shown = capsys.readouterr().out
    assert "Machine: cpu" in shown and "Guidance: nobody" in shown


@pytest.mark.parametrize(
    ("device", "iterations", "size", "hinted"),
    [("cpu", 20_000, 1600, True), ("cuda:0", 20_000, 1600, False), ("cpu", 5_000, 800, False), ("cpu", 1_500, 300, False)],
)
def test_a_run_made_for_a_gpu_names_the_methods_for_a_cpu(device: str, iterations: int, size: int, hinted: bool) -> None:
    hint = hint_for_cpu(device, iterations, size)
    assert ("vlm-fastgs-cpu" in hint and "vlm-fastgs-lite" in hint and f"{iterations:,}" in hint) is hinted
