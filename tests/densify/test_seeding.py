"""Sparse starts: where Gaussians begin."""

from __future__ import annotations

import math

import pytest
import torch

from tests.rasterize.scenes import pinhole
from vlmgs_ns.densify.seeding import ambient_shell, camera_extent, ray_points, uniform_points
from vlmgs_ns.rasterize import rasterization


def ellipsoid(count: int, a: float, b: float, c: float, turn: float, centre: tuple[float, float, float]) -> torch.Tensor:
    """Points on an ellipsoid with half axes a, b (horizontal, turned by `turn` about z) and c (vertical)."""
    g = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1) * torch.tensor([a, b, c])
    s, k = math.sin(turn), math.cos(turn)
    return unit @ torch.tensor([[k, s, 0.0], [-s, k, 0.0], [0.0, 0.0, 1.0]]) + torch.tensor(centre)


def test_extent_by_hand() -> None:
    centre, extent = camera_extent(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 2.0, 0], [0, -2.0, 0]]))
    assert centre.tolist() == [0, 0, 0] and math.isclose(extent, 2.2, rel_tol=1e-6)


def test_uniform_points_fill_their_cube_and_nothing_else() -> None:
    torch.manual_seed(0)
    centre = torch.tensor([5.0, -1.0, 2.0])
    points = uniform_points(4000, centre, 0.5)
    assert (points - centre).abs().max() <= 0.5 and (points - centre).abs().amax(0).min() > 0.49
    assert (points.mean(0) - centre).abs().max() < 0.02 and (points.std(0) - 1 / math.sqrt(12)).abs().max() < 0.01


def test_shell_has_the_right_axes_radii_and_height() -> None:
    """A cloud of known half axes 3 and 1, turned by 0.5 rad: the shell is that ellipse times 1.2, and 40 % taller."""
    turn, centre = 0.5, (4.0, -2.0, 1.0)
    shell = ambient_shell(ellipsoid(20000, 3.0, 1.0, 0.8, turn, centre))
    local = (shell.means - torch.tensor(centre)) @ torch.tensor(
        [[math.cos(turn), -math.sin(turn), 0.0], [math.sin(turn), math.cos(turn), 0.0], [0.0, 0.0, 1.0]]
    )
    on_ellipse = (local[:, 0] / 3.6) ** 2 + (local[:, 1] / 1.2) ** 2
    assert (on_ellipse - 1).abs().max() < 0.05
    top = local[:, 2].abs().max() + shell.scales[0, 2]  # the uppermost row lies half a cell inside
    assert abs(float(top) - 0.8 * 1.4) < 0.03
    assert 0.9 * 5000 <= len(shell.means) <= 5000
    assert (shell.colors == 0.5).all()


def test_shell_leaves_no_gap() -> None:
    """Every point of the surface is within one standard deviation, along each side, of some Gaussian's centre."""
    shell = ambient_shell(ellipsoid(5000, 2.0, 1.0, 0.5, 0.0, (0.0, 0.0, 0.0)), count=800)
    g = torch.Generator().manual_seed(1)
    angle = torch.rand(3000, generator=g) * 2 * math.pi
    level = (torch.rand(3000, generator=g) - 0.5) * 2 * (float(shell.means[:, 2].max()) + float(shell.scales[0, 2]))
    radii = shell.means[:, :2].abs().amax(0)
    surface = torch.stack([radii[0] * torch.cos(angle), radii[1] * torch.sin(angle), level], 1)
    offset = surface[:, None] - shell.means[None]
    horizontal, vertical = offset[..., :2].norm(dim=-1), offset[..., 2].abs()
    near = (horizontal <= 1.05 * shell.scales[:, 1]) & (vertical <= 1.01 * shell.scales[:, 2])
    assert near.any(dim=1).float().mean() > 0.99


def test_shell_gaussians_lie_flat_against_it() -> None:
    """The thin axis, local x, points along the ellipse's normal; a circle's normal is its radius."""
    shell = ambient_shell(ellipsoid(5000, 1.0, 1.0, 0.5, 0.0, (0.0, 0.0, 0.0)), count=500)
    w, _, _, z = shell.quats.unbind(1)
    axis = torch.stack([w * w - z * z, 2 * w * z], 1)
    outward = torch.nn.functional.normalize(shell.means[:, :2], dim=1)
    assert ((axis * outward).sum(1) > 0.99).all()
    assert (shell.scales.argmin(dim=1) == 0).all()


def test_the_subject_is_seen_from_inside_and_the_shell_hides_the_rest() -> None:
    """A camera between subject and shell sees subject and shell; the shell leaves hardly a transparent pixel."""
    subject = ellipsoid(2000, 0.5, 0.5, 0.5, 0.0, (0.0, 0.0, 0.0))
    wide = torch.cat([subject, torch.tensor([[4.0, 0, 0], [-4.0, 0, 0], [0, 4.0, 0], [0, -4.0, 0.0]])])
    shell = ambient_shell(wide, count=5000, padding=3.0)
    means = torch.cat([shell.means, subject])
    n, m = len(shell.means), len(subject)
    scales = torch.cat([shell.scales, torch.full((m, 3), 0.05)])
    quats = torch.cat([shell.quats, torch.tensor([[1.0, 0, 0, 0]]).repeat(m, 1)])
    colors = torch.cat([shell.colors, torch.tensor([[1.0, 0, 0]]).repeat(m, 1)])
    # at (2.5, 0, 0), looking towards -x: right = +y, down = -z
    rotation = torch.tensor([[0.0, 1, 0], [0.0, 0, -1], [-1.0, 0, 0]])
    view = torch.eye(4)
    view[:3, :3], view[:3, 3] = rotation, -rotation @ torch.tensor([2.5, 0.0, 0.0])
    image, alphas, _ = rasterization(
        means, quats, scales, torch.full((n + m,), 0.9), colors, view[None], pinhole(64, 32, 60.0), 64, 32
    )
    assert image[0, 16, 32, 0] > 0.9 and image[0, 16, 32, 1] < 0.1  # red subject in the middle
    assert (image[0, 16, 4] - 0.5).abs().max() < 0.08  # grey shell beside it
    assert alphas.min() > 0.85


@pytest.mark.parametrize(
    ("points", "count", "words"), [(torch.zeros(5, 3), 500, "one vertical line"), (torch.randn(9, 3), 3, "gaps")]
)
def test_impossible_shells_are_one_error(points: torch.Tensor, count: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ambient_shell(points, count)


def test_points_of_pixels_by_hand() -> None:
    """At (1, 2, 3), looking along the world's x (right = -y, down = -z): what is straight ahead, and a pixel right of it."""
    pose = torch.eye(4)
    pose[:3, :3] = torch.tensor([[0.0, 0, 1], [-1.0, 0, 0], [0.0, -1, 0]])
    pose[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    K = torch.tensor([[10.0, 0, 4.5], [0, 20.0, 2.5], [0, 0, 1]])
    points = ray_points(torch.tensor([[2, 4], [2, 9], [4, 4]]), torch.tensor([2.0, 4.0, 10.0]), K, pose)
    assert torch.allclose(points, torch.tensor([[3.0, 2, 3], [5.0, 0, 3], [11.0, 2, 2]]))


def test_points_of_pixels_are_seen_in_those_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    pose = torch.eye(4)
    pose[:3, :3] = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    pose[:3, 3] = torch.randn(3, generator=generator)
    K = pinhole(64, 32, 60.0)[0]
    pixels = torch.stack([torch.randint(32, (50,), generator=generator), torch.randint(64, (50,), generator=generator)], 1)
    depth = 1 + torch.rand(50, generator=generator)
    local = torch.cat([ray_points(pixels, depth, K, pose), torch.ones(50, 1)], 1) @ pose.inverse().T
    seen = local[:, :3] @ K.T
    assert torch.allclose(local[:, 2], depth, atol=1e-5)
    assert torch.allclose(seen[:, :2] / depth[:, None], pixels.flip(1) + 0.5, atol=1e-3)
    assert ray_points(pixels[:0], depth[:0], K, pose).shape == (0, 3)
