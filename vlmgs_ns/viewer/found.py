"""What was found, in a line for the panel."""

from __future__ import annotations

from vlmgs_ns.words.query import apart
from vlmgs_ns.words.question import Question


def describe(found: Question, threshold: float) -> str:
    """Return one line with the count of Gaussians above the threshold and the highest relevancy, by phrase."""
    relevancy, phrases = found.relevancy, found.query.phrases
    counts, highest = (relevancy > threshold).sum(dim=0).tolist(), relevancy.amax(dim=0).tolist()
    results = [count_gaussians(count) if count else "nothing found" for count in counts]
    best = [apart(value, threshold) for value in highest]
    if len(phrases) == 1:
        return f"“{phrases[0]}”: {results[0]} above {threshold:.2f}, the highest relevancy is {best[0]}."
    parts = [f"“{phrase}” {what}, up to {most}" for phrase, what, most in zip(phrases, results, best, strict=True)]
    return f"Above {threshold:.2f}: {'; '.join(parts)}."


def count_gaussians(count: int) -> str:
    """Return a count with its unit: "1 Gaussian", "1,200 Gaussians"."""
    return f"{count:,} Gaussian" if count == 1 else f"{count:,} Gaussians"
