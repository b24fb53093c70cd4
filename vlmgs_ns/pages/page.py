"""Pages from the templates beside this file. Autoescape is on: what files, scenes and models say stays text."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vlmgs_ns.pages.embed import colour_bar, embed, embed_file, error_map
from vlmgs_ns.pages.plot import plot
from vlmgs_ns.semantics.cache import format_size


def render(template: str, **values: Any) -> str:
    """Return the text of a template; a name that the template uses and that is not given is an error."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vlmgs_ns.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, quantity=_quantity, duration=_duration, share=_share, size=format_size)
    environment.globals.update(embed=embed, embed_file=embed_file, error_map=error_map, colour_bar=colour_bar, plot=plot)
    return environment


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def _quantity(number: int, noun: str) -> str:
    """Return the number with its noun: 1 box, 2 boxes."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('x') else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{seconds / 60:.1f} min"


def _share(part: float) -> str:
    """Return how much of a picture is covered."""
    if part == 0:
        return "nothing"
    return "less than 0.1 % of the picture" if part < 0.001 else f"{100 * part:.1f} % of the picture"
