"""How the panel looks: two folders above nerfstudio's tabs, in the order in which they are used, and lines of text."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import viser
from nerfstudio.viewer.viewer_elements import ViewerParameter

Action = Callable[[], str]
"""Does something and says in one line what it did."""
Run = Callable[[Action, int | None], object]
"""Has an action done for the client of a number."""

LINES, LINE = 3, 34
"""Lines of the status, and characters in each."""
NONE = ""
"""Value of a row of buttons between clicks."""


class Row(NamedTuple):
    """Buttons side by side."""

    label: str
    hint: str
    actions: dict[str, Action]


class Page:
    """Stands once it is made. `run` is given what is pressed.

    Args:
        after: viser's order of what is above.
        words, look: elements above and below the button Find and the status.
        edit: elements above the rows of buttons.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        after: float,
        run: Run,
        words: Sequence[ViewerParameter[Any]],
        find: Action,
        look: Sequence[ViewerParameter[Any]],
        edit: Sequence[ViewerParameter[Any]],
        rows: Sequence[Row],
        export: Action,
    ) -> None:
        gui = server.gui
        with gui.add_folder("Find with words", order=after + 0.3):
            _install(server, words)
            gui.add_button("Find", icon=viser.Icon.SEARCH).on_click(_pressed(run, find))
            self._status = gui.add_markdown("")
            _install(server, look)
        with gui.add_folder("Select and edit", order=after + 0.6):
            _install(server, edit)
            for row in rows:
                buttons = gui.add_button_group(row.label, list(row.actions), hint=row.hint)
                buttons.value = NONE  # a second click on the same button would be no change, and call nothing
                buttons.on_click(_pressed_one_of(run, buttons, row.actions))
            hint = "As a 3DGS .ply, into the folder exports of this run and to this browser"
            gui.add_button("Export selection", icon=viser.Icon.DOWNLOAD, hint=hint).on_click(_pressed(run, export))
            self._note = gui.add_markdown("")

    def say(self, status: str, note: str) -> None:
        """Show the status below the button Find, and a note at the bottom."""
        self._status.content, self._note.content = steady(status), escaped(note)


def _install(server: viser.ViserServer, elements: Sequence[ViewerParameter[Any]]) -> None:
    for element in elements:
        element.install(server)


def _pressed(run: Run, action: Action) -> Callable[[Any], None]:
    def pressed(event: viser.GuiEvent[Any]) -> None:
        run(action, event.client_id)

    return pressed


def _pressed_one_of(run: Run, buttons: Any, actions: dict[str, Action]) -> Callable[[viser.GuiEvent[Any]], None]:
    def pressed(event: viser.GuiEvent[Any]) -> None:
        if event.client_id is not None:  # else it was not a click but us, just here
            name, buttons.value = buttons.value, NONE
            run(actions[name], event.client_id)

    return pressed


def steady(text: str) -> str:
    """Return a text as markdown of at least `LINES` lines, so that the buttons below stay where they are."""
    return escaped(text) + "\\\n\u00a0" * (LINES - math.ceil(len(text) / LINE))


def escaped(text: str) -> str:
    """Return markdown that shows the text itself."""
    return re.sub(f"([{re.escape(string.punctuation)}])", r"\\\1", text)
