"""The page's frame: title, figures, contents, and the sections below each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmgs_ns.pages.html import Child, Html, table, tag
from vlmgs_ns.pages.style import STYLE


@dataclass(frozen=True)
class Section:
    """A part with a place in the contents."""

    name: str
    """Its anchor."""
    title: str
    body: Html


@dataclass(frozen=True)
class Tile:
    """A figure that one looks for first."""

    value: str
    label: str


def missing(*words: Child) -> Html:
    """What stands in a section that the run has nothing for."""
    return tag("p", *words, class_="missing")


def page(
    title: str,
    intro: Sequence[Html],
    tiles: Sequence[Tile],
    facts: Sequence[tuple[Child, ...]],
    video: Html | None,
    sections: Sequence[Section],
) -> str:
    """The whole document: `facts` are a small table at the top, beside the video where there is one."""
    shown = [tag("div", tag("b", tile.value), tag("span", tile.label), class_="tile") for tile in tiles]
    figures = tag("div", tag("div", *shown, class_="tiles"), table(facts))
    top = tag("div", video and tag("div", video), figures, class_="top" if video is not None else "top alone")
    contents = [tag("li", tag("a", section.title, href=f"#{section.name}")) for section in sections]
    body = tag(
        "div",
        tag("header", tag("h1", title), *intro, top),
        tag("nav", tag("ul", *contents), aria_label="Contents"),
        tag("main", *(tag("section", tag("h2", one.title), one.body, id=one.name) for one in sections)),
        class_="frame",
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # An icon in the page, so that no browser asks for one.
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"
