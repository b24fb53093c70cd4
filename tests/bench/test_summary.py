"""Tables against figures worked out by hand; plots by what they draw."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.bench.test_spec import small, written
from vlmgs_ns.bench.compare import differences
from vlmgs_ns.bench.plots import PLOTS, line, write_plots
from vlmgs_ns.bench.results import Row, read_rows
from vlmgs_ns.bench.spec import read_spec
from vlmgs_ns.bench.summary import groups, spread, to_csv, to_markdown
from vlmgs_ns.system.errors import InputError


def row(scene: str, method: str, seed: int, psnr: float, gaussians: int = 100, **more: Any) -> Row:
    curve = {
        "iteration": [5, 10],
        "seconds": [1.0, 2.0 + seed],
        "psnr": [psnr - 3, psnr],
        "gaussians": [50, gaussians],
        "loss": [0.4, 0.2],
    }
    return {
        **{"scene": scene, "method": method, "start": "points", "seed": seed, "status": "done", "error": "", "psnr": psnr},
        **{"ssim": 0.9, "gaussians": gaussians, "seconds": 2.0, "cpu_seconds": 4.0, "memory_mb": 500, "curve": curve},
        **{"machine": {"device": "cpu", "guidance": "Guidance: none"}, "versions": {"torch": "2"}, "settings": {"code": "abc"}},
        **more,
    }


def failed(scene: str, method: str, seed: int, why: str = "no memory") -> Row:
    return {"scene": scene, "method": method, "start": "points", "seed": seed, "status": "failed", "error": why}


def test_spread() -> None:
    assert spread([1.0, 3.0], 2) == "2.00 ± 1.41"  # sqrt(((1 - 2)² + (3 - 2)²) / 1)
    assert spread([1234.4], 0) == "1,234"


def test_a_group_has_the_values_of_its_finished_runs() -> None:
    (found,) = groups([row("fox", "a", 0, 20.0), row("fox", "a", 1, 22.0), failed("fox", "a", 2)])
    assert (found.runs, found.planned) == (2, 3)
    assert found.values["psnr"] == [20.0, 22.0] and found.values["loss"] == [0.2, 0.2]
    assert "lpips" not in found.values and "localisation" not in found.values


def test_the_mean_over_scenes_is_a_value_a_seed() -> None:
    rows = [row("fox", "a", 0, 20.0), row("fox", "a", 1, 22.0), row("cat", "a", 0, 30.0), row("cat", "a", 1, 34.0)]
    mean = groups(rows)[-1]
    assert mean.scene == "mean of 2 scenes" and mean.values["psnr"] == [25.0, 28.0]
    assert [group.scene for group in groups([*rows[:3], failed("cat", "a", 1)])] == ["fox", "cat"], (
        "no mean over what is incomplete"
    )


def test_a_figure_that_one_run_lacks_has_no_mean() -> None:
    (found,) = groups([row("fox", "a", 0, 20.0, lpips=0.1), row("fox", "a", 1, 22.0)])
    assert "lpips" not in found.values


def test_words_by_protocol() -> None:
    words = {"A": {"localisation": 0.5, "pairs": 4}, "C": {"iou": 0.25, "acc@0.25": 0.75, "acc@0.5": 0.1}}
    (found,) = groups([row("fox", "a", 0, 20.0, words=words)])
    assert [found.values[name] for name in ("localisation", "iou_3d", "acc_25", "acc_50")] == [[0.5], [0.25], [0.75], [0.1]]
    assert "iou_2d" not in found.values, "figures of two protocols never mix"


def test_markdown(tmp_path: Path) -> None:
    content = small()
    content["about"]["published"] = [{"what": "fox", "figures": "27.5 dB", "source": "a paper"}]
    rows = [row("fox", "a", 0, 20.0), row("fox", "a", 1, 22.0), failed("fox", "b|c", 0), failed("fox", "b|c", 1)]
    text = to_markdown(read_spec(written(tmp_path, content)), rows)
    assert "2 of 4 runs done; 100 iterations, 2 seeds, mean" in text
    assert "| fox | a | points | 21.00 ± 1.41 | 0.900 ± 0.000 | 100 ± 0 |" in text
    assert "| fox | b\\|c | points | - |" in text
    assert "| fox, b\\|c, points, seed 0; fox, b\\|c, points, seed 1 | failed | no memory |" in text
    assert "## Published figures" in text and "| fox | 27.5 dB | a paper |" in text
    assert "Licence: none" in text and "- torch 2" in text and "device cpu" in text


def test_each_method_against_the_first(tmp_path: Path) -> None:
    rows = [row("fox", "a", 0, 20.0, 100), row("fox", "a", 1, 22.0, 100), row("cat", "a", 0, 10.0, 100)]
    rows += [row("fox", "b", 0, 21.0, 100), row("fox", "b", 1, 25.0, 400), row("dog", "b", 0, 99.0)]
    text = to_markdown(read_spec(written(tmp_path, small())), rows)
    # 1 and 3 dB more: mean 2, deviation sqrt(2); 1 and 4 times the Gaussians: geometric mean 2.
    assert "## Against a" in text and "| b | points | 1 | 2 | 2.00 ± 1.41 | x 2.00 | x 1.00 | x 1.00 |" in text
    assert "## Against" not in to_markdown(read_spec(written(tmp_path, small())), rows[:3])


def test_runs_on_different_machines_are_told(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, small()))
    other = {"device": "cuda:0", "guidance": "Guidance: none"}
    assert "different machines" in to_markdown(spec, [row("fox", "a", 0, 20.0), row("fox", "a", 1, 22.0, machine=other)])
    assert "different machines" not in to_markdown(spec, [row("fox", "a", 0, 20.0), row("fox", "a", 1, 22.0)])


def test_csv() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv([row("fox", "a", 0, 20.0), row("fox", "a", 1, 22.0), failed("fox", "b", 0)]))))
    assert float(lines[0]["psnr_mean"]) == 21.0 and math.isclose(float(lines[0]["psnr_std"]), 2**0.5)
    assert lines[0]["runs"] == "2" and lines[1]["method"] == "b" and lines[1]["psnr_mean"] == "" and lines[1]["runs"] == "0"


def test_nothing_done_is_still_a_summary(tmp_path: Path) -> None:
    text = to_markdown(read_spec(written(tmp_path, small())), [failed("fox", "a", 0)])
    assert "0 of 1 runs done; 100 iterations, 1 seed." in text and "no memory" in text
    assert write_plots([failed("fox", "a", 0)], tmp_path) == []


def test_a_line_is_the_mean_and_range_over_seeds() -> None:
    found = line([row("fox", "a", 0, 20.0), row("fox", "a", 1, 24.0)], "seconds", "psnr")
    assert found.x == [1.0, 2.5] and found.y == [19.0, 22.0] and found.low == [17.0, 20.0] and found.high == [21.0, 24.0]


def test_plots_are_drawn(tmp_path: Path) -> None:
    from PIL import Image

    rows = [row(scene, method, seed, 20.0 + seed) for scene in "pqrst" for method in "ab" for seed in (0, 1)]
    paths = write_plots(rows, tmp_path)
    assert (
        [path.name for path in paths] == [plot.file for plot in PLOTS] == [p.name for p in paths if Image.open(p).size[0] > 400]
    )
    assert len(list(tmp_path.iterdir())) == len(PLOTS), "no partial file is left"


def test_every_point_is_inside_its_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method with ten times as many Gaussians comes last."""
    import matplotlib.pyplot as plt

    drawn: list[Any] = []
    monkeypatch.setattr(plt, "close", drawn.append)
    write_plots([row("fox", "a", 0, 20.0, 100), row("fox", "b", 0, 22.0, 1000)], tmp_path)
    monkeypatch.undo()
    (axis,) = drawn[-1].axes
    ends = [tuple(point) for dots in axis.collections for point in dots.get_offsets()]
    assert [x for x, _ in ends] == [100, 1000]
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    assert left == 0 and all(left < x < right and low < y < high for x, y in ends)
    plt.close("all")


def test_differences_seed_by_seed() -> None:
    a = [row("fox", "m", 0, 20.0, 100), row("fox", "m", 1, 22.0, 100), row("cat", "m", 0, 9.0)]
    b = [row("fox", "m", 1, 22.5, 400), row("fox", "m", 0, 21.5, 100), failed("cat", "m", 0), row("dog", "m", 0, 9.0)]
    text = differences(a, b)
    # B - A is 1.5 and 0.5: mean 1, deviation sqrt(0.5). Gaussians: the geometric mean of 1 and 4.
    assert "| fox | m | points | 2 | 21.00 → 22.00 (+1.00 ± 0.71) |" in text
    assert "100 → 250 (x 2.00)" in text
    assert "Done in A alone: cat, m, points, seed 0" in text and "Done in B alone: dog, m, points, seed 0" in text
    assert "Not the same" not in text


def test_differences_of_settings_are_told() -> None:
    a, b = row("fox", "m", 0, 20.0), row("fox", "m", 0, 19.0, settings={"code": "xyz"})
    text = differences([a], [b])
    assert "(-1.00)" in text and "- settings, code: abc → xyz" in text
    assert differences([], []) == "No run is done in both.\n"


def test_rows_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path)
    for text, part in (("{", "is damaged"), ("[]", "line 1 is not a run"), ('{"scene": "x"}', "line 1 is not a run")):
        (tmp_path / "results.jsonl").write_text(text)
        with pytest.raises(InputError, match=part):
            read_rows(tmp_path)
    (tmp_path / "results.jsonl").write_text(json.dumps(row("fox", "a", 0, 1.0)) + "\n")
    assert read_rows(tmp_path) == read_rows(tmp_path / "results.jsonl") == [row("fox", "a", 0, 1.0)]


def test_a_row_without_figures_leaves_gaps_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    bare = {"scene": "room", "method": "ours", "start": "points", "seed": 0, "status": "done"}
    assert groups([bare])[0].values == {} and write_plots([bare], tmp_path) == []
    for wrong in ({"psnr": "high"}, {"words": [1]}, {"curve": {}}, {"curve": {"loss": []}}, {"gaussians": [1]}):
        with pytest.raises(InputError, match="of room ours points 0 is not a number; run vlmgs bench again"):
            to_csv([{**bare, **wrong}])
