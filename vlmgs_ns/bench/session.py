"""A benchmark from its specification to its tables: plan, skip what is done, carry out the rest, write everything down.

It may be killed at any moment: each result is written whole as soon as it is there, and the next call goes on with the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from vlmgs_ns.bench.executor import Executor, Outcome
from vlmgs_ns.bench.plan import Run, parse_only, plan
from vlmgs_ns.bench.plots import write_plots
from vlmgs_ns.bench.results import Results, Row, alone
from vlmgs_ns.bench.run_one import Order, check_settings, run_one
from vlmgs_ns.bench.spec import Spec, read_spec
from vlmgs_ns.bench.summary import to_csv, to_markdown
from vlmgs_ns.system.atomic import replacing, sweep
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import bar, say

"""Seconds of training, before the remaining time is estimated."""


def run_bench(
    path: Path,
    out: Path | None,
    executor: Executor,
    *,
    only: Sequence[str] = (),
    data_root: Path | None = None,
    vlm_url: str | None = None,
    keep: bool = False,
) -> list[Row]:
    """Do what is left to do of a benchmark and write its tables and plots.

    Args:
        path: the specification.
        out: folder to write; None: outputs/bench/NAME here.
        executor: who carries out the runs.
        only: conditions such as ``scene=fox``.
        data_root: folder that the scenes' paths are relative to; None: the specification's own.
        vlm_url: where the vision-language model is served; None: where the methods say.
        keep: leave trained scenes.

    Returns:
        A row for each run.

    Raises:
        InputError: the specification, a condition or an override cannot be used, or another benchmark is at work in the folder.
    """
    spec = read_spec(path)
    conditions = parse_only(only)
    out = (out or Path("outputs") / "bench" / spec.name).resolve()
    results = Results(out)
    with alone(out):
        sweep(out)
        runs = plan(spec, conditions, (data_root or path.parent).resolve(), out)
        todo = {run.address: run for run in runs if not run.problem and not results.done(run)}
        _say_plan(spec, runs, todo, results, executor)
        results.write_lines(runs)
        if todo:
            _check(spec, executor)
            orders = [Order(run, spec.scenes[run.scene].toy, str(out), keep, vlm_url) for run in todo.values()]
            _carry_out(orders, runs, results, executor)
        rows = results.write_lines(runs)
        write_tables(spec, rows, out)
    return rows


def write_tables(spec: Spec, rows: Sequence[Row], out: Path) -> None:
    """summary.md, summary.csv and the plots."""
    for name, text in {"summary.md": to_markdown(spec, rows), "summary.csv": to_csv(rows)}.items():
        with replacing(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    write_plots(rows, out)


def _say_plan(spec: Spec, runs: Sequence[Run], todo: dict[str, Run], results: Results, executor: Executor) -> None:
    missing = sum(1 for run in runs if run.problem)
    done = sum(1 for run in runs if not run.problem and results.done(run))
    parts = [f"{spec.about.title}: {len(runs)} runs", f"{done} done", f"{missing} without data", f"{len(todo)} to do"]
    say(", ".join(part for part in parts if not part.startswith("0 without")) + (f" {executor.describe()}" if todo else ""))
    for problem in dict.fromkeys(run.problem for run in runs if run.problem):
        say(f"  {problem}")


def _check(spec: Spec, executor: Executor) -> None:
    """Refuse overrides that no run could start with."""
    settings = [(spec.methods, spec.scenes)]
    for _, outcome in executor.execute(check_settings, settings, lambda index, done: None, alone=False):
        if outcome.error:
            raise InputError(f"the settings of {spec.path} cannot be checked: {outcome.error}")
        if outcome.value:
            raise InputError(f"{spec.path}: {outcome.value[0]}")


def _carry_out(orders: Sequence[Order], runs: Sequence[Run], results: Results, executor: Executor) -> None:
    """All runs; a bar counts their iterations, so that long runs weigh more in the time that is left."""
    steps, ended = [0] * len(orders), 0
    with bar("Training steps", sum(order.run.iterations for order in orders)) as report:

        def progress(index: int, done: int) -> None:
            steps[index] = done
            report(sum(steps), f"{ended} of {len(orders)} runs")

        for index, outcome in executor.execute(run_one, orders, progress):
            run = orders[index].run
            results.keep(run, _content(orders[index], outcome))
            results.write_lines(runs)
            ended += 1
            say(f"{ended}/{len(orders)} {run.title}: {_outcome_line(outcome, orders[index])}")
            progress(index, run.iterations)


def _content(order: Order, outcome: Outcome) -> Row:
    finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    if not outcome.error:
        return {"status": "done", "error": "", **outcome.value, "finished": finished}
    if outcome.trace:
        with order.folder.with_suffix(".log").open("a", encoding="utf-8") as log:
            log.write(outcome.trace)
    return {"status": "failed", "error": outcome.error, "finished": finished}


def _outcome_line(outcome: Outcome, order: Order) -> str:
    if outcome.error:
        return f"failed: {outcome.error} ({order.folder.with_suffix('.log')})"
    found = outcome.value
    words = "".join(f", {name} {next(iter(scores.values())):.2f}" for name, scores in found.get("words", {}).items())
    return f"{found['psnr']:.2f} dB, {found['gaussians']:,} Gaussians{words}, {found['seconds']:.0f} s"
