"""Imports nerfstudio once and runs each command line that it reads in a fork: a console script without ten seconds of import.

Reads lines of JSON ``{"argv": [...], "cwd": "…", "output": "…"}`` and answers each with the exit status.
With ``"parse_only": true`` the line is parsed and nothing is done.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import NoReturn

from parse_only import parse_only


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


def main() -> int:
    scripts = {point.name: point for point in entry_points(group="console_scripts")}
    for name in ("ns-train", "ns-eval", "ns-render", "ns-export"):
        scripts[name].load()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(order["cwd"])
            sys.argv = order["argv"]
            if order.get("parse_only"):
                run_as_script(lambda: parse_only(sys.argv))
            run_as_script(scripts[order["argv"][0]].load())
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
