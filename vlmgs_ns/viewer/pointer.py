"""A place or a box that the user points at on the viewer's picture.

viser 0.2.7 reports no modifier keys, and keeps the camera still while it waits for the pointer: so each click or box is asked for
by a button, which also says what is done with it, and the camera is free again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import viser
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer import Viewer

HEIGHT = 480
"""Height, in pixels, of the picture that is pointed at."""

Places = Sequence[tuple[float, float]]
"""The place of a click, or two opposite corners of a box, as fractions of the picture."""


def await_pointer(
    viewer: Viewer, kind: Literal["click", "rect-select"], pointed: Callable[[Cameras, Places, int], object]
) -> None:
    """Call `pointed` with the camera, the places and the client's number of the next click on a client's picture, or of the next
    box that is dragged over it."""

    def done(event: viser.ScenePointerEvent) -> None:
        viewer.viser_server.scene.remove_pointer_callback()
        pointed(get_camera(viewer.get_camera_state(event.client), HEIGHT), event.screen_pos, event.client_id)

    viewer.viser_server.scene.on_pointer_event(kind)(done)


def corners(places: Places) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a box within the picture."""
    (left, right), (top, bottom) = (sorted(min(max(edge, 0.0), 1.0) for edge in edges) for edges in zip(*places, strict=True))
    return left, top, right, bottom
