"""The panel's buttons for what is selected and hidden, and their rows on the page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from functools import partial
from typing import get_args

from nerfstudio.viewer.viewer_elements import ViewerSlider

from vlmgs_ns.viewer.controls import Row
from vlmgs_ns.viewer.session import How, Session


class Buttons(ABC):
    """Each button is a method that returns one line of what it did."""

    threshold: ViewerSlider

    @abstractmethod
    def session(self) -> Session:
        """Return the session of the present Gaussians."""

    @abstractmethod
    def train_lock(self) -> AbstractContextManager[object]:
        """Held while training changes the Gaussians, and while the viewer renders."""

    @abstractmethod
    def go_to(self) -> str:
        """Look at what is selected, or else at what was found; say nothing where nobody looks."""

    def select(self) -> str:
        """Select the Gaussians found."""
        with self.train_lock():
            return self.session().select(self.threshold.value)

    @abstractmethod
    def click(self, how: How) -> str:
        """Wait for a click on a thing."""

    @abstractmethod
    def drag(self, how: How) -> str:
        """Wait for a box over the picture."""

    def invert(self) -> str:
        """Select what is not selected, and nothing else."""
        return self.session().invert()

    def grow(self) -> str:
        """Add connected Gaussians to the selection."""
        with self.train_lock():
            return self.session().grow(self.threshold.value)

    def tidy(self) -> str:
        """Drop faint and stray Gaussians from the selection."""
        with self.train_lock():
            return self.session().tidy()

    def hide(self) -> str:
        """Hide the selected Gaussians."""
        return self.session().hide()

    def isolate(self) -> str:
        """Hide all but the selected Gaussians, and look at them."""
        return f"{self.session().isolate()} {self.go_to()}".rstrip()

    def show_all(self) -> str:
        """Show all Gaussians."""
        return self.session().show_all()

    def undo(self) -> str:
        """Undo the last change of what is selected or hidden."""
        return self.session().undo()

    def rows(self) -> tuple[Row, ...]:
        """Return the buttons in the order in which they are used."""
        return (
            Row(
                "Click",
                "Press, then click a thing on the picture: it is selected, added to the selection, or taken out of it",
                {how.capitalize(): partial(self.click, how) for how in get_args(How)},
            ),
            Row(
                "Box",
                "Press, then drag a box over the picture: what it shows is selected, added to the selection, or taken out of it",
                {how.capitalize(): partial(self.drag, how) for how in get_args(How)},
            ),
            Row(
                "Select",
                "By phrase: what is found above the threshold, in place of what was selected. Invert: all the others",
                {"By phrase": self.select, "Invert": self.invert},
            ),
            Row(
                "Refine",
                "Grow: add what is connected to the selection and still like the phrase. Drop strays: faint and lone ones go",
                {"Grow": self.grow, "Drop strays": self.tidy},
            ),
            Row(
                "View",
                "Hide or isolate what is selected, in this viewer only: the trained scene stays as it is. Go to: look at it",
                {"Hide": self.hide, "Isolate": self.isolate, "Go to": self.go_to},
            ),
            Row("Back", "Undo: the last change of what is selected or hidden", {"Show all": self.show_all, "Undo": self.undo}),
        )
