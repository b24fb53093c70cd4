"""The page that shows an answer: for each phrase its best view, and all other views small. Pictures are the answer's files."""

from __future__ import annotations

from typing import Any

from vlmgs_ns.pages.page import render
from vlmgs_ns.pages.query_summary import place, why_not


def page(answer: dict[str, Any]) -> str:
    """Return HTML with links relative to the answer's folder.

    Args:
        answer: as `query.answer` returns it.
    """
    renders = {view["name"]: view["render"] for view in answer["views"]}
    return render("query.html", answer=answer, renders=renders, place=place, why_not=why_not)
