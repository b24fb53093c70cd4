"""Imports nerfstudio and the package once and runs each command line in a fork: a console script without ten seconds of import.

Serves the Unix socket that ``socket`` in the folder of its command line leads to, until no process holds a lock on ``users``
there. A connection is one command: it sends JSON
``{"argv": [...], "cwd": "…", "env": {...}, "parse_only": false}`` with the descriptors of standard output and standard error, and
is answered with the process id and, at the end, the exit status.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import select
import shutil
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import IO, Any, NoReturn

from parse_only import parse_only

import vlmgs_ns

SCRIPTS = ("ns-train", "ns-eval", "ns-render", "ns-export", "ns-viewer", "vlmgs")
LATE_IMPORTS = ("torchmetrics.image", "open3d", "open_clip", "matplotlib.pyplot", "torch.utils.tensorboard", "imageio.v3")
"""What commands import as they run: five processor seconds of every training."""
ENVIRONMENT = dict(os.environ)


def run_as_script(entrypoint: Callable[[], object]) -> NoReturn:
    """End this process as Python ends a script; but no library tidies up threads that did not survive the fork."""
    status: object = 1
    try:
        status = entrypoint()
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
    if isinstance(status, str):
        print(status, file=sys.stderr)  # noqa: T201  (what the interpreter does)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status or 0) if isinstance(status, int | None) else 1)


def fork_children() -> None:
    """Let processes that the command starts through multiprocessing be forks too, of a process with everything imported."""
    get_context = multiprocessing.get_context
    setattr(multiprocessing, "get_context", lambda method=None: get_context("fork"))  # noqa: B010


def change_environment(wanted: dict[str, str], start: dict[str, str]) -> None:
    """Make the environment `wanted` where that differs from this server's at its `start`; what imports changed stays."""
    for name in start.keys() - wanted.keys():
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in wanted.items() if start.get(name) != value})


def become(order: dict[str, Any], scripts: dict[str, EntryPoint], outputs: list[int]) -> NoReturn:
    """Be the process of an order."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, target in zip(outputs, (1, 2), strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started the tests in the background
    os.chdir(order["cwd"])
    change_environment(order["env"], ENVIRONMENT)
    warnings.simplefilter(order["env"].get("PYTHONWARNINGS", "default"))
    fork_children()
    sys.argv = order["argv"]
    if order["parse_only"]:
        run_as_script(lambda: parse_only(sys.argv))
    run_as_script(scripts[order["argv"][0]].load())


def serve(connection: socket.socket, scripts: dict[str, EntryPoint]) -> None:
    """Run one command in a child of this process and report its end."""
    message, outputs, _, _ = socket.recv_fds(connection, 1 << 18, 2)
    pid = os.fork()
    if pid == 0:
        connection.close()
        become(json.loads(message), scripts, outputs)
    connection.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def reap() -> None:
    """Let go of children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def import_everything() -> dict[str, EntryPoint]:
    """Import what any command would, and return the console scripts by name."""
    gc.disable()  # hardly anything that imports make is garbage
    scripts = {point.name: point for point in entry_points(group="console_scripts")}
    for name in SCRIPTS:
        scripts[name].load()
    package = [module.name for module in pkgutil.walk_packages(vlmgs_ns.__path__, "vlmgs_ns.")]
    for name in (*package, *LATE_IMPORTS):
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would look at all of it, and so copy its memory
    gc.enable()
    return scripts


def deserted(users: IO[str]) -> bool:
    """Return whether no process holds a lock on the file any more; then none can get one before this process has ended."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main(folder: Path) -> NoReturn:
    scripts = import_everything()
    place = tempfile.mkdtemp(prefix="vlmgs-")  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, (folder / "users").open() as users:
        listener.bind(f"{place}/socket")
        listener.listen()
        (folder / "socket").symlink_to(f"{place}/socket")
        print("ready", flush=True)  # noqa: T201
        while True:
            readable, _, _ = select.select([listener], [], [], 1.0)
            reap()
            if not readable:
                if deserted(users):
                    (folder / "socket").unlink()
                    shutil.rmtree(place)
                    os._exit(0)  # there is nothing to tidy up
                continue
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                users.close()
                try:
                    serve(connection, scripts)
                finally:
                    os._exit(0)
            connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
