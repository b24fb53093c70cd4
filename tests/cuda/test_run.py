"""A run from its first step to its last query on a CUDA device that is not there, beside the same run on the CPU.

On the pretend device nothing may mix tensors of both devices; with torch in place of gsplat's kernels the pictures are the CPU's.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import open3d  # noqa: F401  (imported where there is a CUDA device, it would look for its own CUDA build)
import pytest
import torch
from torch import Tensor

from tests.cuda.kernels import kernels_in_torch
from tests.cuda.pretend import pretend_cuda
from tests.viewer.test_panel import as_viewer
from vlmgs_ns.commands.export import Export
from vlmgs_ns.commands.query import NOT_FOUND, Query
from vlmgs_ns.config import vlm_fastgs_lite
from vlmgs_ns.guidance.config import PhaseSchedule
from vlmgs_ns.method import machine
from vlmgs_ns.method.finished_run import open_run
from vlmgs_ns.semantics.field import LITE
from vlmgs_ns.splats.ply import read_ply
from vlmgs_ns.toy.scene import write_scene
from vlmgs_ns.viewer.frame import SHOWS

STEPS = 30
PHRASE = "wooden table"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cuda") / "room"
    write_scene(folder, views=4, width=48, height=36, held_out=1, points=100, supersample=1)
    return folder


def settings(scene: Path, device: str, name: str, steps: int = STEPS) -> Any:
    """The lite method with few Gaussians, births and resets, all phases of guidance, and semantics."""
    config: Any = copy.deepcopy(vlm_fastgs_lite.config)
    config.output_dir, config.experiment_name, config.timestamp = scene.parent / "outputs", name, "now"
    config.data = config.pipeline.datamanager.data = scene
    config.vis, config.max_num_iterations = "tensorboard", steps
    config.viewer.quit_on_train_completion = True
    config.machine.device_type = device
    config.steps_per_eval_image = 0
    for parts in config.optimizers.values():
        # with 3DGS' 1e-15 the sign of a rounding error moves a parameter by a whole learning rate, and the two runs part
        parts["optimizer"].eps = 1e-6
    model = config.pipeline.model
    model.run_length, model.refine_every, model.warmup_length, model.reset_alpha_every = STEPS, 5, 4, 3
    model.num_seeds, model.num_random, model.max_gaussians, model.num_downscales = 40, 40, 120, 0
    model.seeding = "both"
    model.prompt = PHRASE
    model.semantics.smoothing = 0  # so few Gaussians, as large as things, have hardly a neighbour of the same thing
    for number, phase in enumerate(("detail", "background", "novel", "compare")):
        setattr(model.guidance, phase, PhaseSchedule(start=6 + number, every=12, end=STEPS, views=2))
    model.guidance.seeds, model.guidance.blocking, model.guidance.backend = 20, True, "residual"
    return config


def train(config: Any) -> Any:
    """As ns-train does."""
    random.seed(0)
    torch.manual_seed(0)
    config.save_config()
    trainer = config.setup()
    trainer.setup()
    trainer.pipeline.datamanager.train_dataparser_outputs.save_dataparser_transform(
        trainer.base_dir / "dataparser_transforms.json"
    )
    trainer.train()
    return trainer


def pictures(trainer: Any) -> list[Tensor]:
    model, data = trainer.pipeline.model.eval(), trainer.pipeline.datamanager
    with torch.no_grad():
        cameras = [data.training_view(index)[0] for index in range(len(data.train_dataset))]
        outputs = [model.get_outputs(camera) for camera in cameras]
        return [output[name].cpu() for output in outputs for name in ("rgb", "accumulation", "relevancy_0")]


@pytest.fixture(scope="module")
def on_cpu(scene: Path) -> tuple[list[dict[str, int]], list[Tensor]]:
    """What densifications did, and pictures in the end."""
    trainer = train(settings(scene, "cpu", "cpu"))
    return list(map(vars, trainer.pipeline.model.strategy.history)), pictures(trainer)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(machine, "gsplat_kernels", lambda: ("kernels in torch", ""))
    with ExitStack() as stack:
        stack.enter_context(kernels_in_torch())
        stack.enter_context(pretend_cuda())
        yield


@pytest.fixture(scope="module")
def on_cuda(scene: Path, on_cpu: Any) -> Iterator[tuple[list[dict[str, int]], list[Tensor], Path]]:
    """The same on the pretend device, where one photo alone is looked at again, and the folder of the run."""
    min((scene / ".vlmgs_cache").rglob("*.npy")).unlink()
    with pytest.MonkeyPatch.context() as patch, kernels_in_torch(), pretend_cuda():
        patch.setattr(machine, "gsplat_kernels", lambda: ("kernels in torch", ""))
        trainer = train(settings(scene, "cuda", "cuda"))
        model = trainer.pipeline.model
        assert model.device == torch.device("cuda", 0) and model.steering.tally.rounds >= 4 and model.steering.tally.added > 0
        found = list(map(vars, model.strategy.history)), pictures(trainer), Path(trainer.base_dir)
    yield found


def test_training_adds_and_removes_what_it_does_on_the_cpu(on_cpu: Any, on_cuda: Any) -> None:
    assert on_cuda[0] == on_cpu[0]
    assert sum(round_["split"] for round_ in on_cpu[0]) > 20 and sum(round_["pruned"] for round_ in on_cpu[0]) > 2


def test_pictures_are_the_cpus(on_cpu: Any, on_cuda: Any) -> None:
    """Within 1e-4, but for single pixels where a rounding error decides whether a Gaussian is just above the cut-off of 1/255."""
    differences = torch.cat([(ours - theirs).abs().flatten() for ours, theirs in zip(on_cpu[1], on_cuda[1], strict=True)])
    assert (differences > 1e-4).float().mean() < 1e-3 and differences.max() < 1 / 255, (differences > 1e-4).sum()


def test_the_run_says_where_it_was_trained(on_cuda: Any) -> None:
    told = json.loads((on_cuda[2] / "machine.json").read_text())
    assert told["device"] == "cuda:0" and "CUDA" in told["rasterizer"] and told["photos_in"] == "GPU memory"


def test_a_run_goes_on_with_photos_on_the_host_and_another_semantic_stage(cuda: None, on_cuda: Any, scene: Path) -> None:
    config = settings(scene, "cuda", "resumed", steps=3)
    config.load_dir = on_cuda[2] / "nerfstudio_models"
    config.pipeline.datamanager.cache_images = "cpu"
    semantics = config.pipeline.model.semantics
    semantics.mode, semantics.sizes, semantics.robust_passes, semantics.smoothing = "warm", LITE, 1, 2
    semantics.warm_steps, semantics.refine_steps, semantics.warm_batch, semantics.render_size = 2, 2, 64, 24
    trainer = train(config)
    assert trainer.step == STEPS + 2 and trainer.pipeline.model.semantics.complete
    assert trainer.pipeline.model.searchable().field is not None
    evaluated = trainer.pipeline.get_average_eval_image_metrics()
    assert evaluated["psnr"] > 5


def test_a_checkpoint_of_cuda_opens_on_a_cpu(on_cuda: Any) -> None:
    run = open_run(on_cuda[2])
    camera = next(iter(run.photos()))[1]
    with torch.no_grad():
        picture = run.model.get_outputs(camera)["rgb"]
    assert not picture.is_cuda and (picture - on_cuda[1][0]).abs().max() < 1e-4


def test_query_and_export(cuda: None, on_cuda: Any, tmp_path: Path) -> None:
    try:
        Query(on_cuda[2], (PHRASE,), threshold=0.3, raw=True, split="test", out=tmp_path / "query").run()
    except SystemExit as status:
        assert status.code in (0, NOT_FOUND)
    assert (tmp_path / "query" / "index.html").is_file()
    Export(on_cuda[2], select=((PHRASE,),), threshold=0.3, features=True, coordinates="data", out=tmp_path / "some").run()
    Export(on_cuda[2], out=tmp_path / "all").run()
    counts = [len(read_ply(next((tmp_path / folder).glob("*.ply"))).means) for folder in ("some", "all")]
    assert 0 < counts[0] <= counts[1]


def test_the_viewers_session(cuda: None, on_cuda: Any, tmp_path: Path) -> None:
    run = open_run(on_cuda[2])
    model, panel = run.model, run.model.panel
    assert model.gauss_params["means"].is_cuda
    camera = next(iter(run.photos()))[1].to(model.device)
    panel.phrases.value = PHRASE
    panel.threshold.value = 0.3
    assert panel.find()
    session = panel.session()
    for action in (
        lambda: session.select(0.3), lambda: session.grow(0.2), session.tidy, session.invert, session.hide, session.undo,
        session.isolate, session.show_all, lambda: session.export(tmp_path),
    ):  # fmt: skip
        assert action()
        for show in SHOWS:
            panel.show.value = show
            shown = as_viewer(lambda: model.get_outputs(camera))["rgb"]
            assert shown.is_cuda and bool(shown.isfinite().all())
