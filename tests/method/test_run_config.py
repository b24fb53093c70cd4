"""A config.yml that somebody sent is read, never run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vlmgs_ns import config as methods
from vlmgs_ns.method.run_config import read_config
from vlmgs_ns.system.errors import InputError

STORED = Path(__file__).parents[1] / "runs" / "before_the_move" / "run" / "config.yml"
METHODS = ("vlm_fastgs", "vlm_fastgs_big", "vlm_fastgs_lite", "fastgs")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_read_as_nerfstudio_reads_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(yaml.dump(getattr(methods, name).config), encoding="utf-8")
    assert read_config(path) == yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.Loader)


def test_an_older_run_is_read_as_nerfstudio_reads_it() -> None:
    assert vars(read_config(STORED)) == vars(yaml.load(STORED.read_text(encoding="utf-8"), Loader=yaml.Loader))


ATTACKS = {
    "call": "!!python/object/apply:os.system ['touch {mark}']",
    "call of a constructor": "!!python/object/apply:subprocess.Popen [['touch', '{mark}']]",
    "new": "!!python/object/new:subprocess.Popen [['touch', '{mark}']]",
    "name": "!!python/name:os.system ''",
    "module": "!!python/module:os ''",
    "function of nerfstudio": "!!python/name:nerfstudio.utils.scripts.run_command ''",
    "call of nerfstudio": "!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch {mark}']",
    "class of another package": "!!python/name:nerfstudio.utils.writer.SummaryWriter ''",
    "name of a script, which would be imported": "!!python/name:nerfstudio.scripts.train.TrainerConfig ''",
    "a name like ours": "!!python/object:nerfstudio_evil.Config {{}}",
    "class without settings": "!!python/object:nerfstudio.engine.trainer.Trainer {{config: 1}}",
    "constructor of nerfstudio": "!!python/object/apply:nerfstudio.engine.trainer.TrainerConfig []",
    "nested too deeply": "[" * 1500,
    "half a file": "!!python/object:vlmgs_ns.method.trainer.VlmFastGSTrainerConfig {{a: [1",
    "no such member": "!!python/object/apply:nerfstudio.utils.writer.EventName [nothing]",
    "no such class": "!!python/object:vlmgs_ns.method.trainer.Nothing {{}}",
    "no such module": "!!python/object:vlmgs_ns.nothing.Nothing {{}}",
}


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_no_setting_is_refused_and_never_run(kind: str, inside: bool, tmp_path: Path) -> None:
    attack = ATTACKS[kind].format(mark=tmp_path / "ran")
    path = tmp_path / "config.yml"
    path.write_text(STORED.read_text(encoding="utf-8").replace("load_ply: null", f"load_ply: {attack}") if inside else attack)
    with pytest.raises(InputError, match=r"config\.yml is not the config\.yml of a run: .*; copy it again") as raised:
        read_config(path)
    assert str(raised.value).count("\n") == 0 and not (tmp_path / "ran").exists()
    if "name" in kind or "call" in kind:
        named = attack.partition(":")[2].split()[0]
        assert named in str(raised.value), "the message names what was refused"


@pytest.mark.parametrize("text", ["", "a: 1", "!!python/object:nerfstudio.engine.trainer.TrainerConfig {}"])
def test_a_run_of_another_method(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a run of vlm-fastgs"):
        read_config(path)


def test_what_builds_from_the_settings_is_not_the_files_to_choose(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    ours = "vlmgs_ns.pipeline.VlmFastGSPipeline ''"
    path.write_text(STORED.read_text(encoding="utf-8").replace(ours, "nerfstudio.engine.trainer.Trainer ''"))
    assert path.read_text() != STORED.read_text()
    assert read_config(path).pipeline._target.__name__ == "VlmFastGSPipeline"


def test_none_of_our_modules_reads_yaml_that_runs() -> None:
    for file in Path(methods.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not any(word in text for word in ("yaml.Loader", "UnsafeLoader", "unsafe_load", "eval_setup")), file
