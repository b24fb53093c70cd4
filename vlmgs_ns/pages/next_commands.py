"""The commands that go on from a finished run."""

from __future__ import annotations

import shlex
from pathlib import Path


def next_commands(config: Path, beside: Path, phrases: list[str] | None) -> list[tuple[str, str]]:
    """What each command does, and its line, ready for a shell.

    Args:
        config: the run's config.yml.
        beside: folder for what the commands write.
        phrases: examples of words to find; None where the run cannot be searched with words.
    """
    load = ["--load-config", str(config)]
    commands = [
        ("Look around in a browser", ["ns-viewer", *load, "--viewer.websocket-host", "127.0.0.1"]),
        ("Measure, render, export", ["ns-eval", *load, "--output-path", str(beside / "eval.json")]),
        ("Measure, render, export", ["ns-render", "interpolate", *load, "--output-path", str(beside / "interpolate.mp4")]),
        ("Measure, render, export", ["ns-export", "gaussian-splat", *load, "--output-dir", str(beside / "export")]),
    ]
    if phrases is not None:
        phrase = phrases[0] if phrases else "red ball"
        run = str(config.parent)
        commands += [
            ("Find things with words, and take them out", ["vlmgs", "query", run, phrase]),
            ("Find things with words, and take them out", ["vlmgs", "export", run, "--select", phrase]),
        ]
    return [(why, shlex.join(command)) for why, command in commands]
