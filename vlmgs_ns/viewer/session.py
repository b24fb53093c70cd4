"""What the user has found, selected and hidden among one set of Gaussians; knows no viewer.

Every action returns one line that says what it did, or raises an InputError that says why it did not. Threads that draw read
`found` and `selection.state`, each of which is replaced in one assignment.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vlmgs_ns.semantics.relevancy import select
from vlmgs_ns.splats.camera import Pinhole
from vlmgs_ns.splats.connect import Neighbours
from vlmgs_ns.splats.ply import write_ply
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer.found import count_gaussians, describe
from vlmgs_ns.viewer.history import Selection
from vlmgs_ns.viewer.scene import ShownScene
from vlmgs_ns.words.clean import cleaned
from vlmgs_ns.words.find import REACH_TO_REMOVE, find
from vlmgs_ns.words.query import Fields, Query, apart, file_stem, make_query, split_phrases
from vlmgs_ns.words.question import Question, ask
from vlmgs_ns.words.thing import Looks, best_name, in_box, under

How = Literal["select", "add", "remove"]
"""What becomes of Gaussians that are pointed at: they are the selection, join it, or leave it."""

MOST_PHRASES = 6
"""At once: as many as there are colours to tell them apart."""


class Click(NamedTuple):
    """A click that can be widened: what it showed, and what it was to change."""

    weights: Tensor  # [N]
    before: Tensor  # [N] bool, selected
    how: How


class Session:
    """Actions on the Gaussians that a scene has now; once training adds or removes some, begin another session (`current`)."""

    def __init__(self, scene: ShownScene) -> None:
        means = scene.gauss_params["means"]
        self._scene = scene
        self._means = weakref.ref(means)
        self.selection = Selection(len(means))
        self.found: Question | None = None
        self._neighbours: Neighbours | None = None
        self._looks: Looks | None = None
        self._click: Click | None = None

    @property
    def current(self) -> bool:
        """Whether these are still the scene's Gaussians: densification replaces the tensor, even where the count stays."""
        return self._means() is self._scene.gauss_params["means"]

    @property
    def touched(self) -> bool:
        """Whether anything is found, selected or hidden."""
        state = self.selection.state
        return self.found is not None or bool(state.mask.any() or state.hidden.any())

    def find(
        self,
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
        query = typed_query(phrases, negatives)
        if not query.phrases:
            self.found = None
            return "Nothing is looked for."
        self.found = ask(self._scene, query, lock)
        return describe(self.found, threshold)

    @torch.no_grad()
    def select(self, threshold: float) -> str:
        """Select what was found, in place of what was selected: as `vlmgs export --select`, with what is faint.

        Raises an InputError where nothing was looked for or nothing is above the threshold.
        """
        if self.found is None:
            raise InputError("nothing was looked for yet; type what to find first")
        # What is hidden together with an object's fog leaves no ghost.
        in_masks = self.found.in_masks(threshold)
        found = find(
            self.found.relevancy, self._scene.splats(), self._graph(), threshold=threshold, in_masks=in_masks, least_opacity=0.0
        )
        if not found.mask.any():
            highest = apart(float(found.relevancy.max()), threshold)
            why = f"no Gaussian is above {threshold:.2f}, the highest relevancy is {highest}"
            if any(found.above):
                why = f"photos show {count_gaussians(found.outside)} above {threshold:.2f}, but none mostly where the words fit"
            raise InputError(f"{why}; move the threshold or try other words")
        self.selection.replace(found.mask)
        return self._describe("Selected by phrase")

    @torch.no_grad()
    def click(self, camera: Pinhole, x: float, y: float, how: How, width: float, names: Sequence[str] = ()) -> str:
        """Select, add or remove the thing at a place of a picture.

        Args:
            camera: of the picture, which shows what is not hidden.
            x, y: pixels from the top left.
            width: difference up to which Gaussians belong to the thing; 1 is usual.
            names: phrases of which the one that fits the thing best is said.

        Raises:
            InputError: nothing is there.
        """
        visible = ~self.selection.hidden
        weights = torch.zeros(len(visible))
        weights[visible] = under(self._scene.splats()[visible.to(self._scene.splats().means.device)], camera, x, y)
        self._click = Click(weights, self.selection.mask, how)
        said = self.widen(width)
        semantics = self._scene.semantics
        if not names or semantics is None or not semantics.complete:
            return said
        thing = self._like().thing(weights, width)
        best = best_name(semantics, self._scene.splats(), thing, list(names))
        return said if best is None else f"{said} Most like “{best[0]}”, relevancy {best[1]:.2f}."

    def widen(self, width: float) -> str:
        """Take the last click's thing more or less widely, in place of what it selected; say nothing where there is none."""
        if self._click is None:
            return ""
        thing = self._like().thing(self._click.weights, width)
        return self._change(thing, self._click.before, self._click.how)

    @torch.no_grad()
    def box(self, camera: Pinhole, box: tuple[float, float, float, float], how: How) -> str:
        """Select, add or remove what a box (left, top, right, bottom in pixels) of a picture shows.

        Raises an InputError where nothing is in it.
        """
        visible = ~self.selection.hidden
        chosen = torch.zeros_like(visible)
        chosen[visible] = in_box(self._scene.splats()[visible.to(self._scene.splats().means.device)], camera, box)
        self._click = None
        return self._change(chosen, self.selection.mask, how)

    def _change(self, pointed: Tensor, before: Tensor, how: How) -> str:
        after = {"select": pointed, "add": before | pointed, "remove": before & ~pointed}[how]
        self.selection.replace(after)
        return self._describe({"select": "Selected", "add": "Added", "remove": "Removed"}[how])

    def invert(self) -> str:
        """Select what is not selected, and nothing else."""
        self.selection.invert()
        return self._describe("Inverted")

    @torch.no_grad()
    def grow(self, threshold: float) -> str:
        """Add what is connected to the selection and still above a lower threshold: rims, where features mix.

        Where nothing was looked for: the Gaussians that touch the selection. Raises an InputError without a selection.
        """
        before = self._require_selection()
        if self.found is None:
            after = self._graph().ring(before, torch.ones_like(before))
            rule = "what touches it"
        else:
            floor = max(0.0, threshold - REACH_TO_REMOVE)
            near = self._graph().averaged(self.found.relevancy, self._scene.splats().opacities)
            after = self._graph().grow(before, select(near.amax(dim=1), floor))
            rule = f"what is connected and above {floor:.2f}"
        self.selection.replace(after)
        added = int((after & ~before).sum())
        return self._describe(f"Grown by {added:,}: {rule}" if added else f"Not grown: {rule} is selected already")

    @torch.no_grad()
    def tidy(self) -> str:
        """Drop faint Gaussians and small parts apart from the rest. Raises an InputError without a selection."""
        kept = cleaned(self._require_selection(), self._scene.splats(), self._graph())
        self.selection.replace(kept.mask)
        return self._describe(f"Dropped {kept.faint} faint and {kept.apart} stray Gaussians")

    def hide(self) -> str:
        """Hide the selected Gaussians. Raises an InputError without a selection."""
        self._require_selection()
        self.selection.hide()
        return self._describe("Hidden")

    def isolate(self) -> str:
        """Hide all but the selected Gaussians. Raises an InputError without a selection."""
        self._require_selection()
        self.selection.isolate()
        return self._describe("Isolated")

    def show_all(self) -> str:
        """Show all Gaussians."""
        self.selection.show_all()
        return self._describe("All shown")

    def undo(self) -> str:
        """Undo the last change of what is selected or hidden."""
        return self._describe("Undone" if self.selection.undo() else "Nothing to undo")

    def export(self, folder: Path) -> tuple[Path, str]:
        """Write the selected Gaussians, hidden or not, as a 3DGS .ply into `folder`, in the run's coordinates.

        Returns the file and a line about it. Raises an InputError without a selection, or where the file cannot be written.
        """
        every = self._scene.gaussians()
        chosen = every[self._require_selection() & every.drawn()]
        name = "" if self.found is None else "-" + file_stem(self.found.query.phrases)
        path = folder / f"selection{name}.ply"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                write_ply(partial, chosen)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}; make room there") from None
        return path, f"Wrote {count_gaussians(len(chosen))} to {path.resolve()}"

    def _require_selection(self) -> Tensor:  # [N] bool
        mask = self.selection.mask
        if not mask.any():
            raise InputError("nothing is selected; click a thing, or find something and press By phrase")
        return mask

    def _graph(self) -> Neighbours:
        if self._neighbours is None:
            self._neighbours = Neighbours(self._scene.splats())
        return self._neighbours

    def _like(self) -> Looks:
        if self._looks is None:
            semantics = self._scene.semantics
            known = semantics if semantics is not None and semantics.complete else None
            self._looks = Looks(self._scene.splats(), self._scene.colors.detach(), self._graph(), known)
        return self._looks

    def _describe(self, action: str) -> str:
        mask, hidden = self.selection.state
        rest = f", {int(hidden.sum()):,} hidden" if hidden.any() else ""
        return f"{action}. {count_gaussians(int(mask.sum()))} selected{rest}."


def typed_query(phrases: str, negatives: str) -> Query:
    """Return the query typed into two fields, phrases between semicolons; none for an empty field. Raises like `make_query`."""
    wanted, others = split_phrases(phrases), split_phrases(negatives)
    return make_query(wanted, others, scene_negatives=not others, most=MOST_PHRASES, fields=Fields("Find", "But not"))
