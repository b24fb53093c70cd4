"""The ``vlmgs`` command: what the method offers beside nerfstudio's own commands.

A subcommand is a dataclass in its own file under ``commands``: its fields are the flags, their docstrings the help. Those
files import nothing heavy at the top, so that ``vlmgs --help`` answers at once; ``run`` does the importing. To add one, add its
class to ``Command``.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
import warnings
from importlib.metadata import version
from typing import Annotated, get_args

import tyro
from rich.console import Console

from vlmgs_ns.commands.bench import Bench
from vlmgs_ns.commands.cache import Cache
from vlmgs_ns.commands.demo import Demo
from vlmgs_ns.commands.doctor import Doctor
from vlmgs_ns.commands.evaluate import Evaluate
from vlmgs_ns.commands.export import Export
from vlmgs_ns.commands.features import Features
from vlmgs_ns.commands.new import New
from vlmgs_ns.commands.prepare import Prepare
from vlmgs_ns.commands.query import Query
from vlmgs_ns.commands.render_report import RenderReport
from vlmgs_ns.commands.scene import Scene
from vlmgs_ns.commands.share import Share
from vlmgs_ns.system.errors import InputError

Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[New, tyro.conf.subcommand("new")]
    | Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Scene, tyro.conf.subcommand("scene")]
    | Annotated[Cache, tyro.conf.subcommand("cache")]
    | Annotated[Evaluate, tyro.conf.subcommand("eval")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Query, tyro.conf.subcommand("query")]
    | Annotated[RenderReport, tyro.conf.subcommand("render-report")]
    | Annotated[Share, tyro.conf.subcommand("share")]
    | Annotated[Features, tyro.conf.subcommand("features")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)

_DESCRIPTION = (
    "What vlm-fastgs offers beside nerfstudio's own commands, which train, show, render and export: ns-train vlm-fastgs --help. "
    "The version: vlmgs --version"
)
NAMES = [subcommand.name for _, subcommand in map(get_args, get_args(Command))]
"""Names of the subcommands."""

ENVIRONMENT = {
    # torch's OpenMP threads would spin after each operation and take the cores from the rasteriser's: measured on two shared
    # cores, a training step took 1.4 s instead of 0.13 s.
    "OMP_WAIT_POLICY": "PASSIVE",
    # nerfstudio decorates a function of Splatfacto with torch.compile, which starts compiler processes as it is imported; nothing
    # that vlmgs runs is compiled. Measured: imports take 4.6 instead of 7.3 processor seconds.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
"""Read when torch is first imported; what the user has set stays."""


def entrypoint() -> None:
    """Parse the command line and run the subcommand.

    Exits with 0 after success, 1 with one line on stderr where a value or a file cannot be used, 2 where the command line is
    wrong, 130 after Ctrl-C, and 141 where the reader of a pipe went away.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # What torch deprecates in nerfstudio is news for nerfstudio's developers.
    warnings.filterwarnings("ignore", category=FutureWarning)
    _answer_at_once(sys.argv[1:])
    command = tyro.cli(Command, prog="vlmgs", description=_DESCRIPTION)  # type: ignore[call-overload]
    try:
        command.run()
    except KeyboardInterrupt:
        Console(stderr=True).print("[yellow]Stopped.")
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        raise InputError(f"{error.filename or 'the system'}: {error.strerror or error}") from None


def _answer_at_once(arguments: list[str]) -> None:
    """Exit with the version where that is asked for, or with the names that are like an unknown subcommand's."""
    first = next(iter(arguments), "-")
    if first == "--version":
        sys.stdout.write(f"vlm-fastgs {version('vlmgs-ns')} (nerfstudio {version('nerfstudio')}, torch {version('torch')})\n")
        raise SystemExit(0)
    if not first.startswith("-") and first not in NAMES:
        alike = difflib.get_close_matches(first, NAMES, n=2) or NAMES
        sys.stderr.write(f"Error: vlmgs has no command {first!r}; did you mean {' or '.join(alike)}?\n")
        raise SystemExit(2)
