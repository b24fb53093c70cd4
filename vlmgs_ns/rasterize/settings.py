"""How a picture is rasterised, beside the Gaussians and the cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]


@dataclass(frozen=True)
class RasterizeSettings:
    """Arguments of `vlmgs_ns.rasterize.rasterization`, which explains and checks them, as its two rasterisers take them."""

    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    eps2d: float
    sh_degree: int | None
    render_mode: RenderMode
    absgrad: bool
    rasterize_mode: RasterizeMode
    channel_chunk: int
    compact_box: float | None

    @property
    def depth_only(self) -> bool:
        """Whether depth is rendered instead of colours."""
        return self.render_mode in ("D", "ED")

    @property
    def depth_last(self) -> bool:
        """Whether depth is rendered as one more channel after the colours."""
        return self.render_mode in ("RGB+D", "RGB+ED")

    @property
    def expected_depth(self) -> bool:
        """Whether the accumulated depth is divided by alpha."""
        return self.render_mode in ("ED", "RGB+ED")
