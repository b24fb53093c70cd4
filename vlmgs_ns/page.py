"""A page of before and after that needs nothing but a browser: its pictures are inside it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmgs_ns.atomic import replacing

Picture = npt.NDArray[np.uint8]
"""RGB, [H, W, 3]."""

ERROR_AT_WHITE = 0.25
"""Mean absolute error of a pixel's colours, in [0, 1], that the error map shows brightest."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #e2e5eb; --card: #fff; --page: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaf0; --soft: #98a1b3; --line: #2c3342; --card: #191e29; --page: #11151d; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1320px; padding: 32px 24px 64px;
  background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
}
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 12px; }
p { color: var(--soft); margin: 0 0 12px; max-width: 80ch; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 18px; min-width: 150px; }
.tile b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); }
.top { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 24px; align-items: start; }
video, img { width: 100%; height: auto; display: block; border-radius: 6px; background: #000; }
.views { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 8px; align-items: end; }
.views .head { color: var(--soft); font-weight: 600; }
.views .name { grid-column: 1 / -1; color: var(--soft); margin-top: 10px; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; }
td { border-bottom: 1px solid var(--line); padding: 6px 8px 6px 0; vertical-align: top; }
td:first-child { color: var(--soft); white-space: nowrap; padding-right: 20px; }
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; overflow-x: auto; font-size: 13px;
}
@media (max-width: 760px) {
  .top { grid-template-columns: 1fr; }
  .views { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .views .head { display: none; }
}
"""


@dataclass(frozen=True)
class View:
    """One held-out view."""

    name: str
    photo: Picture
    first: Picture
    """Render before training."""
    trained: Picture
    psnr: float
    ssim: float


def error_map(photo: Picture, render: Picture) -> Picture:
    """Mean absolute error over a pixel's colours, black where there is none, brightest from ``ERROR_AT_WHITE`` on."""
    from matplotlib import colormaps

    error = np.abs(photo.astype(np.float32) - render.astype(np.float32)).mean(axis=-1) / 255.0
    coloured = colormaps["inferno"](np.clip(error / ERROR_AT_WHITE, 0.0, 1.0))[..., :3]
    return (coloured * 255).round().astype(np.uint8)


def write_page(
    path: Path,
    views: list[View],
    metrics: dict[str, Any],
    settings: dict[str, Any],
    commands: list[str],
    video: str,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: file to write; one that exists is replaced.
        views: rows of pictures.
        metrics: ``psnr``, ``ssim`` and ``gaussians``, the same with ``_before_training``, and ``training_seconds``.
        settings: shown as they are.
        commands: shell commands to go on with.
        video: path of the turntable relative to the page.
    """
    with replacing(path) as partial:
        partial.write_text(_page(views, metrics, settings, commands, video), encoding="utf-8")


def _page(views: list[View], metrics: dict[str, Any], settings: dict[str, Any], commands: list[str], video: str) -> str:
    tiles = (
        (f"{metrics['psnr']:.2f} dB", f"PSNR, {metrics['psnr_before_training']:.2f} before training"),
        (f"{metrics['ssim']:.3f}", f"SSIM, {metrics['ssim_before_training']:.3f} before training"),
        (f"{metrics['gaussians']:,}", f"Gaussians, {metrics['gaussians_before_training']:,} at the start"),
        (f"{metrics['training_seconds']:.0f} s", "training"),
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vlm-fastgs demo</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>vlm-fastgs on its embedded scene</h1>
<p>A room that exists only as formulas, photographed by ray casting, learned as Gaussians.
PSNR and SSIM are means over photos that training never saw.</p>
<div class="tiles">
{"".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in tiles)}
</div>
<div class="top">
<div><video src="{escape(video)}" autoplay loop muted playsinline controls></video></div>
<table>
{"".join(f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in settings.items())}
</table>
</div>
<h2>Held-out views</h2>
<p>The error map is the mean absolute difference of photo and trained render: black for none, brightest from {ERROR_AT_WHITE:g} on
(colours run from 0 to 1).</p>
<div class="views">
<div class="head">Photo</div><div class="head">Before training</div><div class="head">Trained</div><div class="head">Error</div>
{"".join(map(_row, views))}
</div>
<h2>What to run next</h2>
<pre>{escape(chr(10).join(commands))}</pre>
</body>
</html>
"""


def _row(view: View) -> str:
    pictures = (
        ("photo", view.photo),
        ("render before training", view.first),
        ("trained render", view.trained),
        ("error map", error_map(view.photo, view.trained)),
    )
    name = escape(view.name)
    shown = "".join(f'<img src="{_data_uri(picture)}" alt="{name}: {what}" title="{what}">' for what, picture in pictures)
    return f'<div class="name">{name} · PSNR {view.psnr:.2f} dB · SSIM {view.ssim:.3f}</div>{shown}\n'


def _data_uri(picture: Picture) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
