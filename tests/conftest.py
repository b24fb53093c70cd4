"""For all tests and the commands that they start."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.console.forks import ForkServer

ENVIRONMENT = {
    # nerfstudio's torch.compile starts compiler processes and imports the compiler, which no test needs: five processor seconds a
    # command.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",
    # The workers share the cores already, and torch's threads wait by spinning.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)

LONG_FILES = (
    "tests/bench/test_ray.py",
    "tests/bench/test_bench.py",
    "tests/commands/test_demo.py",
    "tests/commands/test_features.py",
    "tests/nerfstudio/test_train.py",
    "tests/nerfstudio/test_commands.py",
    "tests/pages/test_report.py",
    "tests/nerfstudio/test_semantics.py",
    "tests/nerfstudio/test_viewer_panel.py",
    "tests/cuda/test_run.py",
    "tests/method/test_guided_scene.py",
    "tests/nerfstudio/test_docs.py",
    "tests/nerfstudio/test_viewer.py",
    "tests/nerfstudio/test_guidance.py",
    "tests/nerfstudio/test_inputs.py",
    "tests/rasterize/test_jit.py",
)
"""Files that take over 15 s, the longest first."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector: what imports make stays, and looking at it is a sixth of their time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first: workers take files in this order, and none is left alone with a long one at the end."""
    places = {file: place for place, file in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[ForkServer]:
    """Console scripts in forks of one server for all workers; at the end of the session, none may have tried the network."""
    folder = tmp_path_factory.getbasetemp()
    server = ForkServer((folder.parent if hasattr(pytestconfig, "workerinput") else folder) / "fork_server")
    yield server
    server.close()
    attempts = server.network_log.read_text(encoding="utf-8") if server.network_log.exists() else ""
    assert attempts == "", f"something tried the network:\n{attempts}"


# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
