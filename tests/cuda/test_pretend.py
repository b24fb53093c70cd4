"""The pretend device refuses what CUDA refuses and takes what CUDA takes."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from tests.cuda.pretend import pretend_cuda


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    with pretend_cuda():
        yield


def there() -> torch.Tensor:
    return torch.arange(4.0, device="cuda")


REFUSED: dict[str, Callable[[], object]] = {
    "sum of both": lambda: there() + torch.ones(4),
    "in place": lambda: torch.ones(4).add_(there()),
    "numpy": lambda: there().numpy(),
    "numpy asked for an array": lambda: np.asarray(there()),
    "index on the GPU into the CPU": lambda: torch.ones(4)[there().long()],
    "mask on the GPU into the CPU": lambda: torch.ones(4)[there() > 1],
    "values of the CPU put at indices": lambda: there().__setitem__(there() > 1, torch.ones(2)),
    "concatenation": lambda: torch.cat([there(), torch.ones(1)]),
    "product": lambda: there() @ torch.ones(4),
    "generator of the CPU": lambda: torch.rand(2, device="cuda", generator=torch.Generator()),
    "pinned": lambda: there().pin_memory(),
}
TAKEN: dict[str, Callable[[], torch.Tensor]] = {
    "number": lambda: there() * 2 + torch.tensor(3.0),
    "index of the CPU": lambda: there()[torch.tensor([0, 2])],
    "mask of the CPU": lambda: there()[torch.tensor([True, False, True, False])],
    "copy into": lambda: there().copy_(torch.ones(4)),
    "slice": lambda: there()[1:3].clone(),
    "like": lambda: torch.zeros_like(there()),
    "new": lambda: there().new_ones(2),
    "where": lambda: torch.where(there() > 1, there(), 0.0),
    "moved": lambda: torch.ones(4).to(there()),
    "deep copy": lambda: torch.nn.Parameter(there()).__deepcopy__({}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[name]()


@pytest.mark.parametrize("name", TAKEN)
def test_taken_and_stays_there(name: str) -> None:
    result = TAKEN[name]()
    assert result.device == torch.device("cuda", 0) and result.is_cuda and not result.cpu().is_cuda


def test_gradients_lie_where_their_tensors_do() -> None:
    on_cpu, on_cuda = torch.ones(4, requires_grad=True), there().requires_grad_()
    (on_cpu.to("cuda") * on_cuda).square().sum().cpu().backward()
    assert on_cpu.grad is not None and not on_cpu.grad.is_cuda
    assert on_cuda.grad is not None and on_cuda.grad.is_cuda


def test_threads_have_it_too() -> None:
    caught: list[Exception] = []

    def work() -> None:
        try:
            there().numpy()
        except TypeError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_files_remember_the_device() -> None:
    file = io.BytesIO()
    torch.save({"weights": there()}, file)
    for target, expected in ((None, True), ("cpu", False)):
        file.seek(0)
        assert torch.load(file, map_location=target, weights_only=True)["weights"].is_cuda == expected


def test_modules_move() -> None:
    layer = torch.nn.Linear(4, 2).to("cuda")
    assert layer(there()).is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        layer(torch.ones(4))
