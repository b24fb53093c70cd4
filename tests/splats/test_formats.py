"""Files of other viewers, read back by what their formats say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.splats.test_ply import picture, some
from vlmgs_ns.splats.formats import write_compressed_ply, write_splat, write_spz
from vlmgs_ns.splats.ply import C0, Gaussians

VIEW = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]])


def test_a_splat_file_has_32_bytes_a_gaussian_the_greatest_first(tmp_path: Path) -> None:
    scene = some(3)
    scene.scales[:], scene.opacities[:] = torch.log(torch.tensor([[0.5], [2], [1]])), torch.tensor([[0.0], [0], [100]])
    scene.features_dc[0] = torch.tensor([0.25, -100, 100]) / C0
    write_splat(tmp_path / "a.splat", scene)
    content = (tmp_path / "a.splat").read_bytes()
    rows = [content[32 * k : 32 * (k + 1)] for k in range(3)]  # 8 · 0.5, 1 · 1 and 0.125 · 0.5 are volume and opacity
    for row, k in zip(rows, (1, 2, 0), strict=True):
        assert np.frombuffer(row[:12], "<f4").tolist() == scene.means[k].tolist()
        assert np.allclose(np.frombuffer(row[12:24], "<f4"), scene.scales[k].exp())
        quat = torch.nn.functional.normalize(scene.quats[k], dim=0).numpy()
        assert np.abs((np.frombuffer(row[28:], "u1").astype(float) - 128) / 128 - quat).max() < 0.006
    assert list(rows[2][24:28]) == [191, 0, 255, 128] and rows[1][27] == 255 and len(content) == 96


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("far", [1.0, 3000.0])
def test_an_spz_file_looks_alike(tmp_path: Path, degree: int, far: float) -> None:
    gsply = pytest.importorskip("gsply")
    scene = some(degree=degree)
    scene.means[0] *= far
    write_spz(tmp_path / "a.spz", scene)
    found = gsply.read_spz(tmp_path / "a.spz")
    values = (found.means, found.scales, found.quats, found.sh0, found.opacities[:, None])
    *before, opacities = (torch.from_numpy(np.array(value)) for value in values)
    rest = torch.from_numpy(np.array(found.shN)) if degree else torch.zeros(40, 0, 3)
    read = Gaussians(*before, rest, opacities)
    assert read.degree == degree and (read.means - scene.means).abs().max() < max(far, 1) / 2**16
    ours, theirs = (picture(one, VIEW) for one in (read, scene))
    assert (ours - theirs).square().mean() < 0.01 * theirs.var()


def test_a_compressed_ply_of_degree_0(tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply")
    write_compressed_ply(tmp_path / "a.compressed.ply", some(degree=0))
    found = gsply.plyread(tmp_path / "a.compressed.ply")
    nearest = torch.cdist(torch.from_numpy(np.array(found.means)), some().means).amin(dim=1)
    assert len(nearest) == 40 and float(nearest.max()) < 0.01
