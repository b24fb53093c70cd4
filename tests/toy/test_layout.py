"""Laws of every room: words are unique, furniture fits, cameras stand free and see it all."""

from __future__ import annotations

import numpy as np
import pytest

from vlmgs_ns.toy.layout import draw_room
from vlmgs_ns.toy.raycast import instances
from vlmgs_ns.toy.room import Room
from vlmgs_ns.toy.scene import plan_scene
from vlmgs_ns.toy.viewpoints import CLEARANCE, HELD_OUT_HEIGHTS, TRAIN_HEIGHTS, Pinhole, draw_viewpoints, look_at

SEEDS = range(40)


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [draw_room(np.random.default_rng(seed)) for seed in SEEDS]


def test_names_and_phrases_are_unique(rooms: list[Room]) -> None:
    for room in rooms:
        names = [thing.name for thing in room.objects]
        assert len(set(names)) == len(names) >= 8
        phrases = [phrase for thing in room.objects for phrase in thing.phrases]
        assert len(set(phrases)) == len(phrases)
        assert all(thing.phrases[0] == thing.name for thing in room.objects)
        assert not set(phrases) & set(room.decor.phrases)


def test_rooms_are_varied(rooms: list[Room]) -> None:
    for room in rooms:
        assert len({thing.noun for thing in room.objects}) >= 6
        assert len({thing.colour for thing in room.objects}) >= 8
        assert len({thing.texture for thing in room.objects}) >= 3
        assert {"table", "corner", "wall", "floor"} <= {thing.place for thing in room.objects}
    assert len({tuple(thing.name for thing in room.objects) for room in rooms}) == len(rooms)


def test_objects_stand_inside_the_room_and_apart(rooms: list[Room]) -> None:
    for room in rooms:
        boxes = [thing.bounds for thing in room.objects]
        for thing, (low, high) in zip(room.objects, boxes, strict=True):
            assert (np.abs([low[:2], high[:2]]) < [room.half_x, room.half_y]).all()
            assert high[2] < room.height
            assert low[2] == pytest.approx(0.62 if thing.place == "table" else 0.0, abs=1e-6)
        for i, (low, high) in enumerate(boxes):
            for lo, hi in boxes[:i]:
                assert ((low >= hi - 1e-6) | (lo >= high - 1e-6)).any()


def test_what_is_on_the_table_is_above_its_top(rooms: list[Room]) -> None:
    for room in rooms:
        top = room.objects[0].parts[0]
        for thing in room.objects:
            if thing.place == "table":
                low, high = thing.bounds
                corners = np.array([[x, y, 0.62] for x in (low[0], high[0]) for y in (low[1], high[1])]).T
                middle = top.to_local(corners.mean(axis=1, keepdims=True))
                assert (np.abs(middle[:, 0]) <= np.array(top.shape.half) + 1e-6).all()


def test_bounds_hold_the_surface_tightly(rooms: list[Room]) -> None:
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(0, 1, 73), np.linspace(0, 1, 73)))
    for part in [part for room in rooms[:8] for part in room.parts]:
        clouds = []
        for face in range(part.shape.faces):
            p, _ = part.shape.surface(face, u, v)
            planar = not part.shape.wraps(face) and type(part.shape).__name__ != "Box"
            clouds.append(p[:, np.hypot(2 * u - 1, 2 * v - 1) <= 1] if planar else p)
        world = part.to_world(np.concatenate(clouds, axis=1))
        low, high = part.bounds
        assert np.abs(world.min(axis=1) - low).max() < 4e-3
        assert np.abs(world.max(axis=1) - high).max() < 4e-3


def test_world_and_local_frames_are_inverse(rooms: list[Room]) -> None:
    p = np.random.default_rng(0).normal(size=(3, 20))
    for part in rooms[0].parts:
        assert np.allclose(part.to_local(part.to_world(p)), p)
        assert np.allclose(part.rotation @ part.rotation.T, np.eye(3))


def test_cameras_stand_free_and_upright(rooms: list[Room]) -> None:
    for seed, room in enumerate(rooms):
        views = draw_viewpoints(np.random.default_rng(seed), room, 60, 12)
        assert len(views) == 60
        assert sum(view.held_out for view in views) == 12
        for view in views:
            assert room.clearance(view.position) >= CLEARANCE
            assert np.allclose(view.rotation @ view.rotation.T, np.eye(3))
            assert np.linalg.det(view.rotation) == pytest.approx(1.0)
            assert view.rotation[2, 0] == pytest.approx(0.0, abs=1e-9)
            assert view.rotation[2, 1] < 0


def test_clearance_by_hand(rooms: list[Room]) -> None:
    room = rooms[0]
    assert room.clearance(np.array([0.0, 0.0, room.height - 0.1])) == pytest.approx(0.1)
    assert room.clearance(np.array([room.half_x + 0.5, 0.0, 1.0])) == pytest.approx(-0.5)
    assert room.clearance(room.parts[0].centre) == 0.0


def test_an_arc_is_held_out_whole(rooms: list[Room]) -> None:
    """No photo to train on is taken from near the middle of it."""
    views = draw_viewpoints(np.random.default_rng(0), rooms[0], 60, 12, arc=True)
    assert [view.held_out for view in views] == [True] * 12 + [False] * 48
    azimuth = np.array([np.arctan2(*(view.position[:2] / (rooms[0].half_x, rooms[0].half_y))[::-1]) for view in views])
    inward = [k for k in range(60) if k % 3 != 2]
    middle = np.abs(azimuth[[k for k in inward if k >= 12]] - azimuth[6])
    assert np.minimum(middle, 2 * np.pi - middle).min() > 0.4


def test_held_out_heights_are_not_training_heights(rooms: list[Room]) -> None:
    gaps = [abs(a - b) for a in HELD_OUT_HEIGHTS for b in TRAIN_HEIGHTS]
    assert min(gaps) > 0.2
    views = draw_viewpoints(np.random.default_rng(0), rooms[0], 60, 12)
    train = np.array([view.position[2] for view in views if not view.held_out])
    test = np.array([view.position[2] for view in views if view.held_out])
    assert np.abs(train[:, None] - test).min() > 0.1


def test_look_at_puts_the_target_in_the_centre() -> None:
    view = look_at(np.array([1.0, -2.0, 1.5]), np.array([0.2, 0.5, 0.7]))
    target = view.to_camera(np.array([[0.2], [0.5], [0.7]]))[:, 0]
    assert target[:2] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert target[2] == pytest.approx(np.linalg.norm([0.8, 2.5, 0.8]))
    above = view.to_camera(np.array([[0.2], [0.5], [0.9]]))[:, 0]
    assert above[1] < 0


@pytest.mark.parametrize("seed", range(4))
def test_every_object_is_seen_often_enough(seed: int) -> None:
    room, views = plan_scene(seed, 60, 12)
    lens = Pinhole.wide(80, 60)
    counts = np.array([np.bincount(instances(room, lens, view).ravel(), minlength=12)[1:] for view in views])
    held_out = np.array([view.held_out for view in views])
    assert ((counts[~held_out] >= 4).sum(axis=0) >= 6).all()
    assert ((counts[held_out] >= 4).sum(axis=0) >= 1).all()
    background = 1 - counts.sum(axis=1) / (80 * 60)
    assert background.mean() > 0.5
