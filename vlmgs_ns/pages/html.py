"""Markup that escapes whatever it is given: what comes from files, scenes and models cannot become part of the page's code."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_VOID = frozenset({"img", "meta", "br", "link", "line", "path", "circle", "rect", "polyline", "polygon"})


class Html(str):
    """Text that is markup already; only `tag` and `join` make it."""

    __slots__ = ()


Child = str | int | Html | None
"""Text is escaped, markup is taken as it is, None is left out."""


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """An element.

    Args:
        children: of the element, in their order.
        attributes: ``class_`` and ``for_`` lose their underscore, others become dashes: ``data_kind`` is data-kind. None and
            False are left out, True stands alone.
    """
    text = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{text}/>")
    return Html(f"<{name}{text}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Several after each other, without an element around them."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children if child is not None))


def folded(summary: Child, *children: Child, open_: bool = False, class_: str | None = None) -> Html:
    """A part that a click opens."""
    return tag("details", tag("summary", summary), *children, open=open_, class_=class_)


def table(rows: Sequence[tuple[Child, ...]], head: tuple[str, ...] = ()) -> Html:
    """Rows of cells; the first cell of each is its heading. It scrolls sideways by itself where it is too wide."""
    top = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head))) if head else None
    body = (tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    return tag("div", tag("table", top, tag("tbody", *body)), class_="scroll")
