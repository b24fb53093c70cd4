from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from PIL import Image

from vlmgs_ns.method.photos import PhotoDataset, fit, read_image, resize_mask, resize_photo, shrink_cameras, to_array
from vlmgs_ns.system.errors import InputError


def cameras(*sizes: tuple[int, int]) -> Cameras:
    width, height = (torch.tensor(side).reshape(-1, 1) for side in zip(*sizes, strict=True))
    poses = torch.eye(4)[:3].repeat(len(sizes), 1, 1)
    poses[:, 0, 3] = torch.arange(len(sizes), dtype=torch.float32)
    return Cameras(
        camera_to_worlds=poses,
        fx=width * 1.5,
        fy=height * 1.25,
        cx=width / 2.0,
        cy=height / 3.0,
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )


def dataset(folder: Path, photo: np.ndarray, longest: int = 0, **metadata: object) -> PhotoDataset:
    path = folder / "photo.png"
    Image.fromarray(photo).save(path)
    size = photo.shape[1], photo.shape[0]
    outputs = DataparserOutputs([path], cameras(size), metadata=metadata, mask_filenames=metadata.pop("masks", None))  # type: ignore[arg-type]
    return PhotoDataset(outputs, max_image_size=longest)


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((540, 960), 300, (169, 300)),
        ((960, 540), 300, (300, 169)),
        ((300, 200), 300, (300, 200)),
        ((640, 480), 0, (640, 480)),
        ((1000, 1), 10, (10, 1)),
    ],
)
def test_fit(size: tuple[int, int], longest: int, expected: tuple[int, int]) -> None:
    assert fit(size, longest) == expected


def test_shrinking_cameras_keeps_every_point_in_its_place() -> None:
    original, small = cameras((540, 960), (100, 80), (640, 480)), cameras((540, 960), (100, 80), (640, 480))
    shrink_cameras(small, 300)
    assert small.width.flatten().tolist() == [169, 100, 300]
    assert small.height.flatten().tolist() == [300, 80, 225]
    for focal, centre, side in (("fx", "cx", "width"), ("fy", "cy", "height")):
        before, after = getattr(original, side), getattr(small, side)
        # Relative to the image, focal length and centre are what they were.
        torch.testing.assert_close(getattr(small, focal) / after, getattr(original, focal) / before)
        torch.testing.assert_close(getattr(small, centre) / after, getattr(original, centre) / before)


def test_photos_are_averaged_over_areas(tmp_path: Path) -> None:
    """A checkerboard of single pixels, halved, is grey; picking pixels would leave it black or white."""
    board = np.indices((64, 48)).sum(axis=0) % 2 * 255
    photo = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    data = dataset(tmp_path, photo, longest=32).get_data(0, "uint8")
    assert data["image"].shape == (32, 24, 3) and data["image"].dtype == torch.uint8
    assert (data["image"].int() - 127).abs().max() <= 1


def test_image_and_camera_agree_to_the_pixel(tmp_path: Path) -> None:
    photos = dataset(tmp_path, np.zeros((96, 54, 3), np.uint8), longest=31)
    image = photos.get_data(0)["image"]
    assert image.shape[:2] == (int(photos.cameras.height[0]), int(photos.cameras.width[0])) == (31, 17)
    assert photos.nbytes == 31 * 17 * 3


def test_transparent_pixels_do_not_bleed() -> None:
    photo = np.zeros((2, 2, 4), np.uint8)
    photo[0, 0] = (200, 100, 50, 255)
    photo[1, 1] = (0, 255, 0, 0)  # what an invisible pixel is painted with is nobody's business
    np.testing.assert_array_equal(resize_photo(photo, (1, 1))[0, 0], [200, 100, 50, 64])


def test_masks_keep_pixels_that_are_mostly_kept() -> None:
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    mask[0, 2] = True  # a quarter of its new pixel
    np.testing.assert_array_equal(resize_mask(mask, (2, 2)), [[True, False], [False, False]])


def test_mask_and_depth_come_at_the_photos_size(tmp_path: Path) -> None:
    mask, depth = np.zeros((40, 60), np.uint8), np.full((40, 60), 1500, np.uint16)
    mask[:, :30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(depth).save(tmp_path / "depth.png")
    photos = dataset(
        tmp_path,
        np.zeros((40, 60, 3), np.uint8),
        longest=30,
        masks=[tmp_path / "mask.png"],
        depth_filenames=[tmp_path / "depth.png"],
        depth_unit_scale_factor=1e-3,
    )
    data = photos.get_data(0)
    assert data["image"].shape == (20, 30, 3)
    assert data["mask"].shape == (20, 30, 1) and data["mask"].dtype == torch.bool
    assert data["mask"][:, :15].all() and not data["mask"][:, 15:].any()
    assert data["depth_image"].shape == (20, 30, 1)
    torch.testing.assert_close(data["depth_image"], torch.full((20, 30, 1), 1.5))


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("LA", 4), ("P", 3), ("RGBA", 4), ("RGB", 3), ("CMYK", 3), ("1", 3)])
def test_every_pixel_format_is_rgb_or_rgba(mode: str, channels: int) -> None:
    image = Image.new("RGBA", (3, 2), (255, 255, 255, 255)).convert(mode)
    assert to_array(image).shape == (2, 3, channels) and to_array(image).dtype == np.uint8
    assert (to_array(image)[..., :3] >= 254).all()


def test_sixteen_bit_photos_keep_their_upper_byte(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 0x8FFF, np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(to_array(read_image(tmp_path / "deep.png")), np.full((2, 3, 3), 0x8F))


def test_a_photo_one_pixel_off_is_rounding_and_two_is_an_error(tmp_path: Path) -> None:
    photos = dataset(tmp_path, np.zeros((40, 60, 3), np.uint8))
    Image.new("RGB", (61, 40)).save(tmp_path / "photo.png")
    assert photos.get_data(0)["image"].shape == (40, 60, 3)
    Image.new("RGB", (62, 40)).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match=r"photo\.png is 62 x 40 pixels, but its camera was calibrated at 60 x 40"):
        photos.get_data(0)


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    photos = dataset(tmp_path, np.zeros((4, 4, 3), np.uint8), masks=[tmp_path / "mask.png"])
    with pytest.raises(InputError, match=r"1 of 1 masks .*mask\.png"):
        photos.check_files()
    (tmp_path / "photo.png").unlink()
    with pytest.raises(InputError, match=r"1 of 1 photos .*photo\.png"):
        photos.check_files()
    with pytest.raises(InputError, match="missing"):
        photos.get_data(0)


def test_a_coloured_mask_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "mask.png")
    photos = dataset(tmp_path, np.zeros((4, 4, 3), np.uint8), masks=[tmp_path / "mask.png"])
    with pytest.raises(InputError, match="3 channels"):
        photos.get_data(0)


def test_mask_colour_fills_what_is_masked_out(tmp_path: Path) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[:, :2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    photo = np.full((4, 4, 3), 100, np.uint8)
    photos = dataset(tmp_path, photo, masks=[tmp_path / "mask.png"], mask_color=(1.0, 0.0, 0.0))
    for kind, white in (("uint8", 255), ("float32", 1.0)):
        image = photos.get_data(0, kind)["image"]  # type: ignore[arg-type]
        assert image[0, 3].tolist() == [white, 0, 0]
        assert image[0, 0, 0].item() == pytest.approx(100 / 255 * white)
