"""The frame of a .ply is the one in which it looks like the photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from vlmgs_ns.method.ply_frame import choose_frame, likeness
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.coordinates import moved
from vlmgs_ns.splats.ply import Gaussians
from vlmgs_ns.system.errors import InputError

FILE = Path("some.ply")


def cloud(seed: int) -> Gaussians:
    """A ball of coloured blobs about the origin, with colours that depend on the direction."""
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=0.5 * torch.randn(300, 3, generator=g), scales=torch.full((300, 3), -2.0), quats=torch.randn(300, 4, generator=g),
        features_dc=torch.randn(300, 3, generator=g), features_rest=0.2 * torch.randn(300, 3, 3, generator=g),
        opacities=torch.full((300, 1), 3.0),
    )  # fmt: skip


class Photos:
    """Photos of a cloud, from four sides, at twice the size that is compared."""

    def __init__(self, gaussians: Gaussians) -> None:
        self.gaussians = gaussians

    def __len__(self) -> int:
        return 4

    def camera(self, index: int) -> Pinhole:
        viewmat = torch.eye(4)
        viewmat[:3, :3] = torch.from_numpy(Rotation.from_euler("y", 90 * index, degrees=True).as_matrix()).float()
        viewmat[2, 3] = 3.0
        return Pinhole(viewmat, torch.tensor([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]]), 320, 240)

    def photo(self, index: int) -> Tensor:
        one, camera = self.gaussians, self.camera(index)
        colours = torch.cat([one.features_dc[:, None], one.features_rest], dim=1)
        picture, _, _ = rasterization(
            one.means, one.quats, one.scales.exp(), one.opacities.sigmoid()[:, 0], colours, camera.viewmat[None], camera.K[None],
            camera.width, camera.height, sh_degree=1,
        )  # fmt: skip
        return (picture[0].clamp(0, 1) * 255).round().to(torch.uint8)

    def mask(self, index: int) -> None:
        """All pixels count."""


def test_the_frame_that_looks_like_the_photos_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    right, turn = cloud(0), torch.from_numpy(Rotation.from_euler("xyz", [20, 70, -40], degrees=True).as_matrix()).float()
    wrong = moved(right, turn, torch.tensor([0.3, 0.2, 0.0]), 0.7)
    photos = Photos(right)
    assert likeness(right, photos) > 0.97 and likeness(wrong, photos) < 0.5
    assert choose_frame({"data": wrong, "nerfstudio": right}, photos, FILE) is right
    assert "some.ply is in the nerfstudio frame" in capsys.readouterr().out
    assert choose_frame({"data": right, "nerfstudio": wrong}, photos, FILE) is right
    assert "some.ply is in the data frame" in capsys.readouterr().out


def test_gaussians_of_another_scene_are_refused() -> None:
    other = replace(cloud(1), features_dc=-cloud(1).features_dc)
    behind = replace(other, means=other.means + torch.tensor([0.0, 50.0, 0.0]))
    with pytest.raises(InputError, match=r"neither frame .*data -?\d.*nerfstudio -?\d.*--load-ply-frame"):
        choose_frame({"data": other, "nerfstudio": behind}, Photos(cloud(0)), FILE)
