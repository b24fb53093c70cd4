"""Which curves of a run the report shows, and in which chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmgs_ns.guidance.record import RecordedRound
from vlmgs_ns.pages.curves import Curve
from vlmgs_ns.pages.plot import Chart, Line, Mark
from vlmgs_ns.pages.rounds import PHASES

METRICS = "Train Metrics Dict/"
"""What nerfstudio puts before the names of a model's metrics."""
LOSSES = "Train Loss Dict/"
PSNR = {
    f"{METRICS}psnr": "training photos",
    "Eval Images Metrics/psnr": "one held-out photo at a time",
    "Eval Images Metrics Dict (all images)/psnr": "all held-out photos",
}


def training_charts(curves: Mapping[str, Curve], rounds: Sequence[RecordedRound], max_gaussians: int | None) -> list[Chart]:
    """Return charts of loss, PSNR, Gaussians and guidance, as far as the run recorded them."""
    charts = []
    if "Train Loss" in curves:
        charts.append(Chart("Loss", [Line("loss", curves["Train Loss"], noisy=True)], "loss", digits=4, logarithmic=True))
    psnr = [
        Line(label, curves[name], noisy=name.startswith("Train"), dots=not name.startswith("Train"))
        for name, label in PSNR.items()
        if name in curves
    ]
    if psnr:
        charts.append(Chart("PSNR", psnr, "PSNR [dB]"))
    metrics = {_words(name): curve for name, curve in curves.items() if name.startswith(METRICS)}
    count = {"Gaussians": metrics.pop("gaussian count", None)}
    count |= {name: curve for name, curve in metrics.items() if "budget" in name}
    numbers = [Line(name, curve) for name, curve in count.items() if curve is not None]
    if numbers:
        phases = list(PHASES)
        marks = [
            Mark(one.step, f"round of phase “{one.phase}”", 1 + phases.index(one.phase)) for one in rounds if one.phase in phases
        ]
        note = "" if max_gaussians is None else f"Budget: at most {max_gaussians:,} Gaussians."
        charts.append(Chart("Gaussians", numbers, "Gaussians", digits=0, marks=marks, note=note))
    return [*charts, *_guidance_charts(curves), *_loss_charts(curves)]


def _guidance_charts(curves: Mapping[str, Curve]) -> list[Chart]:
    sums = {
        _words(name): curve for name, curve in curves.items() if name.startswith(f"{METRICS}guidance_") and max(curve.values) > 0
    }
    small = {name: sums.pop(name) for name in list(sums) if name.endswith(("rounds", "failures"))}
    note = "; ".join(f"{name}: {curve.values[-1]:,.0f}" for name, curve in small.items()).capitalize()
    lines = [Line(name, curve) for name, curve in sums.items()]
    return [Chart("Guidance, added up", lines, "Gaussians", digits=0, note=note)] if lines else []


def _loss_charts(curves: Mapping[str, Curve]) -> list[Chart]:
    lines = [
        Line(_words(name), curve, noisy=True)
        for name, curve in curves.items()
        if name.startswith(LOSSES) and not name.endswith("/main_loss") and max(curve.values) > 0
    ]
    return [Chart("Terms added to the loss", lines, "loss", digits=4)] if lines else []


def _words(name: str) -> str:
    return name.rpartition("/")[2].removeprefix("guidance_").replace("_", " ")
