from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation

from tests.splats.test_orbit import CENTRE, ring
from vlmgs_ns.rasterize import rasterization
from vlmgs_ns.splats.camera import world_to_camera
from vlmgs_ns.splats.coordinates import harmonics_rotation, in_data_coordinates, in_viewer_coordinates, moved
from vlmgs_ns.splats.ply import Gaussians, read_ply, trained_gaussians, write_ply
from vlmgs_ns.system.errors import InputError

REST = {0: 0, 1: 9, 2: 24, 3: 45}


def write(
    path: Path, count: int = 5, degree: int = 3, text: bool = False, without: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """A file as 3DGS writes it, its columns at random."""
    names = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{k}" for k in range(3)), *(f"f_rest_{k}" for k in range(REST[degree]))]
    names += ["opacity", *(f"scale_{k}" for k in range(3)), *(f"rot_{k}" for k in range(4))]
    names = [name for name in names if name not in without]
    rng = np.random.default_rng(0)
    table = np.zeros(count, dtype=[(name, "f4") for name in names])
    for name in names:
        table[name] = rng.normal(size=count)
    PlyData([PlyElement.describe(table, "vertex")], text=text).write(str(path))
    return {name: table[name] for name in names}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("text", [False, True])
def test_every_column_has_its_place(tmp_path: Path, degree: int, text: bool) -> None:
    columns = write(tmp_path / "a.ply", degree=degree, text=text)
    read = read_ply(tmp_path / "a.ply")
    per_colour = (degree + 1) ** 2 - 1
    assert read.degree == degree and read.features_rest.shape == (5, per_colour, 3)
    assert torch.allclose(read.means[:, 1], torch.from_numpy(columns["y"]))
    assert torch.allclose(read.quats[:, 0], torch.from_numpy(columns["rot_0"]))
    assert torch.allclose(read.scales[:, 2], torch.from_numpy(columns["scale_2"]))
    assert torch.allclose(read.opacities[:, 0], torch.from_numpy(columns["opacity"]))
    if degree:  # all coefficients of red first
        assert torch.allclose(read.features_rest[:, 0, 2], torch.from_numpy(columns[f"f_rest_{2 * per_colour}"]))
        assert torch.allclose(read.features_rest[:, 1, 0], torch.from_numpy(columns["f_rest_1"]))


def test_what_is_no_gaussian_ply(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    with pytest.raises(InputError, match="does not exist"):
        read_ply(path)
    write(path, without=("opacity", "rot_3"))
    with pytest.raises(InputError, match="lacks rot_3, opacity"):
        read_ply(path)
    write(path, without=("f_rest_44",))
    with pytest.raises(InputError, match="44 higher harmonics"):
        read_ply(path)
    write(path, count=0)
    with pytest.raises(InputError, match="holds 0 Gaussians"):
        read_ply(path)
    path.write_bytes(b"PK\x03\x04 a zip, say")
    with pytest.raises(InputError, match="cannot be read"):
        read_ply(path)
    write(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match="cannot be read"):
        read_ply(path)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    write(tmp_path / "a.ply")
    ply = PlyData.read(str(tmp_path / "a.ply"), mmap=False)
    ply["vertex"].data["y"][2:4] = np.nan
    ply.write(str(tmp_path / "a.ply"))
    with pytest.raises(InputError, match="2 of 5 Gaussians have means"):
        read_ply(tmp_path / "a.ply")


def test_turning_harmonics_there_and_back() -> None:
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.4, -1.1, 2.0]).as_matrix())
    turn = harmonics_rotation(rotation, 3)
    assert torch.allclose(turn @ turn.T, torch.eye(16, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(turn @ harmonics_rotation(rotation.T, 3), torch.eye(16, dtype=torch.float64), atol=1e-4)
    assert not torch.allclose(turn, torch.eye(16, dtype=torch.float64), atol=0.1)
    # Degrees do not mix.
    assert turn[1:4, 4:].abs().max() < 1e-4


def picture(gaussians: Gaussians, viewmat: torch.Tensor) -> torch.Tensor:
    image, _, _ = rasterization(
        gaussians.means, gaussians.quats, gaussians.scales.exp(), gaussians.opacities.sigmoid()[:, 0],
        torch.cat([gaussians.features_dc[:, None], gaussians.features_rest], dim=1), viewmat[None],
        torch.tensor([[[30.0, 0, 20], [0, 30, 15], [0, 0, 1]]]), 40, 30, sh_degree=gaussians.degree, near_plane=1e-3,
    )  # fmt: skip
    return image[0]


def some(count: int = 40, degree: int = 3) -> Gaussians:
    g = torch.Generator().manual_seed(1)
    return Gaussians(
        torch.randn(count, 3, generator=g), torch.randn(count, 3, generator=g) * 0.5 - 1.5, torch.randn(count, 4, generator=g),
        torch.randn(count, 3, generator=g), torch.randn(count, (degree + 1) ** 2 - 1, 3, generator=g) * 0.3,
        torch.randn(count, 1, generator=g),
    )  # fmt: skip


def same(a: Gaussians, b: Gaussians, **tolerance: float) -> bool:
    return all(torch.allclose(x, y, **tolerance) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, degree: int) -> None:
    write_ply(tmp_path / "a.ply", some(degree=degree))
    read = read_ply(tmp_path / "a.ply")
    assert read.degree == degree and same(read, some(degree=degree), rtol=0, atol=0)


def test_the_columns_are_those_of_3dgs_in_its_order(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", some())
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{k}" for k in range(45)), "opacity"]
    names += [f"scale_{k}" for k in range(3)] + [f"rot_{k}" for k in range(4)]
    header = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].decode()
    assert header.splitlines() == [
        "ply", "format binary_little_endian 1.0", "element vertex 40", *(f"property float {name}" for name in names)
    ]  # fmt: skip
    vertices = PlyData.read(str(tmp_path / "a.ply"), mmap=False)["vertex"]
    assert not vertices["ny"].any() and np.allclose(vertices["f_rest_15"], some().features_rest[:, 0, 1])  # first of green


def test_colours_without_harmonics_become_harmonics_of_degree_0() -> None:
    """A logit of 0 is middle grey, coefficient 0; a colour c is 0.5 + 0.2820948 · coefficient."""
    parameters = dict(vars(some(3, degree=0)))
    parameters["features_dc"] = torch.tensor([[0.0, 100.0, -100.0]] * 3)
    found = trained_gaussians(parameters, sh_degree=0).features_dc
    assert torch.allclose(found, torch.tensor([0.0, 0.5 / 0.28209479, -0.5 / 0.28209479]).expand(3, 3), atol=1e-5)
    assert torch.equal(trained_gaussians(parameters, sh_degree=3).features_dc, parameters["features_dc"])


def test_what_no_rasteriser_draws() -> None:
    """Opacity 1/255 and finite values."""
    scene = some(6)
    scene.opacities[0], scene.opacities[1] = torch.logit(torch.tensor([1 / 256])), torch.logit(torch.tensor([1 / 254]))
    scene.means[2, 1], scene.features_rest[3, 4, 2], scene.scales[4, 0] = math.nan, math.inf, -math.inf
    assert scene.drawn().tolist() == [False, True, False, False, False, True]
    assert len(scene[scene.drawn()]) == 2 and torch.equal(scene[torch.tensor([5, 1])].means, scene.means[[5, 1]])


def test_back_to_the_coordinates_of_the_data(tmp_path: Path) -> None:
    """There with the dataparser's y = scale · (rotation · x + translation), and back."""
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.3, 0.8, -2.0]).as_matrix())
    translation = torch.tensor([0.5, -1.0, 2.0])
    said = {"transform": torch.cat([rotation, translation[:, None].double()], dim=1).tolist(), "scale": 0.25}
    path = tmp_path / "dataparser_transforms.json"
    path.write_text(json.dumps(said))
    in_run = moved(some(), rotation, translation, 0.25)
    by_hand = 0.25 * (some().means[0].double() @ rotation.T + translation)
    assert torch.allclose(in_run.means[0].double(), by_hand, atol=1e-6)
    back = in_data_coordinates(in_run, path)
    assert torch.allclose(back.means, some().means, atol=1e-5) and torch.allclose(back.scales, some().scales, atol=1e-5)
    signs = torch.sign((back.quats * some().quats).sum(dim=1, keepdim=True))  # q and −q are one orientation
    assert torch.allclose(signs * back.quats, some().quats, atol=1e-5)
    assert torch.allclose(back.features_rest, some().features_rest, atol=1e-3)


EYE = "[[1,0,0,0],[0,1,0,0],[0,0,1,0]]"


@pytest.mark.parametrize(
    "text",
    [
        *(None, "no json", "[]", '{"scale": 1}', '{"transform": [[1, 2], [3]], "scale": 1}'),
        '{"transform": [[-1,0,0,0],[0,1,0,0],[0,0,1,0]], "scale": 1}',
        *(f'{{"transform": {EYE}, "scale": {scale}}}' for scale in ("0", "-1", '"NaN"', "null")),
    ],
)
def test_transforms_that_do_not_say(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "dataparser_transforms.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match="does not hold the transform"):
        in_data_coordinates(some(), path)


def test_a_moved_scene_looks_the_same_from_a_camera_that_moved_along() -> None:
    scene = some()
    viewmat = torch.eye(4)
    viewmat[2, 3] = 4.0
    rotation = torch.from_numpy(Rotation.from_euler("xyz", [0.3, 0.8, -2.0]).as_matrix())
    translation, scale = torch.tensor([0.5, -1.0, 2.0]), 0.25
    # Camera coordinates are scaled as well, which changes no pixel.
    there = torch.eye(4)
    there[:3, :3] = (viewmat[:3, :3].double() @ rotation.T).float()
    there[:3, 3] = scale * (viewmat[:3, 3] - there[:3, :3] @ translation)
    same, other = picture(scene, viewmat), picture(moved(scene, rotation, translation, scale), there)
    assert same.abs().max() > 0.3 and torch.allclose(same, other, atol=2e-3)
    with pytest.raises(ValueError, match="is not a rotation"):
        moved(scene, -torch.eye(3), translation, scale)


def test_as_viewers_take_it_the_scene_stands_upright_around_what_the_photos_look_at() -> None:
    """Photos from a ring above the floor, the whole tilted; one of them is rolled, and none the less up stays up."""
    tilt = torch.from_numpy(Rotation.from_euler("xyz", [1.3, -0.4, 0.8]).as_matrix())
    poses = ring(torch.full((9,), 3.0).double(), torch.full((9,), 1.5).double(), CENTRE)
    roll = torch.from_numpy(Rotation.from_euler("z", 0.2).as_matrix())
    poses[0, :, :3] = poses[0, :, :3] @ roll
    scene = moved(some(), tilt, torch.zeros(3), 1.0)
    scene.means[:2] = torch.stack([tilt @ CENTRE, tilt @ (CENTRE + torch.tensor([0, 0, 2]))]).float()  # and 2 above it
    upright = in_viewer_coordinates(scene, tilt @ poses)
    expected = torch.tensor([[0.0, 0, 0], [0, 2, 0]])
    assert (upright.means[:2] - expected).norm(dim=1).max() < 0.1 and torch.allclose(upright.scales, scene.scales)
    # A photo's picture is that of a camera as high above the origin, as far from it, and level.
    turn = torch.linalg.lstsq(
        (scene.means - scene.means.mean(dim=0)).double(), (upright.means - upright.means.mean(dim=0)).double()
    ).solution.T
    assert torch.allclose(turn @ turn.T, torch.eye(3, dtype=torch.float64), atol=1e-4) and torch.det(turn) > 0
    pose = (tilt @ poses)[3]
    eye = turn @ (pose[:, 3] - scene.means[0]) + upright.means[0]
    axes = turn @ pose[:, :3]
    assert abs(eye[1] - 1.5) < 0.1 and abs(axes[1, 0]) < 0.03 and axes[1, 1] > 0.8
    before, after = (
        world_to_camera(torch.cat([a, e[:, None]], dim=1)[None].float())[0] for a, e in ((pose[:, :3], pose[:, 3]), (axes, eye))
    )
    same, other = picture(scene, before), picture(upright, after)
    assert same.abs().max() > 0.3 and torch.allclose(same, other, atol=2e-3)


HEADER = "ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{properties}end_header\n"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.format(count=1, properties="property float f_rest_x\n"), "cannot be read as .ply"),
        (
            HEADER.format(count=10**12, properties="property float x\nproperty float y\n"),
            "more Gaussians than memory holds|cannot",
        ),
        (HEADER.format(count=1, properties="comment and so on\n" * 600_000), "header does not end within 65536 bytes"),
        ("ply\n", "header does not end"),
    ],
)
def test_a_header_that_promises_too_much_is_one_line(header: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.ply"
    path.write_bytes(header.encode() + b"\0" * 400)
    with pytest.raises(InputError, match=words) as raised:
        read_ply(path)
    assert "\n" not in str(raised.value)
