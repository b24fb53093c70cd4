"""Tables of a benchmark: mean ± standard deviation over seeds, what failed and why, what others published, and on what it ran."""

from __future__ import annotations

import csv
import io
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vlmgs_ns.bench.results import Row
from vlmgs_ns.bench.spec import Spec
from vlmgs_ns.system.errors import InputError


@dataclass(frozen=True)
class Column:
    """One figure of a run."""

    name: str
    """As a column of the CSV."""
    title: str
    digits: int
    find: Callable[[Row], float | None]

    def of(self, row: Row) -> float | None:
        """Return the figure of a run, or None where it has none.

        Raises:
            InputError: what stands there is not a number.
        """
        try:
            value = self.find(row)
            return None if value is None else float(value)
        except (TypeError, ValueError, AttributeError, LookupError):
            run = " ".join(str(row[key]) for key in ("scene", "method", "start", "seed"))
            raise InputError(f"results.jsonl: the {self.title} of {run} is not a number; run vlmgs bench again") from None


def _word(protocol: str, score: str) -> Callable[[Row], float | None]:
    return lambda row: row.get("words", {}).get(protocol, {}).get(score)


def _trained_on(row: Row) -> float | None:
    return max((words["trained_on"] for words in row.get("words", {}).values() if "trained_on" in words), default=None)


COLUMNS = (
    Column("psnr", "PSNR", 2, lambda row: row.get("psnr")),
    Column("object_psnr", "object PSNR", 2, lambda row: row.get("object_psnr")),
    Column("background_psnr", "background PSNR", 2, lambda row: row.get("background_psnr")),
    Column("ssim", "SSIM", 3, lambda row: row.get("ssim")),
    Column("lpips", "LPIPS", 3, lambda row: row.get("lpips")),
    Column("gaussians", "Gaussians", 0, lambda row: row.get("gaussians")),
    Column("loss", "training loss", 4, lambda row: row["curve"]["loss"][-1] if "curve" in row else None),
    Column("localisation", "A: localisation", 3, _word("A", "localisation")),
    Column("iou_2d", "B: mIoU", 3, _word("B", "iou")),
    Column("average_precision", "B: mAP over pairs", 3, _word("B", "average_precision")),
    Column("iou_langsplat", "B-langsplat: mIoU", 3, _word("B-langsplat", "iou")),
    Column("iou_3d", "C: mIoU", 3, _word("C", "iou")),
    Column("acc_25", "C: Acc@0.25", 3, _word("C", "acc@0.25")),
    Column("acc_50", "C: Acc@0.5", 3, _word("C", "acc@0.5")),
    Column("iou_find", "C-find: mIoU", 3, _word("C-find", "iou")),
    Column("trained_on", "labelled views trained on", 0, _trained_on),
    Column("seconds", "training s", 1, lambda row: row.get("seconds")),
    Column("cpu_seconds", "processor s", 1, lambda row: row.get("cpu_seconds")),
    Column("memory_mb", "peak MB", 0, lambda row: row.get("memory_mb")),
    Column("gpu_memory_mb", "peak GPU MB", 0, lambda row: row.get("gpu_memory_mb")),
)
MEAN_OF = "mean of {} scenes"


@dataclass(frozen=True)
class Group:
    """The runs of one scene, method and start that are done."""

    scene: str
    method: str
    start: str
    runs: int
    planned: int
    values: dict[str, list[float]]
    """Values by column, for columns that every run has a value for."""


def groups(rows: Sequence[Row]) -> list[Group]:
    """Return groups in the order of the rows; for a method and start with several whole scenes, their mean at the end.

    The mean over scenes has a value a seed: the mean over the scenes of that seed's runs.
    """
    found = [_group(scene, method, start, some) for (scene, method, start), some in _by(rows, "scene", "method", "start").items()]
    for (method, start), some in _by(rows, "method", "start").items():
        scenes = {row["scene"] for row in some}
        if len(scenes) > 1 and all(row["status"] == "done" for row in some):
            seeds = _by(some, "seed").values()
            planned = {len(seed) for seed in seeds}
            if planned == {len(scenes)}:
                values = {c.name: [statistics.mean(v) for seed in seeds if (v := _values(c, seed))] for c in COLUMNS}
                values = {name: means for name, means in values.items() if len(means) == len(seeds)}
                found.append(Group(MEAN_OF.format(len(scenes)), method, start, len(seeds), len(seeds), values))
    return found


def _group(scene: str, method: str, start: str, rows: list[Row]) -> Group:
    done = [row for row in rows if row["status"] == "done"]
    values = {column.name: found for column in COLUMNS if (found := _values(column, done))}
    return Group(scene, method, start, len(done), len(rows), values)


def _values(column: Column, rows: Sequence[Row]) -> list[float]:
    """Return the column's values in all rows; nothing where one row has none."""
    present = [value for row in rows if (value := column.of(row)) is not None]
    return present if len(present) == len(rows) else []


def _by(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation of the sample; the mean alone for a single value."""
    mean = f"{statistics.mean(values):,.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):,.{digits}f}"


def to_csv(rows: Sequence[Row]) -> str:
    """Return a CSV line for each scene, method and start: count of runs, then mean and standard deviation of every figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["scene", "method", "start", "runs", "planned", *(f"{c.name}_{kind}" for c in COLUMNS for kind in ("mean", "std"))]
    )
    for group in groups(rows):
        cells: list[object] = [group.scene, group.method, group.start, group.runs, group.planned]
        for column in COLUMNS:
            values = group.values.get(column.name, [])
            cells += [statistics.mean(values) if values else "", statistics.stdev(values) if len(values) > 1 else ""]
        writer.writerow(cells)
    return text.getvalue()


def to_markdown(spec: Spec, rows: Sequence[Row]) -> str:
    """Return the whole summary."""
    done = [row for row in rows if row["status"] == "done"]
    seeds = len({row["seed"] for row in rows})
    over = "1 seed" if seeds == 1 else f"{seeds} seeds, mean ± standard deviation over them"
    parts = [
        f"# {spec.about.title}",
        f"{len(done)} of {len(rows)} runs done; {spec.iterations:,} iterations, {over}. PSNR, SSIM"
        " and LPIPS are of photos that training did not see; object and background PSNR are over their pixels inside and outside"
        " the labelled object.",
        _figures(rows),
        _against_first(done),
        _not_done(rows),
        _published(spec),
        f"## Data\n\n{spec.about.data}\n\nLicence: {spec.about.licence}",
        _made_on(done),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(rows: Sequence[Row]) -> str:
    found = groups(rows)
    columns = [column for column in COLUMNS if any(column.name in group.values for group in found)]
    if not columns:
        return ""
    counted = any(group.runs != group.planned for group in found)
    titles = ["scene", "method", "start", *(column.title for column in columns), *(["runs"] if counted else [])]
    lines = []
    for group in found:
        cells = [spread(group.values[c.name], c.digits) if c.name in group.values else "-" for c in columns]
        count = [f"{group.runs} of {group.planned}"] if counted else []
        lines.append([group.scene, group.method, group.start, *cells, *count])
    return table(titles, lines)


def _against_first(done: Sequence[Row]) -> str:
    """Return what each method changes against the first, over the scenes and seeds that both have."""
    methods = list(dict.fromkeys(row["method"] for row in done))
    if len(methods) < 2:
        return ""
    first = {(row["scene"], row["start"], row["seed"]): row for row in done if row["method"] == methods[0]}
    titles = ["method", "start", "scenes", "pairs", "PSNR, dB", "Gaussians", "training time", "processor time"]
    lines = []
    for (method, start), rows in _by([row for row in done if row["method"] != methods[0]], "method", "start").items():
        pairs = [(row, base) for row in rows if (base := first.get((row["scene"], start, row["seed"]))) is not None]
        if pairs:
            gain = spread([row["psnr"] - base["psnr"] for row, base in pairs], 2)
            ratios = [
                statistics.geometric_mean([row[name] / base[name] for row, base in pairs])
                for name in ("gaussians", "seconds", "cpu_seconds")
            ]
            scenes = len({row["scene"] for row, _ in pairs})
            lines.append([method, start, scenes, len(pairs), gain, *(f"x {ratio:.2f}" for ratio in ratios)])
    return f"## Against {methods[0]}\n\n{table(titles, lines)}"


def _not_done(rows: Sequence[Row]) -> str:
    """Return every reason once, with its runs."""
    reasons: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["status"] != "done":
            reasons.setdefault((row["status"], row["error"]), []).append(row)
    if not reasons:
        return ""
    lines = []
    for (status, error), some in reasons.items():
        names = [f"{row['scene']}, {row['method']}, {row['start']}, seed {row['seed']}" for row in some]
        shown = "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append([shown, status, error])
    return f"## Not done\n\n{table(['runs', 'status', 'why'], lines)}"


def _published(spec: Spec) -> str:
    if not spec.about.published:
        return ""
    rows = [[row.what, row.figures, row.source] for row in spec.about.published]
    intro = "Of others, on their machines: not measured here."
    return f"## Published figures\n\n{intro}\n\n{table(['what', 'figures', 'source'], rows)}"


def _made_on(done: Sequence[Row]) -> str:
    if not done:
        return ""
    lines = ["## Made on", ""]
    shown = ("device", "device_name", "processor", "cores", "threads", "memory_gb", "system", "rasterizer")
    machines = Counter("; ".join(f"{key} {row['machine'][key]}" for key in shown if key in row["machine"]) for row in done)
    libraries = Counter(", ".join(f"{name} {version}" for name, version in row["versions"].items()) for row in done)
    guidance = Counter(row["machine"]["guidance"] for row in done)
    code = Counter(f"code {row['settings']['code']}" for row in done)
    for kind in (machines, libraries, code, guidance):
        lines += [f"- {text} ({count} of {len(done)} runs)" if len(kind) > 1 else f"- {text}" for text, count in kind.items()]
    if len(machines) > 1:
        lines.append("- **Runs were made on different machines: their times do not compare.**")
    return "\n".join(lines)


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a markdown table."""
    return "\n".join([_line(titles), "|---" * len(titles) + "|", *(_line(row) for row in rows)])


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
