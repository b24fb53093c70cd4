from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from gsplat.strategy import DefaultStrategy
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.scene_box import OrientedBox, SceneBox
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.models.splatfacto import SH2RGB, SplatfactoModel
from torch import Tensor

from tests.guidance.small_world import Scripted, SmallScene, says
from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.densify.scores import Scores, number_of_views, take_scores
from vlmgs_ns.densify.strategy import FastGSStrategy
from vlmgs_ns.guidance.backends.residual import ResidualBackend
from vlmgs_ns.guidance.config import GuidanceConfig
from vlmgs_ns.guidance.steering import Steering
from vlmgs_ns.method.model import VlmFastGSModel, VlmFastGSModelConfig
from vlmgs_ns.method.optimizers import resolve_schedulers
from vlmgs_ns.splats.camera import world_to_camera

WIDTH, HEIGHT = 48, 32


def look_at(eye: tuple[float, float, float]) -> Tensor:  # [1, 3, 4]
    """Camera → world, OpenGL axes, looking at the origin."""
    position = torch.tensor(eye)
    back = position / position.norm()
    right = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0]), back)
    right = right / right.norm()
    return torch.stack([right, torch.linalg.cross(back, right), back, position], dim=-1)[None]


def camera(eye: tuple[float, float, float] = (2.0, 0.0, 0.5), index: int | None = None) -> Cameras:
    return Cameras(
        camera_to_worlds=look_at(eye),
        fx=torch.tensor([[40.0]]),
        fy=torch.tensor([[40.0]]),
        cx=torch.tensor([[WIDTH / 2]]),
        cy=torch.tensor([[HEIGHT / 2]]),
        width=torch.tensor([[WIDTH]]),
        height=torch.tensor([[HEIGHT]]),
        camera_type=CameraType.PERSPECTIVE,
        metadata={} if index is None else {"cam_idx": index},
    )


def cloud(count: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator) * 0.3, torch.randint(0, 256, (count, 3), generator=generator).byte()


def build(
    seed_points: tuple[Tensor, Tensor] | None = None, metadata: dict[str, Any] | None = None, **config: Any
) -> VlmFastGSModel:
    torch.manual_seed(0)
    box = SceneBox(aabb=torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]))
    settings = {"run_length": 100, "num_random": 100, "num_downscales": 0, **config}
    return VlmFastGSModelConfig(**settings).setup(
        scene_box=box, num_train_data=4, metadata=metadata or {}, device="cpu", grad_scaler=None, seed_points=seed_points
    )


def optimizers_of(model: VlmFastGSModel) -> Optimizers:
    return Optimizers(resolve_schedulers(vlm_fastgs_lite.config.optimizers, 100), model.get_param_groups())


def train(model: VlmFastGSModel, image: Tensor, steps: int, start: int = 0, **batch: Tensor) -> list[float]:
    """Steps as nerfstudio's trainer takes them; the losses."""
    optimizers = optimizers_of(model)
    model.train()
    losses = []
    for step in range(start, start + steps):
        model.step_cb(optimizers, step)
        optimizers.zero_grad_all()
        outputs = model.get_outputs(camera(index=step % 4))
        data = {"image": image, **batch}
        loss = sum(model.get_loss_dict(outputs, data, model.get_metrics_dict(outputs, data)).values())
        loss.backward()
        optimizers.optimizer_step_all()
        for scheduler in optimizers.schedulers.values():
            scheduler.step()
        model.step_post_backward(step)
        losses.append(float(loss))
    return losses


def photo() -> Tensor:  # [H, W, 3] uint8
    return torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(1)).byte()


def test_it_is_a_splatfacto_model() -> None:
    """ns-export and the viewer ask for it."""
    assert isinstance(build(), SplatfactoModel)


def test_outputs_have_splatfactos_shapes() -> None:
    model = build(cloud()).eval()
    outputs = model.get_outputs_for_camera(camera())
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    size = (HEIGHT, WIDTH)
    assert shapes == {"rgb": (*size, 3), "depth": (*size, 1), "accumulation": (*size, 1), "background": (*size, 3)}
    assert outputs["rgb"].min() >= 0 and outputs["rgb"].max() <= 1
    # The cloud is 0.3 wide and 2 away.
    seen = outputs["accumulation"] > 0.5
    assert seen.any() and 1.0 < outputs["depth"][seen].mean() < 3.0


def test_view_matrices_invert_poses() -> None:
    poses = torch.cat([look_at((2.0, 0.3, 0.5)), look_at((-1.0, 1.0, 1.0))])
    views = world_to_camera(poses)
    # OpenCV axes: the origin is straight ahead, at +z.
    centre = views @ torch.tensor([0.0, 0.0, 0.0, 1.0])
    distances = poses[:, :, 3].norm(dim=-1)
    torch.testing.assert_close(centre[:, :3], torch.stack([0 * distances, 0 * distances, distances], dim=-1), atol=1e-6, rtol=0)
    # A point above the origin is higher in the image, where y points down.
    above = views @ torch.tensor([0.0, 0.0, 0.1, 1.0])
    assert (above[:, 1] < 0).all()
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    full = torch.cat([poses, torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(2, 1, 4)], dim=1)
    torch.testing.assert_close(flip @ views @ full, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rasterize_mode": "antialiased"},
        {"sh_degree": 0},
        {"sh_degree": 1},
        {"camera_optimizer": CameraOptimizerConfig(mode="SO3xR3")},
        {"use_bilateral_grid": True, "grid_shape": (4, 4, 2)},
        {"output_depth_during_training": True},
        {"background_color": "white"},
        {"use_scale_regularization": True},
        {"num_downscales": 1, "resolution_schedule": 5},
        {"compact_box": 1.0},
        {"use_absgrad": False},
    ],
    ids=lambda config: next(iter(config), "plain"),
)
def test_every_option_of_splatfacto_trains(config: dict[str, Any]) -> None:
    model = build(cloud(), **{"background_color": "black", "warmup_length": 50, "reset_alpha_every": 1000, **config})
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    losses = train(model, torch.tensor([200, 100, 50]).byte().expand(HEIGHT, WIDTH, 3), 12)
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-4:]) < sum(losses[:4])
    after = dict(model.named_parameters())
    assert not torch.equal(before["gauss_params.means"], after["gauss_params.means"])
    for name in ("camera_optimizer.pose_adjustment", "bil_grids.grids"):
        if name in after:
            assert not torch.equal(before[name], after[name]), f"{name} was not trained"
    outputs = model.eval().get_outputs_for_camera(camera())
    assert torch.isfinite(outputs["rgb"]).all() and outputs["depth"].shape == (HEIGHT, WIDTH, 1)


def test_resolution_schedule_halves_the_picture_and_sees_the_same() -> None:
    model = build(cloud(), num_downscales=2, resolution_schedule=10).train()
    model.optimizers = optimizers_of(model).optimizers
    sizes = []
    for step in (0, 10, 20):
        model.step = step
        view = camera()
        sizes.append(tuple(model.get_outputs(view)["rgb"].shape))
        assert (int(view.width), int(view.height), float(view.fx)) == (WIDTH, HEIGHT, 40.0)  # the camera is not changed
    assert sizes == [(8, 12, 3), (16, 24, 3), (32, 48, 3)]


def test_masked_pixels_teach_nothing() -> None:
    mask = torch.zeros(HEIGHT, WIDTH, 1, dtype=torch.bool)
    model = build(cloud(), background_color="black").train()
    model.step_cb(optimizers_of(model), 0)
    outputs = model.get_outputs(camera())
    model.get_loss_dict(outputs, {"image": photo(), "mask": mask})["main_loss"].backward()
    assert model.means.grad is None or not model.means.grad.any()
    outputs = model.get_outputs(camera())
    model.get_loss_dict(outputs, {"image": photo(), "mask": ~mask})["main_loss"].backward()
    assert model.means.grad is not None and model.means.grad.any()


def test_transparent_photos_are_laid_over_the_renders_background() -> None:
    model = build(cloud()).eval()
    background = torch.tensor([0.2, 0.4, 0.6])
    clear = torch.zeros(HEIGHT, WIDTH, 4, dtype=torch.uint8)
    composed = model.composite_with_background(model.get_gt_img(clear), background)
    torch.testing.assert_close(composed, background.expand(HEIGHT, WIDTH, 3))
    assert math.isfinite(train(build(cloud()), clear, 2)[-1])


def test_crop_box_keeps_what_is_inside() -> None:
    points = torch.tensor([[0.0, 0.4, 0.0], [0.0, -0.4, 0.0], [0.1, 0.4, 0.0], [0.1, -0.4, 0.0]])
    model = build((points, torch.tensor([[255, 0, 0], [0, 255, 0]] * 2).byte())).eval()
    with torch.no_grad():
        model.gauss_params["opacities"].fill_(5.0)
        model.gauss_params["scales"].fill_(math.log(0.05))
    red_half = OrientedBox.from_params((0.0, 0.5, 0.0), (0.0, 0.0, 0.0), (2.0, 1.0, 2.0))
    whole = model.get_outputs_for_camera(camera())["accumulation"]
    half = model.get_outputs_for_camera(camera(), obb_box=red_half)["accumulation"]
    assert whole[:, : WIDTH // 2].max() > 0.5 and whole[:, WIDTH // 2 :].max() > 0.5
    assert half[:, : WIDTH // 2].max() < 0.01 and half[:, WIDTH // 2 :].max() > 0.5
    empty = OrientedBox.from_params((9.0, 9.0, 9.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    nothing = model.get_outputs_for_camera(camera(), obb_box=empty)
    assert nothing["rgb"].shape == (HEIGHT, WIDTH, 3) and nothing["accumulation"].max() == 0


def test_set_background_shows_behind_the_scene() -> None:
    points, colours = cloud()
    model = build((points * 0.2, colours)).eval()
    model.set_background(torch.tensor([1.0, 0.0, 0.5]))
    outputs = model.get_outputs_for_camera(camera((2.0, 0.0, 0.5)))
    clear = outputs["accumulation"][..., 0] < 1e-6
    assert clear.any()
    torch.testing.assert_close(outputs["rgb"][clear], torch.tensor([1.0, 0.0, 0.5]).expand(int(clear.sum()), 3))


def test_seed_points_are_where_and_what_they_were() -> None:
    points, colours = cloud()
    model = build((points, colours))
    torch.testing.assert_close(model.means.data, points)
    torch.testing.assert_close(SH2RGB(model.features_dc.data), colours.float() / 255)
    # As large as the mean distance to three neighbours.
    distances = torch.cdist(points, points).topk(4, largest=False).values[:, 1:].mean(dim=-1)
    torch.testing.assert_close(model.scales.data.exp(), distances[:, None].expand(-1, 3), rtol=1e-3, atol=1e-4)


def test_points_that_cannot_start_a_scene_are_left_out() -> None:
    points, colours = cloud()
    points[3] = math.nan
    model = build((points, colours))
    assert len(model.means) == 199 and model.means.isfinite().all()
    # Too few points for neighbours, or none: random ones, as many as configured.
    assert len(build((points[:2], colours[:2])).means) == 100
    assert len(build((points[:0], colours[:0])).means) == 100
    # Four points in one place have no distance; their size is small, not zero.
    same = build((torch.zeros(8, 3), colours[:8]))
    assert same.scales.isfinite().all()


def test_random_start_fills_the_scene_that_the_cameras_see() -> None:
    centre, radius = torch.tensor([10.0, -4.0, 2.0]), 3.0
    angles = torch.linspace(0, 2 * math.pi, 9)[:-1]
    positions = centre + radius * torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=-1)
    means = build(metadata={"camera_positions": positions}, num_random=4000).means.data
    half = 1.1 * radius
    torch.testing.assert_close(means.mean(dim=0), centre, atol=0.2, rtol=0)
    assert ((means - centre).abs() <= half + 1e-4).all()
    # Uniform: each eighth of the cube holds an eighth.
    octant = ((means > centre) * torch.tensor([4, 2, 1])).sum(dim=-1)
    assert (torch.bincount(octant, minlength=8) - 500).abs().max() < 120
    # Twice the scale, eight times the space.
    wide = build(metadata={"camera_positions": positions}, num_random=4000, random_scale=2.0).means.data
    assert (wide - centre).abs().max() == pytest.approx(2 * half, rel=0.01)


def test_random_start_without_cameras_fills_the_scene_box() -> None:
    means = build(num_random=2000).means.data
    assert means.abs().max() <= 1.0 and means.abs().max() > 0.95
    assert len(build(cloud(), random_init=True).means) == 100


def test_the_strategy_follows_the_run() -> None:
    for name in ("default", "fastgs"):
        strategy = build(run_length=1000, densification=name).strategy
        assert isinstance(strategy, DefaultStrategy)
        assert (strategy.refine_start_iter, strategy.refine_every, strategy.refine_stop_iter) == (25, 25, 750)
        # However many photos there are, densification goes on after a reset.
        assert 0 <= strategy.pause_refine_after_reset < strategy.reset_every / 2 + 1


def test_state_survives_a_round_trip_with_another_number_of_gaussians() -> None:
    model = build(cloud(), refine_every=3, warmup_length=2, densify_grad_thresh=0.0)
    train(model, photo(), 8)
    assert model.num_points > 200
    state = model.state_dict()
    other = build(cloud())
    other.load_state_dict(state)
    assert other.step == 7
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(value, other.state_dict()[name]), name
    scores, restored = model.strategy_state, other.strategy_state
    assert scores.keys() == restored.keys() and len(restored["grad2d"]) == model.num_points
    for name, value in scores.items():
        assert torch.equal(value, restored[name]) if isinstance(value, Tensor) else value == restored[name], name


def test_metrics_of_a_perfect_render() -> None:
    model = build(cloud(), color_corrected_metrics=True).eval()
    outputs = model.get_outputs_for_camera(camera())
    truth = outputs["rgb"].clone()
    metrics, images = model.get_image_metrics_and_images(outputs, {"image": truth})
    assert metrics["ssim"] == pytest.approx(1.0, abs=1e-5) and metrics["psnr"] > 80
    assert metrics["cc_ssim"] == pytest.approx(1.0, abs=1e-3)
    assert images["img"].shape == (HEIGHT, 2 * WIDTH, 3)
    half = (truth + 0.1).clamp(0, 1)
    worse, _ = model.get_image_metrics_and_images(outputs, {"image": half})
    expected = -10 * math.log10(float(((half - truth) ** 2).mean()))
    assert worse["psnr"] == pytest.approx(expected, abs=1e-3)


def test_foundation_of_metrics_stays_out_of_checkpoints() -> None:
    assert not [name for name in build().state_dict() if "lpips" in name or "ssim" in name]


def test_a_loaded_model_keeps_the_schedule_of_its_run() -> None:
    """config.yml does not say how long a run was (it is written before that is known); the checkpoint does."""
    trained = build(run_length=100)
    trained.step = 99
    loaded = build(run_length=0)
    assert loaded.config.sh_degree_interval == 1000
    loaded.load_state_dict(trained.state_dict())
    assert loaded.run_length == 100
    assert loaded.config == trained.config.__class__(**{**vars(trained.config), "run_length": 0})
    assert loaded.strategy.refine_every == trained.strategy.refine_every
    for model in (trained, loaded):
        model.eval()
    view = camera()
    assert torch.equal(trained.get_outputs_for_camera(view)["rgb"], loaded.get_outputs_for_camera(view)["rgb"])
    chosen = build(run_length=300)
    chosen.load_state_dict(trained.state_dict())
    assert chosen.run_length == 300  # said explicitly


def test_ambient_shell_surrounds_the_points_with_grey() -> None:
    points, colours = cloud()
    plain = build(seed_points=(points, colours))
    model = build(seed_points=(points, colours), ambient_shell=500)
    extra = len(model.means) - len(points)
    assert 450 <= extra <= 500 and len(plain.means) == len(points)
    assert torch.equal(model.means[: len(points)], plain.means)
    shell = model.means[len(points) :].detach()
    axes = torch.linalg.svd(torch.cov(points[:, :2].T))[0].T
    reach = ((points[:, :2] - points[:, :2].mean(0)) @ axes.T).abs().amax(0) * 1.2
    ellipse = (((shell[:, :2] - points[:, :2].mean(0)) @ axes.T / reach) ** 2).sum(1)
    assert (ellipse - 1).abs().max() < 1e-3  # on the tube, outside every point
    assert torch.allclose(SH2RGB(model.features_dc[len(points) :]), torch.tensor(0.5), atol=1e-5)


def test_a_round_scores_gaussians_by_the_training_steps_before_it() -> None:
    """Where the photo equals the render nothing is marked; where it differs, the Gaussians seen there are important."""
    points, colours = cloud(100)
    points = 0.05 * points  # two small heaps, left and right of the middle
    points[:, 1] += torch.tensor([-0.6, 0.6]).repeat(50)
    model = build(seed_points=(points, colours), background_color="black")
    view = camera(index=0)
    model.eval()
    render = model.get_outputs_for_camera(view)["rgb"].detach()
    model.train()
    changed = render.clone()
    changed[:, : WIDTH // 2] = 1.0
    # a round at step 4: scored by the renders of 2, 3 and 4
    model.strategy.refine_start_iter, model.strategy.refine_every, model.strategy.score_views = 0, 4, 3

    def scores(photo: Tensor) -> Scores:
        counted = []
        for step in range(1, 5):
            model.step_cb(optimizers, step)
            model.get_loss_dict(model.get_outputs(view), {"image": photo})["main_loss"].backward()
            if step < 4:
                model.step_post_backward(step)
                counted.append(number_of_views(model.strategy_state))
        assert counted == [0, 1, 2]
        return take_scores(model.strategy_state)

    optimizers = optimizers_of(model)
    assert scores(render).importance.sum() == 0
    found = scores(changed)
    left = model.info["means2d"][0, :, 0] < WIDTH / 2
    assert left.sum() == 50 and (model.info["radii"] > 0).all()
    assert found.importance[left].max() > 5 and found.importance[~left].max() == 0


def targeted(model: VlmFastGSModel, region: Tensor) -> None:
    model.steering = Steering(model.config.guidance, ResidualBackend(), None, None)
    model.steering.targets[2] = region


def test_the_colour_loss_counts_more_inside_the_regions_of_targeted_optimisation() -> None:
    """Weight 3: as if the absolute differences inside had been multiplied by 3 before they were averaged."""
    model = build(cloud(), background_color="black", ssim_lambda=0.2, guidance=GuidanceConfig(target_weight=3.0)).train()
    model.step_cb(optimizers_of(model), 0)
    outputs = model.get_outputs(camera(index=2))
    data = {"image": photo(), "image_idx": 2}
    plain = model.get_loss_dict(outputs, data)
    assert "targeted" not in plain
    region = torch.zeros(HEIGHT // 2, WIDTH // 2, dtype=torch.bool)  # at half the size of the photo
    region[4:8, 10:20] = True
    targeted(model, region)
    losses = model.get_loss_dict(outputs, data)
    difference = (outputs["rgb"] - photo().float() / 255).abs()
    weights = torch.ones(HEIGHT, WIDTH, 1)
    weights[8:16, 20:40] = 3.0
    colour = 0.8 * difference.mean()
    torch.testing.assert_close(colour + losses["targeted"], 0.8 * (weights * difference).mean())
    assert losses["main_loss"] == plain["main_loss"]
    # other photos, and evaluation, are left alone
    assert "targeted" not in model.get_loss_dict(outputs, {**data, "image_idx": 1})
    assert "targeted" not in model.eval().get_loss_dict(outputs, data)


def test_masked_pixels_teach_nothing_inside_a_target_either() -> None:
    model = build(cloud(), background_color="black").train()
    model.step_cb(optimizers_of(model), 0)
    targeted(model, torch.ones(HEIGHT, WIDTH, dtype=torch.bool))
    outputs = model.get_outputs(camera())
    mask = torch.zeros(HEIGHT, WIDTH, 1, dtype=torch.bool)
    assert model.get_loss_dict(outputs, {"image": photo(), "image_idx": 2, "mask": mask})["targeted"] == 0
    mask[:, : WIDTH // 2] = True
    half = model.get_loss_dict(outputs, {"image": photo(), "image_idx": 2, "mask": mask})["targeted"]
    difference = (outputs["rgb"] - photo().float() / 255).abs()[:, : WIDTH // 2]
    torch.testing.assert_close(half, 0.8 * difference.mean() / 2)


def test_curves_show_what_guidance_did() -> None:
    model = build(cloud()).train()
    model.step_cb(optimizers_of(model), 0)
    outputs, data = model.get_outputs(camera()), {"image": photo()}
    assert not [name for name in model.get_metrics_dict(outputs, data) if name.startswith("guidance")]
    targeted(model, torch.zeros(2, 2, dtype=torch.bool))
    assert model.steering is not None
    model.steering.tally.added, model.steering.tally.rounds = 7, 2
    metrics = model.get_metrics_dict(outputs, data)
    assert {name: value for name, value in metrics.items() if name.startswith("guidance")} == {
        "guidance_rounds": 2.0, "guidance_failures": 0.0, "guidance_selected": 0.0, "guidance_added": 7.0,
    }  # fmt: skip


def test_replies_of_models_are_kept_and_those_of_the_residual_backend_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = Scripted(says("[]"))
    for backend, keep, folder in (
        (asked, True, tmp_path / "vlmgs_ns" / "replies"),
        (asked, False, None),
        (ResidualBackend(), True, None),
    ):
        model = build(cloud(), guidance=GuidanceConfig(cache_replies=keep))
        model.start_guidance(SmallScene(), backend, None)
        assert model.steering is not None
        memory = model.steering.worker.memory
        assert (None if memory is None else memory.folder) == folder


def test_strategies_take_their_thresholds_from_the_settings() -> None:
    settings: dict[str, Any] = {
        "run_length": 1000, "refine_every": 20, "reset_alpha_every": 4, "warmup_length": 0.1, "cull_alpha_thresh": 0.03,
        "pause_after_reset": 7, "importance_thresh": 2.0, "max_gaussians": 999,
        "guidance": GuidanceConfig(strength=0.25, keep_background=0.75),
    }  # fmt: skip
    ours = build(cloud(), **settings).strategy
    assert isinstance(ours, FastGSStrategy)
    assert (ours.refine_every, ours.reset_every, ours.refine_start_iter, ours.refine_stop_iter) == (20, 80, 100, 750)
    assert (ours.prune_opa, ours.pause_refine_after_reset, ours.importance_threshold) == (0.03, 7, 2.0)
    assert (ours.max_gaussians, ours.focus_strength, ours.focus_background) == (999, 0.25, 0.75)
    assert ours.prune_scale_start_iter == 150  # of 1000, however rarely opacities are reset
    default = build(cloud(), **settings, densification="default").strategy
    assert type(default) is DefaultStrategy
    assert (default.refine_every, default.reset_every, default.prune_opa, default.absgrad) == (20, 80, 0.03, True)
    assert default.pause_refine_after_reset == 4 + 20 and not default.verbose


def test_a_size_that_is_never_looked_at_is_a_warning() -> None:
    with pytest.warns(
        UserWarning, match=r"pruned for its size: that begins after step 80, and the last densification is before step 75"
    ):
        build(cloud(), run_length=100, cull_scale_after=80)
