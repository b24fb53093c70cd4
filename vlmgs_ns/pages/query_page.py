"""The page that shows an answer: for each phrase its best view, and all other views small. Pictures are the answer's files."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote

from vlmgs_ns.pages.query_summary import place, why_not

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #e2e5eb; --card: #fff; --page: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaf0; --soft: #98a1b3; --line: #2c3342; --card: #191e29; --page: #11151d; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1400px; padding: 32px 24px 64px;
  background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
}
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 0 0 2px; overflow-wrap: anywhere; }
p { color: var(--soft); margin: 0 0 12px; overflow-wrap: anywhere; }
p.no { color: light-dark(#b42318, #f97066); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; margin: 18px 0; }
.best { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 10px; align-items: start; }
figure { margin: 0; }
figcaption { color: var(--soft); margin-bottom: 4px; overflow-wrap: anywhere; }
img, video { width: 100%; height: auto; display: block; border-radius: 6px; }
video { max-width: 720px; margin-top: 10px; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--soft); }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 10px; margin-top: 10px; }
@media (max-width: 760px) { .best { grid-template-columns: 1fr; } }
"""


def page(answer: dict[str, Any]) -> str:
    """HTML with links relative to the answer's folder.

    Args:
        answer: as `answer.answer` returns it.
    """
    renders = {view["name"]: view["render"] for view in answer["views"]}
    sections = "\n".join(_section(phrase, renders, answer["threshold"]) for phrase in answer["phrases"])
    count, views = len(answer["phrases"]), len(answer["views"])
    found = sum(phrase["found"] for phrase in answer["phrases"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vlmgs query</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{found} of {count} {"phrases" if count != 1 else "phrase"} found</h1>
<p>Looked from {views} {"views" if views != 1 else "view"} of {escape(answer["run"])}. A pixel belongs to a phrase where its
relevancy is above {answer["threshold"]:g}; at 0.5 the phrase ties with the hardest of: {escape(", ".join(answer["negatives"]))}.
All figures are in <a href="query.json">query.json</a>.</p>
{sections}
</body>
</html>
"""


def _section(phrase: dict[str, Any], renders: dict[str, str | None], threshold: float) -> str:
    best, *others = phrase["views"]
    if phrase["found"]:
        said = f"Seen in {phrase['seen_in']} of {len(phrase['views'])} views, relevancy up to {phrase['score']:.2f}."
        where = place(phrase)
        text = f"<p>{said}{f' {where[0].upper()}{where[1:]} in the coordinates of the data.' if where else ''}</p>"
    else:
        text = f'<p class="no">Not found: {escape(why_not(phrase, threshold))}. Below is where it is highest.</p>'
    files, name = best["files"], best["view"]
    boxes = len(best["boxes"])
    pictures = "".join(
        (
            _figure(renders[name], f"{'Best view: ' if phrase['found'] else ''}{name}", "render"),
            _figure(files["relevancy"], f"Relevancy, up to {best['peak']:.2f}", "relevancy"),
            _figure(files["found"], f"Found: {boxes} {'parts' if boxes != 1 else 'part'}", "what was found"),
        )
    )
    video = ""
    if phrase["video"]:
        source = quote(phrase["video"])
        player = f'<video src="{source}" controls loop muted preload="metadata"></video>'
        video = f"<details open><summary>Camera path</summary>{player}</details>"
    shown = [one for one in others if one["files"]]
    more = ""
    if shown:
        small = "".join(
            _figure(one["files"]["found"], f"{one['view']}, up to {one['peak']:.2f}", "what was found") for one in shown
        )
        more = f'<details><summary>{len(shown)} more views, clearest first</summary><div class="views">{small}</div></details>'
    return f'<section><h2>{escape(phrase["phrase"])}</h2>{text}<div class="best">{pictures}</div>{video}{more}</section>'


def _figure(file: str | None, caption: str, what: str) -> str:
    source = quote(file or "")
    picture = f'<a href="{source}"><img src="{source}" alt="{escape(what)}" loading="lazy"></a>'
    return f"<figure><figcaption>{escape(caption)}</figcaption>{picture}</figure>"
