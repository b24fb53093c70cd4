"""One tiny demo, trained once in this process, that the tests of the report look at and change copies of."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.nerfstudio.test_viewer import BROWSERS, FLAGS
from vlmgs_ns.method.finished_run import OpenRun, open_run

PHRASES = ["red ball", "wooden table"]


@dataclass
class Demo:
    """What `vlmgs demo` wrote."""

    out: Path
    run: OpenRun

    @property
    def page(self) -> Path:
        return self.out / "index.html"

    def copy(self, folder: Path) -> OpenRun:
        """The run again in a folder of its own, with the model that is loaded already."""
        shutil.copytree(self.run.folder, folder, ignore=shutil.ignore_patterns("*.html"))
        return OpenRun(folder / "config.yml", self.run.pipeline)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    from vlmgs_ns.pages.demo_run import run_demo
    from vlmgs_ns.toy.make import SceneSettings

    out = tmp_path_factory.mktemp("report") / "a demo"
    run_demo(out, SceneSettings(views=12, held_out=3, width=48, height=36, points=300), 60, 0.2)
    (folder,) = out.glob("outputs/*/*/*")
    yield Demo(out, open_run(folder))


class Page(HTMLParser):
    """A page taken apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "poster", "srcset", "action")]
        if tag == "img":
            self.images.append(values)
        if tag == "section":
            self._section = values["id"] or ""
        self._style = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._section = ""
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)
            self.sections[self._section] = self.sections.get(self._section, "") + data

    def kinds(self) -> list[str]:
        return [image["data-kind"] or "" for image in self.images if "data-kind" in image]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def no_semantics(demo: Demo) -> Iterator[None]:
    """The model as it is before its semantic stage (monkeypatch cannot put torch's modules back)."""
    kept, demo.run.model.semantics = demo.run.model.semantics, None
    yield
    demo.run.model.semantics = kept


@pytest.fixture(scope="module")
def browser() -> Any:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the playwright package (the dev extra)")
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"needs a Chromium on the PATH: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as session:
        # Pages that draw on a canvas would complain of being read back.
        flags = [flag for flag in FLAGS if flag != "--disable-gpu"]
        running = session.chromium.launch(executable_path=path, args=flags)
        yield running
        running.close()


def eventually(page: Any, expression: str) -> None:
    """Wait until an expression of JavaScript is true, in pages too that forbid themselves `eval`."""
    deadline = time.monotonic() + 30
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


class Opened:
    """A page in the browser, and what it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, width: int = 1000, height: int = 800, **context: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height}, **context)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        self.wait()

    def wait(self) -> None:
        """Wait until everything is drawn."""
        eventually(self.page, "[...document.images].every(image => image.complete)")

    def elsewhere(self) -> list[str]:
        """Requests but for the file itself and what is inside it or made by it."""
        return [url for url in self.requests[1:] if not url.startswith(("data:", "blob:"))]
