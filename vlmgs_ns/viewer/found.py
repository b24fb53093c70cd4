"""What the user looked for, and how relevant every Gaussian is for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Found:
    """Phrases and the relevancy of every Gaussian for each of them."""

    phrases: tuple[str, ...]
    negatives: tuple[str, ...]
    scores: Tensor  # [N, P + M] ⟨feature, text⟩
    relevancy: Tensor  # [N, P] in [0, 1]

    def describe(self, threshold: float) -> str:
        """Return one line with the count of Gaussians above the threshold and the highest relevancy, by phrase."""
        counts, highest = (self.relevancy > threshold).sum(dim=0).tolist(), self.relevancy.amax(dim=0).tolist()
        found = [count_gaussians(count) if count else "nothing found" for count in counts]
        if len(found) == 1:
            return f"“{self.phrases[0]}”: {found[0]} above {threshold:.2f}, the highest relevancy is {highest[0]:.2f}."
        parts = [f"“{phrase}” {what}, up to {best:.2f}" for phrase, what, best in zip(self.phrases, found, highest, strict=True)]
        return f"Above {threshold:.2f}: {'; '.join(parts)}."


def count_gaussians(count: int) -> str:
    """Return a count with its unit: "1 Gaussian", "1,200 Gaussians"."""
    return f"{count:,} Gaussian" if count == 1 else f"{count:,} Gaussians"
