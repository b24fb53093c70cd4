"""A ring of cameras around things, as it is and with some of them turned onto the other side, as repeated patterns do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vlmgs_ns.prepare import motion
from vlmgs_ns.prepare.folds import FOLDED, contradicting, leave_out_contradicting, misplaced, shared
from vlmgs_ns.prepare.motion import Motion, PhotoMatches
from vlmgs_ns.prepare.outcome import judge

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap, of the extra [prepare], is not installed")

Array = npt.NDArray[np.float64]
CAMERAS, POINTS, WIDTH, HEIGHT, FOCAL = 48, 600, 320, 240, 250.0
AHEAD = 60
"""Degrees from its own direction up to which a point is seen: it lies on the outside of something."""


def write_ring(folder: Path, turned_from: float = 360, turned_to: float = 360) -> Any:  # pycolmap.Reconstruction
    """Return a model of cameras on a circle; those of some degrees, and what lies in front of them, are turned by 180 degrees."""
    rng = np.random.default_rng(0)
    azimuth, turned = np.linspace(0, 360, CAMERAS, endpoint=False), np.diag([-1.0, -1.0, 1.0])
    facing = rng.uniform(0, 360, POINTS)
    points = np.stack([around(facing, 0.8)[:, 0], around(facing, 0.8)[:, 1], rng.uniform(0, 1, POINTS)], 1)
    seen_by: list[list[tuple[int, int]]] = [[] for _ in range(POINTS)]
    lines = []
    for k, angle in enumerate(azimuth):
        centre = np.array([*around(angle, 4.0), 1.5])
        ahead = np.array([0, 0, 0.5]) - centre
        ahead /= np.linalg.norm(ahead)
        right = np.cross(ahead, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(ahead, right), ahead])  # camera from world
        local = (points - centre) @ rotation.T
        pixels = local[:, :2] / local[:, 2:] * FOCAL + [WIDTH / 2, HEIGHT / 2]
        ids = np.flatnonzero(np.abs((facing - angle + 180) % 360 - 180) < AHEAD)
        for number, point in enumerate(ids):
            seen_by[point].append((k + 1, number))
        if turned_from <= angle < turned_to:
            rotation, centre = rotation @ turned, turned @ centre
        x, y, z, w = pycolmap.Rotation3d(rotation).quat
        pose = " ".join(map(str, (w, x, y, z, *(-rotation @ centre))))
        lines += [f"{k + 1} {pose} 1 {k}.jpg", " ".join(f"{pixels[p, 0]} {pixels[p, 1]} {p + 1}" for p in ids)]
    there = (turned_from <= facing) & (facing < turned_to)
    points[there] = points[there] @ turned
    folder.mkdir()
    (folder / "cameras.txt").write_text(f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}\n")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    tracks = (" ".join(f"{image} {number}" for image, number in track) for track in seen_by)
    rows = (f"{p + 1} {' '.join(map(str, points[p]))} 0 0 0 0.5 {track}" for p, track in enumerate(tracks))
    (folder / "points3D.txt").write_text("\n".join(rows) + "\n")
    return pycolmap.Reconstruction(folder)


def around(degrees: Any, radius: float) -> Array:  # [..., 2]
    return radius * np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], -1)


@pytest.fixture
def right(tmp_path: Path) -> Any:
    return write_ring(tmp_path / "right")


@pytest.fixture
def folded(tmp_path: Path) -> Any:
    return write_ring(tmp_path / "folded", turned_from=180)


def test_photos_side_by_side_share_what_they_see_unless_the_scene_is_folded(right: Any, folded: Any) -> None:
    assert contradicting(right) == 0
    assert contradicting(folded) > 2 * FOLDED


def test_what_a_pair_shares_by_hand(right: Any) -> None:
    """All points that camera 1 sees lie in its neighbour's frame, which is 7.5 degrees on and has those of 120 degrees, too."""
    facing = np.random.default_rng(0).uniform(0, 360, POINTS)
    (share,) = (share for a, b, _, share in shared(right) if (a, b) == (1, 2))
    sees = [np.abs((facing - angle + 180) % 360 - 180) < AHEAD for angle in (0, 7.5)]
    assert share == pytest.approx((sees[0] & sees[1]).sum() / sees[0].sum())


def database(path: Path, pairs: list[tuple[int, int]]) -> Any:
    """Return an open database of photos 1 to 48 with a geometry for some pairs."""
    found = pycolmap.Database.open(path)
    camera = found.write_camera(pycolmap.Camera.create_from_model_id(1, pycolmap.CameraModelId.PINHOLE, FOCAL, WIDTH, HEIGHT))
    for k in range(CAMERAS):
        found.write_image(pycolmap.Image(name=f"{k}.jpg", camera_id=camera))
    for pair in pairs:
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = np.array([[0, 0], [1, 1]], np.uint32)
        found.write_two_view_geometry(*pair, geometry)
    return found


def kept(found: Any) -> set[tuple[int, int]]:
    numbers, _ = found.read_two_view_geometries()
    return {pycolmap.pair_id_to_image_pair(number) for number in numbers}


def test_pairs_that_contradict_the_cameras_are_left_out(folded: Any, tmp_path: Path) -> None:
    beside, onto = (
        (6, 7),
        (6, 6 + CAMERAS // 2),
    )  # the latter stand in one place, and saw two sides
    with database(tmp_path / "database.db", [beside, onto]) as found:
        assert leave_out_contradicting(folded, found) == 1
        assert kept(found) == {beside}
        assert leave_out_contradicting(folded, found) == 0


def test_a_folded_scene_is_placed_again_without_them(right: Any, folded: Any, tmp_path: Path, monkeypatch: Any) -> None:
    database(tmp_path / "database.db", [(6, 7), (6, 6 + CAMERAS // 2)]).close()
    placed = []
    monkeypatch.setattr(motion, "_place", lambda *rest: placed.append(rest) or [right])
    monkeypatch.setattr(motion, "UNFOLDINGS", 1)
    again = (tmp_path, [], tmp_path / "database.db", tmp_path, 0)
    assert motion._unfold([folded], *again) == [right] and len(placed) == 1
    assert motion._unfold([right], *again) == [right] and len(placed) == 1
    assert motion._unfold([], *again) == []


def test_a_scene_that_would_fall_apart_stays_as_it_is(folded: Any, tmp_path: Path, monkeypatch: Any) -> None:
    database(tmp_path / "database.db", [(6, 6 + CAMERAS // 2)]).close()
    part = write_ring(tmp_path / "part")
    for image in list(part.images)[: CAMERAS // 2]:
        part.deregister_frame(part.images[image].frame_id)
    monkeypatch.setattr(motion, "_place", lambda *rest: [part])
    assert motion._unfold([folded], tmp_path, [], tmp_path / "database.db", tmp_path, 0) == [folded]


def test_a_photo_on_the_wrong_side_contradicts_its_neighbours(right: Any, tmp_path: Path) -> None:
    astray = write_ring(tmp_path / "astray", turned_from=30, turned_to=30.1)
    assert misplaced(right) == [] and misplaced(astray) == [5]
    assert contradicting(astray) < FOLDED


def test_a_misplaced_photo_is_placed_again(tmp_path: Path, monkeypatch: Any) -> None:
    """It is gone from the model that the others are placed in, and so is the pair that put it where it was."""
    astray, onto = write_ring(tmp_path / "astray", turned_from=30, turned_to=30.1), (5, 5 + CAMERAS // 2)
    database(tmp_path / "database.db", [(6, 7), onto]).close()
    given = []
    monkeypatch.setattr(motion, "_place_rest", lambda model, *rest: given.append(model.num_reg_images()) or model)
    motion._replace(astray, tmp_path, [], tmp_path / "database.db", tmp_path, 0)
    assert given == [CAMERAS - 1]
    with pycolmap.Database.open(tmp_path / "database.db") as found:
        assert kept(found) == {(6, 7)}


def test_a_scene_that_stays_folded_says_so(right: Any, folded: Any) -> None:
    photos = {f"{k}.jpg": PhotoMatches(3000, 400) for k in range(CAMERAS)}
    told = judge(Motion([folded], photos, False), {})
    assert told.contradicting > FOLDED and any("folded" in line for line in told.advice)
    assert not any("folded" in line for line in judge(Motion([right], photos, False), {}).advice)
