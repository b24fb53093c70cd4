"""The README names what there is: flags, pictures, commands."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def flags() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flags", ROOT / "docs" / "flags.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_flags_is_up_to_date(flags: ModuleType) -> None:
    assert flags.with_table(TEXT) == TEXT, "write the table again with: python docs/flags.py"


def test_files_it_links_to_are_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not link.startswith("http")]
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 200_000 for path in (ROOT / "docs" / "images").iterdir())


def test_commands_and_methods_exist() -> None:
    scripts = {point.name for point in entry_points(group="console_scripts")}
    methods = {point.name for point in entry_points(group="nerfstudio.method_configs")}
    assert set(re.findall(r"\bns-(?!\w*…)\w+(?:-\w+)*", TEXT)) <= scripts
    assert set(re.findall(r"\bns-train ([\w-]+)", TEXT)) - {"splatfacto"} <= methods


def test_the_test_command_stands_between_its_markers_once() -> None:
    """``.ci/run`` takes it from there."""
    (block,) = re.findall(r"<!-- test command -->\n```bash\n(.+)\n```\n<!-- end of test command -->", TEXT)
    assert block.endswith("python -m pytest")
