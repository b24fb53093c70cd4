"""A CUDA device that is not there: under `pretend_cuda` torch refuses what it refuses where tensors lie on a GPU.

Tensors stay in the memory of the host and are computed there; a list of storages says which lie on the pretend device. Two of
torch's modes do the rest. One sees every call from Python: `.device`, `.is_cuda`, `.to`, `device=` and `.numpy()` answer as on
CUDA. The other sees every operation below, those of the backward pass too: what it makes of labelled tensors is labelled, and an
operation on both kinds raises, but for what CUDA allows. Threads started meanwhile have both modes as well.

It calls itself cuda:0, so that the code under test takes its CUDA branches. `kernel` is the border to what stands in for compiled
kernels. Draws come from the CPU's generator: a run here and one on the CPU see the same random numbers.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
MEMORY = 8 << 30
"""Bytes of the pretend device's memory, all of them free."""
ANY_DEVICES = {"copy_", "_to_copy", "set_"}
"""Operations that take tensors of both devices on CUDA."""
INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations whose indices may lie on the CPU where the tensor itself lies on CUDA."""


_ON_CUDA: dict[int, StorageWeakRef] = {}
"""Storages on the pretend device, by address; a weak reference keeps the address from being used again."""
SWEEP = 100_000
"""Entries at which those are thrown out whose storage is gone."""


def is_labelled(tensor: Tensor) -> bool:
    """Return whether a tensor lies on the pretend device."""
    return tensor.layout == torch.strided and tensor.untyped_storage()._cdata in _ON_CUDA


def label(tensor: Tensor, on_cuda: bool = True) -> Tensor:
    """Say where a tensor lies, and with it whatever shares its memory."""
    if tensor.layout == torch.strided:
        mark(tensor.untyped_storage(), on_cuda)
    return tensor


def mark(storage: torch.UntypedStorage, on_cuda: bool) -> None:
    if not on_cuda:
        _ON_CUDA.pop(storage._cdata, None)
    elif storage._cdata not in _ON_CUDA:
        if len(_ON_CUDA) > SWEEP:
            for address in [address for address, reference in _ON_CUDA.items() if reference.expired()]:
                del _ON_CUDA[address]
        _ON_CUDA[storage._cdata] = StorageWeakRef(storage)


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among arguments or results; in a quarter of the time that torch's own walk takes."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(value)
        elif isinstance(value, dict):
            found += tensors_in(value.values())
    return found


@contextmanager
def unseen() -> Iterator[None]:
    """Work on the pretend device's own memory."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


def kernel(work: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function in torch stand in for a CUDA kernel: operands on the pretend device and contiguous, results there too."""

    @functools.wraps(work)
    def launch(*args: Any) -> Any:
        with unseen():
            for operand in tensors_in(args):
                if not is_labelled(operand):
                    raise RuntimeError(f"{work.__name__}: a tensor {list(operand.shape)} must be a CUDA tensor")
                if not operand.is_contiguous():
                    raise RuntimeError(f"{work.__name__}: a tensor {list(operand.shape)} must be contiguous")
            results = work(*args)
            for result in tensors_in((results,)):
                label(result)
            return results

    return launch


class _Move(torch.autograd.Function):
    """A copy on the other device; its gradient comes back to where the tensor lies."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, to_cuda: bool) -> Tensor:  # type: ignore[override]
        ctx.to_cuda = to_cuda
        with unseen():
            return label(tensor.detach().clone(), to_cuda)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        with unseen():
            return label(gradient.clone(), not ctx.to_cuda), None


class _Operations(TorchDispatchMode):
    """Labels what operations make, and refuses operands of both devices."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()

    @contextmanager
    def working_on(self, on_cuda: bool) -> Iterator[None]:
        """Say where tensors lie that the present call makes from nothing."""
        before = getattr(self._thread, "on_cuda", False)
        self._thread.on_cuda = on_cuda
        try:
            yield
        finally:
            self._thread.on_cuda = before

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = tensors_in((args, kwargs))
        labels = {is_labelled(operand) for operand in operands}
        if len(labels) == 2 and not self._takes_both(function, args, operands):
            kinds = ", ".join(f"{'cuda:0' if is_labelled(operand) else 'cpu'} {list(operand.shape)}" for operand in operands)
            raise RuntimeError(f"Expected all tensors to be on the same device, but {function} got {kinds}")
        result = function(*args, **kwargs)
        on_cuda = any(labels) if operands else getattr(self._thread, "on_cuda", False)
        for made in tensors_in((result,)):
            if not shares_memory(made, operands):
                label(made, on_cuda)
        return result

    @staticmethod
    def _takes_both(function: Any, args: Any, operands: list[Tensor]) -> bool:
        name = function._schema.name.partition("::")[2]
        if name in ANY_DEVICES:
            return True
        if name in INDEXING:
            values = args[2:3] if "put" in name else ()
            return is_labelled(args[0]) and all(is_labelled(value) or value.dim() == 0 for value in values)
        # CUDA takes numbers from the CPU
        elementwise = torch.Tag.pointwise in function.tags or name.startswith("_foreach") or name in ("masked_fill_", "fill_")
        return elementwise and all(is_labelled(operand) or operand.dim() == 0 for operand in operands)


def shares_memory(tensor: Tensor, others: list[Tensor]) -> bool:
    if tensor.layout != torch.strided:
        return False
    own = tensor.untyped_storage()._cdata
    return any(other.layout == torch.strided and other.untyped_storage()._cdata == own for other in others)


FROM_NOTHING = {
    *(getattr(torch, name) for name in ("arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "rand", "randint")),
    *(getattr(torch, name) for name in ("logspace", "randn", "randperm", "tensor", "zeros", "tril_indices", "triu_indices")),
    *(getattr(torch, f"{name}_like") for name in ("empty", "full", "ones", "rand", "randint", "randn", "zeros")),
    *(getattr(Tensor, f"new_{name}") for name in ("empty", "full", "ones", "tensor", "zeros")),
}
"""Functions whose `device` says where their result lies."""
PLACES: dict[Any, Callable[[Tensor], Any]] = {
    Tensor.device.__get__: lambda tensor: CUDA if is_labelled(tensor) else CPU,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: is_labelled,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: lambda tensor: not is_labelled(tensor),  # type: ignore[attr-defined]
    Tensor.get_device: lambda tensor: 0 if is_labelled(tensor) else -1,
}


class _Calls(TorchFunctionMode):
    """Answers for the pretend device whatever Python asks of tensors."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in PLACES:
            return PLACES[function](args[0])
        if function in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return self._move(function, *args, **kwargs)
        operands = tensors_in((args, kwargs))
        on_cuda = any(map(is_labelled, operands))
        if function in FROM_NOTHING and kwargs.get("device") is not None:
            on_cuda = torch.device(kwargs.pop("device")).type == "cuda"
        elif function is torch.tensor:
            on_cuda = False
        if on_cuda and function in (Tensor.numpy, Tensor.__array__):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
            )
        if on_cuda and function is Tensor.pin_memory:
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        if on_cuda and kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if function is Tensor.pin_memory:
            return args[0].clone()
        with self.operations.working_on(on_cuda):
            result = function(*args, **kwargs)
        if function in FROM_NOTHING or function is Tensor.__deepcopy__:
            if shares_memory(result, operands):  # as_tensor of a tensor
                return result if on_cuda == is_labelled(result) else _Move.apply(result, on_cuda)
            label(result, on_cuda)
        return result

    def _move(self, function: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`Tensor.to` and its like; without a change of the device a change of the type only."""
        to_cuda, dtype, copy = is_labelled(tensor), None, bool(kwargs.pop("copy", False))
        if function is not Tensor.to:
            to_cuda = function is Tensor.cuda
        elif isinstance(args[0] if args else kwargs.get("other"), Tensor):
            other = args[0] if args else kwargs["other"]
            to_cuda, dtype = is_labelled(other), other.dtype
        else:
            device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
            to_cuda = to_cuda if device is None else device.type == "cuda"
        if dtype is not None or copy:
            tensor = tensor.to(dtype or tensor.dtype, copy=copy)
        return tensor if to_cuda == is_labelled(tensor) else _Move.apply(tensor, to_cuda)  # type: ignore[no-any-return]


def _tag(storage: Any) -> str | None:
    return "cuda:0" if getattr(storage, "_untyped_storage", storage)._cdata in _ON_CUDA else None


def _restore(storage: Any, location: str) -> Any:
    if not location.startswith("cuda"):
        return None
    mark(getattr(storage, "_untyped_storage", storage), True)
    return storage


@contextmanager
def pretend_cuda() -> Iterator[None]:
    """Have a CUDA device, to torch's eyes and to everybody who asks torch."""
    operations = _Operations()
    calls = _Calls(operations)
    bootstrap, run_backward = threading.Thread._bootstrap_inner, torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def start_thread(thread: threading.Thread) -> None:
        with operations, calls:
            bootstrap(thread)  # type: ignore[no-untyped-call]

    def backward(*args: Any, **kwargs: Any) -> Any:
        # called from inside the mode, which is off there: backward passes in Python must be seen
        with calls, operations.working_on(any(map(is_labelled, tensors_in((args, kwargs))))):
            return run_backward(*args, **kwargs)

    answers = {
        "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "set_device": lambda device: None, "synchronize": lambda device=None: None, "empty_cache": lambda: None,
        "mem_get_info": lambda device=None: (MEMORY, MEMORY), "get_device_name": lambda device=None: "pretend GPU",
        "max_memory_allocated": lambda device=None: 0, "reset_peak_memory_stats": lambda device=None: None,
        "get_rng_state_all": lambda: [torch.get_rng_state()], "set_rng_state_all": lambda states: None,
        "is_bf16_supported": lambda including_emulation=True: True, "is_current_stream_capturing": lambda: False,
    }  # fmt: skip
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(patch.object(threading.Thread, "_bootstrap_inner", start_thread))
        stack.enter_context(patch.object(torch.autograd, "_engine_run_backward", backward))
        registry = [(0, _tag, _restore), *torch.serialization._package_registry]
        stack.enter_context(patch.object(torch.serialization, "_package_registry", registry))
        stack.enter_context(operations)
        stack.enter_context(calls)
        yield
