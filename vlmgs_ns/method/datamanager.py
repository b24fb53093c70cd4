"""Cameras and photos for training: nerfstudio's full-image data manager over scenes of any size, checked before they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager, FullImageDatamanagerConfig

from vlmgs_ns.method import scene_check
from vlmgs_ns.method.machine import choose_cache
from vlmgs_ns.method.photos import PhotoDataset
from vlmgs_ns.system.errors import InputError


@dataclass
class VlmFastGSDatamanagerConfig(FullImageDatamanagerConfig):
    """Photos of at most a given size, from any dataparser."""

    _target: type = field(default_factory=lambda: VlmFastGSDatamanager)
    max_image_size: int = 1600
    """Longest side of a photo in pixels. Larger photos, with masks, depth maps and cameras, are scaled down as they are
    read; 0 keeps every size."""
    cache_images: Literal["auto", "cpu", "gpu"] = "auto"  # type: ignore[assignment]
    """Memory that holds the photos: the training device ("gpu", also where that is a CPU) or pinned memory of the host
    ("cpu"). "auto" chooses by the free memory."""
    cache_images_type: Literal["uint8", "float32"] = "uint8"
    """The type photos are held in; uint8 takes a quarter of the memory."""


class VlmFastGSDatamanager(FullImageDatamanager[PhotoDataset]):
    """Hands out one camera and its photo per step; every camera once before any comes again."""

    config: VlmFastGSDatamanagerConfig  # type: ignore[assignment]

    def __init__(
        self,
        config: VlmFastGSDatamanagerConfig,
        device: torch.device | str = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        if config.data is not None:
            config.dataparser.data = Path(config.data)
        config.dataparser = scene_check.prepare(config.dataparser, photos_needed=test_mode != "inference")
        with scene_check.parsing(config.dataparser):
            super().__init__(config, device, test_mode, world_size, local_rank, **kwargs)

    def create_train_dataset(self) -> PhotoDataset:
        """Return the training photos."""
        outputs = self.train_dataparser_outputs
        scene_check.check_outputs(outputs, self.config.dataparser)
        if len(outputs.image_filenames) == 0:
            raise InputError(
                f"the scene {self.config.dataparser.data} has no photo to train on; "
                "add photos, or use them all with --eval-mode all after the dataparser's name"
            )
        return self._dataset("train")

    def create_eval_dataset(self) -> PhotoDataset:
        """Return the held-out photos."""
        return self._dataset(self.test_split)

    def setup_train(self) -> None:
        """Decode the training photos now, so that a bad one is found before the first step rather than at it."""
        if self.test_mode == "val":
            scene_check.check_points(self.train_dataparser_outputs, self.config.dataparser)
            self.train_dataset.check_files()
            self.eval_dataset.check_files()
            _ = self.cached_train

    def training_view(self, index: int) -> tuple[Cameras, dict[str, torch.Tensor]]:
        """Return one training camera with its photo."""
        camera = self.train_dataset.cameras[index : index + 1].to(self.device)
        camera.metadata = {**(camera.metadata or {}), "cam_idx": index}
        return camera, self.cached_train[index]

    def training_cameras(self) -> Cameras:
        """Return the cameras of all training views, in their order."""
        return self.train_dataset.cameras

    def get_state(self) -> dict[str, Any]:
        """Return the state that decides which camera comes next, in tensors and plain numbers, for a checkpoint."""
        epochs = getattr(self, "train_unsampled_epoch_count", None)
        generator = getattr(self, "random_generator", None)
        return {
            "train_unseen_cameras": list(self.train_unseen_cameras),
            "eval_unseen_cameras": list(self.eval_unseen_cameras),
            "random_generator": None if generator is None else generator.getstate(),
            "train_unsampled_epoch_count": None if epochs is None else torch.from_numpy(np.array(epochs)),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue the order of cameras of a ``get_state``.

        A scene that has other photos now starts a new order.
        """
        cameras = state["train_unseen_cameras"]
        if not cameras or max(cameras) >= len(self.train_dataset):
            return
        self.train_unseen_cameras = list(cameras)
        self.eval_unseen_cameras = [i for i in state["eval_unseen_cameras"] if i < len(self.eval_dataset)]
        if state["random_generator"] is not None:
            version, words, gauss = state["random_generator"]
            self.random_generator.setstate((version, tuple(words), gauss))
        if state["train_unsampled_epoch_count"] is not None:
            self.train_unsampled_epoch_count = state["train_unsampled_epoch_count"].numpy()

    def cache_place(self) -> Literal["cpu", "gpu"]:
        """Return the memory that holds the photos, with "auto" resolved."""
        if torch.device(self.device).type == "cpu":
            return "gpu"  # pinning memory needs a CUDA driver; "gpu" only means that photos stay on the training device
        if self.config.cache_images == "auto":
            return choose_cache(self.device, self.train_dataset.nbytes)
        return self.config.cache_images

    def _load_images(
        self, split: Literal["train", "eval"], cache_images_device: Literal["cpu", "gpu"]
    ) -> list[dict[str, torch.Tensor]]:
        load = cast(Callable[..., list[dict[str, torch.Tensor]]], super()._load_images)
        return load(split, cache_images_device=self.cache_place())

    def _dataset(self, split: str) -> PhotoDataset:
        outputs = self.train_dataparser_outputs if split == "train" else self.dataparser.get_dataparser_outputs(split=split)
        return PhotoDataset(outputs, self.config.camera_res_scale_factor, self.config.max_image_size)
