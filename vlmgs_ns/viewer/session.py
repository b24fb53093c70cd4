"""What a user has asked one set of Gaussians, and what is selected and hidden of it; no viewer in sight.

Every method says in one line what it did, or raises an InputError that says why it did not. Threads that draw read `found` and
`selection.state`, each of which is immutable and replaced in one assignment.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlmgs_ns.semantics.relevancy import relevancy_from_scores, select
from vlmgs_ns.splats.ply import trained_gaussians, write_ply
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer.history import Selection
from vlmgs_ns.words.clean import cleaned
from vlmgs_ns.words.connect import Neighbours
from vlmgs_ns.words.find import REACH_TO_REMOVE, find
from vlmgs_ns.words.phrases import checked_phrases, file_stem

if TYPE_CHECKING:
    from vlmgs_ns.method.model import VlmFastGSModel

MOST_PHRASES = 6
"""At once: as many as there are colours to tell them apart."""


@dataclass(frozen=True)
class Found:
    """Phrases and how relevant every Gaussian is for them."""

    phrases: tuple[str, ...]
    negatives: tuple[str, ...]
    scores: Tensor  # [N, P + M] ⟨feature, text⟩
    relevancy: Tensor  # [N, P] in [0, 1]

    @property
    def best(self) -> Tensor:  # [N]
        """Of the phrase that fits best."""
        return self.relevancy.amax(dim=1)

    def told(self, threshold: float) -> str:
        """What was found, in one line."""
        counts, highest = (self.relevancy > threshold).sum(dim=0).tolist(), self.relevancy.amax(dim=0).tolist()
        found = [gaussians(count) if count else "nothing found" for count in counts]
        if len(found) == 1:
            return f"“{self.phrases[0]}”: {found[0]} above {threshold:.2f}, the highest relevancy is {highest[0]:.2f}."
        parts = [f"“{phrase}” {what}, up to {best:.2f}" for phrase, what, best in zip(self.phrases, found, highest, strict=True)]
        return f"Above {threshold:.2f}: {'; '.join(parts)}."


class Session:
    """For the Gaussians that a model has now; once training adds or removes some, begin another (`fits`)."""

    def __init__(self, model: VlmFastGSModel) -> None:
        means = model.gauss_params["means"]
        self._means = weakref.ref(means)
        self.selection = Selection(len(means))
        self.found: Found | None = None
        self._neighbours: Neighbours | None = None

    def fits(self, model: VlmFastGSModel) -> bool:
        """Whether these are still the model's Gaussians: births and deaths replace the tensor, even where the count stays."""
        return self._means() is model.gauss_params["means"]

    @property
    def touched(self) -> bool:
        """Whether there is anything to lose."""
        state = self.selection.state
        return self.found is not None or bool(state.mask.any() or state.hidden.any())

    @torch.no_grad()
    def find(
        self,
        model: VlmFastGSModel,
        phrases: str,
        negatives: str,
        threshold: float,
        lock: AbstractContextManager[object] | None = None,
    ) -> str:
        """Look for phrases, several with semicolons between.

        Args:
            negatives: phrases that every find has to beat; "": the scene's own.
            threshold: relevancy above which something counts as found.
            lock: held while Gaussians are read, but not while words are embedded, which may take seconds.

        Raises:
            InputError: phrases that cannot be used, no semantics in this run, or no encoder on this machine.
        """
        wanted = parsed(phrases, "Find")
        if not wanted:
            self.found = None
            return "Nothing is looked for."
        if len(wanted) > MOST_PHRASES:
            raise InputError(f"{len(wanted)} phrases are too many to tell apart; look for at most {MOST_PHRASES} at once")
        semantics = model.searchable()
        others = parsed(negatives, "But not") or list(semantics.about.negatives)
        texts = semantics.embed([*wanted, *others])
        with lock or nullcontext():
            scores = semantics.scores(model.splats().means, texts)
        relevancy = relevancy_from_scores(scores[:, : len(wanted)], scores[:, len(wanted) :])
        self.found = Found(tuple(wanted), tuple(others), scores, relevancy)
        return self.found.told(threshold)

    @torch.no_grad()
    def select(self, model: VlmFastGSModel, threshold: float) -> str:
        """Select what was found, in place of what was selected: as `vlmgs export --select`, with what is faint.

        Raises an InputError where nothing was looked for or nothing is above the threshold.
        """
        if self.found is None:
            raise InputError("nothing was looked for yet; type what to find first")
        # What is hidden together with an object's fog leaves no ghost.
        found = find(self.found.relevancy, model.splats(), self._touching(model), threshold=threshold, least_opacity=0.0)
        if not found.mask.any():
            raise InputError(
                f"no Gaussian is above {threshold:.2f}, the highest relevancy is {float(found.relevancy.max()):.2f}; "
                "move the threshold or try other words"
            )
        self.selection.replace(found.mask)
        return self._told("Selected by phrase")

    def invert(self) -> str:
        """Select all the others."""
        self.selection.invert()
        return self._told("Inverted")

    @torch.no_grad()
    def grow(self, model: VlmFastGSModel, threshold: float) -> str:
        """Add what is connected to the selection and still above a lower threshold: rims, where features mix.

        Where nothing was looked for: the Gaussians that touch the selection. Raises an InputError without a selection.
        """
        before = self._selected()
        if self.found is None:
            after = self._touching(model).ring(before, torch.ones_like(before))
            rule = "what touches it"
        else:
            floor = max(0.0, threshold - REACH_TO_REMOVE)
            near = self._touching(model).averaged(self.found.relevancy, model.splats().opacities)
            after = self._touching(model).grow(before, select(near.amax(dim=1), floor))
            rule = f"what is connected and above {floor:.2f}"
        self.selection.replace(after)
        added = int((after & ~before).sum())
        return self._told(f"Grown by {added:,}: {rule}" if added else f"Not grown: {rule} is selected already")

    @torch.no_grad()
    def tidy(self, model: VlmFastGSModel) -> str:
        """Drop faint Gaussians and small parts apart from the rest. Raises an InputError without a selection."""
        done = cleaned(self._selected(), model.splats(), self._touching(model))
        self.selection.replace(done.mask)
        return self._told(f"Dropped {done.faint} faint and {done.apart} stray Gaussians")

    def hide(self) -> str:
        """Show the selected ones no longer. Raises an InputError without a selection."""
        self._selected()
        self.selection.hide()
        return self._told("Hidden")

    def isolate(self) -> str:
        """Show the selected ones alone. Raises an InputError without a selection."""
        self._selected()
        self.selection.isolate()
        return self._told("Isolated")

    def show_all(self) -> str:
        """Hide nothing."""
        self.selection.show_all()
        return self._told("All shown")

    def undo(self) -> str:
        """Take back the last change of what is selected or hidden."""
        return self._told("Undone" if self.selection.undo() else "Nothing to undo")

    def export(self, model: VlmFastGSModel, folder: Path) -> str:
        """Write the selected ones, hidden or not, as a 3DGS .ply into `folder`, in the run's coordinates.

        Raises an InputError without a selection, or where the file cannot be written.
        """
        every = trained_gaussians(dict(model.gauss_params.items()), model.config.sh_degree)
        chosen = every[self._selected() & every.drawn()]
        name = "" if self.found is None else "-" + file_stem(self.found.phrases)
        path = folder / f"selection{name}.ply"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                write_ply(partial, chosen)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}; make room there") from None
        return f"Wrote {gaussians(len(chosen))} to {path.resolve()}"

    def _selected(self) -> Tensor:  # [N] bool
        mask = self.selection.mask
        if not mask.any():
            raise InputError("nothing is selected; find something, then press By phrase")
        return mask

    def _touching(self, model: VlmFastGSModel) -> Neighbours:
        if self._neighbours is None:
            self._neighbours = Neighbours(model.splats())
        return self._neighbours

    def _told(self, done: str) -> str:
        mask, hidden = self.selection.state
        rest = f", {int(hidden.sum()):,} hidden" if hidden.any() else ""
        return f"{done}. {gaussians(int(mask.sum()))} selected{rest}."


def parsed(text: str, field: str) -> list[str]:
    """Phrases between semicolons, each once; none for an empty field. Raises an InputError for one that cannot be used."""
    phrases: Sequence[str] = [" ".join(part.split()) for part in text.split(";")]
    return checked_phrases([phrase for phrase in phrases if phrase], field)


def gaussians(count: int) -> str:
    """So many, in words."""
    return f"{count:,} Gaussian" if count == 1 else f"{count:,} Gaussians"
