"""Background PSNR against figures worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("nerfstudio")

from vlmgs_ns.bench.measure import masked_psnr
from vlmgs_ns.system.errors import InputError


class Model(torch.nn.Module):
    """Renders zeros, but 0.1 in the left half and 1 in the right half of photos of zeros."""

    def get_outputs_for_camera(self, camera: Any) -> dict[str, torch.Tensor]:
        rgb = torch.full((2, 4, 3), 0.1)
        rgb[:, 2:] = 1.0
        return {"rgb": rgb, "background": torch.zeros(3)}

    def get_gt_img(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def composite_with_background(self, image: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
        return image


def pipeline(names: list[str]) -> Any:
    views = [(None, {"image": torch.zeros(2, 4, 3), "image_idx": k}) for k in range(len(names))]
    dataset = SimpleNamespace(image_filenames=[Path("images") / f"{name}.jpg" for name in names])
    return SimpleNamespace(model=Model(), datamanager=SimpleNamespace(fixed_indices_eval_dataloader=views, eval_dataset=dataset))


def mask(path: Path, columns: list[int]) -> None:
    Image.fromarray(np.tile(np.array(columns, np.uint8), (4, 1))).save(path)


def test_inside_and_outside_of_the_masks(tmp_path: Path) -> None:
    mask(tmp_path / "a.png", [0, 0, 0, 0, 3, 3, 3, 3])  # twice the photo's size
    mask(tmp_path / "b.png", [2, 2, 2, 2, 0, 0, 0, 0])
    mask(tmp_path / "c.png", [1] * 8)
    tested = pipeline(["a"])
    left, right = 20.0, 0.0  # -10 log10(0.1²), and of 1²
    assert masked_psnr(tested, tmp_path, None) == pytest.approx({"object_psnr": right, "background_psnr": left})
    assert tested.model.training, "the model trains on"
    every = masked_psnr(pipeline(["a", "b", "c"]), tmp_path, None)
    whole = -10 * math.log10((0.1**2 + 1) / 2)
    assert every == pytest.approx({"object_psnr": (right + left + whole) / 3, "background_psnr": (left + right) / 2})
    third = masked_psnr(pipeline(["a", "b"]), tmp_path, 3)
    assert third == pytest.approx({"object_psnr": right, "background_psnr": (left + whole) / 2})  # b does not show it


def test_masks_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png cannot be read"):
        masked_psnr(pipeline(["a"]), tmp_path, None)
    mask(tmp_path / "a.png", [1] * 8)
    with pytest.raises(InputError, match="no background in any held-out photo"):
        masked_psnr(pipeline(["a"]), tmp_path, None)
    with pytest.raises(InputError, match="no object in any held-out photo"):
        masked_psnr(pipeline(["a"]), tmp_path, 7)
