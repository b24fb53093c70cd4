"""The reader of specifications: what is wrong is refused with its place and a fix; the shipped ones are right in every word."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlmgs_ns.bench.spec import Toy, read_spec
from vlmgs_ns.system.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))


def small() -> dict[str, Any]:
    return {
        "about": {"title": "Small", "data": "made here", "licence": "none"},
        "scenes": {"room": {"toy": {"seed": 3}}, "fox": {"path": "fox"}},
        "methods": {"fastgs": {"base": "fastgs", "overrides": {"pipeline.model.sh-degree": 2}}},
        "seeds": [0, 1],
        "iterations": 100,
        "resolution": 160,
        "protocols": ["A", "C"],
    }


def written(folder: Path, content: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def changed(path: str, value: Any) -> dict[str, Any]:
    """`small` with one entry, by its dotted path with / for the last dots, set or (None) removed."""
    content: Any = small()
    target = content
    *parents, last = path.split("/")
    for name in parents:
        target = target[name]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return content


def test_what_is_read(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, small()))
    assert spec.name == "small" and spec.seeds == (0, 1) and spec.iterations == 100 and spec.checks == 6
    assert spec.scenes["room"].toy == Toy(seed=3)
    assert spec.scenes["room"].protocols == ("A", "C"), "an embedded scene brings its labels"
    assert spec.scenes["room"].masks == "masks_instance" and spec.scenes["fox"].masks is None
    assert spec.scenes["fox"].protocols == (), "without labels there is nothing to measure by"
    assert spec.scenes["fox"].starts == ("points",) and spec.scenes["fox"].resolution == 160
    assert spec.methods["fastgs"].overrides == {"pipeline.model.sh_degree": 2}, "flags' hyphens are underscores"


def test_a_scene_overrides_what_is_common(tmp_path: Path) -> None:
    scene = {
        "path": "x",
        "labels": {"format": "lerf", "folder": "l"},
        "protocols": ["A"],
        "resolution": 0,
        "starts": [{"random": 7}],
    }
    found = read_spec(written(tmp_path, changed("scenes/fox", scene))).scenes["fox"]
    assert (found.protocols, found.resolution, found.starts) == (("A",), 0, ("random 7",))


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        ("seed", [1], ["seed is not known", "Did you mean seeds?"]),
        ("seeds", None, ["seeds is missing"]),
        ("seeds", [1, 1], ["seeds is [1, 1]", "1 is there twice"]),
        ("seeds", [], ["seeds is []", "must have something in it"]),
        ("seeds", 3, ["seeds is 3", "must be a list"]),
        ("seeds", [-1], ["seeds[0] is -1", "0 or more"]),
        ("seeds", [True], ["seeds[0] is True", "whole number"]),
        ("iterations", 0, ["iterations is 0", "1 or more"]),
        ("iterations", "500", ["iterations is '500'", "whole number"]),
        ("checks", 101, ["checks is 101", "only 100 iterations"]),
        ("protocols", ["D"], ["protocols[0] is 'D'", "Known are A, B, B-langsplat, C, C-find"]),
        ("thresholds", {"relevancy": 2}, ["thresholds.relevancy is 2", "from 0 to 1"]),
        ("thresholds", {"relevance": 0.5}, ["thresholds.relevance is not known", "Did you mean relevancy?"]),
        ("scenes", {}, ["scenes is {}", "must have something"]),
        ("scenes", {1: {"path": "x"}}, ["scenes: its key 1 must be text", "quotes"]),
        ("scenes/a,b", {"path": "x"}, ["'a,b' has a comma"]),
        ("scenes/fox/toy", {}, ["scenes.fox is", "either a path or toy settings"]),
        ("scenes/fox/dataparser", "colmpa", ["scenes.fox.dataparser is 'colmpa'", "Did you mean colmap?"]),
        ("scenes/fox/protocols", ["A"], ["scenes.fox.protocols", "no labels"]),
        ("scenes/fox/starts", ["dense"], ["scenes.fox.starts[0] is 'dense'", "random: 100"]),
        ("scenes/room/toy/vews", 3, ["scenes.room.toy.vews is not known", "Did you mean views?"]),
        ("methods/fastgs/base", "splatfacto", ["methods.fastgs.base is 'splatfacto'", "Known are vlm-fastgs"]),
        ("methods/fastgs/overrides", {"a.b": {"c": 1}}, ["methods.fastgs.overrides.a.b", "text, a number"]),
        ("about/licence", None, ["about.licence is missing"]),
        ("about/published", [{"what": "x"}], ["about.published[0].figures is missing"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, path: str, value: Any, parts: list[str]) -> None:
    file = written(tmp_path, changed(path, value))
    with pytest.raises(InputError) as error:
        read_spec(file)
    for part in (str(file), *parts):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("seeds: [1\n", "is not YAML"),
        ("a: 1\na: 2\n", "'a' is there twice"),
        ("a: !!python/object/apply:os.system [echo]\n", "is not YAML"),
        ("- 1\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("[" * 3000, "is not YAML"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(InputError, match=part):
        read_spec(written(tmp_path, text))


def test_aliases_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 40)]
    with pytest.raises(InputError, match="is not known"):
        read_spec(written(tmp_path, "\n".join(lines)))
    value = "\n".join([*lines, "seeds: *a39"])
    content = yaml.safe_dump({key: entry for key, entry in small().items() if key != "seeds"})
    with pytest.raises(InputError, match="is not known"):
        read_spec(written(tmp_path, content + value))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml cannot be read: No such file"):
        read_spec(tmp_path / "none.yaml")


def test_there_are_the_shipped_ones() -> None:
    names = {path.stem for path in SHIPPED}
    assert {"toy", "captures", "mipnerf360-100pts", "mipnerf360", "lerf", "3d-ovs"} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_ones_say_where_their_data_is_from(path: Path) -> None:
    spec = read_spec(path)
    assert len(spec.about.data) > 40 and spec.about.licence and spec.about.published
    for name, scene in spec.scenes.items():
        assert scene.toy is not None or "--data-root" in scene.get, f"{name} does not say where to put its data"


def test_the_seed_methods_own_comparison() -> None:
    spec = read_spec(CONFIGS / "mipnerf360-100pts.yaml")
    assert len(spec.scenes) == 9 and spec.iterations == 20_000 and list(spec.methods) == ["fastgs", "vlm-fastgs"]
    assert all(scene.starts == ("random 100",) for scene in spec.scenes.values())
    assert "Qwen3-VL-2B" in str(spec.methods["vlm-fastgs"].overrides)


@pytest.fixture(scope="module")
def configured() -> dict[str, dict[str, Any]]:
    """The config of every method of every shipped specification, on its first scene."""
    from vlmgs_ns.bench.configure import configure
    from vlmgs_ns.bench.plan import _settings

    found: dict[str, dict[str, Any]] = {}
    for path in SHIPPED:
        spec = read_spec(path)
        scene = next(iter(spec.scenes.values()))
        found[path.stem] = {
            name: configure(_settings(spec, scene, method, scene.starts[-1], 5, "", None), Path("data"), Path("out"))
            for name, method in spec.methods.items()
        }
    return found


def test_every_override_of_the_shipped_ones_is_a_setting(configured: dict[str, dict[str, Any]]) -> None:
    for name, methods in configured.items():
        for config in methods.values():
            assert config.machine.seed == 5 and config.max_num_iterations == read_spec(CONFIGS / f"{name}.yaml").iterations
    sparse = configured["mipnerf360-100pts"]["fastgs"].pipeline.model
    assert (sparse.random_init, sparse.num_random, sparse.random_opacity, sparse.random_scale) == (True, 100, 0.5, 1.0)
    assert not configured["mipnerf360-100pts"]["vlm-fastgs"].pipeline.model.semantics.enabled, "nothing would be searched for"
    assert configured["lerf"]["fmgs"].pipeline.model.semantics.mode == "fmgs"


def test_splatfacto_is_nerfstudios(configured: dict[str, dict[str, Any]]) -> None:
    from nerfstudio.configs.method_configs import method_configs
    from nerfstudio.models.splatfacto import SplatfactoModelConfig

    ours, theirs = configured["mipnerf360"]["splatfacto"], method_configs["splatfacto"]
    for entry in dataclasses.fields(SplatfactoModelConfig):
        if entry.name != "_target":
            assert getattr(ours.pipeline.model, entry.name) == getattr(SplatfactoModelConfig(), entry.name), entry.name
    for group in ("means", "features_dc", "features_rest", "opacities", "scales", "quats"):
        assert ours.optimizers[group]["optimizer"].lr == theirs.optimizers[group]["optimizer"].lr, group
    assert ours.pipeline.model.densification == "default" and not ours.lazy_updates.enabled
    assert ours.max_num_iterations == theirs.max_num_iterations
