"""A tiny scene, nerfstudio's commands as subprocesses cut off from the network, and one trained run that most tests share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vlmgs_ns.toy.scene import write_scene

HERE = Path(__file__).parent
SMALL = (
    *("--pipeline.model.num-random", "300", "--viewer.quit-on-train-completion", "True", "--vis", "tensorboard"),
    *("--pipeline.model.semantics.enabled", "False"),
)
"""Options of every training here: few Gaussians, no viewer, no semantic stage (which has its own tests)."""


@dataclass
class Result:
    """How a command ended and everything that it printed."""

    status: int
    output: str


class Commands:
    """Runs nerfstudio's commands in ``cwd``; whatever tries to leave the machine fails and is logged."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.network_log = cwd / "network.log"
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE / "guard"), str(HERE.parents[1])]),
            "VLMGS_NETWORK_LOG": str(self.network_log),
            "PYTHONWARNINGS": "ignore",
            "COLUMNS": "1000",
        }
        self._server: subprocess.Popen[str] | None = None

    def argv(self, name: str, *args: object) -> list[str]:
        return [str(Path(sysconfig.get_path("scripts")) / name), *map(str, args)]

    def start(self, name: str, *args: object, output: Path) -> subprocess.Popen[bytes]:
        """The console script itself, in the background."""
        with output.open("wb") as file:
            return subprocess.Popen(
                self.argv(name, *args), cwd=self.cwd, env=self.env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    def run(self, name: str, *args: object) -> Result:
        """The console script itself."""
        done = subprocess.run(
            self.argv(name, *args),
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(errors="replace"))

    def fork(self, name: str, *args: object, parse_only: bool = False) -> Result:
        """The console script's function in a fork of a process that has imported nerfstudio: the same, ten seconds faster.

        With `parse_only` the command line is parsed and nothing is done; `name` may then be ``python``, with a script.
        """
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, str(HERE / "fork_server.py")],
                cwd=self.cwd,
                # Neither OpenMP's threads nor CUDA survive a fork: with one thread and no device there is nothing to lose.
                env={**self.env, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._answer()
        assert self._server.stdin is not None
        output = self.cwd / "fork_output.txt"
        order = {"argv": [name, *map(str, args)], "cwd": str(self.cwd), "output": str(output), "parse_only": parse_only}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        status = int(self._answer())
        return Result(status, output.read_text(encoding="utf-8", errors="replace"))

    def close(self) -> None:
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait(timeout=30)

    def _answer(self) -> str:
        assert self._server is not None and self._server.stdout is not None

        def too_late(number: int, frame: object) -> None:
            raise TimeoutError("a nerfstudio command took over 300 s")

        previous = signal.signal(signal.SIGALRM, too_late)
        signal.alarm(300)
        try:
            line = self._server.stdout.readline()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
        assert line, "the fork server died"
        return line.strip()


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nerfstudio")


@pytest.fixture(scope="session")
def commands(work: Path) -> Iterator[Commands]:
    """The commands; at the end of the session, nothing may have tried the network."""
    runner = Commands(work)
    yield runner
    runner.close()
    attempts = runner.network_log.read_text(encoding="utf-8") if runner.network_log.exists() else ""
    assert attempts == "", f"something tried the network:\n{attempts}"


@pytest.fixture(scope="session")
def scene(work: Path) -> Path:
    """Ten photos of the embedded room at 64×48, two of them held out, with transforms.json."""
    write_scene(work / "room", views=10, width=64, height=48, held_out=2, points=400, supersample=1)
    return work / "room"


@pytest.fixture(scope="session")
def colmap_scene(work: Path, scene: Path) -> Path:
    """The same scene with nothing but photos and a COLMAP model."""
    target = work / "room_colmap"
    shutil.copytree(scene, target, ignore=shutil.ignore_patterns("transforms.json", "*.ply", "masks_instance"))
    return target


@dataclass
class Run:
    """A training run on disk."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"

    @property
    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "nerfstudio_models").glob("*.ckpt"))


def run_of(commands: Commands, method: str, name: str) -> Run:
    """The only run of a method under an experiment's name."""
    (folder,) = (commands.cwd / "outputs" / name / method).iterdir()
    return Run(folder)


@pytest.fixture(scope="session")
def trained(commands: Commands, scene: Path) -> Run:
    """vlm-fastgs-lite, ten steps, through the real ns-train."""
    result = commands.run(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 10, "--experiment-name", "shared", *SMALL),
        *("--pipeline.model.run-length", 1000),  # ten steps of a long run: nothing is born, pruned or reset yet
    )
    assert result.status == 0, result.output
    return run_of(commands, "vlm-fastgs-lite", "shared")
