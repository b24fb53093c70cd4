"""The section about guidance: each round with its pictures, what was answered, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmgs_ns.pages.embed import image_file
from vlmgs_ns.pages.html import Html, folded, join, tag
from vlmgs_ns.pages.html_page import Section, missing
from vlmgs_ns.pages.rounds import Asked, Recorded, Rounds
from vlmgs_ns.pages.sections import PHASES

MOST_PICTURES = 120
"""On the page; those of more rounds stay in the run's folder. First and last rounds of the phases come first."""
LONGER_SIDE = 480
"""Pixels: labels in these pictures can still be read."""

_WORDS = {
    "selected": "chosen",
    "planted": "planted",
    "added": "added",
    "refused": "refused",
    "floaters": "floaters found",
    "doomed": "floaters pruned",
    "targeted": "views targeted",
}


def guidance_section(rounds: Rounds, who: str, enabled: bool) -> Section:
    """All rounds, by phase; the first and the last of each are open.

    Args:
        who: is asked, as the machine's announcement says it.
        enabled: whether the run's settings ask anybody.
    """
    if not rounds.rounds and not rounds.damaged:
        text = (
            "No round is recorded: the run was not guided."
            if not enabled
            else "No round is recorded: the run ended before the first one."
        )
        return Section("guidance", "Guidance", missing(text))
    phases = list(dict.fromkeys(one.phase for one in rounds.rounds))
    open_ = {id(one) for phase in phases for one in _ends([one for one in rounds.rounds if one.phase == phase])}
    allowed = _pictured(rounds.rounds, open_)
    parts: list[Html] = [tag("p", _flags(who))] if who else []
    parts.append(
        tag(
            "p",
            "Numbers count Gaussians: chosen by the regions, planted where the render was wrong, added and refused by the "
            "densification that followed.",
            class_="soft",
        )
    )
    if rounds.damaged:
        parts.append(missing(f"{rounds.damaged} lines of guidance/rounds.jsonl could not be read and are left out."))
    for phase in phases:
        of_phase = [one for one in rounds.rounds if one.phase == phase]
        parts.append(tag("h3", f"Phase “{phase}”: {_count(len(of_phase), 'round')}"))
        if phase in PHASES:
            parts.append(tag("p", f"Asked for: {PHASES[phase]}.", class_="soft"))
        prompts = list(dict.fromkeys(one.prompt for one in of_phase if one.prompt))
        if prompts:
            parts.append(
                folded(
                    "The question" if len(prompts) == 1 else "The questions",
                    *(tag("pre", text, class_="words") for text in prompts),
                )
            )
        parts += [_round(one, id(one) in open_, allowed) for one in of_phase]
    return Section("guidance", "Guidance", join(*parts))


def _ends(rounds: Sequence[Recorded]) -> list[Recorded]:
    return [rounds[0], rounds[-1]]


def _pictured(rounds: Sequence[Recorded], first: set[int]) -> set[Path]:
    """The pictures that the page has room for."""
    ordered = sorted(rounds, key=lambda one: id(one) not in first)
    return set([path for one in ordered for path in one.pictures][:MOST_PICTURES])


def _round(one: Recorded, open_: bool, allowed: set[Path]) -> Html:
    if one.left_out:
        return folded(join(tag("b", f"Iteration {one.step:,}"), tag("span", " left out")), tag("p", one.left_out), class_="round")
    effect = [f"{value:,} {_WORDS[name]}" for name, value in one.effect.items() if value or name in ("selected", "added")]
    failed = sum(bool(view.error) for view in one.views)
    more = [*effect, f"{one.seconds:.2f} s", *([f"{_count(failed, 'answer')} failed"] if failed else [])]
    pictures = [_picture(path, one) for path in one.pictures if path in allowed]
    left_out = sum(path not in allowed for path in one.pictures)
    return folded(
        join(tag("b", f"Iteration {one.step:,}"), tag("span", " " + " · ".join(more))),
        tag("div", *pictures, class_="row many") if pictures else None,
        tag("p", f"{left_out} more pictures are in the run's guidance folder.", class_="soft") if left_out else None,
        None if one.pictures else tag("p", "There are no pictures of this round.", class_="soft"),
        folded("What was answered", *(_answer(view) for view in one.views)) if one.views else None,
        open_=open_,
        class_="round",
    )


def _picture(path: Path, one: Recorded) -> Html:
    """With what its name says: STEP_PHASE_VIEW, and _after for the view once the round has had its effect."""
    number, _, after = path.stem.removeprefix(f"{one.step:06d}_{one.phase}_").partition("_")
    words = [path.stem]
    if number.isdecimal() and int(number) < len(one.views):
        view = one.views[int(number)]
        words = [view.view, f"{after} the round" if after else _count(len(view.labels), "box")]
    caption = " · ".join(words)
    shown = image_file(path, f"iteration {one.step:,}, {caption}", LONGER_SIDE)
    return tag("figure", shown or missing(f"{path.name} cannot be read as a picture"), tag("figcaption", caption))


def _flags(text: str) -> Html:
    """The text with its flags kept in one piece."""
    words = (tag("code", word) if word.startswith("--") else word for word in text.split(" "))
    return join(*(part for word in words for part in (word, " ")))


def _answer(view: Asked) -> Html:
    said: list[Html] = [
        tag("p", tag("b", view.view), f": {view.error}" if view.error else "", *(f" · {note}" for note in view.notes))
    ]
    if view.reply:
        said.append(tag("pre", view.reply, class_="words"))
    return join(*said)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('x') else 's'}"
