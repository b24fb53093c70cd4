"""A box that the user drags over the viewer's picture, for more detail there."""

from __future__ import annotations

from nerfstudio.cameras.cameras import Cameras

from vlmgs_ns.viewer.pointer import Places, corners
from vlmgs_ns.viewer.scene import ShownScene

SMALLEST = 0.01
"""Side of a box, as a fraction of the picture, below which it was a click."""


def want_detail(scene: ShownScene, camera: Cameras, places: Places) -> str:
    """Want what a box of the picture shows in detail. Raises an InputError where none can be added."""
    left, top, right, bottom = corners(places)
    if right - left < SMALLEST or bottom - top < SMALLEST:
        return "That box is too small: press More detail here again and drag."
    scene.want_detail(camera, (left, top, right, bottom))
    return "From the next densification on, Gaussians are added there sooner."
