"""The sections of the page, each from what was found of a run; a run that lacks something is told so in its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from vlmgs_ns.pages.chart import Line, Mark, chart
from vlmgs_ns.pages.costs import Costs
from vlmgs_ns.pages.curves import Curve
from vlmgs_ns.pages.embed import ERROR_AT_WHITE, Picture, colour_bar, error_map, image
from vlmgs_ns.pages.gallery import THRESHOLD, Find
from vlmgs_ns.pages.held_out import HeldOut, Score, by_name
from vlmgs_ns.pages.html import Child, Html, folded, join, table, tag
from vlmgs_ns.pages.html_page import Section, missing
from vlmgs_ns.pages.rounds import Rounds
from vlmgs_ns.pages.settings import Setting
from vlmgs_ns.semantics.cache import format_size

METRICS = "Train Metrics Dict/"
"""What nerfstudio puts before the names of a model's metrics."""


def views_section(views: HeldOut, before: HeldOut | None) -> Section:
    """Held-out photos, their renders and what is wrong with them; `before`: renders of the Gaussians that training began with."""
    if not views.scores:
        body = missing(
            "The scene holds no photo out, so that there is nothing to compare with. Train with ",
            _code("--eval-mode interval"),
            " behind the name of the dataparser to hold some out.",
        )
        return Section("views", "Held-out views", body)
    first = {} if before is None else by_name(before.shown)
    rows = []
    for view in views.shown:
        name, earlier = view.score.name, first.get(view.score.name)
        pictures = [_figure(view.photo, f"{name}: photo", "photo", "photo")]
        if earlier is not None:
            pictures.append(
                _figure(earlier.render, f"{name}: render before training", "before", f"before · {_db(earlier.score)}")
            )
        pictures.append(_figure(view.render, f"{name}: trained render", "trained", f"trained · {_db(view.score)}"))
        pictures.append(_figure(error_map(view.photo, view.render), f"{name}: error map", "error", "error"))
        rows.append(tag("div", tag("h3", name), *pictures, class_="row four" if earlier is not None else "row three"))
    scale = colour_bar(
        "inferno", "Error: none", f"{ERROR_AT_WHITE:g} and more, the mean difference of a pixel's colours, which run from 0 to 1"
    )
    listed = table(
        [(score.name, f"{score.psnr:.2f}", f"{score.ssim:.3f}") for score in views.scores], ("photo", "PSNR [dB]", "SSIM")
    )
    said = (
        f"Photos that training never saw: {len(views.scores)}, of which {len(views.shown)} are shown."
        if len(views.shown) < len(views.scores)
        else "Photos that training never saw."
    )
    return Section(
        "views", "Held-out views", join(tag("p", said), *rows, scale, folded(f"PSNR and SSIM of all {len(views.scores)}", listed))
    )


def _figure(picture: Picture, alt: str, kind: str, caption: Child) -> Html:
    return tag("figure", image(picture, alt, kind), tag("figcaption", caption))


def _db(score: Score) -> str:
    return f"{score.psnr:.2f} dB · SSIM\u00a0{score.ssim:.3f}"


def curves_section(curves: Mapping[str, Curve], rounds: Rounds, config: Any) -> Section:
    """Loss, PSNR, Gaussians and guidance over the iterations."""
    title = "Training"
    if not any(tag_ in curves for tag_ in ("Train Loss", f"{METRICS}psnr", f"{METRICS}gaussian_count")):
        body = missing(
            "There are no curves: the run wrote none for TensorBoard. ",
            _code("ns-train … --vis viewer+tensorboard"),
            " writes them.",
        )
        return Section("training", title, body)
    marks = [Mark(one.step, one.phase) for one in rounds.rounds if one.phase in PHASES]
    charts: list[Html] = []
    if "Train Loss" in curves:
        charts.append(
            chart("Loss", [Line("loss", curves["Train Loss"], noisy=True)], "loss (logarithmic)", logarithmic=True, digits=4)
        )
    psnr = [
        Line(label, curves[name], noisy=name.startswith("Train"), dots=not name.startswith("Train"))
        for name, label in (
            (f"{METRICS}psnr", "training photos"),
            ("Eval Images Metrics/psnr", "one held-out photo at a time"),
            ("Eval Images Metrics Dict (all images)/psnr", "all held-out photos"),
        )
        if name in curves
    ]
    if psnr:
        charts.append(chart("PSNR", psnr, "PSNR [dB]"))
    count = [Line("Gaussians", curves[name]) for name in (f"{METRICS}gaussian_count",) if name in curves]
    count += [Line(_words(name), curve) for name, curve in curves.items() if name.startswith(METRICS) and "budget" in name]
    if count:
        most = getattr(config.pipeline.model, "max_gaussians", None)
        note = join(
            None if most is None else tag("p", f"Budget: at most {most:,} Gaussians.", class_="legend"),
            _mark_legend(marks),
        )
        charts.append(chart("Gaussians", count, "Gaussians", digits=0, marks=marks, note=note))
    tallies = {name: curve for name, curve in curves.items() if name.startswith(f"{METRICS}guidance_") and max(curve.values) > 0}
    large = {name: curve for name, curve in tallies.items() if not name.endswith(("_rounds", "_failures"))}
    if large:
        small = "; ".join(f"{_words(name)}: {curve.values[-1]:,.0f}" for name, curve in tallies.items() if name not in large)
        lines = [Line(_words(name), curve) for name, curve in large.items()]
        charts.append(
            chart(
                "Guidance, added up",
                lines,
                "Gaussians",
                digits=0,
                note=tag("p", small.capitalize(), class_="legend") if small else None,
            )
        )
    parts = {
        name: curve
        for name, curve in curves.items()
        if name.startswith("Train Loss Dict/") and not name.endswith("/main_loss") and max(curve.values) > 0
    }
    if parts:
        charts.append(
            chart(
                "What is added to the loss",
                [Line(_words(name), curve, noisy=True) for name, curve in parts.items()],
                "loss",
                digits=4,
            )
        )
    said = (
        "Strong lines are means of neighbouring values, which stand pale behind them."
        if any(len(c) > 120 for c in curves.values())
        else None
    )
    return Section("training", title, join(said and tag("p", said, class_="soft"), tag("div", *charts, class_="charts")))


def _words(name: str) -> str:
    return name.rpartition("/")[2].removeprefix("guidance_").replace("_", " ")


PHASES = {
    "detail": "regions that begin to show detail",
    "background": "everything but the main subject, which the box leaves out",
    "novel": "what looks wrong from viewpoints of which there is no photo",
    "compare": "where render and photo differ most",
}
"""What each phase of guidance asks for."""


def _mark_legend(marks: Sequence[Mark]) -> Html | None:
    kinds = list(dict.fromkeys(mark.kind for mark in marks))
    keys = [tag("li", tag("span", class_=f"key thin mark-{kind}"), f"round of phase “{kind}”") for kind in kinds]
    return tag("ul", *keys, class_="keys") if keys else None


def words_section(finds: Sequence[Find], source: str, about: str, lacking: Html | None) -> Section:
    """What the phrases find; `lacking` says why there is nothing to show."""
    if lacking is not None:
        return Section("words", "Words", lacking)
    rows = [
        tag(
            "div",
            tag("h3", f"“{find.phrase}”"),
            _figure(find.render, f"{find.view}: render", "query-render", f"render of {find.view}"),
            _figure(
                find.relevancy,
                f"{find.view}: relevancy of {find.phrase}",
                "query-relevancy",
                f"relevancy, greatest {find.greatest:.2f}",
            ),
            _figure(
                find.mask,
                f"{find.view}: mask of {find.phrase}",
                "query-mask",
                f"above {THRESHOLD:g}: {_share(find.share)}",
            ),
            class_="row three found",
        )
        for find in finds
    ]
    said = (
        f"Shown: {source}, each in the view in which most is relevant to it. "
        f"Relevancy {THRESHOLD:g} is a tie with the hardest of the negative phrases."
    )
    return Section(
        "words",
        "Words",
        join(tag("p", said), tag("p", about, class_="soft") if about else None, *rows, colour_bar("turbo", "Relevancy: 0", "1")),
    )


def _share(part: float) -> str:
    if part == 0:
        return "nothing"
    return "less than 0.1 % of the picture" if part < 0.001 else f"{100 * part:.1f} % of the picture"


def costs_section(costs: Costs, sizes: Sequence[tuple[Child, ...]]) -> Section:
    """Seconds and bytes; `sizes` are rows about what the model holds."""
    rows: list[tuple[Child, ...]] = [
        ("training", "not recorded (it was without TensorBoard)" if costs.training is None else _seconds(costs.training)),
        ("asking for guidance", _seconds(costs.guidance) if costs.guidance else "none"),
        ("semantic stage", "none" if costs.semantics is None else _seconds(costs.semantics)),
        *sizes,
        ("checkpoint", format_size(costs.checkpoint)),
        ("feature maps kept for the scene", format_size(costs.cache) if costs.cache else "none"),
    ]
    return Section("costs", "Time and size", tag("div", table(rows), class_="facts"))


def _seconds(value: float) -> str:
    if value < 120:
        return f"{value:.1f} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{value / 60:.1f} min"


def run_section(facts: Sequence[tuple[Child, ...]], settings: Sequence[Setting], machine: Mapping[str, Any]) -> Section:
    """Which method on which data, its settings, and the machine."""
    changed = [(one.flag, one.value, one.usual or "") for one in settings if one.differs]
    parts: list[Html] = [tag("div", table(facts), class_="facts"), tag("h3", "Settings that are not the method's own")]
    if changed:
        parts.append(tag("div", table(changed, ("flag", "here", "method")), class_="flags"))
    elif any(one.usual is not None for one in settings):
        parts.append(tag("p", "None."))
    else:
        parts.append(missing("The method is not installed here, so that its defaults are not known."))
    listed = tag("div", table([(one.flag, one.value) for one in settings]), class_="flags")
    parts.append(folded(f"All {len(settings)} settings", listed))
    parts.append(tag("h3", "Machine and versions"))
    if machine:
        rows = [(key.replace("_", " "), _plainly(value)) for key, value in machine.items()]
        parts.append(tag("div", table(rows), class_="facts"))
    else:
        parts.append(missing("The run has no machine.json: it does not say what it ran on."))
    return Section("run", "The run", join(*parts))


def _plainly(value: Any) -> str:
    return {True: "yes", False: "no", None: "none"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)


def next_section(commands: Sequence[tuple[str, str]]) -> Section:
    """Commands to go on with, each with what it does."""
    parts = []
    for why, group in groupby(commands, key=lambda pair: pair[0]):
        # Each line is a block of its own, so that a long one wraps and is copied whole.
        parts.append(join(tag("p", why), tag("pre", *(tag("code", line) for _, line in group), class_="commands")))
    return Section("next", "What to run next", join(*parts))


def _code(text: str) -> Html:
    return tag("code", text)
