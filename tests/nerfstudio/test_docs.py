"""Commands of README.md, CONTRIBUTING.md and docs: one of each kind runs on a tiny scene, all others are parsed."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.nerfstudio.conftest import Commands, Result, Run, run_of
from tests.nerfstudio.test_commands import look_at

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

NOT_RUN = {
    r"ns-viewer ": "it serves until it is stopped; tests/nerfstudio/test_viewer.py starts it",
    r"vlmgs (prepare|new) ": "tests/prepare and tests/commands/test_prepare.py run them",
    r"ns-train (?!vlm-fastgs-lite --data room/)": "one training is enough; tests/nerfstudio runs the other kinds",
    r"vlmgs demo": "it takes a minute; tests/commands/test_demo.py runs it",
    r"vlmgs bench ": "it takes minutes, or data sets that are not here; tests/bench runs small specifications",
    r"vlmgs features ": "tests/commands/test_features.py and, on a Ray cluster, tests/bench/test_ray.py run it",
    r"vlmgs query .*--": "tests/commands/test_query.py runs it with every option",
    r"vlmgs export .*--features": "tests/commands/test_export.py runs it with every option",
    r"vlmgs eval .*--(protocol [BC]|labels )": "tests/commands/test_evaluate.py runs every protocol, and on labels of every kind",
    r"python benchmarks/": "they take minutes to hours",
    r"ray start ": "it starts a server of the machine",
}
"""Commands whose line is parsed and not carried out, with the reason."""

NOT_PARSED = {
    r"python3 -m venv |\. \.venv|pip install ": "they make the environment; .ci/run carries them out",
    r"python -m pytest|ruff |mypy$": "the tests are running already",
    r"hf download ": "it needs the network",
    r"vllm serve ": "vLLM is not among the dependencies",
}
"""Commands of other projects that are not even parsed, with the reason."""

SMALL_TRAINING = (
    *("--pipeline.model.num-random", "300", "--viewer.quit-on-train-completion", "True", "--vis", "tensorboard"),
    *("--pipeline.model.semantics.mode", "lift", "--pipeline.model.semantics.dino-shorter-side", "48"),
    # so few Gaussians, as large as things, have hardly a neighbour of the same thing
    *("--pipeline.model.semantics.smoothing", "0"),
    *("--pipeline.model.semantics.clip", "embedded", "--pipeline.model.semantics.dino", "embedded"),
)
SMALL = {
    "ns-render interpolate": ("--interpolation-steps", "2"),
    "vlmgs scene": ("--views", "5", "--held-out", "1", "--width", "32", "--height", "24", "--points", "50", "--supersample", "1"),
    "vlmgs render-report": ("--turntable-seconds", "0"),
}
"""Options added to a command to make it quick."""


@dataclass(frozen=True)
class Line:
    """One command of a page, without comment, pipe or shell variable."""

    page: str
    text: str

    @property
    def argv(self) -> list[str]:
        return shlex.split(self.text)

    def among(self, table: dict[str, str]) -> bool:
        return any(re.match(pattern, self.text) for pattern in table)


def lines_of(page: Path) -> Iterator[Line]:
    """Commands of a page's ```bash blocks; "a && b" is two."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.sub(r"(^|\s)#.*", "", line).split("&&"):
                text = part.split(" | ")[0].strip()
                if text and not re.match(r"[A-Z_]+=\S*$", text):
                    yield Line(page.name, text)


LINES = list({line.text: line for page in PAGES for line in lines_of(page)}.values())
"""Each command once."""
RUN_HERE = [line for line in LINES if not line.among(NOT_RUN) and not line.among(NOT_PARSED)]
PARSED = [line for line in LINES if line.among(NOT_RUN)]


@pytest.fixture(scope="module")
def shell(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The commands, in a folder where only those of the pages run, beside the repository's benchmarks and configs."""
    before, commands.cwd = commands.cwd, tmp_path_factory.mktemp("docs")
    for name in ("benchmarks", "configs"):
        (commands.cwd / name).symlink_to(ROOT / name)
    yield commands
    commands.cwd = before


@pytest.fixture(scope="module")
def documented(shell: Commands, scene: Path) -> Run:
    """The searchable run that a page's command trains, and a camera path."""
    (line,) = [line for line in RUN_HERE if line.argv[0] == "ns-train"]
    argv = [str(scene) if word == "room/" else word for word in line.argv]
    result = shell.fork(*argv, *SMALL_TRAINING, "--max-num-iterations", 200, "--experiment-name", "documented")
    assert result.status == 0, complaint(line, result)
    run = run_of(shell, "vlm-fastgs-lite", "documented")
    path = {
        "camera_type": "perspective", "render_height": 48, "render_width": 64, "seconds": 1.0, "fps": 2,
        "camera_path": [
            {"camera_to_world": look_at((math.cos(a), math.sin(a), 0.4)), "fov": 60.0, "aspect": 64 / 48} for a in (0.0, 0.8)
        ],
    }  # fmt: skip
    (shell.cwd / "path.json").write_text(json.dumps(path))
    return run


def filled(line: Line, run: Run, scene: Path) -> list[str]:
    """The line's words with those that stand for the reader's own files replaced, and options that make it quick."""
    place = line.text != "vlmgs scene room/"
    words = [str(scene) if word in ("scene/", "room/") and place else word.replace("$RUN", str(run.folder)) for word in line.argv]
    return words + [option for start, options in SMALL.items() if line.text.startswith(start) for option in options]


def complaint(line: Line, result: Result) -> str:
    return f"{line.page}: {line.text}\nended with {result.status}:\n{result.output[-3000:]}"


@pytest.mark.parametrize("line", [line for line in RUN_HERE if line.argv[0] != "ns-train"], ids=lambda line: line.text)
def test_a_command_runs(shell: Commands, documented: Run, scene: Path, line: Line) -> None:
    result = shell.fork(*filled(line, documented, scene))
    assert result.status == 0, complaint(line, result)


@pytest.mark.parametrize("line", PARSED, ids=lambda line: line.text)
def test_a_command_that_cannot_run_here_is_parsed(shell: Commands, line: Line) -> None:
    result = shell.fork(*line.argv, parse_only=True)
    assert result.status == 0 or "Could not find COLMAP" in result.output, complaint(line, result)
    for word in line.argv:
        assert not word.startswith(("configs/", "benchmarks/")) or (ROOT / word).is_file(), f"{line.page} names {word}"


@pytest.mark.parametrize(
    "command",
    [
        "ns-train vlm-fastgs --data scene/",
        "vlmgs bench configs/toy.yaml",
        "python benchmarks/rasterize_cpu.py",
        "ray start --head",
    ],
)
def test_a_wrong_flag_is_not_parsed(shell: Commands, command: str) -> None:
    assert shell.fork(*shlex.split(command), parse_only=True).status == 0
    assert shell.fork(*shlex.split(command), "--no-such-flag", "1", parse_only=True).status == 2


@pytest.mark.parametrize("table", [NOT_RUN, NOT_PARSED], ids=["not run", "not parsed"])
def test_the_tables_name_commands_of_the_pages(table: dict[str, str]) -> None:
    for pattern in table:
        assert any(re.match(pattern, line.text) for line in LINES), f"no page has {pattern}"


def test_installed_extras_and_tests_named_exist() -> None:
    """What can be said of commands that are not parsed: their files, extras and tests."""
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE))
    texts = [line.text for line in LINES if line.among(NOT_PARSED)]
    for text in texts:
        assert set(re.findall(r"\.\[(\w+)\]", text)) <= extras
        for name in re.findall(r"-c (\S+)|(tests/\S+)", text):
            assert (ROOT / "".join(name)).is_file(), text
        for test in re.findall(r"(tests/\S+) -k (\w+)", text):
            assert f"def {test[1]}(" in (ROOT / test[0]).read_text(encoding="utf-8"), text


def test_no_command_has_an_ellipsis() -> None:
    assert [line for line in LINES if "…" in line.text or "..." in line.text] == []
