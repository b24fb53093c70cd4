"""The report of a run: one page with its views, curves, guidance, finds, settings and costs, all inside the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmgs_ns.guidance.record import EFFECTS, Rounds, read_rounds
from vlmgs_ns.method import checkpoint
from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.method.run_config import read_config
from vlmgs_ns.pages.charts import training_charts
from vlmgs_ns.pages.costs import Costs, costs_of, read_json
from vlmgs_ns.pages.curves import read_curves
from vlmgs_ns.pages.embed import ERROR_AT_WHITE, data_uri
from vlmgs_ns.pages.gallery import Find, phrases_of, search
from vlmgs_ns.pages.held_out import HeldOut, held_out
from vlmgs_ns.pages.next_commands import next_commands
from vlmgs_ns.pages.page import render
from vlmgs_ns.pages.rounds import PHASES, pictures_on_page
from vlmgs_ns.pages.settings import settings_of
from vlmgs_ns.pages.share import Shared, share_page
from vlmgs_ns.pages.turntable import turntable
from vlmgs_ns.splats.orbit import surrounds
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.folders import check_folder
from vlmgs_ns.system.progress import say
from vlmgs_ns.words.query import THRESHOLD

SCENE_BYTES = 4_000_000
"""Most bytes of the scene inside a report; `vlmgs share` takes more."""
VIEWS_SHOWN = 6
"""Most held-out views with pictures."""


@dataclass(frozen=True)
class DemoResults:
    """What a demo knows of the run that it has just trained, beyond what the run's folder holds."""

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
    scene: Shared
    """The page to turn the scene in."""
    beside: Path
    """The folder where commands to go on with write."""


def check_output(out: Path) -> None:
    """Refuse, before any work is done, a path to which a page cannot be written.

    Raises:
        InputError: it is a folder, is in none, or in one that cannot be written.
    """
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; give the name of a file in it, such as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}; make it, or write to another place")
    check_folder(out.parent)


def write_report(
    run: OpenRun,
    out: Path,
    phrases: Sequence[str] = (),
    turntable_seconds: float = 0.0,
    demo: DemoResults | None = None,
) -> dict[str, list[str]]:
    """Write a run's page, whole or not at all.

    Args:
        run: with its checkpoint loaded.
        out: file to write; one that exists is replaced.
        phrases: to search the scene for; by default the run's own, or some of its scene's labels.
        turntable_seconds: length of a video around a scene whose photos surround it, for browsers that cannot draw it; 0: none.
        demo: results of the demo that has just trained the run, so that nothing is rendered twice.

    Returns:
        The commands to go on with, by what they do.

    Raises:
        InputError: the path cannot be written, or ``phrases`` are given for a run that cannot be searched.
    """
    check_output(out)
    config: Any = read_config(run.config)
    rounds = read_rounds(run.folder / "guidance")
    curves = read_curves(run.folder)
    machine = read_json(run.folder / "machine.json")
    trained = demo.trained if demo else held_out(run.pipeline, VIEWS_SHOWN)
    finds, source, lacking = _search(run, phrases)
    costs = costs_of(run.folder, run.data, curves, rounds)
    scene = demo.scene if demo else _scene(run, phrases)
    film = demo.turntable if demo else _film(run, turntable_seconds)

    settings = config.pipeline.model
    semantics = run.model.semantics if run.model.semantics is not None and run.model.semantics.complete else None
    iterations, planned = checkpoint.steps_in(run.folder / "nerfstudio_models")[-1] + 1, run.model.run_length
    found = [find.phrase for find in finds] if semantics is not None else None
    commands = next_commands(run.config, demo.beside if demo else run.folder, found)
    text = render(
        "report.html",
        title=demo.title if demo else f"{config.method_name} on {run.data.name}",
        intro=demo.intro if demo else "",
        iterations=iterations,
        planned=planned,
        scene=scene.content.decode() if scene else "",
        film=data_uri("video/mp4", film) if film else "",
        tiles=_tiles(run, trained, costs, demo),
        summary=_summary(run, config.method_name, iterations, machine),
        trained=trained,
        before={view.score.name: view for view in demo.before.shown} if demo else {},
        error_at_white=ERROR_AT_WHITE,
        charts=training_charts(curves, rounds.rounds, getattr(settings, "max_gaussians", None)),
        **guidance_values(
            rounds, str(machine.get("guidance", "")), getattr(getattr(settings, "guidance", None), "enabled", False)
        ),
        finds=finds,
        source=source,
        lacking=lacking,
        threshold=THRESHOLD,
        caution=run.caution,
        encoders=str(read_json(run.folder / "semantics.json").get("encoders", "")),
        facts=[
            ("method", config.method_name),
            ("data", run.data),
            ("run", run.folder),
            ("iterations", f"{iterations:,}" if iterations >= planned else f"{iterations:,} of {planned:,}"),
            ("started", config.timestamp),
        ],
        settings=settings_of(config),
        machine=[(name.replace("_", " "), _in_words(value)) for name, value in machine.items()],
        costs=costs,
        gaussians=len(run.model.means),
        semantics_size=semantics.size() if semantics is not None else "",
        commands=commands,
    )
    with replacing(out) as partial:
        # Names of files need not be text.
        partial.write_text(text, encoding="utf-8", errors="replace")
    return commands


def guidance_values(rounds: Rounds, backend: str, guided: bool) -> dict[str, Any]:
    """Return what the template guidance.html is given.

    Args:
        backend: what answers, as the machine's announcement names it.
        guided: whether the run's settings ask for guidance.
    """
    pictures = pictures_on_page(rounds.rounds)
    return {
        **{"rounds": rounds, "backend": backend, "guided": guided, "pictures": pictures},
        **{"phases": PHASES, "effects": EFFECTS},
    }


def _search(run: OpenRun, phrases: Sequence[str]) -> tuple[list[Find], str, tuple[str, ...]]:
    """Return what phrases find, where the phrases come from, and why there is nothing to show with the command that mends it."""
    if phrases:
        return search(run, phrases), "the phrases that this page was made for", ()
    semantics = run.model.semantics
    if semantics is None or not semantics.complete:
        reason = (
            "The semantic stage was not finished."
            if semantics is not None
            else "The run has no semantic stage: the scene cannot be searched with words yet."
        )
        load = run.folder / "nerfstudio_models"
        command = f"ns-train vlm-fastgs --data {run.data} --load-dir {load} --max-num-iterations 0"
        return [], "", (f"{reason} This adds it:", command)
    own, source = phrases_of(run)
    if not own:
        command = f'vlmgs render-report {run.folder} --prompt "red ball; wooden table"'
        return [], "", ("The run was given no phrases. Show what some find:", command)
    try:
        return search(run, own), source, ()
    except InputError as error:  # the encoder of another machine: the rest of the page is none the worse
        return [], "", (str(error).removeprefix("Error: "),)


def _in_words(value: Any) -> str:
    return {True: "yes", False: "no", None: "none"}[value] if isinstance(value, bool | None) else str(value)


def _scene(run: OpenRun, phrases: Sequence[str]) -> Shared | None:
    try:
        return share_page(run, phrases, most_bytes=SCENE_BYTES)
    except InputError as error:  # the rest of the page is none the worse
        say(f"Without the scene to turn: {str(error).removeprefix('Error: ')}")
        return None


def _film(run: OpenRun, seconds: float) -> bytes | None:
    if seconds <= 0:
        return None
    if not surrounds(run.pipeline.datamanager.train_dataset.cameras.camera_to_worlds):
        say("No turntable: the photos do not surround the scene")
        return None
    return turntable(run.pipeline, seconds)


def _summary(run: OpenRun, method: str, iterations: int, machine: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = run.pipeline.datamanager
    cameras = data.train_dataset.cameras
    sizes = {(int(width), int(height)) for width, height in zip(cameras.width.flatten(), cameras.height.flatten(), strict=True)}
    largest = f"{max(width for width, _ in sizes)} by {max(height for _, height in sizes)} pixels"
    rows = [
        ("method", method),
        ("iterations", f"{iterations:,}"),
        ("photos", f"{len(data.train_dataset)} to train on, {len(data.eval_dataset)} held out"),
        ("their size", largest if len(sizes) == 1 else f"at most {largest}"),
    ]
    if machine:
        rows.append(("machine", f"{machine.get('device')} ({machine.get('device_name')}), {machine.get('threads')} threads"))
        rows.append(("rasteriser", str(machine.get("rasterizer"))))
    return rows


def _tiles(run: OpenRun, trained: HeldOut, costs: Costs, demo: DemoResults | None) -> list[tuple[str, str]]:
    """Return the figures that one looks for first, each with its label."""
    tiles = []
    if trained.scores:
        psnr, ssim = "PSNR of held-out photos", "SSIM of held-out photos"
        if demo:
            psnr = f"PSNR, {demo.before.mean('psnr'):.2f} before training"
            ssim = f"SSIM, {demo.before.mean('ssim'):.3f} before training"
        tiles += [(f"{trained.mean('psnr'):.2f} dB", psnr), (f"{trained.mean('ssim'):.3f}", ssim)]
    tiles.append((f"{len(run.model.means):,}", f"Gaussians, {demo.gaussians_before:,} at the start" if demo else "Gaussians"))
    if costs.training is not None:
        stage = "" if costs.semantics is None else f", {costs.semantics:.0f} s semantic stage"
        tiles.append((f"{costs.training:,.0f} s", f"training{stage}"))
    return tiles
