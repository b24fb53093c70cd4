"""Gaussians as they are rendered."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Splats:
    """Gaussians after their activation functions, world coordinates."""

    means: Tensor  # [N, 3]
    quats: Tensor  # [N, 4] wxyz
    scales: Tensor  # [N, 3] standard deviations, world units
    opacities: Tensor  # [N] in [0, 1]

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, which: Tensor) -> Splats:
        """Return the Gaussians of ids [M] int64 or of a mask [N] bool."""
        return Splats(self.means[which], self.quats[which], self.scales[which], self.opacities[which])

    def detached(self) -> Splats:
        """Return the same Gaussians without gradients."""
        return Splats(self.means.detach(), self.quats.detach(), self.scales.detach(), self.opacities.detach())
