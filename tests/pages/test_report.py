"""The page of a real, tiny run: complete, self-contained, true to the run's files, and calm about what is missing or hostile."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pages.conftest import PHRASES, Demo, Opened, Page, eventually, read
from vlmgs_ns.commands.render_report import RenderReport
from vlmgs_ns.pages.curves import read_curves
from vlmgs_ns.pages.report import write_report
from vlmgs_ns.system.errors import InputError

HOSTILE = "<script>window.owned = true</script><img src=x onerror='window.owned = true'>"
SECTIONS = ["views", "training", "guidance", "words", "run", "costs", "next"]


def written(run: Any, out: Path, **settings: Any) -> Page:
    write_report(run, out, **settings)
    return read(out)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1000, "dark"), (1600, "light")])
def test_it_opens_in_a_browser_and_asks_for_nothing(browser: Any, demo: Demo, width: int, scheme: str) -> None:
    opened = Opened(browser, demo.page, width, color_scheme=scheme)
    page, viewer = opened.page, opened.page.frame_locator("#viewer")
    viewer.locator("canvas[data-state=still]").wait_for()
    assert opened.complaints == [] and opened.elsewhere() == []
    assert page.locator("#viewer").bounding_box()["width"] <= width and page.locator("video").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0 && image.alt !== '')")
    for name in SECTIONS:
        page.locator(f"nav a[href='#{name}']").click()
        assert page.evaluate("location.hash") == f"#{name}"
    light = sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))
    assert (light > 600) == (scheme == "light")


@pytest.mark.browser
def test_the_scene_turns_inside_the_page_and_leaves_it_its_wheel_and_keys(browser: Any, demo: Demo) -> None:
    opened = Opened(browser, demo.page, 1000, reduced_motion="reduce")
    page, viewer = opened.page, opened.page.frame_locator("#viewer")
    still = viewer.locator("canvas[data-state=still]")
    still.wait_for()
    assert viewer.locator("h1").is_hidden() and viewer.locator("#viewpoint").input_value() != ""
    x, y, w, h = page.locator("#viewer").bounding_box().values()
    page.mouse.move(x + w / 4, y + h / 2)
    page.mouse.wheel(0, 120)
    eventually(page, "scrollY > 0")
    assert viewer.locator("#viewpoint").input_value() != ""  # it has not moved
    page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    page.mouse.down()
    page.mouse.move(x + w / 4 + 60, y + h / 2, steps=2)
    page.mouse.up()
    viewer.locator("#viewpoint:not(:has(option:checked))").wait_for()
    still.wait_for()
    viewer.locator("#viewpoint").select_option("0")
    page.mouse.wheel(0, 120)  # now the pointer's place is taken
    viewer.locator("#viewpoint:not(:has(option:checked))").wait_for()
    assert page.evaluate("scrollY") == 0 and opened.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("without", ["JavaScript", "WebGL2"])
def test_where_the_scene_cannot_be_drawn_the_turntable_is_shown(browser: Any, demo: Demo, without: str) -> None:
    context = browser.new_context(java_script_enabled=without != "JavaScript")
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = context.new_page()
    page.goto(demo.page.as_uri())
    assert page.locator("video").is_visible() and page.locator("#viewer").is_hidden()
    if without == "WebGL2":
        eventually(page, "document.querySelector('video').readyState >= 2")
    context.close()


def seen(part: Any) -> np.ndarray:
    """The pixels of a part of a page, as 40 by 30."""
    return np.asarray(Image.open(io.BytesIO(part.screenshot())).convert("RGB").resize((40, 30)), float)


@pytest.mark.browser
def test_pictures_are_compared_and_enlarged_curves_read_and_commands_copied(browser: Any, demo: Demo) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 800}, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(demo.page.as_uri())
    row = page.locator("#views .row").first
    photo, render, slider = row.locator("[data-kind=photo]"), row.locator("[data-kind=trained]"), row.locator("input")
    plain, truth = seen(render), seen(photo)
    assert np.abs(plain - truth).mean() > 3
    slider.fill("50")
    half = seen(render)
    assert np.abs(half[:, :19] - truth[:, :19]).mean() < 2 and np.abs(half[:, 21:] - plain[:, 21:]).mean() < 0.5
    dialog = page.locator("dialog")
    render.click()
    assert dialog.is_visible() and dialog.locator("img").first.bounding_box()["width"] > 700
    assert dialog.locator("input").input_value() == "50"
    dialog.locator("input").fill("0")
    assert np.abs(seen(dialog.locator("img").first) - plain).mean() < 3
    page.keyboard.press("Escape")
    assert dialog.is_hidden() and slider.input_value() == "50"
    photo.press("Enter")
    dialog.get_by_role("button", name="Close").click()
    assert dialog.is_hidden()

    figure, curve = page.locator("figure.chart").first, read_curves(demo.run.folder)["Train Loss"]
    figure.scroll_into_view_if_needed()
    svg, number = figure.locator("svg"), figure.locator(".keys b").first
    x, y, width, height = svg.bounding_box().values()
    left, right = 62 / 560 * width, (560 - 16) / 560 * width  # the axes
    for k, beside in ((0, 0.3), (3, -0.3), (3, 0.3)):  # of the way to the next value
        step = curve.steps[k] + beside * (curve.steps[1] - curve.steps[0])
        page.mouse.move(x + left + (right - left) * step / curve.steps[-1], y + height / 2)
        assert number.inner_text() == f"{curve.values[k]:,.4f}"
        assert figure.locator("figcaption").inner_text() == f"Loss at iteration {curve.steps[k]}"
    page.mouse.move(0, 0)
    assert number.inner_text() == f"{curve.values[-1]:,.4f}" and figure.locator("figcaption").inner_text() == "Loss"

    command = page.locator(".commands code").first
    command.get_by_role("button").click()
    command.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"ns-viewer --load-config {shlex.quote(str(demo.run.config))}" + (
        " --viewer.websocket-host 127.0.0.1"
    )
    context.close()


@pytest.mark.browser
def test_numbers_on_the_page_are_those_of_the_event_files(browser: Any, demo: Demo) -> None:
    """As a reader sees them: the tables below the charts, opened by a click."""
    page = Opened(browser, demo.page).page
    curves = read_curves(demo.run.folder)
    assert len(curves["Train Loss"]) == 6
    expected = {
        "Loss": ("Train Loss", 4),
        "PSNR": ("Train Metrics Dict/psnr", 2),
        "Gaussians": ("Train Metrics Dict/gaussian_count", 0),
    }
    for title, (tag, digits) in expected.items():
        figure = page.locator("figure.chart", has=page.locator(f"figcaption:text-is('{title}')"))
        assert not figure.locator("td").first.is_visible()
        figure.get_by_text("Numbers").click()
        rows = [tuple(row.split("\t")) for row in figure.locator("tbody").first.inner_text().splitlines()]
        curve = curves[tag]
        pairs = zip(curve.steps, curve.values, strict=True)
        assert rows == [(f"{step:,}", f"{value:,.{digits}f}") for step, value in pairs]
        assert figure.locator(".keys b").first.inner_text() == f"{curve.values[-1]:,.{digits}f}"


def test_everything_is_inside_the_file(demo: Demo) -> None:
    page = read(demo.page)
    anchors = {f"#{name}" for name in SECTIONS}
    assert {link for link in page.links if not link.startswith("data:")} == anchors
    read_out = re.sub("<script.*?</script>", "", page.text, flags=re.DOTALL)
    assert not re.search(r"url\(|@import|https?://(?!127)", read_out.lower().replace("b.https", ""))
    assert page.text.count("<script") == 2  # the scene, and what the page does
    assert demo.page.stat().st_size < 2_000_000
    assert sum(link.startswith("data:video/mp4") for link in page.links) == 1


def test_the_demo_s_page_shows_before_and_after(demo: Demo) -> None:
    metrics = json.loads((demo.out / "metrics.json").read_text(encoding="utf-8"))
    page = read(demo.page)
    assert page.kinds().count("photo") == page.kinds().count("before") == page.kinds().count("trained") == 3
    assert f"{metrics['psnr']:.2f} dB" in page.sections[""]
    assert f"PSNR, {metrics['psnr_before_training']:.2f} before training" in page.sections[""]
    assert f"{metrics['gaussians']:,}" in page.sections[""]


def test_a_run_opened_later_has_the_same_views_without_before(demo: Demo, tmp_path: Path) -> None:
    """Rendered again from the checkpoint, so that PSNRs agree where both render the same Gaussians."""
    page = written(demo.run, tmp_path / "r.html", phrases=PHRASES)
    first = read(demo.page)
    assert "before" not in page.kinds() and page.kinds()[:3] == ["photo", "trained", "error"]
    found = re.findall(r"trained · (\S+) dB", page.sections["views"])
    assert len(found) == 3 and found == re.findall(r"trained · (\S+) dB", first.sections["views"])
    assert page.kinds().count("query-mask") == 2
    assert all(f"“{phrase}”" in page.sections["words"] for phrase in PHRASES)
    assert "red ball" in page.sections["next"]
    assert "<video" not in page.text
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_each_name_stands_by_its_own_photo(demo: Demo) -> None:
    shown = [image for image in read(demo.page).images if image.get("data-kind") == "photo"]
    assert len(shown) == 3
    files = sorted((demo.out / "scene" / "images").iterdir())
    photos = np.stack([np.asarray(Image.open(file).convert("RGB"), float) for file in files])
    for image in shown:
        picture = Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition(",")[2])))
        # Nearest, not equal: it is a JPEG, and without the lens' distortion.
        nearest = np.abs(photos - np.asarray(picture, float)).mean(axis=(1, 2, 3)).argmin()
        assert image["alt"] == f"{files[nearest].name}: photo"


def test_the_run_s_settings_machine_and_sizes_are_told(demo: Demo) -> None:
    page = read(demo.page)
    machine = json.loads((demo.run.folder / "machine.json").read_text(encoding="utf-8"))
    run = page.sections["run"]
    for value in (machine["torch"], machine["nerfstudio"], str(demo.run.folder), "vlm-fastgs-lite"):
        assert value in run
    changed = run.partition("not the method's own")[2].partition("All ")[0]
    assert "--vis" in changed and "tensorboard" in changed and "--max-num-iterations" in changed
    assert "--pipeline.model.sh-degree" not in changed and "--pipeline.model.run-length" not in changed
    assert "--pipeline.model.sh-degree" in run  # folded
    checkpoint = next((demo.run.folder / "nerfstudio_models").glob("*.ckpt")).stat().st_size
    assert f"{checkpoint / 1e6:.1f}" in page.sections["costs"] or f"{checkpoint / 1e3:.0f} kB" in page.sections["costs"]


def test_each_round_of_guidance_stands_with_its_pictures(demo: Demo) -> None:
    lines = (demo.run.folder / "guidance" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    section = read(demo.page).sections["guidance"]
    assert lines
    for said in map(json.loads, lines):
        assert f"Iteration {said['step']}" in section
    pictures = list((demo.run.folder / "guidance").glob("*.jpg"))
    assert pictures and demo.page.read_text(encoding="utf-8").count('alt="iteration ') == len(pictures)


def test_a_run_without_anything_but_a_checkpoint_is_told_part_by_part(demo: Demo, tmp_path: Path, no_semantics: Any) -> None:
    run = demo.copy(tmp_path / "run")
    for path in [*run.folder.glob("events*"), run.folder / "machine.json", run.folder / "semantics.json"]:
        path.unlink()
    shutil.rmtree(run.folder / "guidance")
    page = written(run, tmp_path / "r.html")
    assert "none for TensorBoard" in page.sections["training"]
    assert "No round is recorded" in page.sections["guidance"]
    assert "no semantic stage" in page.sections["words"] and "--max-num-iterations 0" in page.sections["words"]
    assert "no machine.json" in page.sections["run"]
    assert "not recorded" in page.sections["costs"]
    assert "vlmgs query" not in page.sections["next"] and "ns-viewer" in page.sections["next"]
    assert page.kinds().count("trained") == 3


def test_a_run_stopped_half_way_is_told(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_semantics: Any) -> None:
    assert "stopped" not in read(demo.page).sections[""]
    monkeypatch.setattr(demo.run.model, "run_length", 1000)
    page = written(demo.run, tmp_path / "r.html")
    assert "60 of 1,000 iterations" in page.sections[""]


def test_files_of_a_run_that_are_damaged_are_told(demo: Demo, tmp_path: Path) -> None:
    run = demo.copy(tmp_path / "run")
    (run.folder / "machine.json").write_text("{")
    (run.folder / "semantics.json").write_text("[]")
    (run.folder / "guidance" / "rounds.jsonl").write_text('{"step": 3, "phase": "det')
    for path in run.folder.glob("events*"):
        path.write_bytes(b"nothing")
    page = written(run, tmp_path / "r.html", phrases=["red ball"])
    assert "no machine.json" in page.sections["run"]
    assert "1 lines" in page.sections["guidance"]
    assert "none for TensorBoard" in page.sections["training"]


@pytest.mark.browser
def test_what_models_and_files_say_never_becomes_code(browser: Any, demo: Demo, tmp_path: Path) -> None:
    run = demo.copy(tmp_path / "run")
    record = run.folder / "guidance" / "rounds.jsonl"
    said = json.loads(record.read_text(encoding="utf-8").splitlines()[0])
    said["views"][0] |= {"reply": HOSTILE, "error": HOSTILE, "notes": [HOSTILE], "view": HOSTILE}
    said["views"][0]["boxes"] = [{"box": [0, 0, 1, 1], "label": HOSTILE}]
    said |= {"phase": f"detail{HOSTILE}", "prompt": HOSTILE, "pictures": [], "backend": HOSTILE, "left_out": ""}
    record.write_text(json.dumps(said) + "\n" + json.dumps({**said, "left_out": HOSTILE, "step": 9}))
    (run.folder / "machine.json").write_text(json.dumps({"device": HOSTILE, "guidance": f"Guidance: --{HOSTILE}", HOSTILE: 1}))
    (run.folder / "semantics.json").write_text(json.dumps({"encoders": HOSTILE}))
    out = tmp_path / "r.html"
    page = written(run, out, phrases=[HOSTILE, "red ball"])
    assert page.text.count("<script") == 2 and "<img src=x" not in page.text
    assert HOSTILE in page.sections["guidance"] and HOSTILE in page.sections["words"] and HOSTILE in page.sections["run"]
    opened = Opened(browser, out)
    viewer = opened.page.frame_locator("#viewer")
    assert viewer.locator("#phrases button").all_inner_texts() == [HOSTILE, "red ball"]
    assert opened.page.evaluate("[window.owned, window[0].owned]") == [None, None]
    assert opened.complaints == [] and opened.elsewhere() == []


@pytest.mark.parametrize(
    ("out", "part"), [("folder", "is a folder"), ("none/r.html", "there is no folder"), ("locked/r.html", "cannot be written")]
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, part: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "locked").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    # The administrator may write everywhere: what the system answers to others is put in its place.
    monkeypatch.setattr("os.access", lambda path, mode: "locked" not in str(path))
    monkeypatch.setattr("vlmgs_ns.pages.report.held_out", lambda *_: pytest.fail("it rendered"))
    with pytest.raises(InputError, match=part):
        write_report(demo.run, tmp_path / out)
    assert not list(tmp_path.rglob("*.html"))


def test_a_disk_that_fails_leaves_the_old_page_and_nothing_half_written(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.html"
    out.write_text("the old page")

    def full(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text[:1000].encode())
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            write_report(demo.run, out, phrases=["red ball"])
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"] and out.read_text() == "the old page"


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({}, "there is no run at"),
        ({"turntable_seconds": -1.0}, "--turntable-seconds -1"),
        ({"turntable_seconds": float("nan")}, "nan"),
    ],
)
def test_what_cannot_work_is_one_message(tmp_path: Path, flags: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        RenderReport(tmp_path / "nothing", **flags).run()
    assert not any(tmp_path.iterdir())


def test_a_run_without_a_checkpoint_or_without_words_is_one_message(demo: Demo, tmp_path: Path, no_semantics: Any) -> None:
    run = demo.copy(tmp_path / "run")
    with pytest.raises(InputError, match="cannot be searched with words yet"):
        write_report(run, tmp_path / "r.html", ["red ball"])
    shutil.rmtree(run.folder / "nerfstudio_models")
    with pytest.raises(InputError, match="has no checkpoint"):
        RenderReport(run.folder).run()
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and not (run.folder / "report.html").exists()
