"""First hits against a slow twin without windows, and light that all views share."""

from __future__ import annotations

import numpy as np
import pytest

from vlmgs_ns.toy.layout import draw_room
from vlmgs_ns.toy.light import LightMap, bake
from vlmgs_ns.toy.raycast import cast, instances, photograph
from vlmgs_ns.toy.room import Room
from vlmgs_ns.toy.viewpoints import Pinhole, Viewpoint, draw_viewpoints, look_at

LENS = Pinhole.wide(48, 36)


@pytest.fixture(scope="module")
def room() -> Room:
    return draw_room(np.random.default_rng(11))


@pytest.fixture(scope="module")
def maps(room: Room) -> list[LightMap]:
    return bake(room)


@pytest.fixture(scope="module")
def views(room: Room) -> list[Viewpoint]:
    return draw_viewpoints(np.random.default_rng(11), room, 12, 3)


def test_cast_agrees_with_testing_every_ray_with_every_part(room: Room, views: list[Viewpoint]) -> None:
    x, y = np.meshgrid((np.arange(48) + 0.5 - 24) / LENS.focal, (np.arange(36) + 0.5 - 18) / LENS.focal)
    ahead = np.stack([x.ravel(), y.ravel(), np.ones(48 * 36)])
    for view in views:
        direction = (view.rotation @ ahead).astype(np.float32)
        eye = view.position.astype(np.float32)[:, None]
        depths = []
        for part in (room.shell, *room.parts):
            origin = part.rotation.T.astype(np.float32) @ (eye - part.centre.astype(np.float32)[:, None])
            depths.append(part.shape.intersect(origin, part.rotation.T.astype(np.float32) @ direction))
        expected = np.array(depths)
        hits = cast(room, LENS, view, 1)
        assert hits.depth == pytest.approx(expected.min(axis=0), abs=2e-3)
        ordered = np.sort(expected, axis=0)
        clear = ordered[1] - ordered[0] > 5e-3
        assert np.array_equal(hits.part[clear], expected.argmin(axis=0)[clear])


def test_supersamples_surround_the_pixel_centre(room: Room, views: list[Viewpoint]) -> None:
    fine = cast(room, LENS, views[0], 2).direction.reshape(3, 36, 2, 48, 2)
    centre = cast(room, LENS, views[0], 1).direction.reshape(3, 36, 48)
    assert np.abs(fine.mean(axis=(2, 4)) - centre).max() < 1e-6


def test_a_camera_that_faces_a_wall_sees_its_distance(room: Room) -> None:
    position = np.array([0.0, 0.0, 2.3])
    view = look_at(position, np.array([1.0, 0.0, 2.3]))
    hits = cast(room, Pinhole(16, 16, 300.0), view, 1)
    assert (hits.part == 0).all()
    assert hits.depth[hits.part == 0] == pytest.approx(room.half_x, abs=1e-4)


def test_photo_shapes_and_ranges(room: Room, maps: list[LightMap], views: list[Viewpoint]) -> None:
    photo = photograph(room, maps, LENS, views[0], 1)
    assert (photo.rgb.shape, photo.rgb.dtype) == ((36, 48, 3), np.uint8)
    assert (photo.instance.shape, photo.instance.dtype) == ((36, 48), np.uint8)
    assert (photo.depth.shape, photo.depth.dtype) == ((36, 48), np.float32)
    assert photo.instance.max() <= len(room.objects)
    assert 0.05 < photo.depth.min() < photo.depth.max() < 8.0
    assert np.array_equal(photo.instance, instances(room, LENS, views[0]))
    assert 40 < photo.rgb.mean() < 215
    assert photo.rgb.std() > 20


def test_masks_do_not_depend_on_supersampling(room: Room, maps: list[LightMap], views: list[Viewpoint]) -> None:
    one, three = (photograph(room, maps, LENS, views[1], s) for s in (1, 3))
    assert np.array_equal(one.instance, three.instance)
    assert np.array_equal(one.depth, three.depth)
    assert not np.array_equal(one.rgb, three.rgb)


def test_light_is_bilinear() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 10.0, 30.0, 20.0, 40.0], np.float32)
    maps = LightMap(values, np.array([0, 4], np.int32), np.array([2, 2], np.int32), np.array([2, 2], np.int32))
    u, v = np.array([0.0, 1.0, 0.5, 0.25], np.float32), np.array([0.0, 1.0, 0.5, 0.0], np.float32)
    assert maps.at(np.array([0, 0, 0, 0]), u, v) == pytest.approx([0.0, 3.0, 1.5, 0.25])
    assert maps.at(np.array([1, 1, 1, 1]), u, v) == pytest.approx([10.0, 40.0, 25.0, 15.0])


def test_light_is_sane_and_the_table_casts_a_shadow(room: Room, maps: list[LightMap]) -> None:
    assert len(maps) == len(room.owners) == 1 + len(room.parts)
    for light in maps:
        assert (light.values >= 0).all()
        assert 0.1 < light.values.mean() < 1.5
    below = np.array([[0.15], [0.15], [-room.height / 2]])
    face, u, v = room.shell.shape.chart(below)
    assert face.tolist() == [4]
    floor = maps[0].values[maps[0].starts[4] : maps[0].starts[5]]
    assert maps[0].at(face, u, v)[0] < 0.6 * np.quantile(floor, 0.8)


def test_two_views_agree_on_the_colour_of_a_matte_point(room: Room, maps: list[LightMap]) -> None:
    """The centre pixels of two cameras that look at one point of the floor."""
    lens, checked = Pinhole(3, 3, 800.0), 0
    eyes = np.array([[-1.2, -0.3, 1.9], [0.2, -1.3, 1.7]])
    for x, y in np.random.default_rng(0).uniform(-1.8, 1.8, (30, 2)):
        views = [look_at(eye, np.array([x, y, 0.0])) for eye in eyes]
        photos = [photograph(room, maps, lens, view, 1) for view in views]
        reach = np.linalg.norm(eyes - [x, y, 0.0], axis=1)
        if all(photo.depth[1, 1] == pytest.approx(r, abs=1e-3) for photo, r in zip(photos, reach, strict=True)):
            one, two = (photo.rgb[1, 1].astype(int) for photo in photos)
            assert np.abs(one - two).max() <= 2
            checked += 1
    assert checked >= 8


def test_rays_along_the_walls_reach_the_one_ahead(room: Room) -> None:
    """Their components across are exactly 0, of either sign."""
    ahead = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    for rotation in (ahead, ahead @ np.diag([-1.0, -1.0, 1.0])):
        hits = cast(room, Pinhole(17, 17, 300.0), Viewpoint(rotation, np.array([0.0, 0.0, 2.3]), False), 1)
        assert np.isfinite(hits.depth).all() and (hits.depth > 0.1).all()
