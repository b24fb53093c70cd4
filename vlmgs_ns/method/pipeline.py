"""The pipeline of our methods: nerfstudio's, which looks at a checkpoint before anything loads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from nerfstudio.data.datamanagers.base_datamanager import DataManagerConfig
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig

from vlmgs_ns.guidance.backends.choose import make_backend
from vlmgs_ns.guidance.question import Backend
from vlmgs_ns.method import checkpoint, machine
from vlmgs_ns.method.datamanager import VlmFastGSDatamanagerConfig
from vlmgs_ns.method.guided_scene import GuidedScene
from vlmgs_ns.method.marked_photos import marked_views
from vlmgs_ns.method.model import VlmFastGSModelConfig
from vlmgs_ns.method.photo_seeding import seed_from_photos
from vlmgs_ns.method.photo_views import PhotoViews
from vlmgs_ns.semantics.cache import default_cache
from vlmgs_ns.semantics.embedded import caution
from vlmgs_ns.semantics.stage import Encoders, Stage, choose_encoders
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.progress import say
from vlmgs_ns.system.ranges import check_ranges
from vlmgs_ns.words.query import parse_prompt


@dataclass
class VlmFastGSPipelineConfig(VanillaPipelineConfig):
    """Our data manager and model together."""

    _target: type = field(default_factory=lambda: VlmFastGSPipeline)
    datamanager: DataManagerConfig = field(default_factory=VlmFastGSDatamanagerConfig)
    """Which photos, and at which size."""
    model: ModelConfig = field(default_factory=VlmFastGSModelConfig)
    """The Gaussians and how they are trained."""
    checkpoint_dir: tyro.conf.Suppress[Path | None] = None
    """The run's checkpoints, filled in by the trainer's config."""


class VlmFastGSPipeline(VanillaPipeline):
    """Data manager and model; a broken checkpoint or a scene without held-out photos ends in one clear message."""

    config: VlmFastGSPipelineConfig

    def __init__(
        self,
        config: VlmFastGSPipelineConfig,
        device: torch.device | str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Any = None,
    ) -> None:
        if test_mode == "val":
            check_ranges(config.model, "--pipeline.model.")
        machine.share_cores(device)
        # ns-eval, ns-render, ns-export and ns-viewer build the pipeline and then load the newest checkpoint, whatever its state.
        if test_mode != "val" and config.checkpoint_dir is not None:
            checkpoint.check(checkpoint.newest(config.checkpoint_dir))
        super().__init__(config, str(device), test_mode, world_size, local_rank, grad_scaler)
        self.model.training_views = self.datamanager  # type: ignore[assignment]
        if test_mode == "val":
            self._choose_guidance()
            self.encoders = self._choose_encoders()

    def _choose_guidance(self) -> None:
        """Choose who is asked where to densify, say so, and make sure that it can be asked."""
        model: Any = self.model
        settings = model.config.guidance
        self.guidance = "Guidance: none"
        guided = settings.enabled and model.config.densification == "fastgs"
        if (settings.marks or settings.instruct.strip()) and not guided:
            raise InputError(
                "the run is told what shall be detailed, but guidance is off; add --pipeline.model.guidance.enabled True "
                "--pipeline.model.densification fastgs, or leave out --pipeline.model.guidance.instruct and its like"
            )
        if guided:
            backend, self.guidance = make_backend(settings, self._scene())
            backend.check()
            if settings.instruct.strip() and backend.needs_evidence:
                raise InputError(
                    f"finding {settings.instruct!r} in photos takes a vision-language model, which is not here; choose "
                    "one with --pipeline.model.guidance.backend, or mark photos by hand: --pipeline.model.guidance.instruct-boxes"
                )
            folder = self.config.checkpoint_dir
            self.start_guidance(backend, None if folder is None else folder.parent / "guidance")

    def start_guidance(self, backend: Backend, folder: Path | None) -> None:
        """Let `backend` say where to densify from now on, and record it in `folder`."""
        model: Any = self.model
        settings = model.config.guidance
        scene = GuidedScene(model, model.training_views, settings.picture_size)
        model.start_guidance(scene, backend, folder)
        if settings.marks:
            model.steering.instruct(marked_views(settings, self.datamanager, scene.viewpoints()))

    def seed_from_photos(self) -> bool:
        """Let the model begin with what its photos show, if its settings ask for it; return whether they do."""
        model: Any = self.model
        seeding, own_points = model.config.seeding, model.seed_points is not None
        if seeding == "points" or (seeding == "auto" and (own_points or model.config.random_init)):
            return False
        seed_from_photos(model, model.training_views)
        return True

    def _choose_encoders(self) -> Encoders | None:
        """Who looks at the photos in the semantic stage, found before any work is done; None where the stage is left out.

        It is left out, with a line, where only the embedded encoder is on this machine, was not asked for, and does not know the
        scene: what words found would be noise.
        """
        model: Any = self.model
        settings, phrases = model.config.semantics, parse_prompt(model.config.prompt)
        if settings.enabled:
            encoders = choose_encoders(settings)
            if settings.clip == "auto" and not phrases and caution(encoders.clip_model, self._scene(), Path("RUN")):
                model.has_semantic_stage = False
                say(
                    "Semantics: left out. Only the embedded encoder is on this machine, and it knows the embedded rooms alone: "
                    "words would find noise here; --pipeline.model.semantics.clip embedded builds them all the same"
                )
                return None
            return encoders
        if phrases:
            raise InputError(
                f"--prompt {model.config.prompt!r} needs the semantic stage; add --pipeline.model.semantics.enabled True, "
                "or leave --prompt out"
            )
        return None

    def _scene(self) -> Path:
        """Return the folder of the scene."""
        path = Path(self.datamanager.get_datapath())
        return path if path.is_dir() else path.parent

    def semantic_stage(self) -> Stage:
        """The stage that makes the present Gaussians searchable with words; nothing is done yet."""
        model: Any = self.model
        assert self.encoders is not None
        centre, radius = model.extent()
        cache = default_cache(Path(self.datamanager.get_datapath()))
        views = PhotoViews(model, model.training_views)
        return Stage(model.config.semantics, self.encoders, model.splats(), views, cache, centre, radius, model.prompts)

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, float]:
        """Mean metrics over the held-out photos.

        Raises:
            InputError: where the scene holds none out.
        """
        if len(self.datamanager.eval_dataset) == 0:  # type: ignore[attr-defined, arg-type]
            raise InputError(
                f"the scene {self.datamanager.get_datapath()} holds no photo out to evaluate on; "
                "add photos, or train with a dataparser option such as --eval-mode interval"
            )
        return super().get_average_eval_image_metrics(step, output_path, get_std)
