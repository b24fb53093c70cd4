"""LPIPS, only where its weights are on the disk.

torchmetrics downloads AlexNet when the metric is built. Here it is built at the first use, and only from a file that is
already there: without it the metric is absent, with one message.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vlmgs_ns.system.progress import say


def weights_path() -> Path:
    """Return torchvision's path for the weights of the AlexNet that LPIPS is built on."""
    from torchvision.models import AlexNet_Weights

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.IMAGENET1K_V1.url).name


class Lpips:
    """A plain object rather than a module, so that its weights enter neither checkpoints nor optimisers."""

    def __init__(self) -> None:
        self._metric: torch.nn.Module | None = None
        self._warned = False

    def __call__(
        self,
        photo: Tensor,  # [1, 3, H, W] in [0, 1]
        render: Tensor,  # [1, 3, H, W] in [0, 1]
    ) -> float | None:
        """Return the distance, or None where the weights are not on the disk."""
        if self._metric is None:
            path = weights_path()
            if not path.is_file():
                if not self._warned:
                    say(f"LPIPS is not reported: its AlexNet weights are not at {path}", "yellow")
                    self._warned = True
                return None
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            self._metric = LearnedPerceptualImagePatchSimilarity(normalize=True)
        metric = self._metric.to(photo.device)
        return float(metric(photo.clamp(0, 1), render.clamp(0, 1)))
