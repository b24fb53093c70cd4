"""Depth by agreement of photos, on a picture that is really rendered: a textured wall, and a nearer board in front of it."""

from __future__ import annotations

import math

import pytest
import torch

from vlmgs_ns.densify import photo_depth as photo_depth_module
from vlmgs_ns.densify.photo_depth import Neighbour, best_depth, photo_depth
from vlmgs_ns.rasterize.threads import get_num_threads, set_num_threads

WIDTH, HEIGHT, FOCAL = 80, 60, 70.0
K = torch.tensor([[FOCAL, 0.0, WIDTH / 2], [0.0, FOCAL, HEIGHT / 2], [0.0, 0.0, 1.0]])
WALL, BOARD = 4.0, 2.0
DEPTHS = 1 / torch.linspace(1 / 1.2, 1 / 8.0, 60)


def texture(x: torch.Tensor, y: torch.Tensor, phase: float) -> torch.Tensor:  # [..., 3]
    waves = [torch.sin(f * x + phase) * torch.cos(1.3 * f * y - phase) for f in (5.0, 8.3, 13.1)]
    return 0.5 + 0.2 * torch.stack([waves[0] + waves[1], waves[1] + waves[2], waves[2] - waves[0]], dim=-1)


def picture(x0: float, y0: float, plain: bool = False) -> torch.Tensor:  # [H, W, 3]
    """From (x0, y0, 0) looking along z: a wall at WALL, and a board over |x|, |y| < 0.4 at BOARD."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    dx, dy = (columns - WIDTH / 2) / FOCAL, (rows - HEIGHT / 2) / FOCAL
    near_x, near_y = x0 + BOARD * dx, y0 + BOARD * dy
    on_board = (near_x.abs() < 0.4) & (near_y.abs() < 0.4)
    wall = texture(x0 + WALL * dx, y0 + WALL * dy, 0.0)
    board = texture(2 * near_x, 2 * near_y, 1.0)
    shown = torch.where(on_board[..., None], board, wall)
    return torch.full_like(shown, 0.5) if plain else shown


def pose(x0: float, y0: float) -> torch.Tensor:
    matrix = torch.eye(4)
    matrix[:2, 3] = torch.tensor([x0, y0])
    return matrix


def neighbours(plain: bool = False) -> list[Neighbour]:
    places = [(-0.3, 0.0), (0.3, 0.05), (0.0, 0.3), (0.05, -0.3)]
    return [Neighbour(picture(x, y, plain), K, pose(x, y)) for x, y in places]


def test_wall_and_board_are_found_at_their_depths() -> None:
    pixels = torch.cartesian_prod(torch.arange(4, HEIGHT - 4, 3), torch.arange(4, WIDTH - 4, 3))
    found = photo_depth(pixels, picture(0, 0), K, pose(0, 0), neighbours(), DEPTHS)
    x, y = (pixels[:, 1] + 0.5 - WIDTH / 2) / FOCAL * BOARD, (pixels[:, 0] + 0.5 - HEIGHT / 2) / FOCAL * BOARD
    inside = (x.abs() < 0.3) & (y.abs() < 0.3)
    outside = (x.abs() > 0.5) | (y.abs() > 0.5)
    for where, depth in ((inside, BOARD), (outside, WALL)):
        known = found[where][found[where].isfinite()]
        assert len(known) > 0.6 * where.sum()
        assert ((known - depth).abs() < 0.06 * depth).float().mean() > 0.95


def test_a_plain_wall_gives_no_depth() -> None:
    pixels = torch.tensor([[30, 40], [10, 20]])
    assert photo_depth(pixels, picture(0, 0, True), K, pose(0, 0), neighbours(True), DEPTHS).isnan().all()


def test_photos_of_something_else_give_no_depth() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [Neighbour(torch.rand(HEIGHT, WIDTH, 3, generator=generator), n.K, n.camera_to_world) for n in neighbours()]
    pixels = torch.cartesian_prod(torch.arange(4, HEIGHT - 4, 4), torch.arange(4, WIDTH - 4, 4))
    assert photo_depth(pixels, picture(0, 0), K, pose(0, 0), noise, DEPTHS).isfinite().float().mean() < 0.02


@pytest.mark.parametrize(
    ("pixels", "others"), [(torch.zeros(0, 2, dtype=torch.long), neighbours()), (torch.tensor([[5, 5]]), [])]
)
def test_nothing_to_compare_gives_nothing(pixels: torch.Tensor, others: list[Neighbour]) -> None:
    found = photo_depth(pixels, picture(0, 0), K, pose(0, 0), others, DEPTHS)
    assert len(found) == len(pixels) and not found.isfinite().any()


def test_stripes_that_fit_at_several_depths_give_none() -> None:
    """Neighbours to the left and right of a wall of stripes: shifting by a whole period fits as well."""

    def striped(x0: float) -> torch.Tensor:
        columns = (torch.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL
        stripes = 0.5 + 0.4 * torch.sin((x0 + WALL * columns) * 2 * math.pi / 0.3)
        return stripes[None, :, None].expand(HEIGHT, WIDTH, 3).contiguous()

    others = [Neighbour(striped(x), K, pose(x, 0)) for x in (-0.6, -0.3, 0.3, 0.6)]
    pixels = torch.cartesian_prod(torch.arange(10, HEIGHT - 10, 10), torch.arange(20, WIDTH - 20, 3))
    found = photo_depth(pixels, striped(0), K, pose(0, 0), others, DEPTHS)
    assert found.isfinite().float().mean() < 0.05


def test_photos_of_another_brightness_do_not_agree() -> None:
    pixels = torch.cartesian_prod(torch.arange(4, HEIGHT - 4, 3), torch.arange(4, WIDTH - 4, 3))
    found = {}
    for brightness in (0.0, 0.15):
        contrasty = [Neighbour(3 * n.photo - 1 + brightness, n.K, n.camera_to_world) for n in neighbours()]
        found[brightness] = photo_depth(pixels, 3 * picture(0, 0) - 1, K, pose(0, 0), contrasty, DEPTHS).isfinite().float().mean()
    assert found[0.0] > 0.4 and found[0.15] < 0.02


def test_what_a_single_neighbour_cannot_see_does_not_count() -> None:
    behind = [Neighbour(n.photo, n.K, n.camera_to_world @ torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))) for n in neighbours()]
    assert photo_depth(torch.tensor([[30, 40]]), picture(0, 0), K, pose(0, 0), behind, DEPTHS).isnan().all()


def test_the_kernel_costs_what_torch_does() -> None:
    """Pixels at the picture's edge, neighbours of another size and one that looks away included; depths of each pixel's own."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.cartesian_prod(torch.arange(0, HEIGHT, 3), torch.arange(0, WIDTH, 5))
    small = picture(0.1, 0.1)[:40, :50].contiguous()
    turned = pose(0.2, 0.0) @ torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    others = [*neighbours()[:3], Neighbour(small, K, pose(0.1, 0.1)), Neighbour(picture(0.2, 0.0), K, turned)]
    tilted = pose(0.0, 0.0)
    tilted[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.1, 0.2], [0.1, 0.0, -0.05], [-0.2, 0.05, 0.0]]))
    for depths in (DEPTHS[None], 1 + 5 * torch.rand(len(pixels), 7, generator=generator)):
        rays, wanted = photo_depth_module._patches(pixels, picture(0, 0), K)
        ours, slow = (
            by(rays, wanted, tilted, others, depths)
            for by in (photo_depth_module._costs_by_kernel, photo_depth_module._costs_by_torch)
        )
        assert torch.equal(ours.isinf(), slow.isinf()) and 0.2 < ours.isfinite().float().mean() < 1
        assert torch.allclose(ours[ours.isfinite()], slow[slow.isfinite()], atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_bits_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    pixels, count = torch.cartesian_prod(torch.arange(HEIGHT), torch.arange(0, WIDTH, 4)), get_num_threads()
    arguments = (pixels, picture(0, 0), K, pose(0, 0), neighbours(), DEPTHS)
    expected = photo_depth(*arguments)
    set_num_threads(threads)
    try:
        assert torch.equal(photo_depth(*arguments).nan_to_num(-1), expected.nan_to_num(-1))
    finally:
        set_num_threads(count)


def test_the_best_depth_by_hand() -> None:
    """Costs on a parabola in inverse depth: its lowest point, whether depths rise or fall; at the range's end, the end's."""
    inverse = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    costs = (inverse - 0.33).square()[None]
    assert torch.allclose(best_depth(1 / inverse[None], costs), torch.tensor([1 / 0.33]))
    assert torch.allclose(best_depth(1 / inverse.flip(0)[None], costs.flip(1)), torch.tensor([1 / 0.33]))
