"""One picture of the viewer: what is left out of it, and how what was found is shown on it.

A frame is taken from the panel's state before rendering begins and does not change; a render that is interrupted leaves nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from vlmgs_ns.semantics.blend import blend
from vlmgs_ns.semantics.relevancy import relevancy_from_scores, segment
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.gaussians import Splats
from vlmgs_ns.viewer.history import SelectionState
from vlmgs_ns.viewer.interrupts import uninterrupted
from vlmgs_ns.viewer.scene import ShownScene
from vlmgs_ns.words.question import Question

Show = Literal[
    "Finds on the picture",
    "Finds as a mask",
    "Features as colours",
    "Guidance: regions",
    "Guidance: focus",
    "Picture alone",
]
SHOWS: tuple[Show, ...] = get_args(Show)

COLOURS = ((1.0, 0.45, 0.0), (0.0, 0.65, 1.0), (0.25, 0.85, 0.2), (0.95, 0.2, 0.75), (0.95, 0.9, 0.1), (0.55, 0.35, 1.0))
"""Colours of the first phrase, the second, …"""
OUTLINE = (1.0, 1.0, 1.0)
"""Colour of the rim of the selection."""
DIMMED = 0.6
"""How much darker, at full opacity, the picture is where nothing was found."""


@dataclass(frozen=True)
class Frame:
    """What to show. Tensors per Gaussian fit the model or are None."""

    show: Show
    threshold: float
    """Relevancy above which a pixel counts as found."""
    opacity: float
    """Opacity of what is laid over the picture, in [0, 1]."""
    found: Question | None = None
    edits: SelectionState | None = None
    focus: Tensor | None = None  # [N] in [0, 1]
    regions: Tensor | None = None  # [h, w, 3] in [0, 1]

    def drawn(self, device: torch.device) -> Tensor | None:
        """Return which Gaussians are drawn, [N] bool; None: all."""
        if self.edits is None or not self.edits.hidden.any():
            return None
        return ~self.edits.hidden.to(device)

    def shown(
        self,
        outputs: dict[str, Any],
        scene: ShownScene,
        camera: Cameras,
        inside: Tensor | None,  # [N] bool
    ) -> dict[str, Any]:
        """Return a render's outputs with `rgb` as the frame shows it, unchanged where that fails.

        Args:
            inside: which Gaussians are drawn; None: all.
        """
        try:
            picture = self.paint(outputs["rgb"], scene.splats(), scene.pinhole(camera), inside, outputs.get("semantics_pca"))
            return {**outputs, "rgb": picture}
        except IOChangeException:  # the viewer wants another picture already
            raise
        except Exception as error:
            # Not to the page: this thread may be interrupted half-way through a message.
            warnings.warn(f"viewer: {type(error).__name__}: {error}", stacklevel=2)
            return outputs

    @torch.no_grad()
    def paint(
        self,
        rgb: Tensor,  # [H, W, 3] in [0, 1]
        splats: Splats,
        camera: Pinhole,
        inside: Tensor | None = None,  # [N] bool
        features: Tensor | None = None,  # [H, W, 3]
    ) -> Tensor:
        """Return the picture to show instead of `rgb`. [H, W, 3] in [0, 1].

        Args:
            splats: all Gaussians.
            inside: which of them are drawn; None: all.
            features: the scene's features in colours, where it has any.
        """
        if self.show == "Guidance: regions" and self.regions is not None:
            return fitted(self.regions.to(rgb.device), rgb)
        if self.show == "Guidance: focus" and self.focus is not None:
            return self._focus(rgb, splats, camera, inside)
        picture = features if self.show == "Features as colours" and features is not None else rgb
        selected = None if self.edits is None or not self.edits.mask.any() else self.edits.mask.to(rgb.device)
        finds = self.found if self.show in ("Finds on the picture", "Finds as a mask") else None
        if finds is None and selected is None:
            return picture
        channels = [] if finds is None else [finds.scores.to(rgb.device)]
        channels += [] if selected is None else [selected[:, None].float()]
        image, alpha = _blend(splats, camera, torch.cat(channels, dim=1), inside)
        if finds is not None:
            count = len(finds.query.phrases)
            texts = count + len(finds.negatives)
            maps = relevancy_from_scores(image[..., :texts], count)
            picture = self._finds(picture, maps, alpha)
        if selected is not None:
            edge = outline(image[..., -1] > 0.5)
            picture = torch.where(edge[..., None], picture.new_tensor(OUTLINE), picture)
        return picture

    def _finds(
        self,
        rgb: Tensor,  # [H, W, 3]
        maps: Tensor,  # [H, W, P]
        alpha: Tensor,  # [H, W]
    ) -> Tensor:
        """Every found pixel in the colour of its most relevant phrase, on a picture that is darker elsewhere if there are any."""
        best, which = maps.max(dim=-1)
        found = segment(best, self.threshold, alpha)[..., None]
        colour = rgb.new_tensor(COLOURS)[which]
        if self.show == "Finds as a mask":
            return torch.where(found, colour if maps.shape[-1] > 1 else torch.ones_like(colour), torch.zeros_like(colour))
        if not found.any():
            return rgb  # a dark picture would only worry
        # Just above the threshold half of the tint, at 1 all of it.
        strength = 0.5 + 0.5 * ((best - self.threshold) / max(1 - self.threshold, 1e-6)).clamp(0, 1)
        tint = (self.opacity * strength)[..., None]
        return torch.where(found, (1 - tint) * rgb + tint * colour, (1 - DIMMED * self.opacity) * rgb)

    def _focus(self, rgb: Tensor, splats: Splats, camera: Pinhole, inside: Tensor | None) -> Tensor:
        """Return the picture with the last round's focus in the first colour; all of the scene counts, also what is faint."""
        assert self.focus is not None
        weights = self.focus.to(rgb.device)[:, None]
        heat = _blend(splats, camera, weights, inside, min_opacity=-1.0, min_radius=0.0)[0].clamp(0, 1)
        return rgb + self.opacity * heat * (rgb.new_tensor(COLOURS[0]) - rgb)


def _blend(
    splats: Splats, camera: Pinhole, channels: Tensor, inside: Tensor | None, **limits: float
) -> tuple[Tensor, Tensor]:  # [H, W, C], [H, W]
    if inside is not None:
        splats, channels = splats[inside], channels[inside]
    with uninterrupted():
        return blend(splats, camera, channels, **limits)


def outline(
    mask: Tensor,  # [H, W] bool
) -> Tensor:  # [H, W] bool
    """Return the pixels on both sides of a mask's edge."""
    values = mask[None, None].float()
    grown, shrunk = max_pool2d(values, 3, 1, 1), -max_pool2d(-values, 3, 1, 1)
    return (grown - shrunk)[0, 0] > 0


def fitted(
    picture: Tensor,  # [h, w, 3]
    like: Tensor,  # [H, W, 3]
) -> Tensor:  # [H, W, 3]
    """Return the picture as large as fits into the other's size, black around it."""
    height, width = like.shape[:2]
    factor = min(height / picture.shape[0], width / picture.shape[1])
    size = max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor))
    scaled = interpolate(picture.movedim(-1, 0)[None], size, mode="bilinear", antialias=True)[0].movedim(0, -1)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    out = torch.zeros_like(like)
    out[top : top + size[0], left : left + size[1]] = scaled
    return out
