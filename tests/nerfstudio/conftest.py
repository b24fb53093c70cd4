"""A tiny scene, nerfstudio's commands as subprocesses cut off from the network, and one trained run that most tests share."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.console.forks import ForkServer, Job
from vlmgs_ns.toy.scene import write_scene

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

    def __init__(self, cwd: Path, server: ForkServer) -> None:
        self.cwd, self.server = cwd, server
        self.env = dict(server.env)

    def run(self, name: str, *args: object) -> Result:
        """The console script itself."""
        done = subprocess.run(
            [str(Path(sysconfig.get_path("scripts")) / name), *map(str, args)],
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(errors="replace"))

    def start(self, name: str, *args: object, output: Path, parse_only: bool = False) -> Job:
        """The console script's function in a fork of a process that has imported nerfstudio, in the background.

        With `parse_only` the command line is parsed and nothing is done; `name` may then be ``python``, with a script.
        """
        with output.open("wb") as file:
            return self.server.start([name, *map(str, args)], self.cwd, self.env, file, file, parse_only)

    def fork(self, name: str, *args: object, parse_only: bool = False) -> Result:
        """As `start`, to its end: the console script ten seconds faster."""
        output = self.cwd / "fork_output.txt"
        job = self.start(name, *args, output=output, parse_only=parse_only)
        try:
            status = job.wait()
        finally:
            job.kill()
        return Result(status, output.read_text(encoding="utf-8", errors="replace"))


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nerfstudio")


@pytest.fixture(scope="session")
def commands(work: Path, fork_server: ForkServer) -> Commands:
    """The commands in `work`."""
    return Commands(work, fork_server)


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
    """vlm-fastgs-lite, ten steps, through ns-train."""
    result = commands.fork(
        *("ns-train", "vlm-fastgs-lite", "--data", scene, "--max-num-iterations", 10, "--experiment-name", "shared", *SMALL),
        *("--pipeline.model.run-length", 1000),  # ten steps of a long run: nothing is born, pruned or reset yet
    )
    assert result.status == 0, result.output
    return run_of(commands, "vlm-fastgs-lite", "shared")
