"""Training photos: validated, limited in size, with cameras that match to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.utils.data_utils import get_depth_image_from_path
from PIL import Image, UnidentifiedImageError

from vlmgs_ns.system.errors import InputError

Array = npt.NDArray[Any]
Size = tuple[int, int]
"""(width, height) in pixels."""


def fit(size: Size, longest: int) -> Size:
    """Scale ``size`` down, in proportion to the nearest pixel, to at most ``longest`` on its longer side; 0 keeps any size."""
    width, height = size
    if longest <= 0 or max(size) <= longest:
        return size
    scale = longest / max(size)
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink_cameras(cameras: Cameras, longest: int) -> None:
    """Scale sizes and intrinsics of ``cameras`` in place so that no image is longer than ``longest`` pixels.

    Width and height are rounded to whole pixels; focal lengths and principal points follow the rounded size per axis, so that
    a point keeps its place relative to the image.
    """
    if longest <= 0 or cameras.size == 0:
        return
    sizes = torch.cat([cameras.width, cameras.height], dim=-1).reshape(-1, 2)
    fitted = torch.tensor([fit((int(w), int(h)), longest) for w, h in sizes.tolist()], dtype=torch.int64)
    scale = (fitted / sizes).to(cameras.fx)
    columns = scale[:, 0].reshape(cameras.fx.shape), scale[:, 1].reshape(cameras.fy.shape)
    cameras.fx, cameras.cx = cameras.fx * columns[0], cameras.cx * columns[0]
    cameras.fy, cameras.cy = cameras.fy * columns[1], cameras.cy * columns[1]
    cameras.width = fitted[:, 0].reshape(cameras.width.shape)
    cameras.height = fitted[:, 1].reshape(cameras.height.shape)


def resize_photo(
    photo: Array,  # [H, W, 3 or 4] uint8
    size: Size,
) -> Array:  # [height, width, 3 or 4] uint8
    """Average each new pixel's area; colours are weighted by alpha, so that nothing bleeds in from transparent pixels."""
    if (photo.shape[1], photo.shape[0]) == size:
        return photo
    if photo.shape[2] == 3:
        return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    alpha = photo[..., 3:].astype(np.float32)
    weighted = cv2.resize(photo[..., :3].astype(np.float32) * alpha, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)[..., None]
    colour = weighted / np.maximum(small, 1e-6)
    return np.rint(np.concatenate([colour, small], axis=-1)).clip(0, 255).astype(np.uint8)


def resize_mask(
    mask: Array,  # [H, W] bool
    size: Size,
) -> Array:  # [height, width] bool
    """Resize a mask: a new pixel is True where at least half of its area is."""
    if (mask.shape[1], mask.shape[0]) == size:
        return mask
    return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5


def read_image(path: Path, what: str = "photo") -> Image.Image:
    """Decode an image file completely.

    Raises:
        InputError: the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise InputError(
            f"the {what} {path} is missing, though the scene's poses name it; put the file back or remove its pose"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(
            f"the {what} {path} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels; make it smaller, and "
            "the intrinsics of its camera in proportion"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"the {what} {path} cannot be decoded ({error}); replace the file or remove its pose") from None


def to_array(image: Image.Image) -> Array:  # [H, W, 3 or 4] uint8
    """Convert any of PIL's pixel formats to RGB or RGBA; 16-bit greys keep their upper byte."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64) >> 8
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return np.array(image.convert("RGBA" if has_alpha else "RGB"))


class PhotoDataset(InputDataset):
    """Photos, masks and depth maps of any dataparser, at most ``max_image_size`` pixels long.

    A photo must have the size that its camera states; one pixel of difference is rounding and is resampled away.
    """

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0, max_image_size: int = 0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        shrink_cameras(self.cameras, max_image_size)
        # Undistortion changes `cameras` later, one photo at a time: what files are read to is fixed here.
        self._stated = _sizes(dataparser_outputs.cameras)
        self._sizes = _sizes(self.cameras)
        self.metadata["camera_positions"] = self.cameras.camera_to_worlds[..., :3, 3].reshape(-1, 3).clone()

    @property
    def nbytes(self) -> int:
        """Memory that all photos take as 8-bit RGB."""
        return sum(3 * width * height for width, height in self._sizes)

    def check_files(self) -> None:
        """Raise InputError where a photo, mask or depth map named by the scene is missing."""
        outputs = self._dataparser_outputs
        groups = {
            "photos": outputs.image_filenames,
            "masks": outputs.mask_filenames,
            "depth maps": outputs.metadata.get("depth_filenames"),
        }
        for what, paths in groups.items():
            missing = [path for path in paths or [] if not Path(path).is_file()]
            if missing:
                raise InputError(
                    f"{len(missing)} of {len(paths or [])} {what} named by the scene are missing, first {missing[0]}; "
                    "put the files back or remove their poses"
                )

    def get_numpy_image(self, image_idx: int) -> npt.NDArray[np.uint8]:
        """The photo of shape [H, W, 3 or 4] at training size."""
        path = self._dataparser_outputs.image_filenames[image_idx]
        image = read_image(path)
        width, height = self._stated[image_idx]
        if max(abs(image.width - width), abs(image.height - height)) > 1:
            raise InputError(
                f"the photo {path} is {image.width} x {image.height} pixels, but its camera was calibrated at "
                f"{width} x {height}; use the photos that the poses were computed from, or correct that camera"
            )
        return resize_photo(to_array(image), self._sizes[image_idx])

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """``image_idx``, ``image`` [H, W, 3 or 4]; where there are any ``mask`` [H, W, 1] bool, ``depth_image`` [H, W, 1]."""
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        data: dict[str, Any] = {"image_idx": image_idx, "image": image}
        if self._dataparser_outputs.mask_filenames is not None:
            data["mask"] = self._mask(image_idx)
        if self.mask_color is not None:
            if "mask" not in data:
                raise InputError(f"mask_color {self.mask_color} is set, but the scene has no masks; leave it unset")
            colour = torch.tensor(self.mask_color) * (255 if image_type == "uint8" else 1)
            data["image"] = torch.where(data["mask"], image[..., :3], colour.to(image.dtype))
        data.update(self.get_metadata(data))
        return data

    def get_metadata(self, data: dict[str, Any]) -> dict[str, Any]:
        """The depth map in scene units, if there is one; nearest pixels, since depths do not average across edges."""
        filenames = self.metadata.get("depth_filenames")
        if not filenames:
            return {}
        index = data["image_idx"]
        width, height = self._sizes[index]
        unit = self.metadata["depth_unit_scale_factor"] * self._dataparser_outputs.dataparser_scale
        try:
            depth = get_depth_image_from_path(filenames[index], height=height, width=width, scale_factor=unit)
        except (AttributeError, OSError, ValueError, cv2.error) as error:
            raise InputError(
                f"the depth map {filenames[index]} cannot be read ({error}); replace it, or remove depth_file_path from the scene"
            ) from None
        return {"depth_image": depth}

    def _mask(self, image_idx: int) -> torch.Tensor:  # [H, W, 1] bool
        assert self._dataparser_outputs.mask_filenames is not None
        path = self._dataparser_outputs.mask_filenames[image_idx]
        mask = np.asarray(read_image(path, "mask"))
        if mask.ndim != 2:
            raise InputError(f"the mask {path} has {mask.shape[-1]} channels; a mask has one: save it as a grey image")
        width, height = self._stated[image_idx]
        if max(abs(mask.shape[1] - width), abs(mask.shape[0] - height)) > 1:
            raise InputError(
                f"the mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, but its photo is {width} x {height}; "
                "make them the same"
            )
        return torch.from_numpy(resize_mask(mask != 0, self._sizes[image_idx]))[..., None]


def _sizes(cameras: Cameras) -> list[Size]:
    return [
        (int(w), int(h)) for w, h in zip(cameras.width.reshape(-1).tolist(), cameras.height.reshape(-1).tolist(), strict=True)
    ]
