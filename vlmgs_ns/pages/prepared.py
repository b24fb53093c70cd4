"""The page of a scene that `vlmgs prepare` wrote: how well the cameras are known, and where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vlmgs_ns.evaluation.overlays import Picture
from vlmgs_ns.pages.page import render
from vlmgs_ns.prepare.outcome import Outcome
from vlmgs_ns.system.atomic import replacing

if TYPE_CHECKING:
    import pycolmap

PAGE = "prepare.html"
SIZE = 900
"""Side of the plan in pixels."""
SHOWN = 0.98
"""Part of the points that the plan shows; those farther out are left out."""


def write_prepared(scene: Path, outcome: Outcome) -> None:
    """Write the page of a scene into its folder."""
    import pycolmap

    text = render(
        "prepared.html", name=scene.name, outcome=outcome, plan=plan(pycolmap.Reconstruction(scene / "colmap" / "sparse" / "0"))
    )
    with replacing(scene / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")


def plan(model: pycolmap.Reconstruction) -> Picture:  # [SIZE, SIZE, 3]
    """Draw a scene from above, z up: points in their colours, cameras as wedges that open where they look."""
    poses = [image.cam_from_world().inverse().matrix() for image in model.images.values()]
    places = np.stack([pose[:2, 3] for pose in poses])
    looks = np.stack([pose[:2, 2] for pose in poses])
    points = np.array([point.xyz[:2] for point in model.points3D.values()]).reshape(-1, 2)
    colours = np.array([point.color for point in model.points3D.values()], dtype=np.uint8).reshape(-1, 3)
    centre = np.median(np.concatenate([places, points]), axis=0)
    reach = max(
        float(np.quantile(np.abs(points - centre), SHOWN, axis=0).max(initial=0)), float(np.abs(places - centre).max()), 1e-9
    )
    scale = 0.46 * SIZE / reach
    picture = np.full((SIZE, SIZE, 3), 250, np.uint8)

    def pixel(at: np.ndarray) -> np.ndarray:  # [N, 2] world -> [N, 2] column, row
        return np.rint((at - centre) * (scale, -scale) + SIZE / 2).astype(np.int64)

    spots = pixel(points)
    inside = ((spots >= 1) & (spots < SIZE - 1)).all(1)
    for shift in ((0, 0), (0, 1), (1, 0)):
        picture[spots[inside, 1] + shift[0], spots[inside, 0] + shift[1]] = colours[inside]
    length = 0.035 * SIZE / scale
    for place, look in zip(places, looks, strict=True):
        ahead = look / max(float(np.linalg.norm(look)), 1e-9) * length
        side = np.array([-ahead[1], ahead[0]]) * 0.45
        wedge = pixel(np.stack([place, place + ahead + side, place + ahead - side]))
        cv2.polylines(picture, [wedge.astype(np.int32)], True, (200, 40, 40), 1, cv2.LINE_AA)
    return picture
