"""Imports inside the package point one way, and light commands import light modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "vlmgs_ns"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

LAYERS = (
    {"system", "rasterize", "toy"},
    {"splats", "prepare"},
    {"densify", "semantics"},
    {"guidance", "words"},
    {"viewer"},
    {"method"},
    {"config", "evaluation"},
    {"bench", "pages"},
    {"scene"},
    {"commands"},
    {"cli", ""},
)
"""Lowest first; "" is the package itself. A unit (a file or folder of the package) imports from its own layer or a lower one, for
type checkers too."""

WITHOUT_NERFSTUDIO = {"system", "prepare", "rasterize", "toy", "splats", "densify", "guidance", "semantics", "words"}
PURE = {
    f"{PACKAGE}.{name}"
    for name in ("guidance.reply", "guidance.regions", "semantics.losses", "semantics.relevancy", "semantics.hybrid")
}
"""Modules that import nothing of ours but one another."""
MOST_UNITS = 20
"""Files and folders at the first level of the package."""


def module_name(path: Path) -> str:
    parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(tree: ast.AST, everywhere: bool) -> Iterator[str]:
    """Names imported at module level, or with ``everywhere`` inside functions too; those for type checkers count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which layer they reach"
            # Whether a name is a module or a value inside one is settled by who asks.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, everywhere)


def imports_of(module: str, everywhere: bool) -> set[str]:
    return set(imports(ast.parse(MODULES[module].read_text(encoding="utf-8")), everywhere))


def our_imports(module: str) -> set[str]:
    """Our modules that a module imports, anywhere in its file."""
    ours = {name for name in imports_of(module, everywhere=True) if name.split(".")[0] == PACKAGE}
    return {name if name in MODULES else name.rpartition(".")[0] for name in ours} - {PACKAGE}


def unit(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    """Index of a module's layer; -1 for the package itself."""
    return next((k for k, units in enumerate(LAYERS) if unit(module) in units), -1)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    upward = {name for name in our_imports(module) if layer(name) > layer(module)}
    assert not upward, f"{module} imports from a higher layer: {sorted(upward)}"


def test_no_module_reaches_itself() -> None:
    graph = {module: our_imports(module) - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("module", sorted(name for name in MODULES if unit(name) in WITHOUT_NERFSTUDIO))
def test_lower_layers_know_no_nerfstudio_at_module_level(module: str) -> None:
    assert not {name for name in imports_of(module, everywhere=False) if name.split(".")[0] == "nerfstudio"}


def test_pure_modules_import_nothing_of_ours() -> None:
    assert MODULES.keys() >= PURE
    assert not {module: our_imports(module) - PURE for module in PURE if our_imports(module) - PURE}


def test_every_unit_has_a_layer_and_there_are_few() -> None:
    units = {unit(module) for module in MODULES}
    assert units == set().union(*LAYERS) and len(units) <= MOST_UNITS


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules after a statement, in a fresh interpreter."""
    program = f"{statement}\nimport sys\nsys.stdout.write(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split())


def test_the_command_line_is_light() -> None:
    assert not loaded_by("import vlmgs_ns.cli") & {"torch", "numpy", "numba", "nerfstudio", "PIL"}


def test_a_gpu_needs_torch_and_gsplat_alone() -> None:
    """The first half of benchmarks/gpu: rasteriser, lifting, strategy and relevancy where neither nerfstudio nor numba is."""
    modules = ("rasterize.cuda", "rasterize.lift", "densify.strategy", "densify.scores", "densify.ssim", "semantics.relevancy")
    loaded = loaded_by(f"import {', '.join(f'{PACKAGE}.{module}' for module in modules)}")
    assert not loaded & {"nerfstudio", "numba", "scipy", "open3d", "plyfile", "pydantic", "tyro", "transformers"}


@pytest.mark.parametrize(
    ("source", "everywhere", "expected"),
    [
        ("import numpy.linalg", False, {"numpy.linalg"}),
        ("from a.b import c, d", False, {"a.b.c", "a.b.d"}),
        ("def f():\n import numba", False, set()),
        ("def f():\n import numba", True, {"numba"}),
        ("class A:\n import numba", False, {"numba"}),
        ("try:\n import tbb\nexcept ImportError:\n tbb = None", False, {"tbb"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import numba", True, {"typing.TYPE_CHECKING", "numba"}),
        ("import typing\nif typing.TYPE_CHECKING:\n import numba", False, {"typing", "numba"}),
    ],
)
def test_the_reader_of_imports(source: str, everywhere: bool, expected: set[str]) -> None:
    assert set(imports(ast.parse(source), everywhere)) == expected
