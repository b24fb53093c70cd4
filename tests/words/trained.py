"""A run on disk as ns-train leaves it, with Gaussians and features laid out by hand: a ball, a box, and dust."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor
from torch.nn import Parameter

from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.semantics.field import FieldConfig
from vlmgs_ns.semantics.lifting import Lifted
from vlmgs_ns.semantics.scene_semantics import About, SceneSemantics
from vlmgs_ns.toy.scene import write_scene

NEGATIVES = ("object", "things")
TEXTS = {
    "red ball": (1, 0, 0, 0, 0, 0),
    "blue box": (0, 1, 0, 0, 0, 0),
    "green hat": (0, 0, 1, 0, 0, 0),
    "warm thing": (0.8, 0, 0, 0, 0, 0.6),
    "object": (0, 0, 0, 1, 0, 0),
    "things": (0, 0, 0, 0, 1, 0),
}
"""Unit vectors of six dimensions."""
PARTS = {"ball": range(0, 60), "box": range(60, 100), "far": range(100, 103), "fog": range(103, 106), "rest": range(106, 120)}
"""Rows of each part. ``far`` and ``fog`` are red as well: three opaque ones in a corner, and faint ones around the ball."""


def laid_out() -> tuple[dict[str, Tensor], Tensor]:
    """Raw parameters of 120 Gaussians, and their features [120, 6]."""
    g = torch.Generator().manual_seed(3)
    centres = {"ball": (0.4, 0, 0), "box": (-0.4, 0, 0), "far": (0.4, 0.9, 0.9), "fog": (0.4, 0, 0), "rest": (0, -0.5, -0.5)}
    about = {"ball": TEXTS["red ball"], "box": TEXTS["blue box"], "far": TEXTS["red ball"], "fog": TEXTS["red ball"]}
    means, features, opacities = torch.zeros(120, 3), torch.zeros(120, 6), torch.full((120, 1), 0.9)
    for name, rows in PARTS.items():
        means[list(rows)] = torch.tensor(centres[name]) + 0.06 * torch.randn(len(rows), 3, generator=g)
        features[list(rows)] = torch.tensor(about.get(name, TEXTS["object"])).float()
    opacities[list(PARTS["fog"])] = 0.05
    parameters = {
        "means": means,
        "scales": torch.log(0.03 + 0.03 * torch.rand(120, 3, generator=g)),
        "quats": torch.randn(120, 4, generator=g),
        "features_dc": torch.randn(120, 3, generator=g),
        "features_rest": 0.2 * torch.randn(120, 15, 3, generator=g),
        "opacities": torch.logit(opacities),
    }
    return parameters, features


def hand_made_semantics(features: Tensor) -> SceneSemantics:
    sizes = FieldConfig(clip_dim=6, dino_dim=4)
    about = About("lift", sizes, "no such folder", "none", "OpenCLIP by hand", NEGATIVES, "{}")
    semantics = SceneSemantics(about)
    semantics.keep_lifted(Lifted(features, torch.ones(len(features)), torch.ones(len(features), dtype=torch.bool)))
    semantics.texts, semantics.vectors = list(TEXTS), torch.tensor(list(TEXTS.values())).float()
    semantics.complete = True
    return semantics


def name_toys(semantics: SceneSemantics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a scene know "toy", which fits ball and box alike."""
    vector = torch.tensor([[0.5**0.5, 0.5**0.5, 0, 0, 0, 0]])
    monkeypatch.setattr(semantics, "texts", [*semantics.texts, "toy"])
    monkeypatch.setitem(semantics._buffers, "vectors", torch.cat([semantics.vectors, vector]))


def make_run(folder: Path, sh_degree: int = 3, searchable: bool = True) -> Path:
    """Write the run; returns its folder."""
    scene = folder / "room"
    if not scene.exists():
        write_scene(scene, views=4, width=32, height=24, held_out=1, points=50, supersample=1)
    config: TrainerConfig = copy.deepcopy(vlm_fastgs_lite.config)
    config.output_dir, config.experiment_name, config.timestamp = folder / "outputs", f"degree{sh_degree}{searchable}", "now"
    config.data = config.pipeline.datamanager.data = scene
    config.vis, config.max_num_iterations = "tensorboard", 10
    config.pipeline.model.sh_degree = sh_degree
    config.pipeline.model.semantics.enabled = False
    config.set_timestamp()
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    folder = config.get_base_dir()
    trainer.pipeline.datamanager.train_dataparser_outputs.save_dataparser_transform(folder / "dataparser_transforms.json")
    model = trainer.pipeline.model
    parameters, features = laid_out()
    parameters["features_rest"] = parameters["features_rest"][:, : (sh_degree + 1) ** 2 - 1]
    for name, values in parameters.items():
        model.gauss_params[name] = Parameter(values)
    model.step = 1_000_000  # all harmonics in use
    model.semantics = hand_made_semantics(features) if searchable else None
    trainer.save_checkpoint(10)
    return folder
