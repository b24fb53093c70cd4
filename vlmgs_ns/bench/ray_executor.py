"""Tasks on a Ray cluster: one that exists, or one that is started on this machine and ends with it.

Ray decides where a task goes by the cores and GPUs that it needs, and starts it again elsewhere when its worker dies. All
machines have the same version of this package, and the data and the folder of the benchmark at the same paths.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from vlmgs_ns.bench.executor import Function, Outcome, Progress, guarded
from vlmgs_ns.system.errors import InputError

RETRIES = 3
"""How often a task is started again whose worker died."""
STARTS = 3
"""How often the start of a cluster of our own is tried."""
ON_THIS_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_agent_register_timeout_ms": "120000"}
"""For a cluster of our own: all servers listen on 127.0.0.1 alone, as Ray has it by default on Windows and macOS; and a busy
machine gets time to start them."""
OBJECT_STORE = 100_000_000
"""Bytes that a cluster of our own sets aside for results, which are small."""


class RayExecutor:
    """A Ray cluster."""

    def __init__(self, address: str | None, workers: int = 1) -> None:
        """Join the cluster at an address, or start one of `workers` processes on this machine.

        Raises:
            InputError: Ray is not installed, or no cluster answers at the address.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # torch's threads would spin, and what libraries deprecate is news for their developers.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        if address is None:
            os.environ.update(ON_THIS_MACHINE)
        try:
            import ray
        except ImportError:
            raise InputError('--executor ray: Ray is not installed; pip install "vlmgs-ns[cluster]"') from None
        self._ray, self._address = ray, address
        if address is None:
            self._start(workers)
        else:
            self._join(address)
        self._gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0

    def _start(self, workers: int) -> None:
        """Start a cluster of our own."""
        for attempt in range(STARTS):
            try:
                self._ray.init(
                    num_cpus=workers, include_dashboard=False, object_store_memory=OBJECT_STORE, log_to_driver=False,
                    logging_level=logging.ERROR,
                )  # fmt: skip
                return
            except Exception as error:  # Ray waits for its own processes for 30 s, and then raises a bare Exception
                self._ray.shutdown()
                if attempt == STARTS - 1:
                    raise InputError(
                        f"Ray could not be started on this machine ({_first(error)}); use --executor local, or try again when "
                        "it has less to do"
                    ) from None

    def _join(self, address: str) -> None:
        """Join a cluster that exists."""
        try:
            _knock(address)
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--address {address}: no Ray cluster answers ({_first(error)}); start one with ray start --head, or leave it out"
            ) from None

    def describe(self) -> str:
        """Return one line that says where."""
        resources = self._ray.cluster_resources()
        where = f"the Ray cluster at {self._address}" if self._address else "a Ray cluster on this machine"
        return f"on {where}: {resources.get('CPU', 0):.0f} cores, {resources.get('GPU', 0):.0f} GPUs"

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()

    def execute(
        self, function: Function, items: Sequence[Any], progress: Progress, *, alone: bool = True
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield index and outcome of each item, as they end. No progress is reported in between."""
        # Alone as on one machine: libraries keep state, and peak memory is that of a process. Together, tasks import once; but a
        # process that has used a GPU keeps memory of it.
        calls = 1 if alone or self._gpus else 0  # 0: any number
        task = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_retries=RETRIES, max_calls=calls)(_task)
        waiting = {task.remote(function, item): index for index, item in enumerate(items)}
        try:
            while waiting:
                (ready,), _ = self._ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(ready), self._outcome(ready)
        finally:
            for reference in waiting:
                self._ray.cancel(reference, force=True)

    def _outcome(self, reference: Any) -> Outcome:
        try:
            outcome = self._ray.get(reference)
            assert isinstance(outcome, Outcome)
            return outcome
        except self._ray.exceptions.RayError as error:
            return Outcome(error=f"its worker died {RETRIES + 1} times, or never began: {_first(error)}")


def _knock(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _task(function: Function, item: Any) -> Outcome:
    return guarded(function, item, lambda done, note="": None)


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
