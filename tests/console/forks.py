"""Console scripts in forks of one process that has imported everything, cut off from the network."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
SAFE_TO_FORK = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
"""Neither OpenMP's threads nor CUDA survive a fork: with one thread and no device there is nothing to lose."""


class Job:
    """A command that runs in a fork; used as `subprocess.Popen` is."""

    def __init__(self, argv: list[str], connection: socket.socket) -> None:
        self.argv, self._connection = argv, connection
        self.returncode: int | None = None
        self.pid = self._answer(60)

    def _answer(self, timeout: float | None) -> int:
        self._connection.settimeout(timeout)
        answer = self._connection.recv(64)
        assert answer, "the fork server died"
        return int(answer)

    def wait(self, timeout: float = 300) -> int:
        """Return the exit status once there is one; TimeoutError after `timeout` seconds."""
        if self.returncode is None:
            self.returncode = self._answer(timeout)
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit status, or None while the command runs."""
        try:
            return self.wait(timeout=0)
        except (BlockingIOError, TimeoutError):
            return None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts at the first command of any process that was given the folder, serves them all, and ends with the last of them."""

    def __init__(self, folder: Path) -> None:
        self.network_log = folder / "network.log"
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE / "guard"), str(HERE.parents[1])]),
            "VLMGS_NETWORK_LOG": str(self.network_log),
            "PYTHONWARNINGS": "ignore",
            "COLUMNS": "1000",
        }
        """The environment in which whatever tries to leave the machine fails and is logged."""
        self._folder = folder
        self._users: IO[str] | None = None
        self._process: subprocess.Popen[str] | None = None

    def start(
        self, argv: list[str], cwd: Path, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes], parse_only: bool = False
    ) -> Job:
        """Run a console script's function in a fork.

        Args:
            argv: name of the script, and its arguments.
            cwd: folder to run it in.
            env: its environment; of variables that Python reads as it starts, only PYTHONWARNINGS counts.
            stdout, stderr: files that it writes to.
            parse_only: parse the command line and do nothing; the name may then be ``python``, with a script.
        """
        if self._users is None:
            self._join()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(os.readlink(self._folder / "socket"))
        order = {"argv": argv, "cwd": str(cwd), "env": {**env, **SAFE_TO_FORK}, "parse_only": parse_only}
        socket.send_fds(connection, [json.dumps(order).encode()], [stdout.fileno(), stderr.fileno()])
        return Job(argv, connection)

    def run(self, argv: list[str], cwd: Path, env: Mapping[str, str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a console script's function in a fork to its end, as `subprocess.run` with its output as text."""
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            job = self.start(argv, cwd, env, stdout, stderr)
            try:
                status = job.wait(timeout)
            finally:
                job.kill()
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess(argv, status, *texts)

    def close(self) -> None:
        """Leave the server; commands that still run go on."""
        if self._users is not None:
            self._users.close()

    def _join(self) -> None:
        """Become a user of the server, which looks every second whether it has any; start it where there is none."""
        self._folder.mkdir(exist_ok=True)
        self._users = (self._folder / "users").open("w")
        fcntl.flock(self._users, fcntl.LOCK_SH)
        with (self._folder / "start").open("w") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            if not (self._folder / "socket").is_symlink():
                self._launch()

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py"), str(self._folder)],
            env={**self.env, **SAFE_TO_FORK},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the fork server did not start"
