"""What the exported Gaussians mean, beside their .ply: one safetensors file, row by row in the order of the .ply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vlmgs_ns.semantics.scene_semantics import SceneSemantics
from vlmgs_ns.words.find import Found

_COLUMNS = 64
"""Dimensions that are computed at a time for all Gaussians, so that a million of them take megabytes."""


def write_features(
    path: Path,
    semantics: SceneSemantics,
    means: Tensor,  # [N, 3] world, of all Gaussians of the scene
    chosen: Tensor,  # [M] int64
    phrases: Sequence[str],
    negatives: Sequence[str],
    found: Found,
) -> None:
    """Write features and labels of some Gaussians.

    The file holds ``features`` [M, D] float16 (CLIP's, of any length; 0 where no photo showed a Gaussian), ``relevancy``
    [M, P] float32, ``labels`` [M] int32 (number of the phrase, −1 for none) and ``ids`` [M] int64 (row in the run's checkpoint).
    Its metadata, all text: ``encoder`` (fingerprint of the CLIP whose texts compare with the features), ``model`` and
    ``pretrained`` (which to load), ``mode``, ``phrases`` and ``negatives`` (JSON lists).

    Args:
        negatives: those of the question, beside the scene's own.

    Raises:
        OSError: `path` cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    about = semantics.about
    tensors = {
        "features": _features(semantics, means, chosen),
        "relevancy": found.relevancy[chosen].float().contiguous(),
        "labels": found.labels()[chosen].contiguous(),
        "ids": chosen,
    }
    metadata = {
        "encoder": about.clip_fingerprint,
        "model": about.clip,
        "pretrained": about.clip_pretrained,
        "mode": about.mode,
        "phrases": json.dumps(list(phrases), ensure_ascii=False),
        "negatives": json.dumps([*about.negatives, *negatives], ensure_ascii=False),
    }
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None


@torch.no_grad()
def _features(
    semantics: SceneSemantics,
    means: Tensor,  # [N, 3]
    chosen: Tensor,  # [M]
) -> Tensor:  # [M, D] float16
    """Scores against unit vectors along the axes are the features themselves."""
    axes = torch.eye(semantics.about.sizes.clip_dim, device=means.device)
    features = torch.empty(len(chosen), len(axes), dtype=torch.float16)
    for start in range(0, len(axes), _COLUMNS):
        part = axes[start : start + _COLUMNS]
        features[:, start : start + len(part)] = semantics.scores(means, part)[chosen.to(means.device)].half().cpu()
    return features
