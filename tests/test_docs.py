"""README, CONTRIBUTING and docs name what exists: files, flags, commands. Their commands run in nerfstudio/test_docs.py."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = re.compile(r"`((?:vlmgs_ns|tests|docs|benchmarks|configs)/[\w./-]+)`")
"""Paths of the repository in running text."""
INSIDE = re.compile(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`")
"""Paths inside the package, as docs/architecture.md names them."""


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def flags() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flags", ROOT / "docs" / "flags.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_flags_is_up_to_date(flags: ModuleType) -> None:
    assert flags.page() == (ROOT / "docs" / "flags.md").read_text(encoding="utf-8"), "write it again with: python docs/flags.py"


def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}, but has only {sorted(anchors(target))}"


def test_paths_named_exist(page: Path) -> None:
    for name in SOURCES.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_architecture_names_what_is_in_the_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(INSIDE.findall(text))
    assert len(named) > 20
    for name in named:
        assert (ROOT / "vlmgs_ns" / name).exists() or (ROOT / name).exists(), name
    for folder in (path for path in (ROOT / "vlmgs_ns").iterdir() if path.is_dir() and list(path.glob("*.py"))):
        assert f"{folder.name}/" in named, f"docs/architecture.md does not name {folder.name}/"


def test_the_readme_is_short_and_links_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 8_000
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT)})" in text, f"README.md does not link to {page.name}"


def test_pictures_are_small() -> None:
    assert all(path.stat().st_size < 200_000 for path in (ROOT / "docs" / "images").iterdir())


def test_commands_and_methods_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    scripts = {point.name for point in entry_points(group="console_scripts")}
    methods = {point.name for point in entry_points(group="nerfstudio.method_configs")}
    assert set(re.findall(r"(?<![\w/-])ns-\w+(?:-\w+)*", text)) <= scripts
    assert set(re.findall(r"\bns-train ([\w-]+)", text)) - {"splatfacto"} <= methods


def test_flags_in_running_text_exist(page: Path, flags: ModuleType) -> None:
    """Those of ours that are written in full."""
    known = {flag for prefix, config in flags.CONFIGS.items() for flag, _, _ in flags.fields(prefix, config())}
    known |= {"--pipeline.model.semantics.enabled", "--pipeline.model.guidance.enabled"}
    named = set(re.findall(r"`(--pipeline\.[\w.-]+[\w])`", page.read_text(encoding="utf-8")))
    assert named <= known, sorted(named - known)


def test_the_test_command_stands_between_its_markers_once() -> None:
    """``.ci/run`` takes it from there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- test command -->\n```bash\n(.+)\n```\n<!-- end of test command -->", text)
    assert block.endswith("python -m pytest")
