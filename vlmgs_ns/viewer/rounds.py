"""What a run's folder says about its guidance: labels that a model gave, and the pictures of the last round."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST_LABELS = 40
LONGEST_LABEL = 60
"""Characters."""
NO_MODEL = "residual"
"""The backend whose labels are words of ours."""


def rounds(run: Path) -> list[dict[str, Any]]:
    """Every round in `guidance/rounds.jsonl`, the first first; lines that cannot be read are left out."""
    try:
        lines = (run / "guidance" / "rounds.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def labels(run: Path) -> list[str]:
    """What a vision-language model named in its regions, the most frequent first."""
    counted: Counter[str] = Counter()
    for entry in rounds(run):
        if entry.get("backend") == NO_MODEL:
            continue
        for view in entry.get("views") or ():
            for box in view.get("boxes") or ():
                label = " ".join(str(box.get("label") or "").replace(";", " ").split())
                if 0 < len(label) <= LONGEST_LABEL:
                    counted[label] += 1
    return [label for label, _ in counted.most_common(MOST_LABELS)]


def last_told(run: Path) -> str:
    """The last round in one line; "" where there was none."""
    for entry in rounds(run)[-1:]:
        boxes = sum(len(view.get("boxes") or ()) for view in entry.get("views") or ())
        effect = ", ".join([f"{boxes} regions", *(f"{entry[name]} {name}" for name in ("added", "targets") if entry.get(name))])
        return f"Last round of guidance: {entry.get('phase')}, step {entry.get('step')}: {effect}"
    return ""


def last_pictures(run: Path) -> Tensor | None:
    """The pictures of the last round with its regions, side by side. [h, w, 3] in [0, 1]; None where none were kept."""
    import numpy as np
    from PIL import Image

    files = sorted((run / "guidance").glob("*_*_*.jpg"))
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
