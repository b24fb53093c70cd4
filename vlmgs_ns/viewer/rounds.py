"""What a run's folder says about its guidance: labels that a model gave, and the pictures of the last round."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.guidance.record import read_rounds
from vlmgs_ns.guidance.round import Round

MOST_LABELS = 40
LONGEST_LABEL = 60
"""Characters."""
NO_MODEL = "residual"
"""The backend whose labels are words of ours."""


def labels(run: Path) -> list[str]:
    """Return what a vision-language model named in its regions, the most frequent first."""
    counted: Counter[str] = Counter()
    for round_ in read_rounds(run / "guidance").rounds:
        found = [] if round_.backend == NO_MODEL else [label for view in round_.views for label in view.labels]
        plain = (" ".join(label.replace(";", " ").split()) for label in found)
        counted.update(label for label in plain if 0 < len(label) <= LONGEST_LABEL)
    return [label for label, _ in counted.most_common(MOST_LABELS)]


def describe(round_: Round, densification: Densification) -> str:
    """Return a round that has just taken place in one line, with the densification that used it."""
    boxes = sum(len(view.boxes) for view in round_.regions or [])
    effect = f"{boxes} regions, {densification.focused} added, {densification.doomed} pruned"
    return f"Last round of guidance: {round_.phase}, step {round_.step}: {effect}"


def last_round(run: Path) -> str:
    """Return the last round that took place in one line; "" where there was none."""
    held = [round_ for round_ in read_rounds(run / "guidance").rounds if not round_.left_out]
    for last in held[-1:]:
        regions = sum(len(view.labels) for view in last.views)
        effect = [f"{last.effect[name]} {name}" for name in ("added", "targets") if last.effect.get(name)]
        return f"Last round of guidance: {last.phase}, step {last.step}: {', '.join([f'{regions} regions', *effect])}"
    return ""


def last_pictures(run: Path) -> Tensor | None:
    """Return the pictures that the last round was asked about, with its regions, side by side; None where none were kept.

    [h, w, 3] in [0, 1]. The files tell which round is last: its line is recorded later, once its effect is known.
    """
    import numpy as np
    from PIL import Image

    files = sorted(file for file in (run / "guidance").glob("*_*_*.jpg") if not file.stem.endswith("_after"))
    files = [file for file in files if file.name.rpartition("_")[0] == files[-1].name.rpartition("_")[0]]
    if not files:
        return None
    pictures = [Image.open(file).convert("RGB") for file in files]
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for k, picture in enumerate(pictures):
        sheet.paste(picture.resize((width, height)), (k % columns * width, k // columns * height))
    return torch.from_numpy(np.asarray(sheet, dtype=np.float32) / 255)
