"""The commands that go on from a finished run."""

from __future__ import annotations

import shlex
from pathlib import Path


def next_commands(config: Path, beside: Path, phrases: list[str] | None) -> dict[str, list[str]]:
    """Return commands, ready for a shell, by what they do.

    Args:
        config: the run's config.yml.
        beside: folder for what the commands write.
        phrases: examples of words to find; None where the run cannot be searched with words.
    """
    load = ["--load-config", str(config)]
    out = {name: str(beside / name) for name in ("eval.json", "interpolate.mp4", "export")}
    commands = {
        "Look around in a browser": [["ns-viewer", *load, "--viewer.websocket-host", "127.0.0.1"]],
        "Show it to anybody": [["vlmgs", "share", str(config.parent)]],
        "Measure, render, export": [
            ["ns-eval", *load, "--output-path", out["eval.json"]],
            ["ns-render", "interpolate", *load, "--output-path", out["interpolate.mp4"]],
            ["ns-export", "gaussian-splat", *load, "--output-dir", out["export"]],
        ],
    }
    if phrases is not None:
        phrase = phrases[0] if phrases else "what to look for"
        run = str(config.parent)
        commands["Find things with words, and take them out"] = [
            ["vlmgs", "query", run, phrase],
            ["vlmgs", "export", run, "--select", phrase],
        ]
    return {purpose: [shlex.join(command) for command in some] for purpose, some in commands.items()}
