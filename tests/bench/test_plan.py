"""Addresses: whatever changes a figure changes them, and nothing else does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bench.test_spec import changed, small, written
from tests.test_imports import MODULES, our_imports
from vlmgs_ns.bench import code, plan
from vlmgs_ns.bench.fingerprint import Fingerprints
from vlmgs_ns.bench.plan import Run, parse_only
from vlmgs_ns.bench.spec import read_spec
from vlmgs_ns.system.errors import InputError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a scene called fox."""
    photos = tmp_path / "data" / "fox" / "images"
    photos.mkdir(parents=True)
    (photos / "1.png").write_bytes(b"one")
    (photos.parent / "transforms.json").write_text("{}")
    return tmp_path / "data"


def runs_of(content: Any, data: Path, tmp_path: Path, only: list[str] | None = None) -> list[Run]:
    return plan.plan(read_spec(written(tmp_path, content)), parse_only(only or []), data, tmp_path / "out")


def addresses(content: Any, data: Path, tmp_path: Path) -> dict[tuple[str, str, str, int], str]:
    return {(run.scene, run.method, run.start, run.seed): run.address for run in runs_of(content, data, tmp_path)}


def test_every_combination_once(data: Path, tmp_path: Path) -> None:
    content = changed("starts", ["points", {"random": 9}])
    found = addresses(content, data, tmp_path)
    assert len(found) == len(set(found.values())) == 2 * 1 * 2 * 2  # scenes, methods, starts, seeds
    assert ("fox", "fastgs", "random 9", 1) in found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("iterations", 101),
        ("resolution", 200),
        ("checks", 3),
        ("scenes/fox/overrides", {"pipeline.model.sh_degree": 1}),
        ("scenes/fox/dataparser", "nerfstudio"),
        ("methods/fastgs/base", "vlm-fastgs"),
        ("methods/fastgs/overrides", {"pipeline.model.sh_degree": 3}),
    ],
)
def test_what_changes_a_figure_changes_the_address(data: Path, tmp_path: Path, path: str, value: Any) -> None:
    key = ("fox", "fastgs", "points", 0)
    assert addresses(changed(path, value), data, tmp_path)[key] != addresses(small(), data, tmp_path)[key]


def test_protocols_and_thresholds_matter_where_words_are_measured(data: Path, tmp_path: Path) -> None:
    before, after = (addresses(each, data, tmp_path) for each in (small(), changed("thresholds", {"relevancy": 0.6})))
    assert before["room", "fastgs", "points", 0] != after["room", "fastgs", "points", 0]
    assert before["fox", "fastgs", "points", 0] == after["fox", "fastgs", "points", 0]


def test_names_descriptions_and_places_do_not_matter(data: Path, tmp_path: Path) -> None:
    before = addresses(small(), data, tmp_path)
    renamed = changed("about/title", "Other words")
    renamed["scenes"]["reynard"] = renamed["scenes"].pop("fox")
    renamed["methods"]["mine"] = renamed["methods"].pop("fastgs")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(data, elsewhere)
    os.utime(elsewhere / "fox" / "images" / "1.png", (1, 1))
    assert addresses(renamed, elsewhere, tmp_path)["reynard", "mine", "points", 1] == before["fox", "fastgs", "points", 1]


def test_the_data_matters_but_not_what_is_hidden_beside_it(data: Path, tmp_path: Path) -> None:
    before = addresses(small(), data, tmp_path)
    (data / "fox" / ".vlmgs_cache").mkdir()
    (data / "fox" / ".vlmgs_cache" / "map.npy").write_bytes(b"features")
    assert addresses(small(), data, tmp_path) == before
    (data / "fox" / "images" / "1.png").write_bytes(b"two")
    after = addresses(small(), data, tmp_path)
    assert after["fox", "fastgs", "points", 0] != before["fox", "fastgs", "points", 0]
    assert after["room", "fastgs", "points", 0] == before["room", "fastgs", "points", 0]
    (data / "fox" / "images" / "1.png").rename(data / "fox" / "images" / "2.png")
    assert addresses(small(), data, tmp_path)["fox", "fastgs", "points", 0] != after["fox", "fastgs", "points", 0]


def test_the_code_matters(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = addresses(small(), data, tmp_path)
    monkeypatch.setattr(plan, "code_version", lambda: "another")
    assert not set(addresses(small(), data, tmp_path).values()) & set(before.values())


def test_code_is_all_that_a_run_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {path.as_posix() for path in code.sources()}
    assert {"method/model.py", "method/trainer.py", "bench/measure.py", "rasterize/kernels.py", "config.py"} <= names
    assert any(name.endswith(".safetensors") for name in names), "the embedded weights decide figures"
    assert not {"bench/plots.py", "commands/bench.py", "cli.py"} & names
    version = code.code_version()
    code.code_version.cache_clear()
    monkeypatch.setattr(code, "versions", lambda: {"torch": "0"})
    assert code.code_version() != version
    code.code_version.cache_clear()


def test_nothing_apart_is_reached_by_a_run() -> None:
    reached, waiting = set(), ["vlmgs_ns.config", "vlmgs_ns.bench.run_one"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += our_imports(module) & MODULES.keys()
    assert {"vlmgs_ns.method.model", "vlmgs_ns.evaluation.trained", "vlmgs_ns.semantics.lifting"} <= reached
    for name in reached - {"vlmgs_ns"}:
        top = name.split(".")[1]
        assert top == "bench" or not {top, f"{top}.py"} & set(code.APART), f"a run goes through {name}: it is not apart"


def test_missing_data_is_a_problem_of_its_runs_alone(data: Path, tmp_path: Path) -> None:
    content = changed("scenes/gone", {"path": "gone", "get": "Look in the attic."})
    runs = runs_of(content, data, tmp_path)
    assert {run.scene for run in runs if run.problem} == {"gone"}
    problem = next(run.problem for run in runs if run.problem)
    assert str(data / "gone") in problem and "Look in the attic." in problem


def test_missing_masks_are_a_problem(data: Path, tmp_path: Path) -> None:
    content = changed("scenes/fox", {"path": "fox", "masks": "masks"})
    (run, *_) = runs_of(content, data, tmp_path, ["scene=fox"])
    assert f"masks are not there: {data / 'fox' / 'masks'}" in run.problem
    (data / "fox" / "masks").mkdir()
    (run, *_) = runs_of(content, data, tmp_path, ["scene=fox"])
    assert not run.problem and run.settings["masks"] == "masks"


def test_missing_labels_are_a_problem(data: Path, tmp_path: Path) -> None:
    scene = {"path": "fox", "labels": {"format": "lerf-ovs", "folder": "label/fox"}}
    runs = runs_of(changed("scenes/fox", scene), data, tmp_path, ["scene=fox"])
    assert all("labels are not there" in run.problem and "label/fox" in run.problem for run in runs)
    (data / "label" / "fox").mkdir(parents=True)
    before = runs_of(changed("scenes/fox", scene), data, tmp_path, ["scene=fox"])
    (data / "label" / "fox" / "a.json").write_text("{}")
    after = runs_of(changed("scenes/fox", scene), data, tmp_path, ["scene=fox"])
    assert before[0].labels == str(data / "label/fox") and before[0].address != after[0].address


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["scene=fox"], {("fox", 0), ("fox", 1)}),
        (["scene=fox,seed=1"], {("fox", 1)}),
        (["scene=f*", "seed=0"], {("fox", 0)}),
        (["scene=fox,scene=room,seed=0"], {("fox", 0), ("room", 0)}),
    ],
)
def test_only(data: Path, tmp_path: Path, only: list[str], expected: set[tuple[str, int]]) -> None:
    assert {(run.scene, run.seed) for run in runs_of(small(), data, tmp_path, only)} == expected


@pytest.mark.parametrize(
    ("only", "part"),
    [
        (["scene"], "is not a condition"),
        (["scen=fox"], "Did you mean scene?"),
        (["scene=fxo"], "Did you mean fox?"),
        (["seed=7"], "Known are 0, 1"),
    ],
)
def test_only_what_is_there(data: Path, tmp_path: Path, only: list[str], part: str) -> None:
    with pytest.raises(InputError) as error:
        runs_of(small(), data, tmp_path, only)
    assert part in str(error.value)


def test_a_file_is_read_again_only_when_it_changed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "memory.json"
    first = Fingerprints(memory).of(data)
    opened: list[Path] = []
    real = Path.open

    def noted(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        opened.extend([self] if mode == "rb" else [])
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", noted)
    assert Fingerprints(memory).of(data) == first and not [path for path in opened if data in path.parents]
    (data / "fox" / "transforms.json").write_text("{ }")
    assert Fingerprints(memory).of(data) != first
    assert [path.name for path in opened if data in path.parents] == ["transforms.json"]


def test_a_damaged_memory_is_no_memory(data: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    first = Fingerprints(memory).of(data)
    for damage in ("{", "[]", '{"x": 1}'):
        memory.write_text(damage)
        assert Fingerprints(memory).of(data) == first
