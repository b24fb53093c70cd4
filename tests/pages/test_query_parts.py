"""What a query is made of, on cases worked out by hand: names, masks and boxes, places, pictures, the folder, standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from vlmgs_ns.evaluation.overlays import PREDICTION
from vlmgs_ns.pages.query import folders_of
from vlmgs_ns.pages.query_film import Film
from vlmgs_ns.pages.query_pictures import even, found_picture, relevancy_picture
from vlmgs_ns.pages.query_summary import page, summary
from vlmgs_ns.pages.viewpoints import HANDFUL, choose, names_of, read_camera_path
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.words.box import OrientedBox
from vlmgs_ns.words.find import find
from vlmgs_ns.words.place import Place, in_data, places
from vlmgs_ns.words.question import share_in_picture
from vlmgs_ns.words.sighting import CUT, sight

# views


def paths(*names: str) -> list[Path]:
    return [Path("/data/images") / name for name in names]


def test_names_of_photos_tell_them_apart() -> None:
    assert names_of(paths("a.png", "b.jpg")) == ["a", "b"]
    assert names_of(paths("left/1.png", "right/1.png", "2.png")) == ["left_1", "right_1", "2"]
    assert names_of(paths("1.png", "1.jpg", "2.png")) == ["1.png", "1.jpg", "2"]
    assert names_of(paths("a/b/1.png", "c/b/1.png")) == ["a_b_1", "c_b_1"]
    assert names_of([Path("/1.png"), Path("/a/1.png")]) == ["_1", "a_1"]
    assert names_of([]) == []


def test_by_default_a_handful_of_the_held_out_photos_is_looked_from() -> None:
    photos = paths(*(f"{k}.png" for k in range(100)))
    assert choose(photos, photos[90:], None, []) == list(range(90, 100))
    some = choose(photos, photos[40:], None, [])
    assert len(some) == HANDFUL and some[0] == 40 and np.ptp(np.diff(some)) == 0
    assert choose(photos[:5], [], None, []) == [0, 1, 2, 3, 4]
    assert choose(photos, photos[40:], "test", []) == list(range(40, 100))
    assert choose(photos, photos[40:], "train", []) == list(range(40))
    assert choose(photos, photos[40:], "all", []) == list(range(100))
    with pytest.raises(InputError, match="--split test: the run has no such photos"):
        choose(photos, [], "test", [])


def test_photos_are_found_by_any_spelling_of_their_names() -> None:
    photos = paths("left/frame_1.png", "right/frame_1.png", "frame_2.png")
    for name in ("frame_2", "frame_2.png", " frame_2 ", "images/frame_2.png"):
        assert choose(photos, [], None, [name]) == [2]
    assert choose(photos, [], "all", ["right_frame_1", "left/frame_1.png", "right_frame_1"]) == [1, 0]
    with pytest.raises(InputError, match="2 photos of the run have this name; give one of left_frame_1, right_frame_1"):
        choose(photos, [], None, ["frame_1"])
    with pytest.raises(InputError, match="'frame_22': the run has no photo of this name; did you mean 'frame_2'"):
        choose(photos, [], None, ["frame_22"])


FRAME = {"camera_to_world": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1], "fov": 90}
GOOD = {"render_width": 40, "render_height": 30, "seconds": 0.5, "camera_path": [FRAME, FRAME, FRAME]}


def camera_path(folder: Path, said: Any) -> Path:
    path = folder / "path.json"
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    return path


def test_a_camera_path(tmp_path: Path) -> None:
    found = read_camera_path(camera_path(tmp_path, GOOD))
    assert found.fps == 6 and [view.name for view in found.views] == ["frame_00000", "frame_00001", "frame_00002"]
    camera = found.views[0].camera
    assert (int(camera.width), int(camera.height)) == (40, 30)
    assert float(camera.fx) == pytest.approx(15)  # half the height at 45 degrees
    assert camera.camera_to_worlds[0, :, 3].tolist() == [0, 0, 2]
    without = {name: value for name, value in GOOD.items() if name != "seconds"}
    assert read_camera_path(camera_path(tmp_path, {**without, "fps": 5})).fps == 5
    assert read_camera_path(camera_path(tmp_path, without)).fps == 24


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([], "is not a camera path"),
        ({}, "'camera_path' is missing"),
        ({**GOOD, "camera_path": []}, "it has no frames"),
        ({**GOOD, "render_width": 0}, "render_width is 0"),
        ({**GOOD, "render_height": "many"}, "render_height is 'many'"),
        ({**GOOD, "camera_path": [{**FRAME, "camera_to_world": [1, 2]}]}, "frame 0 has a camera_to_world"),
        ({**GOOD, "camera_path": [FRAME, {**FRAME, "camera_to_world": [float("nan")] * 16}]}, "frame 1 has a camera_to_world"),
        ({**GOOD, "camera_path": [{**FRAME, "fov": 0}]}, "field of view of 0"),
        ({**GOOD, "camera_path": ["frame"]}, "is not a camera path"),
        ({**GOOD, "seconds": 0}, "is not a camera path"),
        ({**GOOD, "seconds": -1}, "make no video"),
        ({**GOOD, "camera_type": "fisheye"}, "only perspective pictures"),
    ],
)
def test_a_damaged_camera_path_is_told(tmp_path: Path, said: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_camera_path(camera_path(tmp_path, said))
    assert "\n" not in str(caught.value) and "path.json" in str(caught.value)


def test_a_camera_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_camera_path(path)


# what a view shows


def relevancy_with(*places: tuple[slice, slice, float]) -> np.ndarray:
    relevancy = np.full((40, 60), 0.3, np.float32)
    for rows, columns, value in places:
        relevancy[rows, columns] = value
    return relevancy


COVERED = np.ones((40, 60), np.float32)


def test_parts_boxes_and_clarity_by_hand() -> None:
    relevancy = relevancy_with((slice(5, 10), slice(20, 28), 0.75), (slice(20, 30), slice(40, 50), 0.6))
    relevancy[22, 44] = 0.9
    found = sight(relevancy, COVERED, 0.5)
    large, small = found.parts  # 0.1 · 99 + 0.4 = 10.3 and 0.25 · 40 = 10, of 0.5 · 2400
    assert (large.box, large.area, small.box, small.area) == ((40, 20, 50, 30), 100, (20, 5, 28, 10), 40)
    assert large.peak == pytest.approx(0.9) and small.peak == pytest.approx(0.75) and found.peak == pytest.approx(0.9)
    assert large.clarity == pytest.approx(10.3 / 1200, rel=1e-4) and small.clarity == pytest.approx(10 / 1200, rel=1e-4)
    assert found.clarity == pytest.approx(20.3 / 1200, rel=1e-4)
    assert np.array_equal(found.mask, relevancy > 0.5)


def test_specks_and_what_nothing_covers_are_left_out() -> None:
    relevancy = relevancy_with((slice(5, 15), slice(20, 30), 0.9), (slice(30, 31), slice(3, 6), 0.9))
    found = sight(relevancy, COVERED, 0.5)
    assert len(found.parts) == 1 and found.mask.sum() == 100
    faint = relevancy_with((slice(5, 15), slice(20, 30), 0.9), (slice(25, 27), slice(3, 5), 0.6))
    assert len(sight(faint, COVERED, 0.5).parts) == 1  # 4 pixels, but 1 % as clear
    alpha = COVERED.copy()
    alpha[:, :25] = 0.4
    half = sight(relevancy, alpha, 0.5)
    assert half.parts[0].box == (25, 5, 30, 15)
    relevancy[0, 0] = 1.0
    assert sight(relevancy, alpha, 0.5).peak == pytest.approx(0.9)


def test_pixels_touch_by_corners_too() -> None:
    relevancy = relevancy_with(*((slice(k, k + 1), slice(k, k + 1), 0.9) for k in range(1, 9)))
    assert [part.area for part in sight(relevancy, COVERED, 0.5).parts] == [8]


def test_nothing_found() -> None:
    found = sight(relevancy_with(), COVERED, 0.5)
    assert not found.mask.any() and found.parts == () and found.clarity == 0 and found.peak == pytest.approx(0.3)
    assert sight(relevancy_with(), COVERED * 0, 0.5).peak == 0


@pytest.mark.parametrize(
    ("rows", "columns"), [((0, 10), (20, 30)), ((30, 40), (20, 30)), ((5, 15), (0, 10)), ((5, 15), (50, 60))]
)
def test_what_the_edge_cuts_is_less_clear(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    cut = sight(relevancy_with((slice(*rows), slice(*columns), 0.9)), COVERED, 0.5)
    whole = sight(relevancy_with((slice(5, 15), slice(20, 30), 0.9)), COVERED, 0.5)
    assert cut.clarity == pytest.approx(CUT * whole.clarity)


def splats_at(*means: tuple[float, float, float], size: float = 0.1) -> Splats:
    count = len(means)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    return Splats(torch.tensor(means), quats, torch.full((count, 3), size), torch.full((count,), 0.9))


def test_the_share_in_a_picture() -> None:
    camera = Pinhole(torch.eye(4), torch.tensor([[10.0, 0, 10], [0, 10, 5], [0, 0, 1]]), 20, 10)
    inside, behind, left, below = (0.0, 0.0, 2.0), (2.0, 1.0, -2.0), (-2.1, 0.0, 2.0), (0.0, 1.1, 2.0)
    assert share_in_picture(splats_at(inside, behind, left, below), camera) == pytest.approx(0.25)
    assert share_in_picture(splats_at(inside, (-1.9, 0.9, 2.0)), camera) == 1
    assert share_in_picture(splats_at(inside)[torch.zeros(0, dtype=torch.long)], camera) == 1
    large = splats_at(inside, behind)
    large.scales[0] *= 2  # four times the mass
    assert share_in_picture(large, camera) == pytest.approx(0.8)


# where it is


def place_of(relevancy: torch.Tensor, splats: Splats, shown: torch.Tensor) -> Place:
    neighbours = Neighbours(splats)
    found = find(relevancy, splats, neighbours, threshold=0.5)
    (place,) = places(found, splats, neighbours, 0.5, shown)
    return place


def test_what_hardly_shows_in_the_masks_counts_little_in_the_box() -> None:
    """Three in a row touch and are relevant; the third hardly shows in the mask; a fourth is not seen at all."""
    splats = splats_at((0, 0, 0), (0.1, 0, 0), (0.3, 0, 0), (0.0, 0.1, 0))
    relevancy = torch.tensor([[0.9], [0.9], [0.9], [0.9]])
    shown = torch.tensor([[10.0], [6.0], [0.1], [0.0]])
    place, everything = place_of(relevancy, splats, shown), place_of(relevancy, splats, torch.ones(4, 1))
    assert place.mask.all() and place.selected == 4
    assert place.box is not None and everything.box is not None
    assert place.box.size.max() < everything.box.size.max() - 0.1
    nothing = place_of(torch.full((4, 1), 0.5), splats, shown)
    assert nothing.box is None and nothing.selected == 0 and not nothing.mask.any()


def test_of_two_things_the_clearer_one_has_the_box() -> None:
    """The second pair shows more, but is hardly relevant; both are selected, and neither's box reaches the other."""
    splats = splats_at((0, 0, 0), (0.1, 0, 0), (5.0, 0, 0), (5.1, 0, 0))
    shown = torch.tensor([[10.0], [10.0], [12.0], [12.0]])
    place = place_of(torch.tensor([[0.9], [0.9], [0.6], [0.6]]), splats, shown)
    assert place.mask.tolist() == [True, True, False, False] and place.selected == 4
    assert place.box is not None and place.box.centre[0] == pytest.approx(0.05, abs=1e-3)
    place = place_of(torch.tensor([[0.9], [0.9], [0.9], [0.9]]), splats, shown)
    assert place.mask.tolist() == [False, False, True, True]


def test_a_box_in_the_data_is_the_box_before_the_scene_was_moved() -> None:
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.3, -1.0, 2.0]).as_matrix()).float()
    transform, scale = torch.cat([rotation, torch.tensor([[0.5], [-2.0], [1.0]])], dim=1), 0.25
    axes = torch.from_numpy(Rotation.from_euler("xyz", [1.0, 0.2, -0.4]).as_matrix()).float()
    box = OrientedBox(torch.tensor([1.0, 2.0, 3.0]), axes, torch.tensor([4.0, 2.0, 1.0]))
    corners = in_data(box, transform, scale).corners()
    assert torch.allclose(scale * (corners @ rotation.T + transform[:, 3]), box.corners(), atol=1e-4)


# pictures

GREY = np.full((40, 60, 3), 90, np.uint8)


def test_the_scale_below_a_relevancy_picture() -> None:
    ramp = np.tile(np.linspace(0, 1, 300, dtype=np.float32), (200, 1))
    black = np.zeros((200, 300, 3), np.uint8)
    picture = relevancy_picture(black, ramp, 0.25)
    assert picture.shape[1] == 300 and picture.shape[0] > 200
    strip = picture[200:]
    row = strip[(strip != 255).any(axis=2).sum(axis=1).argmax()]  # through the bar
    bar = np.flatnonzero((row != 255).any(axis=1))
    # The same colours as in the picture, which has them at 0.6 of their strength over black.
    assert np.abs(row[bar[0]] * 0.6 - picture[0, 0]).max() <= 1 and np.abs(row[bar[-1]] * 0.6 - picture[0, -1]).max() <= 1
    dark = np.flatnonzero((row == (24, 28, 38)).all(axis=1))
    assert len(dark) and (dark.mean() - bar[0]) / (bar[-1] - bar[0]) == pytest.approx(0.25, abs=0.02)
    assert (strip[bar[0] + 12 :] != 255).any(), "labels are drawn"


def test_even_a_tiny_picture_has_a_scale() -> None:
    assert relevancy_picture(np.zeros((3, 5, 3), np.uint8), np.zeros((3, 5), np.float32), 0.5).shape[1] == 5


def test_what_was_found_is_outlined_and_boxed() -> None:
    found = sight(relevancy_with((slice(15, 30), slice(20, 45), 0.9)), COVERED, 0.5)
    picture = found_picture(GREY, found)
    assert picture.shape == GREY.shape
    assert (picture[20, 30] == 90).all() and (picture[2, 2] == 30).all()
    assert (picture[15, 40] == PREDICTION).all() and (picture[14, 40] == 255).all() and (picture[25, 45] == 255).all()
    assert (found_picture(GREY, sight(relevancy_with(), COVERED, 0.5)) == 30).all()


def test_a_film_gives_back_every_frame_of_a_phrase(tmp_path: Path) -> None:
    film = Film(tmp_path, 0.5)
    levels = np.linspace(0, 1, 6, dtype=np.float32)
    for level in levels[:3]:
        film.add(GREY[:, :59], np.stack([np.full((40, 59), level), np.full((40, 59), 1 - level)]).astype(np.float32))
    frames = [list(film.frames(k)) for k in range(2)]
    assert [len(one) for one in frames] == [3, 3]
    for frame, level in zip(frames[1], levels[:3], strict=True):
        assert frame.shape[0] % 2 == 0 and frame.shape[1] == 60
        wanted = even(relevancy_picture(GREY[:, :59], np.full((40, 59), 1 - level, np.float32), 0.5))
        assert np.abs(frame.astype(int) - wanted).max() <= 6


# the folder


def test_folders_of_phrases_are_names_and_all_different() -> None:
    names = folders_of(["Red ball", "red-ball", "../../etc", "renders", "赤い球", "?", "!", "x" * 300, "x" * 301])
    assert names[:2] == ["red-ball", "red-ball-2"] and names[4] == "赤い球"
    assert len(set(names)) == len(names) and "renders" not in names
    assert all("/" not in name and not name.startswith(".") and len(name.encode()) <= 80 for name in names)


# in words


def an_answer(**phrase: Any) -> dict[str, Any]:
    files = {name: f"red-ball/1_{name}.png" for name in ("relevancy", "mask", "found")}
    box = {"pixels": [1, 2, 3, 4]}
    box_3d = {"data": {"centre": [1.0, 2.0, 3.0], "size": [0.5, 0.25, 0.125]}}
    one = {
        "phrase": "<b>red</b> ball", "like": None, "found": True, "score": 0.8, "best_view": "1", "seen_in": 1, "gaussians": 7,
        "box_3d": box_3d, "video": None, **phrase,
    }  # fmt: skip
    views = [{"view": "1", "clarity": 0.1, "peak": 0.8, "boxes": [box] if one["found"] else [], "files": files}]
    return {
        "run": "/run", "threshold": 0.5, "caution": "", "negatives": ["object"],
        "views": [{"name": "1", "render": "renders/1 ü#.png"}],
        "phrases": [{**one, "views": views}],
    }  # fmt: skip


def test_an_answer_in_words() -> None:
    first, second = summary(an_answer())
    assert "found in 1 of 1 view" in first and "centre (1, 2, 3), size 0.5 x 0.25 x 0.125" in second
    missing = " ".join(summary(an_answer(found=False, score=0.42, box_3d=None)))
    assert "found in none of 1 view" in missing and "0.42" in missing and "--threshold below 0.42" in missing
    assert "specks" in summary(an_answer(found=False, score=0.6))[0]
    assert "no box in space" in summary(an_answer(box_3d=None))[1]
    assert summary(an_answer() | {"caution": "What words find here is noise"})[:2] == ["What words find here is noise", first]
    assert "exactly 0.50, the threshold 0.5" in summary(an_answer(found=False, score=0.5))[0]


def test_the_page_escapes_what_it_is_given_and_links_its_files() -> None:
    html = page(an_answer())
    assert "<b>red</b>" not in html and "&lt;b&gt;red&lt;/b&gt; ball" in html
    assert 'src="renders/1%20%C3%BC%23.png"' in html and 'src="red-ball/1_found.png"' in html and "1 of 1 phrase found" in html
    assert "Not found: the highest relevancy is 0.42" in page(an_answer(found=False, score=0.42))
    assert "relevancy.mp4" in page(an_answer(video="red-ball/relevancy.mp4")) and "<video" not in html


# standard output


def test_only_the_answer_reaches_standard_output() -> None:
    program = (
        "import os, subprocess, sys\n"
        "from vlmgs_ns.system.console import kept_for_answer\n"
        "with kept_for_answer() as answer:\n"
        "    sys.stdout.write('python ')\n"
        "    os.write(1, b'descriptor ')\n"
        "    subprocess.run(['echo', 'child'])\n"
        "    answer('the answer')\n"
        "sys.stdout.write('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "the answer\nafter"
    assert all(word in done.stderr for word in ("python", "descriptor", "child"))
