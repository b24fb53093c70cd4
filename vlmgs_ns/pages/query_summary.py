"""An answer to read: a few lines of text, and a page with each phrase's best view and all others small."""

from __future__ import annotations

from typing import Any

from vlmgs_ns.pages.page import render
from vlmgs_ns.words.query import apart


def page(answer: dict[str, Any]) -> str:
    """Return HTML with links relative to the answer's folder; pictures are the answer's files.

    Args:
        answer: as `query.answer` returns it.
    """
    renders = {view["name"]: view["render"] for view in answer["views"]}
    return render("query.html", answer=answer, renders=renders, place=place, why_not=why_not)


def summary(answer: dict[str, Any]) -> list[str]:
    """Return a line or two for each phrase of an answer, after the caution where there is one."""
    caution = [answer["caution"]] if answer["caution"] else []
    return [*caution, *(line for phrase in answer["phrases"] for line in _lines(phrase, answer))]


def place(phrase: dict[str, Any]) -> str:
    """Return centre and size of the 3-D box in the data's coordinates; "" where there is none."""
    if phrase["box_3d"] is None:
        return ""
    box = phrase["box_3d"]["data"]
    centre, size = ", ".join(f"{x:.3g}" for x in box["centre"]), " x ".join(f"{x:.3g}" for x in box["size"])
    return f"centre ({centre}), size {size}"


def why_not(phrase: dict[str, Any], threshold: float) -> str:
    """Return why a phrase was not found."""
    if phrase["score"] > threshold:
        return f"no more than specks are above the threshold {threshold:g}, up to {phrase['score']:.2f}"
    return f"the highest relevancy is {apart(phrase['score'], threshold)}, the threshold {threshold:g}"


def _lines(phrase: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    name, views = phrase["phrase"], len(answer["views"])
    where = f"{views} view{'s' if views != 1 else ''}"
    if not phrase["found"]:
        lower = min(phrase["score"], answer["threshold"])
        return [
            f"{name}: found in none of {where}; {why_not(phrase, answer['threshold'])}, in {phrase['best_view']}",
            f"  try other words, other --negative, more views (--split all), or a --threshold below {lower:.2f}",
        ]
    lines = [
        f"{name}: found in {phrase['seen_in']} of {where}, most clearly in {phrase['best_view']}, relevancy {phrase['score']:.2f}"
    ]
    if phrase["like"] is not None:
        lines.append(f"  most like “{phrase['like']['phrase']}”, relevancy {phrase['like']['relevancy']:.2f}")
    if phrase["box_3d"] is None:
        return [*lines, "  no Gaussian by itself is above the threshold, so that there is no box in space"]
    return [*lines, f"  {place(phrase)} in the data's coordinates, {phrase['gaussians']:,} Gaussians"]
