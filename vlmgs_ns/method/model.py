"""VlmFastGSModel: Splatfacto over our rasteriser, on any device."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.model_components.lib_bilagrid import BilateralGrid, color_correct
from nerfstudio.utils.colors import get_color
from torch import Tensor
from torch.nn.functional import interpolate

from vlmgs_ns.densify.scores import ScoredView, add_view, number_of_views, take_scores
from vlmgs_ns.densify.seeding import Seeds, camera_extent, uniform_points
from vlmgs_ns.densify.ssim import SSIM
from vlmgs_ns.densify.strategy import FastGSStrategy
from vlmgs_ns.densify.wishes import in_force
from vlmgs_ns.guidance.instructions import marked_box
from vlmgs_ns.guidance.memory import ReplyMemory
from vlmgs_ns.guidance.question import Backend
from vlmgs_ns.guidance.reply import Box
from vlmgs_ns.guidance.steering import Steering
from vlmgs_ns.guidance.training_scene import TrainingScene, Viewpoint
from vlmgs_ns.method.initial_gaussians import initial_gaussians
from vlmgs_ns.method.lpips import Lpips
from vlmgs_ns.method.model_config import ModelSettings, make_strategy
from vlmgs_ns.method.searchable import SearchableModel
from vlmgs_ns.rasterize import composite, rasterization
from vlmgs_ns.splats.camera import world_to_camera
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.schedules import resolve
from vlmgs_ns.system.user_cache import user_cache
from vlmgs_ns.viewer.interrupts import uninterrupted
from vlmgs_ns.viewer.panel import Panel
from vlmgs_ns.words.query import parse_prompt

DEFAULT_RUN_LENGTH = 20_000
"""Iterations of a run where nobody says how long it is."""

VISER_GREY = (0.1490, 0.1647, 0.2157)
"""The viewer's background, on which renders are shown where training used random backgrounds."""


def psnr(
    photo: Tensor,  # [...] in [0, 1]
    render: Tensor,  # [...]
) -> Tensor:  # []
    """Peak signal-to-noise ratio in dB; torchmetrics has it too, but takes seconds to import."""
    return -10 * torch.log10(((photo - render) ** 2).mean())


@dataclass
class VlmFastGSModelConfig(ModelSettings):
    """The settings of `VlmFastGSModel`."""

    _target: type = field(default_factory=lambda: VlmFastGSModel)


class VlmFastGSModel(SearchableModel):
    """Splatfacto with every feature it has, on CPU and CUDA, with schedules that fit the run."""

    config: VlmFastGSModelConfig  # type: ignore[assignment]

    def populate_modules(self) -> None:
        """Build the Gaussians, the optional modules and the strategy.

        Splatfacto's own method calls ``.cuda()`` and downloads weights, so this one stands in for it.
        """
        self._schedule = self.config  # with fractions of the run, for a checkpoint that says how long the run was
        self.run_length = self.config.run_length or DEFAULT_RUN_LENGTH
        self.config = resolve(self._schedule, self.run_length)
        self.begin_with()
        self.camera_optimizer = self.config.camera_optimizer.setup(num_cameras=self.num_train_data, device="cpu")
        self.psnr = psnr
        self.ssim = SSIM()  # type: ignore[assignment]
        self.lpips = Lpips()  # type: ignore[assignment]
        self.step = 0
        self.crop_box: OrientedBox | None = None
        if self.config.background_color == "random":
            self.background_color = torch.tensor(VISER_GREY)
        else:
            self.background_color = get_color(self.config.background_color)
        if self.config.use_bilateral_grid:
            x, y, w = self.config.grid_shape
            self.bil_grids = BilateralGrid(num=self.num_train_data, grid_X=x, grid_Y=y, grid_W=w)
        self.strategy = make_strategy(self.config, self.num_train_data)
        scale = self.extent()[1] if self.config.densification == "fastgs" else 1.0
        self.strategy_state = self.strategy.initialize_state(scene_scale=scale)
        self.training_views = None
        self.steering: Steering | None = None
        self.guided_scene: TrainingScene | None = None
        self.trained_view: tuple[dict[str, Any], dict[str, Any]] | None = None
        """Outputs and batch of the last training step."""
        self.semantics = None
        self.has_semantic_stage = self.config.semantics.enabled
        """Whether training ends with a stage that makes the scene searchable."""
        self.prompts = parse_prompt(self.config.prompt)
        self.panel = Panel(self)

    def start_guidance(self, scene: TrainingScene, backend: Backend, folder: Path | None) -> None:
        """Ask `backend` where to densify from now on, and record it in `folder`; needs FastGS' strategy.

        `scene` is this model as guidance sees it. Replies of the residual backend are not kept: they follow from more than its
        pictures, and cost nothing.
        """
        guidance = self.config.guidance
        keep = guidance.cache_replies and backend.name != "residual"
        memory = ReplyMemory(user_cache("replies")) if keep else None
        self.guided_scene, self.steering = scene, Steering(guidance, backend, memory, folder)

    def step_post_backward(self, step: int) -> None:
        """Let the strategy look at the step's render and gradients; in a round it densifies and prunes."""
        if isinstance(self.strategy, FastGSStrategy):
            if self.trained_view is not None and self.strategy.needs_view(self.step, self.strategy_state):
                add_view(self.strategy_state, self._scored_view(*self.trained_view), self.ssim, self.config.score_error_thresh)
            if self.steering is not None and self.guided_scene is not None:
                self.steering.step(self.step, self.guided_scene, self.strategy_state)
                if self.strategy.is_round(self.step):
                    self.steering.before_densification(self.step, self.guided_scene, self.strategy_state)
            scorer = partial(take_scores, self.strategy_state) if number_of_views(self.strategy_state) else None
            arguments = (self.gauss_params, self.optimizers, self.strategy_state, self.step, self.info)
            rounds = len(self.strategy.history)
            self.strategy.step_post_backward(*arguments, scorer=scorer)
            if self.steering is not None and len(self.strategy.history) > rounds:
                self.steering.densified(self.strategy.history[-1])
                if self.steering.last is not None:
                    self.panel.show_round(self.steering.last, self.strategy.history[-1])
        else:
            super().step_post_backward(step)
        self.panel.after_step()

    def _scored_view(self, outputs: dict[str, Any], batch: dict[str, Any]) -> ScoredView:
        """Render and photo of the training step, at its resolution."""
        photo = self.composite_with_background(self.get_gt_img(batch["image"]), outputs["background"])
        mask = batch.get("mask")
        if mask is not None:
            mask = self._downscale_if_required(mask).to(self.device).squeeze(-1) > 0.5
        return ScoredView(outputs["rgb"].detach(), photo, self.info, mask)

    def begin_with(self, seeds: Seeds | None = None, alone: bool = False) -> None:
        """Begin with Gaussians at the scene's points, or at random ones, and at `seeds`; or with seeds `alone`."""
        config = self.config
        centre, radius = self.extent()
        self.gauss_params = initial_gaussians(
            None if config.random_init or alone else self.seed_points, config.sh_degree, radius,
            random_points=lambda: uniform_points(0 if alone else config.num_random, centre, radius * config.random_scale),
            random_opacity=config.random_opacity, shell=config.ambient_shell, seeds=seeds,
        )  # fmt: skip

    def extent(self) -> tuple[Tensor, float]:
        """The scene's centre [3] and radius as the dataparser knows them: of the cameras where several, else of the box."""
        cameras = (self.kwargs.get("metadata") or {}).get("camera_positions")
        if cameras is not None and len(cameras) > 1:
            centre, radius = camera_extent(cameras.cpu())
            if radius > 0:
                return centre, radius
        low, high = self.scene_box.aabb.cpu().float()
        return (low + high) / 2, float((high - low).max()) / 2

    def get_outputs(self, camera: Cameras) -> dict[str, Tensor | list]:  # type: ignore[override]
        """Render one camera.

        Returns:
            ``rgb`` [H, W, 3] in [0, 1], ``depth`` [H, W, 1] in scene units (None in training, unless asked for),
            ``accumulation`` [H, W, 1], ``background`` [3] in training and [H, W, 3] otherwise. Where the scene has semantics, in
            evaluation also ``relevancy_0``, ``relevancy_1``, … [H, W, 1] in [0, 1] of the prompt's phrases, and
            ``semantics_pca`` [H, W, 3].
        """
        if not isinstance(camera, Cameras):
            raise TypeError(f"VlmFastGSModel renders nerfstudio Cameras, not {type(camera).__name__}")
        if self.training:
            if camera.shape[0] != 1:
                raise ValueError(f"{camera.shape[0]} cameras in a training step; give one")
            camera_to_worlds = self.camera_optimizer.apply_to_camera(camera)
        else:
            camera_to_worlds = camera.camera_to_worlds
        gaussians = dict(self.gauss_params.items())
        width, height = self._render_size(camera)
        frame = None if self.training else self.panel.frame()
        inside = None if frame is None else frame.drawn(self.device)
        if self.crop_box is not None and not self.training:
            cropped = self.crop_box.within(self.means).reshape(-1)
            inside = cropped if inside is None else cropped & inside
        if inside is not None:
            if not inside.any():
                empty = self.get_empty_outputs(width, height, self.background_color.to(self.device))
                return {**empty, **self.semantic_outputs(camera, inside)}
            gaussians = {name: values[inside] for name, values in gaussians.items()}
        with_depth = self.config.output_depth_during_training or not self.training
        image, alpha, info = self._splat(camera, camera_to_worlds, gaussians, "RGB+ED" if with_depth else "RGB")
        if self.training:
            self.info, self.last_size = info, (height, width)
            self.strategy.step_pre_backward(self.gauss_params, self.optimizers, self.strategy_state, self.step, self.info)
        background = self._get_background_color()
        rgb = composite(image, alpha, background)
        metadata = camera.metadata or {}
        if self.config.use_bilateral_grid and self.training and "cam_idx" in metadata:
            rgb = self._apply_bilateral_grid(rgb, metadata["cam_idx"], height, width)
        depth = None
        if with_depth:
            depth = image[..., 3:4]
            depth = torch.where(alpha > 0, depth, depth.detach().max()).squeeze(0)
        outputs: dict[str, Tensor | list] = {
            "rgb": rgb.squeeze(0),
            "depth": depth,  # type: ignore[dict-item]
            "accumulation": alpha.squeeze(0),
            "background": background if self.training else background.expand(height, width, 3),
            **self.semantic_outputs(camera, inside),
        }
        return outputs if frame is None else frame.shown(outputs, self, camera, inside)

    # what the viewer asks

    @property
    def focus(self) -> Tensor | None:  # [N] in [0, 1]
        """Where Gaussians are added sooner, for guidance or the user; None: nowhere."""
        focus = in_force(self.strategy_state)
        return None if focus is None or len(focus) != len(self.means) else focus

    def want_detail(self, camera: Cameras, box: tuple[float, float, float, float]) -> None:
        """Add Gaussians sooner where a box (left, top, right, bottom, as fractions of the picture) shows the scene.

        Raises:
            InputError: none are added: not in training, without guidance, or too late in the run.
        """
        if self.steering is None:
            raise InputError("more detail can be had while training with guidance; this scene is not in training, or has none")
        if self.step >= int(self.config.stop_split_at):
            raise InputError(f"no Gaussian is added after step {int(self.config.stop_split_at)}, and this is step {self.step}")
        K = camera.get_intrinsics_matrices()[0].to(self.device)
        pose, width, height = camera.camera_to_worlds[0].to(self.device), int(camera.width), int(camera.height)
        viewpoint = Viewpoint(pose, K, width, height).within(self.config.guidance.picture_size)
        self.steering.instruct([marked_box(viewpoint, Box(*box))])

    def _render_size(self, camera: Cameras) -> tuple[int, int]:
        """Width and height in pixels, by the resolution schedule."""
        d = self._get_downscale_factor()
        return max(1, int(camera.width.item()) // d), max(1, int(camera.height.item()) // d)

    def _splat(
        self,
        camera: Cameras,
        camera_to_worlds: Tensor,  # [1, 3, 4]
        gaussians: dict[str, Tensor],
        render_mode: Literal["RGB", "RGB+ED"],
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """`rasterization` of these Gaussians for one camera: image [1, H, W, 3 or 4] without background, alpha, info."""
        d = self._get_downscale_factor()
        intrinsics = camera.get_intrinsics_matrices().to(self.device)
        intrinsics = intrinsics * intrinsics.new_tensor([1 / d, 1 / d, 1.0])[:, None]
        return self.rasterize(gaussians, camera_to_worlds, intrinsics, *self._render_size(camera), render_mode)

    def rasterize(
        self,
        gaussians: dict[str, Tensor],
        camera_to_worlds: Tensor,  # [1, 3, 4]
        intrinsics: Tensor,  # [1, 3, 3]
        width: int,
        height: int,
        render_mode: Literal["RGB", "RGB+ED"],
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """`rasterization` of raw parameters for a pinhole camera (pose with OpenGL axes), harmonics by the present step."""
        colours = torch.cat([gaussians["features_dc"][:, None], gaussians["features_rest"]], dim=1)
        degree: int | None = None
        if self.config.sh_degree > 0:
            degree = min(self.step // max(1, int(self.config.sh_degree_interval)), self.config.sh_degree)
        else:
            colours = torch.sigmoid(colours).squeeze(1)
        with uninterrupted():
            return rasterization(
                means=gaussians["means"],
                quats=gaussians["quats"],
                scales=torch.exp(gaussians["scales"]),
                opacities=torch.sigmoid(gaussians["opacities"]).squeeze(-1),
                colors=colours,
                viewmats=world_to_camera(camera_to_worlds),
                Ks=intrinsics,
                width=width,
                height=height,
                near_plane=0.01,
                far_plane=1e10,
                sh_degree=degree,
                render_mode=render_mode,
                absgrad=self.strategy.absgrad,
                rasterize_mode=self.config.rasterize_mode,
                compact_box=self.config.compact_box,
            )

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """Splatfacto's, and how much guidance has done so far."""
        metrics: dict[str, Any] = super().get_metrics_dict(outputs, batch)
        if self.steering is not None:
            metrics.update({f"guidance_{name}": float(value) for name, value in vars(self.steering.tally).items()})
        return metrics

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Splatfacto's, and the extra weight of the colour loss inside the regions of targeted optimisation."""
        losses: dict[str, Tensor] = super().get_loss_dict(outputs, batch, metrics_dict)
        if self.training:
            self.trained_view = outputs, batch
        index = batch.get("image_idx")
        region = None if self.steering is None or index is None else self.steering.targets.get(int(index))
        if region is not None and self.training:
            photo = self.composite_with_background(self.get_gt_img(batch["image"]), outputs["background"])
            inside = interpolate(region[None, None].float(), outputs["rgb"].shape[:2])[0, 0, ..., None]
            if "mask" in batch:
                inside = inside * self._downscale_if_required(batch["mask"]).to(inside)
            weight = (1 - self.config.ssim_lambda) * (self.config.guidance.target_weight - 1)
            losses["targeted"] = weight * (inside * (outputs["rgb"] - photo).abs()).mean()
        return losses

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR, SSIM and, where its weights are on the disk, LPIPS of a render, and photo and render side by side."""
        photo = self.composite_with_background(self.get_gt_img(batch["image"]), outputs["background"])
        render = outputs["rgb"]
        versions = {"": render}
        if self.config.color_corrected_metrics:
            versions["cc_"] = color_correct(render, photo)
        metrics: dict[str, float] = {}
        truth = photo.movedim(-1, 0)[None]
        for prefix, image in versions.items():
            predicted = image.movedim(-1, 0)[None]
            metrics[f"{prefix}psnr"] = float(self.psnr(truth, predicted))
            metrics[f"{prefix}ssim"] = float(self.ssim(truth, predicted))
            lpips = self.lpips(truth, predicted)
            if lpips is not None:
                metrics[f"{prefix}lpips"] = lpips
        return metrics, {"img": torch.cat([photo, render], dim=1)}

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the parameters, in tensors and plain numbers."""
        state = {"step": self.step, "run_length": self.run_length, "strategy": dict(self.strategy_state)}
        return state if self.steering is None else {**state, "guidance": self.steering.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue with the run's length, the step and the strategy's running scores of a checkpoint."""
        self.step = state["step"]
        if self._schedule.run_length == 0 and state["run_length"] != self.run_length:
            self.run_length = state["run_length"]
            self.config = resolve(self._schedule, self.run_length)
            self.strategy = make_strategy(self.config, self.num_train_data)
        self.strategy_state = {
            name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in state["strategy"].items()
        }
        if self.steering is not None:
            self.steering.config = self.config.guidance
            if "guidance" in state:
                self.steering.set_state(state["guidance"], self.device)
