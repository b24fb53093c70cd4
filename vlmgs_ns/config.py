"""The methods that ``ns-train`` offers: vlm-fastgs, vlm-fastgs-big, vlm-fastgs-cpu, vlm-fastgs-lite and fastgs.

Every nerfstudio command imports this module, for every method: it stays light. numba, transformers, open_clip and open3d are
imported by what uses them, when it does.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from typing import Any

from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.plugins.types import MethodSpecification

from vlmgs_ns.guidance.config import GuidanceConfig
from vlmgs_ns.method.checkpoint import register_safe_globals
from vlmgs_ns.method.datamanager import VlmFastGSDatamanagerConfig
from vlmgs_ns.method.machine import default_device
from vlmgs_ns.method.model import VlmFastGSModelConfig
from vlmgs_ns.method.optimizers import AdamConfig, DecayConfig, LazyUpdates
from vlmgs_ns.method.pipeline import VlmFastGSPipelineConfig
from vlmgs_ns.method.run_config import MOVED
from vlmgs_ns.method.trainer import VlmFastGSTrainerConfig
from vlmgs_ns.semantics.config import LITE_SEMANTICS, SemanticsConfig
from vlmgs_ns.system.ffmpeg import ensure_ffmpeg

for _old, _new in MOVED.items():
    sys.modules[_old] = import_module(_new)
register_safe_globals()
ensure_ffmpeg()


def _optimizers(lr: dict[str, float]) -> dict[str, Any]:
    """Learning rates per parameter group: 3DGS', with FastGS' for opacities and higher harmonics, but for those in `lr`."""
    eps = 1e-15
    rates = {"means": 1.6e-4, "features_dc": 0.0025, "opacities": 0.025, "scales": 0.005, **lr}
    return {
        "means": {"optimizer": AdamConfig(lr=rates["means"], eps=eps), "scheduler": DecayConfig(lr_final=rates["means"] / 100)},
        "features_dc": {"optimizer": AdamConfig(lr=rates["features_dc"], eps=eps), "scheduler": None},
        "features_rest": {"optimizer": AdamConfig(lr=0.005 / 20, eps=eps), "scheduler": None},
        "opacities": {"optimizer": AdamConfig(lr=rates["opacities"], eps=eps), "scheduler": None},
        "scales": {"optimizer": AdamConfig(lr=rates["scales"], eps=eps), "scheduler": None},
        "quats": {"optimizer": AdamConfig(lr=0.001, eps=eps), "scheduler": None},
        "camera_opt": {
            "optimizer": AdamConfig(lr=1e-4, eps=eps),
            "scheduler": DecayConfig(lr_final=5e-7, warmup_steps=0.03, lr_pre_warmup=0),
        },
        "bilateral_grid": {
            "optimizer": AdamConfig(lr=2e-3, eps=eps),
            "scheduler": DecayConfig(lr_final=1e-4, warmup_steps=0.03, lr_pre_warmup=0),
        },
    }


def _method(
    name: str,
    iterations: int,
    model: VlmFastGSModelConfig,
    max_image_size: int = 1600,
    steps_per_save: int = 2000,
    steps_per_eval_image: int = 500,
    lr: dict[str, float] | None = None,
    lazy_updates: bool = True,
) -> VlmFastGSTrainerConfig:
    return VlmFastGSTrainerConfig(
        method_name=name,
        max_num_iterations=iterations,
        steps_per_save=steps_per_save,
        steps_per_eval_batch=0,
        steps_per_eval_image=steps_per_eval_image,
        steps_per_eval_all_images=iterations,
        pipeline=VlmFastGSPipelineConfig(
            datamanager=VlmFastGSDatamanagerConfig(
                dataparser=NerfstudioDataParserConfig(load_3D_points=True), max_image_size=max_image_size
            ),
            model=model,
        ),
        optimizers=_optimizers(lr or {}),
        lazy_updates=LazyUpdates(enabled=lazy_updates),
        machine=MachineConfig(device_type=default_device()),
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15, websocket_host="127.0.0.1"),
        vis="viewer",
    )


vlm_fastgs = MethodSpecification(
    config=_method("vlm-fastgs", 20_000, VlmFastGSModelConfig()),
    description="FastGS steered by a vision-language model, and a semantic field (FMGS) that words find things with.",
)
vlm_fastgs_big = MethodSpecification(
    config=_method("vlm-fastgs-big", 20_000, VlmFastGSModelConfig(refine_every=0.005, reset_alpha_every=30)),
    description="vlm-fastgs with more Gaussians: densifies five times as often.",
)
# Cameras rarely see only what lies between them: random points reach three times as far, and start faint. In so few iterations
# opacities would not recover from a reset: instead, what is faint goes. Twice the importance: fewer Gaussians.
_SHORT = VlmFastGSModelConfig(
    num_random=10_000,
    num_seeds=20_000,
    random_scale=3.0,
    random_opacity=0.1,
    num_downscales=1,
    reset_alpha_every=1000,
    cull_alpha_thresh=0.1,
    # What is smaller than half of the extent stays, however large on a screen: such Gaussians are walls and tables.
    cull_scale_thresh=0.5,
    stop_screen_size_at=0,
    importance_thresh=10.0,
    guidance=GuidanceConfig(seeds=500),
    semantics=LITE_SEMANTICS,
)
vlm_fastgs_lite = MethodSpecification(
    config=_method(
        "vlm-fastgs-lite",
        1_500,
        _SHORT,
        max_image_size=300,
        steps_per_save=500,
        steps_per_eval_image=250,
        # A thirteenth of the iterations, so longer steps.
        lr={"means": 1.2e-3, "features_dc": 0.005, "opacities": 0.05, "scales": 0.02},
        lazy_updates=False,  # fused on a CPU, updates take a twentieth of a step
    ),
    description="vlm-fastgs in minutes on a CPU: 1,500 iterations on photos of at most 300 pixels.",
)
vlm_fastgs_cpu = MethodSpecification(
    config=_method(
        "vlm-fastgs-cpu",
        5_000,
        replace(_SHORT, num_seeds=50_000, num_downscales=2, resolution_schedule=0.2, max_gaussians=200_000),
        max_image_size=800,
        steps_per_save=500,
        steps_per_eval_image=250,
        lr={"means": 6e-4, "features_dc": 0.005, "opacities": 0.05, "scales": 0.01},
        lazy_updates=False,
    ),
    description="vlm-fastgs on a laptop's CPU: 5,000 iterations on photos of at most 800 pixels.",
)
fastgs = MethodSpecification(
    config=_method(
        "fastgs",
        20_000,
        VlmFastGSModelConfig(seeding="points", guidance=GuidanceConfig(enabled=False), semantics=SemanticsConfig(enabled=False)),
    ),
    description="FastGS alone: multi-view consistent Gaussian splatting, without guidance and semantics.",
)
