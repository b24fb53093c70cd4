"""Marks on photos as they are on disk, in the views of training: undistorted and smaller, as nerfstudio does it to the photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.datamanagers.full_images_datamanager import _undistort_image

from tests.method.test_guided_scene import scene, views  # noqa: F401
from vlmgs_ns.guidance.config import GuidanceConfig
from vlmgs_ns.guidance.training_scene import Viewpoint
from vlmgs_ns.method.datamanager import VlmFastGSDatamanager
from vlmgs_ns.method.guided_scene import GuidedScene
from vlmgs_ns.method.marked_photos import as_trained, marked_views
from vlmgs_ns.system.errors import InputError

WIDTH, HEIGHT = 160, 120


def camera(kind: CameraType, distortion: list[float]) -> Cameras:
    return Cameras(
        torch.eye(4)[None, :3], 150.0, 140.0, 83.0, 57.0, WIDTH, HEIGHT, torch.tensor([distortion]), kind
    )  # fmt: skip


def blobs() -> np.ndarray:  # [H, W] bool
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return ((x - 30) ** 2 + (y - 90) ** 2 < 400) | ((abs(x - 120) < 18) & (abs(y - 30) < 25))


@pytest.mark.parametrize(
    ("kind", "distortion"),
    [
        (CameraType.PERSPECTIVE, [0.0] * 6),
        (CameraType.PERSPECTIVE, [0.12, -0.05, 0.01, 0.0, 0.004, -0.006]),
        (CameraType.FISHEYE, [0.08, -0.02, 0.004, 0.001, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("size", [WIDTH, 80])
def test_a_mask_goes_the_way_of_its_photo(kind: CameraType, distortion: list[float], size: int) -> None:
    taken = camera(kind, distortion)
    photo = np.repeat((255 * blobs()).astype(np.uint8)[..., None], 3, axis=2)
    K, image, _ = _undistort_image(
        taken[0], np.array(distortion), {}, photo, taken.get_intrinsics_matrices()[0].numpy().astype(np.float64)
    )
    view = Viewpoint(torch.eye(4)[:3], torch.from_numpy(K).float(), image.shape[1], image.shape[0], photo=0).within(size)
    ours = as_trained(blobs(), taken[0], view)
    rows = (np.arange(view.height) * image.shape[0] / view.height + image.shape[0] / view.height / 2).astype(int)
    columns = (np.arange(view.width) * image.shape[1] / view.width + image.shape[1] / view.width / 2).astype(int)
    theirs = image[rows][:, columns, 0] > 127
    assert ours.shape == (view.height, view.width) and theirs.any()
    assert (ours != theirs).mean() < 0.01 and (ours & theirs).sum() / (ours | theirs).sum() > 0.95


def test_masks_of_another_size_are_of_the_whole_photo() -> None:
    taken = camera(CameraType.PERSPECTIVE, [0.0] * 6)
    view = Viewpoint(torch.eye(4)[:3], taken.get_intrinsics_matrices()[0], WIDTH, HEIGHT, photo=0)
    twice = blobs().repeat(2, 0).repeat(2, 1)
    assert np.array_equal(as_trained(twice, taken[0], view), blobs())
    assert np.array_equal(as_trained(blobs(), taken[0], view), blobs())


def test_boxes_are_marks_in_the_views_of_their_photos(views: VlmFastGSDatamanager, tmp_path: Path) -> None:  # noqa: F811
    names = [Path(file).name for file in views.train_dataset.image_filenames]
    held_out = Path(views.eval_dataset.image_filenames[0]).name
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({names[3]: [[32, 24, 96, 72]], names[5]: [], held_out: [[0, 0, 10, 10]]}))
    points = GuidedScene.viewpoints(_scene(views))
    marked = marked_views(GuidanceConfig(instruct_boxes=path), views, points)
    assert [view.viewpoint.photo for view in marked] == [3, 5] and not marked[1].mask.any()
    expected = torch.zeros(48, 64, dtype=torch.bool)
    expected[12:36, 16:48] = True
    assert torch.equal(marked[0].mask, expected)
    path.write_text(json.dumps({held_out: [[0, 0, 10, 10]]}))
    with pytest.raises(InputError, match="is in no training photo"):
        marked_views(GuidanceConfig(instruct_boxes=path), views, points)


def _scene(views: VlmFastGSDatamanager) -> GuidedScene:  # noqa: F811
    class OnTheCpu:
        device = torch.device("cpu")

    return GuidedScene(OnTheCpu(), views, 64)  # type: ignore[arg-type]
