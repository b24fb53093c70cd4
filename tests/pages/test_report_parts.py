"""What the page is made of, each part by itself: markup, charts, pictures, curves, rounds, settings."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.pages.conftest import Page
from vlmgs_ns.guidance.record import RecordedRound, Rounds, read_rounds
from vlmgs_ns.pages.curves import Curve, read_curves
from vlmgs_ns.pages.embed import Embedded, embed, embed_file, error_map
from vlmgs_ns.pages.held_out import HeldOut, Score
from vlmgs_ns.pages.page import render
from vlmgs_ns.pages.plot import Chart, Line, Mark, plot
from vlmgs_ns.pages.report import guidance_values
from vlmgs_ns.pages.rounds import MOST_PICTURES
from vlmgs_ns.pages.settings import settings_of
from vlmgs_ns.splats.orbit import surrounds
from vlmgs_ns.system.spacing import evenly_spaced


def curve(*values: float, every: int = 10) -> Curve:
    return Curve(tuple(every * k for k in range(len(values))), values, tuple(float(k) for k in range(len(values))))


def guidance_section(rounds: Rounds, backend: str, guided: bool) -> str:
    return render("guidance.html", **guidance_values(rounds, backend, guided))


def test_text_is_escaped_and_a_value_that_is_missing_is_an_error() -> None:
    hostile = '"><script>alert(1)</script>'
    page = render("next.html", commands={hostile: [hostile]})
    assert "<script" not in page and Page(page).words.count(hostile) == 2
    hostile_round = RecordedRound(1, hostile, "b", 0.1, hostile, (), {}, (), hostile)
    assert "<script" not in guidance_section(Rounds((hostile_round,)), hostile, True)
    with pytest.raises(jinja2.UndefinedError, match="commands"):
        render("next.html")


def test_every_template_is_package_data() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML by itself")
    root = Path(__file__).resolve().parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["vlmgs_ns.pages"]
    pages = root / "vlmgs_ns" / "pages"
    packed = {file for pattern in patterns for file in pages.glob(pattern)}
    assert packed == {file for file in (pages / "templates").rglob("*") if file.is_file()}


def flat(value: int, width: int = 16, height: int = 12) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def decoded(picture: Embedded) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture.source.removeprefix("data:image/jpeg;base64,"))))


def test_error_map_is_black_without_error_and_grows_with_it() -> None:
    assert error_map(flat(90), flat(90)).max() <= 4  # inferno's first colour
    brightness = [error_map(flat(90), flat(90 + change)).astype(int).sum() for change in (0, 10, 30, 60)]
    assert brightness == sorted(brightness) and len(set(brightness)) == 4
    assert (error_map(flat(0), flat(255)) == error_map(flat(0), flat(100))).all()  # both beyond the scale


def test_a_picture_keeps_its_colours_and_its_shape_within_what_a_screen_shows(tmp_path: Path) -> None:
    small, large = embed(flat(90)), embed(flat(90, 1600, 400))
    assert decoded(small).size == (16, 12) and abs(np.asarray(decoded(small)).astype(int) - 90).max() <= 1
    assert decoded(large).size == (800, 200) == (large.width, large.height)
    Image.fromarray(flat(10, 900, 300)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("<script>no picture</script>")
    found = embed_file(tmp_path / "a.png", 480)
    assert found is not None and decoded(found).size == (480, 160)
    assert embed_file(tmp_path / "b.jpg", 480) is None and embed_file(tmp_path / "none.jpg", 480) is None


def points(markup: str, class_: str) -> list[tuple[float, float]]:
    (path,) = re.findall(rf'<g class="{class_}">\s*<path d="([^"]*)"', markup)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def test_a_line_goes_where_its_values_are() -> None:
    drawn = points(plot(Chart("T", [Line("a", curve(0, 5, 10))], "u", digits=0)), "line-0")
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert x0 < x1 < x2 and x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y0 > y1 > y2 and y0 - y1 == pytest.approx(y1 - y2, abs=0.11)  # up is less
    logarithmic = points(plot(Chart("T", [Line("a", curve(0.01, 0.1, 1))], "u", logarithmic=True)), "line-0")
    assert logarithmic[0][1] - logarithmic[1][1] == pytest.approx(logarithmic[1][1] - logarithmic[2][1], abs=0.11)


def test_the_points_of_a_line_are_in_the_page_with_their_values() -> None:
    """In the order of the drawn path, so that a place on it has its value."""
    made = plot(Chart('"T"', [Line("a", curve(0, 5.5, 10)), Line("b", curve(*range(300)), noisy=True)], "u", digits=1))
    first, second = json.loads(html.unescape(re.findall('data-curves="([^"]*)"', made)[0]))
    assert first == {"steps": ["0", "10", "20"], "values": ["0.0", "5.5", "10.0"]} and len(points(made, "line-0")) == 3
    assert len(second["values"]) == len(points(made, "line-1")) == 60 and second["values"][:2] == ["2.0", "7.0"]


def test_a_chart_names_its_axes_values_and_marks() -> None:
    lines = [Line("training", curve(10, 20.123)), Line("<held out>", curve(5, 7))]
    marks = [Mark(5, "round of phase “detail”", 1), Mark(8, "round of phase “detail”", 1)]
    made = render("training.html", charts=[Chart("PSNR", lines, "PSNR [dB]", marks=marks)])
    words = [word.strip() for word in Page(made).words]
    assert {"PSNR [dB]", "iteration", "20.12", "7.00", "<held out>"} <= set(words)
    assert words.count("round of phase “detail”") == 1 and made.count('<g class="mark">') == 2
    assert "<held" not in made and "training 20.12 at iteration 10" in made


@pytest.mark.parametrize("values", [(3.0,), (2.0, 2.0, 2.0), (0.0, 0.0), (-4.0, -1.0), (0.0, 1e-9), (1e12, 3e12)])
@pytest.mark.parametrize("digits", [0, 2])
def test_any_values_can_be_drawn_inside_the_chart(values: tuple[float, ...], digits: int) -> None:
    made = plot(Chart("T", [Line("a", curve(*values), noisy=True)], "u", digits, logarithmic=True))
    assert all(0 <= x <= 560 and 0 <= y <= 300 for x, y in points(made, "line-0"))
    assert "nan" not in made and "inf" not in made


def test_a_noisy_line_is_its_mean_over_pale_values() -> None:
    values = [100.0 + (-1) ** k for k in range(600)]
    made = plot(Chart("T", [Line("a", curve(*values), noisy=True)], "u"))
    assert len(points(made, "line-0")) == 60 and len(points(made, "pale-0")) == 400
    heights = [y for _, y in points(made, "line-0")]
    assert max(heights) - min(heights) < 1  # each window holds as many of both values


def test_a_chart_is_the_same_each_time_takes_the_page_s_colours_and_points_nowhere() -> None:
    chart = Chart("T <&>", [Line(f"{k}", curve(*range(300)), noisy=k == 1, dots=k == 2) for k in range(5)], "u")
    made = plot(chart)
    assert made == plot(chart)
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", made)) == {"--soft", "--line", "--card", *(f"--c{k}" for k in range(5))}
    assert not re.search(r"url\(|http|<metadata|#[0-9a-f]{6}", made)
    assert "T &lt;&amp;&gt; over iterations" in made


def test_curves_are_what_tensorboard_was_told(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    assert read_curves(tmp_path) == {}
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(20_000):  # tensorboard keeps 10,000 of them unless it is asked for all
            writer.add_scalar("Train Loss", 1 / (step + 1), step)
        for step, value in ((0, float("nan")), (5, 2.5), (6, float("inf"))):
            writer.add_scalar("psnr", value, step)
        writer.add_scalar("never", float("nan"), 0)
    found = read_curves(tmp_path)
    assert found["Train Loss"].steps == tuple(range(20_000))
    assert found["Train Loss"].values[:3] == pytest.approx((1, 0.5, 1 / 3))
    assert found["psnr"].steps == (5,) and found["psnr"].values == (2.5,)
    assert "never" not in found


def test_curves_of_a_file_cut_short_end_where_it_was_cut(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(100):
            writer.add_scalar("Train Loss", 1.0, step)
    (file,) = tmp_path.glob("events*")
    file.write_bytes(file.read_bytes()[:-7])
    assert read_curves(tmp_path)["Train Loss"].steps == tuple(range(99))
    file.write_bytes(b"no events at all")
    assert read_curves(tmp_path) == {}


def line(step: int, phase: str = "detail", **more: Any) -> str:
    view = {"view": "photo 0", "reply": "[]", "error": None, "boxes": [{"box": [0, 0, 1, 1], "label": "a chair"}], "notes": []}
    return json.dumps(
        {"step": step, "phase": phase, "backend": "b", "seconds": 0.5, "prompt": "?", "views": [view], "selected": 7, **more}
    )


def test_rounds_have_the_pictures_that_they_name(tmp_path: Path) -> None:
    guidance = tmp_path / "guidance"
    guidance.mkdir()
    for name in ("000010_detail_0.jpg", "000010_detail_0_after.jpg", "000010_novel_0.jpg"):
        Image.fromarray(flat(50)).save(guidance / name)
    Image.fromarray(flat(50)).save(tmp_path / "secret.jpg")
    named = line(
        10, pictures=["000010_detail_0_after.jpg", "../secret.jpg", str(tmp_path / "secret.jpg"), "gone.jpg"], added=3, targets=2
    )
    (guidance / "rounds.jsonl").write_text("\n".join([line(10), named, "", "{half a li", "[1]", line(20, left_out="busy")]))
    found = read_rounds(guidance)
    assert found.damaged == 2
    by_name, by_key, left_out = found.rounds
    assert [path.name for path in by_name.pictures] == ["000010_detail_0.jpg", "000010_detail_0_after.jpg"]
    assert [path.name for path in by_key.pictures] == ["000010_detail_0_after.jpg"]
    assert by_key.effect == {"selected": 7, "added": 3, "targets": 2} and by_key.views[0].labels == ("a chair",)
    page = Page(guidance_section(found, "Guidance: none", True))
    text = "".join(page.words)
    assert (
        "7 chosen · 3 added · 2 views targeted" in text
        and "2 lines" in text
        and "busy" in text
        and "photo 0 · after the round" in text
    )
    assert left_out.left_out == "busy"
    assert read_rounds(tmp_path / "none") == Rounds()


def test_first_and_last_rounds_of_a_phase_are_open_and_pictures_have_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    Image.fromarray(flat(50)).save(path)
    paths = [tmp_path / f"{k}.jpg" for k in range(40)]
    for other in paths:
        other.write_bytes(path.read_bytes())
    rounds = tuple(RecordedRound(k, "detail", "b", 0.1, "?", (), {}, tuple(paths[10 * k : 10 * k + 10])) for k in range(4))
    body = guidance_section(Rounds(rounds), "", True)
    assert re.findall(r'<details( open)? class="round">', body) == [" open", "", "", " open"]
    assert body.count("<img") == 40 <= MOST_PICTURES
    many = tuple(
        RecordedRound(k, "detail", "b", 0.1, "?", (), {}, tuple(tmp_path / f"{k}_{number}.jpg" for number in range(50)))
        for k in range(4)
    )
    limited = guidance_section(Rounds(many), "", True)
    shown = [part.count("<figure") for part in limited.split('class="round"')[1:]]
    assert shown == [50, MOST_PICTURES - 100, 0, 50]
    assert "30 more pictures" in limited and "50 more pictures" in limited


def test_no_rounds_are_told_by_their_reason() -> None:
    assert "was not guided" in guidance_section(Rounds(), "", False)
    assert "ended before the first" in guidance_section(Rounds(), "", True)


@dataclass
class Inner:
    a: int = 1
    b: tuple[int, ...] = (1, 2)


@dataclass
class Outer:
    _target: type = int
    method_name: str = "vlm-fastgs-test"
    max_num_iterations: int = 100
    data: str = "/here"
    inner_part: Inner = field(default_factory=Inner)
    table: dict[str, Any] = field(default_factory=lambda: {"x": Inner()})


def test_settings_are_compared_with_the_method_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from nerfstudio.configs import method_configs

    monkeypatch.setitem(method_configs.all_methods, "vlm-fastgs-test", Outer())
    here = Outer(data="/there", inner_part=Inner(a=5))
    here.table["x"].b = (3,)
    found = {one.flag: one for one in settings_of(here)}
    assert set(found) == {"--max-num-iterations", "--inner-part.a", "--inner-part.b", "--table.x.a", "--table.x.b"}
    assert {flag for flag, one in found.items() if one.differs} == {"--inner-part.a", "--table.x.b"}
    assert (found["--inner-part.a"].value, found["--inner-part.a"].default) == ("5", "1")
    unknown = settings_of(Outer(method_name="unknown", inner_part=Inner(a=5)))
    assert not any(one.differs for one in unknown)


def test_without_held_out_photos_the_section_says_so() -> None:
    assert "holds no photo out" in render("views.html", trained=HeldOut((), ()), before={}, error_at_white=1)


def ring(angles: torch.Tensor) -> torch.Tensor:  # [N, 3, 4]
    """Upright OpenGL cameras on a circle around the origin, at angles in degrees."""
    eye = torch.stack([torch.deg2rad(angles).cos(), torch.deg2rad(angles).sin(), torch.full_like(angles, 0.3)], dim=-1)
    back = torch.nn.functional.normalize(eye, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([[0.0, 0.0, 1.0]]).expand_as(back), back), dim=-1)
    return torch.stack([right, torch.linalg.cross(back, right), back, eye], dim=-1)


@pytest.mark.parametrize(("arc", "around"), [(350.0, True), (250.0, True), (200.0, False), (60.0, False)])
@pytest.mark.parametrize("turned", [0.0, 170.0])
def test_a_turntable_is_for_photos_that_surround_the_scene(arc: float, around: bool, turned: float) -> None:
    assert surrounds(ring(torch.linspace(0, arc, 30) + turned)) == around
    assert not surrounds(ring(torch.linspace(0, arc, 2)))


def test_means_and_choices() -> None:
    views = HeldOut((Score("a", 20.0, 0.5), Score("b", 25.0, 0.7)), ())
    assert views.mean("psnr") == 22.5 and views.mean("ssim") == pytest.approx(0.6)
    assert evenly_spaced(12, 6) == [0, 2, 4, 7, 9, 11] and evenly_spaced(3, 6) == [0, 1, 2] and evenly_spaced(0, 6) == []
