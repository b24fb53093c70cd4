"""What the processes of test_cache.py do. They are forked from a server that has torch loaded, which saves seconds each."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
from collections.abc import Callable
from contextlib import redirect_stdout
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import torch

from vlmgs_ns.semantics.cache import FeatureCache, default_cache, photo_digest
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import say


def start(task: Callable[..., None], *args: object) -> tuple[ForkServerProcess, Connection]:
    """A process at work on `task(pipe, *args)`, and our end of the pipe."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    process = context.Process(target=task, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def photo(number: int) -> bytes:
    return photo_digest(np.full((1, 1, 1), number))


def compete(pipe: Connection, folder: Path) -> None:
    """Make 100 maps as soon as told; answers with the number of maps that were not what they should be."""
    cache = FeatureCache(folder)
    pipe.send("ready")
    pipe.recv()
    wrong = 0
    for k in range(100):
        got = cache.get(photo(k), "key", lambda k=k: torch.full((40, 40, 16), float(k)))
        wrong += not np.allclose(got, k, rtol=1e-3)
    pipe.send(wrong)


def write_many(pipe: Connection, folder: Path) -> None:
    cache = FeatureCache(folder)
    for k in range(200):
        cache.get(photo(k), "key", lambda k=k: torch.full((100, 100, 64), float(k % 100)))


def write_too_much(pipe: Connection, folder: Path, limit: int) -> None:
    """No file may grow beyond `limit` bytes: like a full disk, this fails in the middle of a write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        FeatureCache(folder).get(bytes(32), "key", lambda: torch.zeros(300, 300, 3))
    except InputError as error:
        pipe.send(str(error))


def use_default(pipe: Connection, data: Path, home: Path, user: int | None) -> None:
    """Write one map to the default place as another user, where one is given; answers with what was said."""
    os.environ["XDG_CACHE_HOME"] = str(home)
    said = io.StringIO()
    with redirect_stdout(said):
        say("rich reads its parts as it needs them: the other user may not be let into this environment")
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    with redirect_stdout(said):
        default_cache(data).get(bytes(32), "key", lambda: torch.zeros(2, 2, 2))
    pipe.send("".join(said.getvalue().splitlines(keepends=True)[1:]))
