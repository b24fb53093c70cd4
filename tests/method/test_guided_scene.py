"""Guidance over a real model in training on the embedded scene: who asks for an object gets Gaussians on that object."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers
from numpy.typing import NDArray
from PIL import Image

import vlmgs_ns.densify.strategy
from tests.guidance.small_world import Scripted, says
from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.guidance.backends.residual import ResidualBackend
from vlmgs_ns.guidance.config import PHASES, GuidanceConfig, PhaseSchedule
from vlmgs_ns.guidance.question import Answer, Backend, Phase, Question
from vlmgs_ns.method.datamanager import VlmFastGSDatamanager, VlmFastGSDatamanagerConfig
from vlmgs_ns.method.guided_scene import GuidedScene
from vlmgs_ns.method.model import VlmFastGSModel, VlmFastGSModelConfig
from vlmgs_ns.method.optimizers import resolve_schedulers
from vlmgs_ns.toy.scene import write_scene

BASE, ASK, DENSIFY, PROTECTION = 90, 95, 100, 1000
"""Steps: trained without guidance until BASE, the round, the densification that uses it, how long its births are protected."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guided") / "room"
    write_scene(folder, seed=3, views=30, width=128, height=96, held_out=8, points=3000, supersample=1)
    return folder


def views_of(scene: Path) -> VlmFastGSDatamanager:
    """The lite method's view of a scene's photos."""
    config = copy.deepcopy(vlm_fastgs_lite.config.pipeline.datamanager)
    assert isinstance(config, VlmFastGSDatamanagerConfig)
    config.data = scene
    manager: VlmFastGSDatamanager = config.setup(device="cpu", test_mode="val")
    return manager


@pytest.fixture(scope="module")
def views(scene: Path) -> VlmFastGSDatamanager:
    return views_of(scene)


def guided(phase: Phase | None, **settings: Any) -> GuidanceConfig:
    """One round of one phase, at step ASK."""
    on = {p: PhaseSchedule(enabled=p == phase, start=ASK, end=ASK + 1, every=1, views=5, max_points=1000) for p in PHASES}
    return GuidanceConfig(**{**on, "blocking": True, "prune_protection": PROTECTION, "cache_replies": False, **settings})


def start(views: VlmFastGSDatamanager, guidance: GuidanceConfig, backend: Backend | None = None, **config: Any) -> VlmFastGSModel:
    """A model at the scene's points."""
    torch.manual_seed(0)
    outputs = views.train_dataparser_outputs
    points = outputs.metadata["points3D_xyz"], outputs.metadata["points3D_rgb"]
    settings = {
        "run_length": 200,
        "num_downscales": 0,
        "refine_every": 10,
        "warmup_length": 9,
        "reset_alpha_every": 100,
        "max_new_per_round": 4000,
        "guidance": guidance,
        **config,
    }
    model: VlmFastGSModel = VlmFastGSModelConfig(**settings).setup(
        scene_box=outputs.scene_box, num_train_data=len(views.train_dataset), metadata=views.train_dataset.metadata,
        device="cpu", grad_scaler=None, seed_points=points,
    )  # fmt: skip
    model.training_views = views
    if backend is not None:
        model.start_guidance(GuidedScene(model, views, guidance.picture_size), backend, None)
    return model


@pytest.fixture(scope="module")
def base(views: VlmFastGSDatamanager) -> dict[str, Any]:
    """The state of a model that has been trained for BASE steps."""
    model = start(views, GuidanceConfig(enabled=False))
    train(model, views, BASE)
    return model.state_dict()


def go_on(base: dict[str, Any], views: VlmFastGSDatamanager, guidance: GuidanceConfig, backend: Backend) -> VlmFastGSModel:
    """From there through the round and the densification that uses it."""
    model = start(views, guidance, backend)
    model.load_state_dict(copy.deepcopy(base))
    train(model, views, DENSIFY + 1 - BASE, BASE)
    return model


def train(model: VlmFastGSModel, views: VlmFastGSDatamanager, steps: int, first: int = 0) -> None:
    optimizers = Optimizers(resolve_schedulers(vlm_fastgs_lite.config.optimizers, 200), model.get_param_groups())
    model.train()
    for step in range(first, first + steps):
        model.step_cb(optimizers, step)
        optimizers.zero_grad_all()
        camera, batch = views.training_view(7 * step % len(views.train_dataset))
        outputs = model.get_outputs(camera)
        sum(model.get_loss_dict(outputs, batch).values()).backward()  # type: ignore[union-attr]
        optimizers.optimizer_step_all()
        optimizers.scheduler_step_all(step)
        model.step_post_backward(step)


def masks(scene: Path, dataset: Any) -> list[NDArray[np.uint8]]:
    """Return the object id per pixel of a split's photos, [H, W] each."""
    return [np.array(Image.open(scene / "masks_instance" / file.name)) for file in dataset.image_filenames]


class Oracle(Scripted):
    """Knows which photo a question is about, and answers with the box around one object in it."""

    def __init__(self, scene: Path, views: VlmFastGSDatamanager, name: str) -> None:
        super().__init__(self.answer)
        objects = json.loads((scene / "labels.json").read_text())["objects"]
        self.object = next(entry["id"] for entry in objects if entry["name"] == name)
        self.photos = [views.training_view(k)[1]["image"].numpy() for k in range(len(views.train_dataset))]
        self.masks = masks(scene, views.train_dataset)

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        return [Answer(self.box(question)) for question in questions]

    def box(self, question: Question) -> str:
        assert question.evidence.photo is not None
        photo = np.round(question.evidence.photo * 255).astype(np.uint8)
        (index,) = [k for k, known in enumerate(self.photos) if (known == photo).all()]
        rows, columns = np.nonzero(self.masks[index] == self.object)
        if len(rows) == 0:
            return "[]"
        height, width = photo.shape[:2]
        left, right = 1000 * columns.min() // width, -(-1000 * (columns.max() + 1) // width)
        top, bottom = 1000 * rows.min() // height, -(-1000 * (rows.max() + 1) // height)
        return json.dumps([{"bbox_2d": [int(left), int(top), int(right), int(bottom)], "label": "it"}])


def share_on(
    model: VlmFastGSModel, rows: torch.Tensor, scene: Path, views: VlmFastGSDatamanager, wanted: int
) -> tuple[float, int]:
    """Return the share of these Gaussians whose centre most held-out photos that show it show on the object."""
    held_out = HeldOut(views)
    seen, votes = torch.zeros(len(rows)), torch.zeros(len(rows))
    shown = GuidedScene(model, held_out, 10_000)  # type: ignore[arg-type]
    for point, mask in zip(shown.viewpoints(), masks(scene, views.eval_dataset), strict=True):
        render = shown.render(point)
        local = (model.means.detach() - point.opencv[:3, 3]) @ point.opencv[:3, :3]
        projected = local @ point.K.T
        x, y = (projected[:, :2] / local[:, 2:]).floor().long().unbind(1)
        visible = (local[:, 2] > 0.01) & (x >= 0) & (y >= 0) & (x < point.width) & (y < point.height)
        x, y = x.clamp(0, point.width - 1), y.clamp(0, point.height - 1)
        visible &= (local[:, 2] < 1.05 * render.depth[y, x]) & (render.coverage[y, x] > 0.5)
        seen += visible
        votes += visible & (torch.from_numpy(mask)[y, x] == wanted)
    told = rows & (seen > 0)
    return float((votes[told] > seen[told] / 2).float().mean()), int(told.sum())


class HeldOut:
    """`TrainingViews` of the photos that were held out."""

    def __init__(self, views: VlmFastGSDatamanager) -> None:
        self.training_cameras: Callable[[], Any] = lambda: views.eval_dataset.cameras


def added(model: VlmFastGSModel) -> torch.Tensor:  # [N] bool
    """What guidance planted, which alone is protected from pruning, and what is in focus, with what was born of it."""
    rows: torch.Tensor = model.strategy_state["protected_until"] > 0
    focus = model.focus
    return rows if focus is None else rows | (focus > 0)


def test_what_is_added_is_on_the_object_that_was_boxed(scene: Path, views: VlmFastGSDatamanager, base: dict[str, Any]) -> None:
    """Boxes are no silhouettes: in each view they show other things too, behind the object and beside it."""
    on = total = 0.0
    for name in ("orange ball", "purple checkered box", "yellow spotted ball", "white striped ring"):
        oracle = Oracle(scene, views, name)
        model = go_on(base, views, guided("detail"), oracle)
        share, told = share_on(model, added(model), scene, views, oracle.object)
        assert told > 100 and share >= 0.85, f"{name}: {share:.3f} of {told}"
        on, total = on + share * told, total + told
    assert on / total >= 0.9, f"{on / total:.3f} of {total:.0f}"


def test_of_what_fastgs_adds_hardly_anything_is_on_it(scene: Path, views: VlmFastGSDatamanager, base: dict[str, Any]) -> None:
    """The same measure must fail where nobody asked for the object."""
    model = go_on(base, views, guided(None), Scripted(says("[]")))
    newest = torch.zeros(len(model.means), dtype=torch.bool)
    newest[-1000:] = True
    share, told = share_on(model, newest, scene, views, Oracle(scene, views, "purple checkered box").object)
    assert told > 300 and share < 0.3


def test_the_inverse_puts_what_is_added_elsewhere(scene: Path, views: VlmFastGSDatamanager, base: dict[str, Any]) -> None:
    oracle = Oracle(scene, views, "purple checkered box")
    model = go_on(base, views, guided("background"), oracle)
    share, told = share_on(model, added(model), scene, views, oracle.object)
    assert told > 300 and share <= 0.1


@pytest.mark.parametrize("phase", ["detail", "background", "novel"])
def test_an_empty_or_failing_reply_adds_none(phase: Phase, views: VlmFastGSDatamanager, base: dict[str, Any]) -> None:
    empty = go_on(base, views, guided(phase), Scripted(says("[]")))
    with pytest.warns(UserWarning, match="failed and selects nothing"):
        failed = go_on(base, views, guided(phase), Scripted(says(None)))
    assert not added(empty).any() and not added(failed).any()
    assert failed.steering is not None and failed.steering.tally.added == 0
    nobody = go_on(base, views, guided(None), Scripted(says("[]")))
    assert all(torch.equal(a, b) for a, b in zip(failed.parameters(), nobody.parameters(), strict=True))


def test_blocking_runs_repeat_bit_for_bit(views: VlmFastGSDatamanager, base: dict[str, Any]) -> None:
    """Every phase has its turn, on the residual backend."""
    turn = {
        phase: PhaseSchedule(start=BASE + 1 + k, end=BASE + 2 + k, every=1, views=2, max_points=500)
        for k, phase in enumerate(PHASES)
    }
    runs = [go_on(base, views, guided(None, picture_size=64, **turn), ResidualBackend()) for _ in range(2)]
    for model in runs:
        assert model.steering is not None
        assert model.steering.tally.rounds == 4 and model.steering.tally.added > 0 and model.steering.targets
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in runs), strict=True))


# the scene itself


def test_viewpoints_are_the_cameras_at_the_size_that_is_looked_at(views: VlmFastGSDatamanager, base: dict[str, Any]) -> None:
    model = start(views, guided(None))
    cameras = views.train_dataset.cameras
    for size, width, height in ((10_000, 128, 96), (64, 64, 48), (50, 50, 38)):
        points = GuidedScene(model, views, size).viewpoints()
        assert [point.photo for point in points] == list(range(22))
        assert {(point.width, point.height) for point in points} == {(width, height)}
        K = points[3].K
        assert float(K[0, 0]) == pytest.approx(float(cameras.fx[3]) * width / 128)
        assert float(K[1, 2]) == pytest.approx(float(cameras.cy[3]) * height / 96)
        assert torch.equal(points[3].camera_to_world, cameras.camera_to_worlds[3])


def test_a_shot_at_half_size_shows_the_same_as_the_models_render(views: VlmFastGSDatamanager) -> None:
    model = start(views, guided(None), warmup_length=150)  # nothing is born: splits at every tenth step would dim the picture
    train(model, views, 150)
    shown, half = GuidedScene(model, views, 10_000), GuidedScene(model, views, 64)
    whole = shown.render(shown.viewpoints()[5])
    camera, batch = views.training_view(5)
    outputs = model.eval().get_outputs_for_camera(camera)
    assert torch.allclose(whole.rgb, outputs["rgb"], atol=1e-6)
    assert torch.allclose(whole.coverage, outputs["accumulation"][..., 0], atol=1e-6)
    small = half.render(half.viewpoints()[5])
    shrunk = torch.nn.functional.avg_pool2d(whole.rgb.movedim(-1, 0)[None], 2)[0].movedim(0, -1)
    assert (small.rgb - shrunk).abs().mean() < 0.04
    assert (small.rgb - half.photo(half.viewpoints()[5])).abs().mean() < 0.1  # the photo of that very view
    assert (small.rgb - half.photo(half.viewpoints()[6])).abs().mean() > 0.1
    assert torch.allclose(shown.photo(shown.viewpoints()[5]), batch["image"] / 255)


def test_renders_are_dim_for_a_while_after_a_reset_of_the_opacities(
    views: VlmFastGSDatamanager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlmgs_ns.densify.strategy, "RECOVERY", 7)
    model = start(views, guided(None), reset_alpha_every=4)  # every 40 steps, the last before births end at 100
    dim = []
    for model.step in range(150):
        dim.append(GuidedScene(model, views, 64).recovering())
    resets = [step for step in range(150) if model.strategy._is_reset(step)]
    assert resets == [40, 80][: len(resets)] and resets
    assert [step for step, is_dim in enumerate(dim) if is_dim] == [reset + k for reset in resets for k in range(1, 8)]
    monkeypatch.setattr(vlmgs_ns.densify.strategy, "RECOVERY", 300)
    model.step = resets[0] + 20
    assert GuidedScene(model, views, 64).recovering()
    model.step += 1  # half of the time between two resets at most
    assert not GuidedScene(model, views, 64).recovering()


@pytest.mark.parametrize(
    ("settings", "counts"),
    [({}, [5, 5]), ({"max_gaussians": 3014}, [5, 2]), ({"max_new_per_round": 6}, [5, 1]), ({"max_gaussians": 10}, [0, 0])],
)
def test_planted_gaussians_are_within_the_budget(
    settings: dict[str, int], counts: list[int], views: VlmFastGSDatamanager
) -> None:
    model = start(views, guided(None), **settings)
    train(model, views, 1)
    before = len(model.means)
    assert before == 3000
    shown = GuidedScene(model, views, 64)
    means, colors, sizes = torch.rand(5, 3), torch.rand(5, 3), torch.rand(5) + 0.1
    shown.begin_step()
    assert [shown.plant(means, colors, sizes) for _ in range(2)] == counts
    if counts[0] == 0:
        return
    new = slice(before, before + 5)
    assert len(model.means) == before + sum(counts)
    assert torch.equal(model.means[new], means) and torch.allclose(model.scales[new].exp(), sizes[:, None].expand(5, 3))
    assert torch.allclose(model.opacities[new].sigmoid(), torch.tensor(0.1))
    assert torch.allclose(model.colors[new], colors, atol=1e-5)
    assert (model.strategy_state["protected_until"][before:] == PROTECTION).all()
    assert not model.strategy_state["protected_until"][:before].any()
    for name, optimizer in model.optimizers.items():
        if name in model.gauss_params:
            assert len(optimizer.state[model.gauss_params[name]]["exp_avg"]) == len(model.means)
    train(model, views, 2, 1)  # and training goes on with them
    shown.begin_step()  # the budget is that of one step
    if "max_gaussians" not in settings:
        assert shown.plant(means, colors, sizes) == counts[0]
    model.step = 150  # births have ended
    shown.begin_step()
    assert shown.plant(means, colors, sizes) == 0
