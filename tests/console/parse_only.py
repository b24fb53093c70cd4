"""Reads a command line as its program does, and ends before the program acts on it."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import tyro


def stop_after(read: Callable[..., Any]) -> Callable[..., Any]:
    """`read`, but the process ends with status 0 once it has returned; what it refuses ends with its own status."""

    def parse(*args: Any, **kwargs: Any) -> None:
        read(*args, **kwargs)
        raise SystemExit(0)

    return parse


def parse_only(argv: list[str]) -> None:
    """Parse the line of a console script, of Ray's command, or of ``python SCRIPT ...`` whose script uses argparse."""
    sys.argv = argv
    if argv[0] == "python":
        sys.argv = argv[1:]
        sys.path.insert(0, str(Path(argv[1]).parent))
        setattr(argparse.ArgumentParser, "parse_args", stop_after(argparse.ArgumentParser.parse_args))  # noqa: B010
        runpy.run_path(argv[1], run_name="__main__")
    elif argv[0] == "ray":
        from click import ClickException
        from ray.scripts.scripts import cli

        try:
            cli.commands[argv[1]].make_context(argv[1], argv[2:])
        except ClickException as error:
            raise SystemExit(error.exit_code) from error
        raise SystemExit(0)
    else:
        (script,) = entry_points(group="console_scripts", name=argv[0])
        run = script.load()
        setattr(tyro, "cli", stop_after(tyro.cli))  # noqa: B010
        run()
    raise AssertionError(f"{argv[0]} reads no command line")
