from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from vlmgs_ns.method.lpips import Lpips, weights_path


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("LPIPS tried the network")


def test_without_weights_it_is_absent_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    lpips, image = Lpips(), torch.rand(1, 3, 32, 32)
    assert lpips(image, image) is None and lpips(image, image) is None
    assert "".join(capsys.readouterr().out.split()).count("LPIPSisnotreported") == 1


def test_with_weights_on_the_disk_it_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights stand in for AlexNet's: equal pictures are at distance 0, others are not."""
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    weights_path().parent.mkdir(parents=True)
    torch.save(alexnet(weights=None).state_dict(), weights_path())
    monkeypatch.setattr("torch.hub.HASH_REGEX", __import__("re").compile("no hash"))
    lpips, image = Lpips(), torch.rand(1, 3, 64, 64)
    assert lpips(image, image) == pytest.approx(0.0, abs=1e-6)
    distance = lpips(image, 1 - image)
    assert distance is not None and distance > 0
