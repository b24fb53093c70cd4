"""Where the clients of the viewer look from: at first where a photo was taken, then, on request, at what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import viser
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO, Viewer
from torch import Tensor

from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.system.spacing import evenly_spaced
from vlmgs_ns.viewer.scene import ShownScene
from vlmgs_ns.words.box import oriented_box
from vlmgs_ns.words.question import share_in_picture

NEAREST = 0.2
"""Least distance, in scene units, of the point that a client turns about."""
LEAST_SEEN = 0.05
"""Share of a selection's mass in the picture below which it lies outside."""
MOST_PHOTOS, SIDE = 12, 128
"""Photos that are compared for the best view of a selection, and the longer side in pixels of the pictures for that."""
FILLED = 0.5
"""Share of the picture's height that a selection fills, where it can be approached so far."""


class Lookout:
    """Cameras of a viewer's clients in a scene."""

    def __init__(self, scene: ShownScene, viewer: Viewer) -> None:
        self._scene, self._viewer = scene, viewer

    def clients(self, client: int | None) -> list[viser.ClientHandle]:
        """Return the client of that number; all, where it is None or gone."""
        clients = self._viewer.viser_server.get_clients()
        return [clients[client]] if client in clients else list(clients.values())

    def start(self, client: viser.ClientHandle) -> None:
        """Have a client look upright from where the first photo was taken, as wide and in the same direction."""
        camera = self._photos()[0:1]
        position, forward = camera.camera_to_worlds[0, :, 3], -camera.camera_to_worlds[0, :, 2]
        middle = self._scene.splats().means.median(dim=0).values.cpu()
        distance = max(NEAREST, float((middle - position) @ forward))
        _look(client, position, position + distance * forward, _field_of_view(camera))

    def sees(
        self,
        mask: Tensor,  # [N] bool
        clients: Sequence[viser.ClientHandle],
    ) -> bool:
        """Whether any of the clients has these Gaussians in its picture, be they hidden behind others or not."""
        chosen = self._scene.splats()[mask]
        cameras = (get_camera(self._viewer.get_camera_state(client), SIDE) for client in clients)
        return any(share_in_picture(chosen, self._scene.pinhole(camera)) >= LEAST_SEEN for camera in cameras)

    @torch.no_grad()
    def go_to(
        self,
        mask: Tensor,  # [N] bool
        clients: Sequence[viser.ClientHandle],
    ) -> None:
        """Have clients look at these Gaussians, one at least, from the photo that shows most of them, or nearer."""
        splats = self._scene.splats()
        box = oriented_box(splats[mask])
        centre, radius = box.centre.cpu(), float(box.size.norm()) / 2
        photos = self._photos()
        numbers = evenly_spaced(len(photos), MOST_PHOTOS)
        best = max(numbers, key=lambda number: self._shown(mask, photos[number : number + 1]))
        camera = photos[best : best + 1]
        apart = camera.camera_to_worlds[0, :, 3] - centre
        wide = _field_of_view(camera)
        distance = min(float(apart.norm()), radius / FILLED / math.sin(wide / 2))
        for client in clients:
            _look(client, centre + distance * apart / apart.norm(), centre, wide)

    def _photos(self) -> Cameras:
        cameras: Cameras = self._viewer.pipeline.datamanager.train_dataset.cameras  # type: ignore[union-attr]
        return cameras

    def _shown(self, mask: Tensor, camera: Cameras) -> float:
        """Return the share of a photo that these Gaussians cover, less where its edges cut them."""
        splats, small = self._scene.splats(), self._scene.pinhole(camera).within(SIDE)
        picture, _ = blend(splats, small, mask[:, None].to(splats.means), min_radius=0.0)
        return float(picture.mean()) * share_in_picture(splats[mask], small)


def _field_of_view(camera: Cameras) -> float:
    """Vertical, in radians."""
    return 2 * math.atan(float(camera.height) / 2 / float(camera.fy))


def _look(client: viser.ClientHandle, position: Tensor, target: Tensor, wide: float) -> None:
    """Set a client's camera; its up direction stays, so that the scene stays upright."""
    with client.atomic():
        client.camera.fov = wide
        client.camera.position = position.double().numpy() * VISER_NERFSTUDIO_SCALE_RATIO
        client.camera.look_at = target.double().numpy() * VISER_NERFSTUDIO_SCALE_RATIO
