"""Everything about a run gathered, and the page written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmgs_ns.method import checkpoint
from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.pages.costs import Costs, costs_of, read_json
from vlmgs_ns.pages.curves import read_curves
from vlmgs_ns.pages.embed import video
from vlmgs_ns.pages.gallery import Find, phrases_of, search
from vlmgs_ns.pages.guidance_section import guidance_section
from vlmgs_ns.pages.held_out import HeldOut, held_out
from vlmgs_ns.pages.html import Child, Html, tag
from vlmgs_ns.pages.html_page import Tile, missing, page
from vlmgs_ns.pages.next_commands import next_commands
from vlmgs_ns.pages.rounds import read_rounds
from vlmgs_ns.pages.sections import costs_section, curves_section, next_section, run_section, views_section, words_section
from vlmgs_ns.pages.settings import load_config, settings_of
from vlmgs_ns.pages.turn import turntable
from vlmgs_ns.splats.orbit import surrounds
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import say

VIEWS_SHOWN = 6
"""Most held-out views with pictures."""


@dataclass(frozen=True)
class Known:
    """What is known of a run that was trained a moment ago, and can be found out of a run's folder only in part."""

    title: str
    intro: str
    """A paragraph below the title."""
    trained: HeldOut
    """Held-out views, rendered with the finished Gaussians."""
    before: HeldOut
    """The same views, rendered with the Gaussians that training began with."""
    gaussians_before: int
    turntable: bytes
    """An mp4."""
    beside: Path
    """The folder where commands to go on with write."""


def check_output(out: Path) -> None:
    """Refuse, before any work is done, a path that no page can be written to.

    Raises:
        InputError: it is a folder, is in none, or in one that cannot be written.
    """
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; give the name of a file in it, such as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}; make it, or write to another place")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: the folder {out.parent} cannot be written; give another place with --out")


def write_report(
    run: OpenRun,
    out: Path,
    phrases: Sequence[str] = (),
    turntable_seconds: float = 0.0,
    known: Known | None = None,
) -> list[tuple[str, str]]:
    """Write a run's page, whole or not at all.

    Args:
        run: with its checkpoint loaded.
        out: file to write; one that exists is replaced.
        phrases: to search the scene for; by default the run's own, or some of its scene's labels.
        turntable_seconds: length of a video around a scene whose photos surround it; 0: none.
        known: of a run that was trained just now, so that nothing is rendered twice.

    Returns:
        The commands to go on with: what each does, and its line.

    Raises:
        InputError: the path cannot be written, or ``phrases`` are given for a run that cannot be searched.
    """
    check_output(out)
    config = load_config(run.config)
    rounds = read_rounds(run.folder / "guidance")
    curves = read_curves(run.folder)
    machine = read_json(run.folder / "machine.json")
    trained = known.trained if known else held_out(run.pipeline, VIEWS_SHOWN)
    finds, source, lacking = _search(run, phrases)
    costs = costs_of(run.folder, run.data, curves, rounds)
    film = known.turntable if known else _film(run, turntable_seconds)

    model = run.model
    enabled = bool(getattr(getattr(config.pipeline.model, "guidance", None), "enabled", False))
    semantics = read_json(run.folder / "semantics.json")
    asked = [find.phrase for find in finds] if model.semantics is not None and model.semantics.complete else None
    commands = next_commands(run.config, known.beside if known else run.folder, asked)
    sections = [
        views_section(trained, known.before if known else None),
        curves_section(curves, rounds, config),
        guidance_section(rounds, str(machine.get("guidance", "")), enabled),
        words_section(finds, source, str(semantics.get("encoders", "")), lacking),
        run_section(_facts(run, config), settings_of(config), machine),
        costs_section(costs, _sizes(run)),
        next_section(commands),
    ]
    title = known.title if known else f"{config.method_name} on {run.data.name}"
    shown = None if film is None else video(film, "One turn around the scene, rendered from the Gaussians")
    text = page(title, _intro(run, known), _tiles(run, trained, costs, known), _summary(run, config, machine), shown, sections)
    with replacing(out) as partial:
        partial.write_text(text, encoding="utf-8")
    return commands


def _search(run: OpenRun, phrases: Sequence[str]) -> tuple[list[Find], str, Html | None]:
    """What words find, whose words they are, and why there is nothing to show where that is so."""
    if phrases:
        return search(run, phrases), "the phrases that this page was made for", None
    semantics = run.model.semantics
    if semantics is None or not semantics.complete:
        words = (
            "The semantic stage was not finished."
            if semantics is not None
            else "The run has no semantic stage: the scene cannot be searched with words yet."
        )
        data, load = run.data, run.folder / "nerfstudio_models"
        command = f"ns-train vlm-fastgs --data {data} --load-dir {load} --max-num-iterations 0"
        return [], "", missing(words, " This adds it: ", tag("code", command))
    own, source = phrases_of(run)
    if not own:
        return (
            [],
            "",
            missing(
                "The run was given no phrases. Show what some find: ",
                tag("code", f'vlmgs render-report {run.folder} --prompt "red ball; wooden table"'),
            ),
        )
    try:
        return search(run, own), source, None
    except InputError as error:  # the encoder of another machine: the rest of the page is none the worse
        return [], "", missing(str(error).removeprefix("Error: "))


def _film(run: OpenRun, seconds: float) -> bytes | None:
    if seconds <= 0:
        return None
    if not surrounds(run.pipeline.datamanager.train_dataset.cameras.camera_to_worlds):
        say("No turntable: the photos do not surround the scene")
        return None
    return turntable(run.pipeline, seconds)


def _iterations(run: OpenRun) -> tuple[int, int]:
    """Iterations behind the newest checkpoint, and those that its schedule has."""
    return checkpoint.steps_in(run.folder / "nerfstudio_models")[-1] + 1, run.model.run_length


def _intro(run: OpenRun, known: Known | None) -> list[Html]:
    done, planned = _iterations(run)
    parts = [tag("p", known.intro)] if known else []
    if done < planned:
        text = f"This run was stopped, or is not over: its newest checkpoint has {done:,} of {planned:,} iterations. "
        parts.append(missing(text, "The page shows that checkpoint."))
    return parts


def _summary(run: OpenRun, config: Any, machine: Mapping[str, Any]) -> list[tuple[Child, ...]]:
    data = run.pipeline.datamanager
    cameras = data.train_dataset.cameras
    sizes = {(int(width), int(height)) for width, height in zip(cameras.width.flatten(), cameras.height.flatten(), strict=True)}
    largest = f"{max(width for width, _ in sizes)} by {max(height for _, height in sizes)} pixels"
    rows: list[tuple[Child, ...]] = [
        ("method", str(config.method_name)),
        ("iterations", f"{_iterations(run)[0]:,}"),
        ("photos", f"{len(data.train_dataset)} to train on, {len(data.eval_dataset)} held out"),
        ("their size", largest if len(sizes) == 1 else f"at most {largest}"),
    ]
    if machine:
        rows.append(("machine", f"{machine.get('device')} ({machine.get('device_name')}), {machine.get('threads')} threads"))
        rows.append(("rasteriser", str(machine.get("rasterizer"))))
    return rows


def _tiles(run: OpenRun, trained: HeldOut, costs: Costs, known: Known | None) -> list[Tile]:
    tiles = []
    if trained.scores:
        psnr, ssim = "PSNR of held-out photos", "SSIM of held-out photos"
        if known:
            psnr, ssim = (
                f"PSNR, {known.before.mean('psnr'):.2f} before training",
                f"SSIM, {known.before.mean('ssim'):.3f} before training",
            )
        tiles += [Tile(f"{trained.mean('psnr'):.2f} dB", psnr), Tile(f"{trained.mean('ssim'):.3f}", ssim)]
    start = f"Gaussians, {known.gaussians_before:,} at the start" if known else "Gaussians"
    tiles.append(Tile(f"{len(run.model.means):,}", start))
    if costs.training is not None:
        stage = "" if costs.semantics is None else f", {costs.semantics:.0f} s semantic stage"
        tiles.append(Tile(f"{costs.training:,.0f} s", f"training{stage}"))
    return tiles


def _facts(run: OpenRun, config: Any) -> list[tuple[Child, ...]]:
    done, planned = _iterations(run)
    return [
        ("method", str(config.method_name)),
        ("data", str(run.data)),
        ("run", str(run.folder)),
        ("iterations", f"{done:,}" if done >= planned else f"{done:,} of {planned:,}"),
        ("started", str(config.timestamp)),
    ]


def _sizes(run: OpenRun) -> list[tuple[Child, ...]]:
    semantics = run.model.semantics
    return [
        ("Gaussians", f"{len(run.model.means):,}"),
        ("semantics", semantics.size() if semantics is not None and semantics.complete else "none"),
    ]
