"""New Gaussians for a region: in it, on what the photos show, coloured like them, and only where the render is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.densify.test_photo_depth import BOARD, FOCAL, HEIGHT, WALL, WIDTH, K, picture
from vlmgs_ns.guidance.planting import plant
from vlmgs_ns.guidance.training_scene import Render, Viewpoint, nearest

PLACES = [(0.0, 0.0), (-0.3, 0.0), (0.3, 0.05), (0.0, 0.3), (0.05, -0.3)]
OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


class FlatScene:
    """The wall and the board, photographed; the render is what the test says."""

    def __init__(self, render: Tensor, coverage: Tensor, plain: bool = False) -> None:
        self.rgb, self.coverage, self.plain = render, coverage, plain
        self.means, self.colors, self.sizes = torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0)

    def begin_step(self) -> None:
        pass

    def viewpoints(self) -> list[Viewpoint]:
        poses = [torch.cat([OPENGL, torch.tensor([[x], [y], [0.0]])], dim=1) for x, y in PLACES]
        return [Viewpoint(pose, K, WIDTH, HEIGHT, photo=k) for k, pose in enumerate(poses)]

    def photo(self, viewpoint: Viewpoint) -> Tensor:
        assert viewpoint.photo is not None
        return picture(*PLACES[viewpoint.photo], self.plain)

    def render(self, viewpoint: Viewpoint) -> Render:
        return Render(self.rgb, torch.full((HEIGHT, WIDTH), 3.0), self.coverage, {})

    def centre(self) -> Tensor:
        return torch.tensor([0.0, 0.0, 3.0])

    def extent(self) -> float:
        return 1.0

    def recovering(self) -> bool:
        return False

    def plant(self, means: Tensor, colors: Tensor, sizes: Tensor) -> int:
        self.means, self.colors, self.sizes = means, colors, sizes
        return len(means)


def run(scene: FlatScene, region: Tensor, count: int = 200, seed: int = 0, fill_gaps: bool = False) -> int:
    here = scene.viewpoints()[0]
    return plant(here, scene.render(here), region, count, scene, seed, fill_gaps)


EVERYWHERE = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
COVERED = torch.ones(HEIGHT, WIDTH)
GREY = torch.full((HEIGHT, WIDTH, 3), 0.5)


def columns_and_rows(means: Tensor) -> tuple[Tensor, Tensor]:
    x, y, z = means.unbind(-1)
    return (x / z * FOCAL + WIDTH / 2).long(), (y / z * FOCAL + HEIGHT / 2).long()


def test_they_stand_on_what_the_photos_show_with_its_colour() -> None:
    scene = FlatScene(GREY, COVERED)
    count = run(scene, EVERYWHERE)
    assert 100 < count <= 200
    z = scene.means[:, 2]
    on_wall, on_board = (z - WALL).abs() < 0.06 * WALL, (z - BOARD).abs() < 0.06 * BOARD
    assert (on_wall | on_board).float().mean() > 0.9 and on_wall.any() and on_board.any()
    columns, rows = columns_and_rows(scene.means)
    assert torch.equal(scene.colors, picture(0, 0)[rows, columns])
    # four pixels at most, seen from here
    assert (scene.sizes * FOCAL / z <= 4.0 + 1e-4).all() and (scene.sizes > 0).all()


def test_only_in_the_region_and_only_where_the_render_is_wrong() -> None:
    render = picture(0, 0)
    render[:, WIDTH // 2 :] = 0.5
    region = torch.zeros_like(EVERYWHERE)
    region[: HEIGHT // 2] = True
    scene = FlatScene(render, COVERED)
    assert run(scene, region) > 20
    columns, rows = columns_and_rows(scene.means)
    assert (columns >= WIDTH // 2).all() and (rows < HEIGHT // 2).all()


def test_a_right_render_gets_nothing() -> None:
    assert run(FlatScene(picture(0, 0), COVERED), EVERYWHERE) == 0
    assert run(FlatScene(GREY, COVERED), torch.zeros_like(EVERYWHERE)) == 0
    assert run(FlatScene(GREY, COVERED), EVERYWHERE, count=0) == 0


def test_the_draw_depends_on_its_seed_alone() -> None:
    first, again, other = (FlatScene(GREY, COVERED) for _ in range(3))
    torch.manual_seed(0)
    run(first, EVERYWHERE)
    before = torch.random.get_rng_state()
    run(again, EVERYWHERE)
    assert torch.equal(before, torch.random.get_rng_state())
    run(other, EVERYWHERE, seed=1)
    assert torch.equal(first.means, again.means) and not torch.equal(first.means[:20], other.means[:20])


def test_gaps_without_texture_are_filled_at_the_depth_around_them_if_asked() -> None:
    coverage = torch.ones(HEIGHT, WIDTH)
    coverage[20:30, 20:40] = 0.1
    plain = FlatScene(GREY, coverage, plain=True)
    assert run(plain, EVERYWHERE) == 0
    assert run(plain, EVERYWHERE, fill_gaps=True) == 200
    assert torch.allclose(plain.means[:, 2], torch.tensor(3.0))
    columns, rows = columns_and_rows(plain.means)
    assert (columns >= 20).all() and (columns < 40).all() and (rows >= 20).all() and (rows < 30).all()


def test_after_a_reset_of_the_opacities_nothing_is_a_gap() -> None:
    """Everything is faint then, but nothing is missing."""
    assert run(FlatScene(GREY, 0.05 * COVERED, plain=True), EVERYWHERE, fill_gaps=True) == 0


def test_nearest_cameras_leave_out_the_one_that_asks() -> None:
    cameras = FlatScene(GREY, COVERED).viewpoints()
    distances = [float((camera.camera_to_world[:, 3] - cameras[1].camera_to_world[:, 3]).norm()) for camera in cameras]
    found = nearest(cameras, cameras[1], 3)
    assert 1 not in [camera.photo for camera in found]
    assert sorted(distances)[1:4] == [distances[camera.photo] for camera in found if camera.photo is not None]
