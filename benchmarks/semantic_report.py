"""Tables and the plot of benchmarks/semantics.py, of the runs that are there."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from vlmgs_ns.bench.summary import spread

SCORES = {
    "A localisation": "A localisation",
    "B iou": "B mIoU",
    "B argmax_iou": "B arg max mIoU",
    "B average_precision": "B mAP",
    "C iou": "C mIoU",
    "C acc@0.25": "C Acc@0.25",
    "C acc@0.5": "C Acc@0.5",
    "C-find iou": "C-find mIoU",
}
SHUFFLED = ", shuffled phrases"
Results = list[dict[str, Any]]


def report(out: Path, order: list[str]) -> None:
    """`results.json`, `results.md` and `quality.png` in a folder, and the tables on the screen. `order`: of the variants."""
    results = [json.loads(path.read_text()) for path in sorted((out / "runs").glob("*.json"))]
    if not results:
        return
    for run in [run for run in results if "shuffled" in run]:
        # The same scene as its run's, so it has no cost of its own.
        shuffled = {"variant": run["variant"] + SHUFFLED, "scores": run["shuffled"]}
        results.append({name: run[name] for name in ("seed", "encoder", "gaussians")} | shuffled)
    order = [name for variant in order for name in (variant, variant + SHUFFLED)]
    results.sort(key=lambda run: (run["encoder"], order.index(run["variant"]), run["seed"]))
    text = "\n".join([quality(results), costs(results), queries(results), against(results, "warm", "fmgs"), sizes(out)])
    (out / "results.json").write_text(json.dumps(results, indent=1))
    (out / "results.md").write_text(text)
    plot(results, out / "quality.png")
    print(text)


def groups(results: Results) -> dict[tuple[str, str], Results]:
    """Runs over seeds, by encoder and variant."""
    found: dict[tuple[str, str], Results] = defaultdict(list)
    for run in results:
        found[run["encoder"], run["variant"]].append(run)
    return found


def over_seeds(values: list[float]) -> str:
    """Mean ± standard deviation; of one scene its value."""
    return spread(values, 3) if len(values) > 1 else f"{values[0]:.3f}"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def quality(results: Results) -> str:
    """The protocols' scores, means ± standard deviations over seeds."""
    rows = [
        [encoder, variant, *(over_seeds([run["scores"][key] for run in runs]) for key in SCORES), str(len(runs))]
        for (encoder, variant), runs in groups(results).items()
    ]
    return table(["encoder", "variant", *SCORES.values(), "scenes"], rows)


def costs(results: Results) -> str:
    """Return the cost of building, means over seeds."""
    rows = []
    for (encoder, variant), runs in groups([run for run in results if "stage" in run]).items():
        mean = {
            name: statistics.mean(run[part][key] for run in runs)
            for name, part, key in (
                ("look", "maps", "cpu"), ("look wall", "maps", "wall"), ("build", "stage", "cpu"), ("wall", "stage", "wall"),
                ("maps", "maps", "mb"),
            )
        }  # fmt: skip
        parts = ", ".join(
            f"{label.lower()} {statistics.mean(run['parts'].get(label, 0.0) for run in runs):.1f}" for label in runs[0]["parts"]
        )
        gaussians = statistics.mean(run["gaussians"] for run in runs)
        scene, peak = statistics.mean(run["scene_mb"] for run in runs), max(run["peak_mb"] for run in runs)
        rows.append([
            encoder, variant, f"{gaussians:,.0f}", f"{mean['look']:.1f} ({mean['look wall']:.0f})",
            f"{mean['build']:.1f} ({mean['wall']:.0f})", parts, f"{mean['maps']:.1f}", f"{scene:.2f}", f"{peak:,.0f}",
        ])  # fmt: skip
    columns = [
        "encoder",
        "variant",
        "Gaussians",
        "looking, processor (wall) s",
        "building, processor (wall) s",
        "its parts, wall s",
    ]
    return table([*columns, "maps, MB", "scene, MB", "peak MB"], rows)


def queries(results: Results) -> str:
    """Milliseconds, medians over seeds."""
    timed = [run for run in results if "ms" in run]
    names = list(timed[0]["ms"]) if timed else []
    rows = [
        [encoder, variant, *(f"{statistics.median(run['ms'][name] for run in runs):.1f}" for name in names)]
        for (encoder, variant), runs in groups(timed).items()
    ]
    return table(["ms", "variant", *names], rows)


def against(results: Results, one: str, other: str) -> str:
    """Differences of `one` to `other` on the scenes that both have."""
    rows = []
    found = groups(results)
    for encoder in sorted({run["encoder"] for run in results}):
        there = {run["seed"]: run for run in found.get((encoder, other), [])}
        pairs = [(run, there[run["seed"]]) for run in found.get((encoder, one), []) if run["seed"] in there]
        if pairs:
            gains = [over_seeds([a["scores"][key] - b["scores"][key] for a, b in pairs]) for key in SCORES]
            cost = statistics.geometric_mean([a["stage"]["cpu"] / b["stage"]["cpu"] for a, b in pairs])
            rows.append([encoder, *gains, f"x {cost:.2f}", str(len(pairs))])
    return table([f"{one} against {other}", *SCORES.values(), "processor time", "scenes"], rows)


def sizes(out: Path) -> str:
    """Copies of one scene's Gaussians, 10 k to 1 M."""
    rows = []
    for path in sorted(out.glob("scaling-*.json")):
        for row in json.loads(path.read_text()):
            scores = [f"{row['scores'][key]:.3f}" for key in ("A localisation", "B iou", "B argmax_iou")]
            memory = [f"{row[key]:,.1f}" for key in ("field_mb", "codes_mb", "lifted_mb", "peak_mb")]
            taken = [f"{row[key]:,.1f}" for key in ("prepare_ms", "query_ms")]
            rows.append([path.stem.removeprefix("scaling-"), f"{row['gaussians']:,}", *scores, *memory, *taken])
    columns = [
        "encoder",
        "Gaussians",
        "A localisation",
        "B mIoU",
        "B arg max mIoU",
        "field, MB",
        "codes kept between queries, MB",
    ]
    return table([*columns, "lifted instead, MB", "peak MB", "preparing, ms", "query, ms"], rows)


def plot(results: Results, path: Path) -> None:
    """Scores of the variants, a panel for each encoder; means over scenes, a dot each scene."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {"A localisation": "A localisation", "B iou": "B mIoU", "B argmax_iou": "B arg max mIoU", "C iou": "C mIoU"}
    encoders = sorted({run["encoder"] for run in results})
    most = max(len({run["variant"] for run in results if run["encoder"] == encoder}) for encoder in encoders)
    size = (5.2 * len(encoders), 1.2 + 0.45 * most)
    figure, axes = plt.subplots(1, len(encoders), figsize=size, squeeze=False, layout="constrained")
    for axis, encoder in zip(axes[0], encoders, strict=True):
        found = {variant: runs for (who, variant), runs in groups(results).items() if who == encoder}
        for k, (key, label) in enumerate(shown.items()):
            places = [row + 0.2 * (k - 1.5) for row in range(len(found))]
            values = [[run["scores"][key] for run in runs] for runs in found.values()]
            axis.barh(places, [statistics.mean(v) for v in values], height=0.18, color=f"C{k}", label=label)
            for place, dots in zip(places, values, strict=True):
                axis.plot(dots, [place] * len(dots), "k.", markersize=2)
        axis.set_yticks(range(len(found)), list(found), fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.grid(axis="x", alpha=0.3)
        axis.set_title(encoder, fontsize=9)
    axes[0][0].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
