"""The frame that nerfstudio's dataparser gives a scene by default, in which camera paths of other people's runs are."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from torch import Tensor

from vlmgs_ns.method.finished_run import OpenRun
from vlmgs_ns.system.errors import InputError


class DefaultFrame:
    """A scene's frame of nerfstudio's default dataparser, and the way from there into a run's.

    A dataparser maps x ↦ scale · (R x + t), its ``dataparser_transform`` and ``dataparser_scale``. Cameras go back by one and on
    by the other. What the photos' poses are decides the default frame: it is that of others only with all of their photos.
    """

    def __init__(self, run: OpenRun) -> None:
        self._run = run

    @cached_property
    def _motion(self) -> tuple[Tensor, Tensor, float]:  # [3, 3] rotation, [3] shift, scale
        run, data = self._run.pipeline.datamanager.train_dataparser_outputs, self._run.data
        if not (data / "transforms.json").is_file():
            raise InputError(
                f"the labels are of renders along a camera path, in the frame of {data / 'transforms.json'}, which is missing; "
                "train on the scene's folder with that file"
            )
        default = NerfstudioDataParserConfig(data=Path(data), load_3D_points=False).setup().get_dataparser_outputs("train")
        (back, shift_back), (on, shift_on) = (
            (parsed.dataparser_transform[:, :3].double(), parsed.dataparser_transform[:, 3].double()) for parsed in (default, run)
        )
        scale = float(run.dataparser_scale) / float(default.dataparser_scale)
        rotation = on @ back.T
        return rotation, float(run.dataparser_scale) * (shift_on - rotation @ shift_back), scale

    def camera(
        self,
        camera_to_world: Tensor,  # [3, 4] OpenGL axes, in the default frame
        fov: float,
        width: int,
        height: int,
    ) -> Cameras:
        """Return a camera in the run's frame.

        Args:
            fov: vertical, in degrees.

        Raises:
            InputError: the scene has no transforms.json, which the default frame is made of.
        """
        rotation, shift, scale = self._motion
        pose = camera_to_world.double()
        moved = torch.cat([rotation @ pose[:, :3], (scale * (rotation @ pose[:, 3]) + shift)[:, None]], dim=1).float()
        focal = height / 2 / torch.tan(torch.deg2rad(torch.tensor(fov)) / 2)
        return Cameras(moved[None], focal, focal, width / 2, height / 2, width, height)
