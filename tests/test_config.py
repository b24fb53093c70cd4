from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points

import pytest
import yaml
from nerfstudio.plugins.types import MethodSpecification

from vlmgs_ns import config as methods
from vlmgs_ns.method.datamanager import VlmFastGSDatamanagerConfig
from vlmgs_ns.method.model import VlmFastGSModelConfig
from vlmgs_ns.method.optimizers import AdamConfig, DecayConfig, resolve_schedulers
from vlmgs_ns.method.pipeline import VlmFastGSPipelineConfig
from vlmgs_ns.method.trainer import VlmFastGSTrainerConfig
from vlmgs_ns.system.schedules import resolve

NAMES = ("vlm-fastgs", "vlm-fastgs-big", "vlm-fastgs-cpu", "vlm-fastgs-lite", "fastgs")
CONFIGS = (
    *(VlmFastGSTrainerConfig, VlmFastGSPipelineConfig, VlmFastGSDatamanagerConfig, VlmFastGSModelConfig),
    *(AdamConfig, DecayConfig),
)


HEAVY = ("transformers", "open_clip", "numba", "open3d", "accelerate", "torchmetrics", "sklearn", "playwright")
"""Libraries that a command imports as it needs them."""
IMPORT = f"""
import json, os, sys
os.environ["HF_HUB_CACHE"] = os.devnull
import gsplat, gsplat.strategy.default, gsplat.rendering, nerfstudio.engine.trainer, nerfstudio.models.splatfacto
import nerfstudio.data.datamanagers.full_images_datamanager, nerfstudio.pipelines.base_pipeline, torch.serialization

def census():
    found = {{}}
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] in ('nerfstudio', 'gsplat') or name in ('torch.serialization', 'torch.optim.adam'):
            for key, value in list(vars(module).items()):
                if key.startswith('__') or type(value).__name__ == 'module':
                    continue
                found[name, key] = id(value)
                if isinstance(value, type):
                    found.update({{(name, key, k): id(v) for k, v in vars(value).items() if not k.startswith(('__', '_abc'))}})
    return found

before = census()
import vlmgs_ns.config
after = census()
changed = ['.'.join(key) for key in before if before[key] != after.get(key)]
from vlmgs_ns.semantics.stage import choose_encoders
assert "embedded" in choose_encoders(vlmgs_ns.config.vlm_fastgs_lite.config.pipeline.model.semantics).message
print(json.dumps({{'changed': changed, 'heavy': [m for m in {HEAVY} if m in sys.modules]}}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """What has changed and which heavy libraries are there once a fresh interpreter has imported the methods."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORT]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def specification(name: str) -> MethodSpecification:
    (point,) = [p for p in entry_points(group="nerfstudio.method_configs") if p.name == name]
    return point.load()


@pytest.mark.parametrize("name", NAMES)
def test_methods_are_registered_under_their_names(name: str) -> None:
    spec = specification(name)
    assert spec.config.method_name == name and spec.description
    assert isinstance(spec.config, VlmFastGSTrainerConfig)


def test_importing_the_methods_is_light(imported: dict[str, list[str]]) -> None:
    """Every nerfstudio command pays for this import: none of the heavy libraries may come with it, nor with the choice of the
    encoders where there are no weights."""
    assert imported["heavy"] == []


def test_importing_changes_nothing_of_others(imported: dict[str, list[str]]) -> None:
    """No function, class attribute or module variable of nerfstudio, gsplat or torch's serialisation is replaced."""
    assert imported["changed"] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_config_is_read_back(name: str) -> None:
    config = specification(name).config
    again = yaml.load(yaml.dump(config), Loader=yaml.Loader)
    assert again == config and type(again.pipeline.model) is VlmFastGSModelConfig


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_a_help_text(config: type) -> None:
    (tree,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(tree, ast.ClassDef)
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(statement.target, ast.Name)
            if statement.target.id != "_target":
                is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert is_text, f"{config.__name__}.{statement.target.id} has no docstring"


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_written_before_a_field_existed_still_loads(config: type) -> None:
    """nerfstudio pickles configs by attribute: a field needs a plain default for old files to have it."""
    assert is_dataclass(config)
    instance = config()
    for item in fields(instance):
        if item.name not in ("_target", "optimizers", "lr", "eps"):
            assert hasattr(instance, item.name)


@pytest.mark.parametrize("name", NAMES)
def test_only_this_machine_reaches_the_viewer(name: str) -> None:
    assert specification(name).config.viewer.websocket_host == "127.0.0.1"


def test_lite_is_the_same_method_in_a_shorter_run() -> None:
    full, lite = methods.vlm_fastgs.config, methods.vlm_fastgs_lite.config
    assert (full.max_num_iterations, lite.max_num_iterations) == (20_000, 1_500)
    assert isinstance(lite.pipeline.datamanager, VlmFastGSDatamanagerConfig)
    assert lite.pipeline.datamanager.max_image_size == 300
    long, short = (resolve(c.pipeline.model, c.max_num_iterations) for c in (full, lite))
    for name in ("warmup_length", "refine_every", "stop_split_at", "resolution_schedule", "sh_degree_interval"):
        assert getattr(short, name) == pytest.approx(getattr(long, name) * 1_500 / 20_000, abs=1), name


def test_learning_rates_follow_the_run() -> None:
    optimizers = resolve_schedulers(methods.vlm_fastgs.config.optimizers, 1_500)
    assert optimizers["means"]["scheduler"].max_steps == 1_500
    assert optimizers["camera_opt"]["scheduler"].warmup_steps == 45
    assert optimizers["opacities"]["scheduler"] is None
    assert methods.vlm_fastgs.config.optimizers["means"]["scheduler"].max_steps == 1.0
