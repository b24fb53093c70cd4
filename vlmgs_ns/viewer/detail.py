"""A box that the user drags over the viewer's picture, for more detail there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import viser
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer import Viewer

from vlmgs_ns.viewer.scene import ShownScene

BOX_HEIGHT = 480
"""Height, in pixels, of the picture that a drawn box is of."""
SMALLEST = 0.01
"""Side of a box, as a fraction of the picture, below which it was a click."""

Corners = Sequence[tuple[float, float]]
"""Two opposite corners, as fractions of the picture."""


def await_box(viewer: Viewer, drawn: Callable[[Cameras, Corners], object]) -> str:
    """Call `drawn` with the camera and the corners of the next box that is dragged over a client's picture."""

    def dragged(event: viser.ScenePointerEvent) -> None:
        viewer.viser_server.scene.remove_pointer_callback()
        drawn(get_camera(viewer.get_camera_state(event.client), BOX_HEIGHT), event.screen_pos)

    viewer.viser_server.scene.on_pointer_event("rect-select")(dragged)
    return "Drag a box over what shall be more detailed."


def want_detail(scene: ShownScene, camera: Cameras, corners: Corners) -> str:
    """Want what a box of the picture shows in detail. Raises an InputError where none can be added."""
    (left, right), (top, bottom) = (sorted(min(max(edge, 0.0), 1.0) for edge in edges) for edges in zip(*corners, strict=True))
    if right - left < SMALLEST or bottom - top < SMALLEST:
        return "That box is too small: press More detail here again and drag."
    scene.want_detail(camera, (left, top, right, bottom))
    return "From the next densification on, Gaussians are added there sooner."
