"""The panel in nerfstudio's viewer: fields for phrases, what is found, and buttons that select, hide and export it.

nerfstudio finds the panel as an attribute of the model and calls `_setup` once its own page exists; the panel then adds its
folders above the tabs. Every action runs on one worker thread, one after the other, and ends with a message in the status line,
also when it fails.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import torch
import viser
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerDropdown, ViewerSlider, ViewerText
from torch import Tensor

from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.guidance.round import Round
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer import rounds
from vlmgs_ns.viewer.buttons import Buttons
from vlmgs_ns.viewer.controls import Action, Page, Row
from vlmgs_ns.viewer.detail import want_detail
from vlmgs_ns.viewer.found import describe
from vlmgs_ns.viewer.frame import SHOWS, Frame
from vlmgs_ns.viewer.known import can_search, hint, phrases_of
from vlmgs_ns.viewer.lookout import Lookout
from vlmgs_ns.viewer.pointer import Places, await_pointer, corners
from vlmgs_ns.viewer.scene import ShownScene
from vlmgs_ns.viewer.session import MOST_PHRASES, How, Session, typed_query
from vlmgs_ns.viewer.worker import Worker, error_message
from vlmgs_ns.words.query import THRESHOLD

PAUSE = 0.8
"""Seconds without a key after which what was typed is looked for: the page sends no event for Enter."""
POLL_EVERY = 1.0
"""Seconds between checks whether training has made the scene searchable."""
PICK = "choose …"
OUTSIDE = "It lies outside the picture: press Go to."
RESET = "Training has added or removed Gaussians, so that what was found, selected and hidden was reset."
FINDS, MASK, FEATURES, REGIONS, FOCUS, ALONE = SHOWS


class Panel(Buttons, ViewerControl):
    """Controls of one scene; it exists before there is a viewer, and without one."""

    def __init__(self, scene: ShownScene) -> None:
        self._scene = scene
        self._viewer: Viewer | None = None
        self.status = "Type what to look for."
        self.last_round = ""
        self._session: Session | None = None
        self._regions: Tensor | None = None
        self._lookout: Lookout | None = None
        self._worker = Worker(self._reset_note, self._show_message)
        self._page: Page | None = None
        self.phrases = ViewerText(
            "Find", "", hint=f"What to look for, as: red ball. Up to {MOST_PHRASES} with semicolons between: red ball; table",
            cb_hook=lambda _: self._find_after_pause(),
        )  # fmt: skip
        self.names = ViewerDropdown(
            "or pick", PICK, [PICK], hint="Phrases known for this scene; picking one finds it", cb_hook=lambda _: self._pick()
        )
        self.negatives = ViewerText(
            "But not", "", hint="Phrases that a find has to beat: general ones, or what is found by mistake; semicolons between",
            cb_hook=lambda _: self._find_after_pause(),
        )  # fmt: skip
        self.show = ViewerDropdown(
            "Show", FINDS, list(SHOWS), hint="What the picture shows; the selection is outlined in white",
            cb_hook=lambda _: self.act(self._describe_show),
        )  # fmt: skip
        self.threshold = ViewerSlider(
            "Threshold", THRESHOLD, 0.0, 1.0, 0.01, hint="Relevancy above which something counts as found: higher finds less",
            cb_hook=lambda _: self.act(self._describe_found),
        )  # fmt: skip
        self.opacity = ViewerSlider(
            "Opacity", 0.6, 0.0, 1.0, 0.05, hint="How strongly finds are coloured and the rest is darkened",
            cb_hook=lambda _: self._rerender(),
        )  # fmt: skip
        self.width = ViewerSlider(
            "Width", 1.0, 0.1, 3.0, 0.05, hint="How unlike the place that was clicked a thing may look: higher takes more",
            cb_hook=lambda _: self.act(self._widen),
        )  # fmt: skip

    # called by the model

    def frame(self) -> Frame | None:
        """Return what to show now; None outside the viewer's render thread: edits are invisible to metrics and commands."""
        if not isinstance(threading.current_thread(), RenderStateMachine):
            return None
        session = self._session
        if session is not None and not session.current:
            session = None
        return Frame(
            show=self.show.value,
            threshold=self.threshold.value,
            opacity=self.opacity.value,
            found=None if session is None else session.found,
            edits=None if session is None else session.selection.state,
            focus=self._scene.focus,
            regions=self._regions,
        )  # fmt: skip

    def after_step(self) -> None:
        """Reset finds and selection where a step of training has added or removed Gaussians."""
        if self._drop_stale_session():
            self.act(lambda: RESET)

    def show_round(self, round_: Round, densification: Densification) -> None:
        """Show a round of guidance and the densification that used it."""
        self.last_round = rounds.describe(round_, densification)
        if self._viewer is not None:
            self.act(self._read_rounds)

    # actions

    def act(self, action: Action, client: int | None = None) -> Future[None]:
        """Run an action on the worker and show its message, or its error; an empty message leaves the status as it is.

        Args:
            client: number of the viewer's client that asks for it.
        """
        return self._worker.run(action, client)

    def find(self) -> str:
        """Look for the phrases in the field, and switch the page to a picture that shows them."""
        self._worker.cancel_pause()
        if self.phrases.value.strip() and self.show.value not in (FINDS, MASK):
            self.show.value = FINDS
        if self._viewer is not None and self._viewer.control_panel.output_render not in ("rgb", "not set"):
            self._viewer.control_panel._output_render.value = "rgb"
        self._set_status("Looking …")
        said = self.session().find(self.phrases.value, self.negatives.value, self.threshold.value, lock=self.train_lock())
        if self._viewer is None or not self.phrases.value.strip():
            return said
        return " ".join(part for part in (said, self._outside(), self._hint()) if part)

    def go_to(self) -> str:
        """Look at what is selected, or else at what was found; say nothing where nobody looks."""
        session = self.session()
        mask = session.selection.mask if session.selection.mask.any() else self._found()
        if not mask.any():
            raise InputError("nothing is selected or found to go to; type what to find first")
        clients = [] if self._lookout is None else self._lookout.clients(self._worker.client)
        if self._lookout is None or not clients:
            return ""
        with self.train_lock():
            self._lookout.go_to(mask, clients)
        return "It is in the middle of the picture."

    def export(self) -> str:
        """Write the selected Gaussians into the run's folder, and send the file to the browser."""
        with self.train_lock():
            path, said = self.session().export(self.run / "exports")
        for client in [] if self._lookout is None else self._lookout.clients(self._worker.client):
            client.send_file_download(path.name, path.read_bytes())
        return said

    def more_detail(self) -> str:
        """Wait for a box over the picture; training then adds Gaussians sooner where it shows the scene."""
        self._await("rect-select", lambda camera, places: want_detail(self._scene, camera, places))
        return "Drag a box over what shall be more detailed."

    def click(self, how: How) -> str:
        """Wait for a click on a thing."""

        def clicked(camera: Cameras, places: Places) -> str:
            ((x, y),) = places
            picture = self._scene.pinhole(camera)
            names = [] if self._hint() else phrases_of(self._scene, self.run, self._photos)
            with self.train_lock():
                return self.session().click(picture, x * picture.width, y * picture.height, how, self.width.value, names)

        self._await("click", clicked)
        return "Click a thing on the picture."

    def drag(self, how: How) -> str:
        """Wait for a box over the picture."""

        def dragged(camera: Cameras, places: Places) -> str:
            picture = self._scene.pinhole(camera)
            sides = (picture.width, picture.height) * 2
            left, top, right, bottom = (edge * side for edge, side in zip(corners(places), sides, strict=True))
            with self.train_lock():
                return self.session().box(picture, (left, top, right, bottom), how)

        self._await("rect-select", dragged)
        return "Drag a box over the picture."

    def _await(self, kind: Literal["click", "rect-select"], pointed: Callable[[Cameras, Places], str]) -> None:
        """Have the next click or box be acted on, for the client whose it is."""
        if self._viewer is None:
            raise InputError("there is no viewer to point at")
        await_pointer(
            self._viewer, kind, lambda camera, places, client: self.act(lambda: pointed(camera, places), client)
        )  # fmt: skip

    def session(self) -> Session:
        """Return the session of the present Gaussians, a new one where training has added or removed some."""
        self._drop_stale_session()
        session = self._session
        if session is None:
            session = self._session = Session(self._scene)
        return session

    # inside

    def _drop_stale_session(self) -> bool:
        """Drop the session where it is stale; return whether anything found, selected or hidden was lost with it."""
        session = self._session
        if session is None or session.current:
            return False
        self._session = None
        return session.touched

    def _reset_note(self) -> str:
        return RESET if self._drop_stale_session() else ""

    def _show_message(self, message: str) -> None:
        if message:
            self._set_status(message)
        self._rerender()

    def _found(self) -> Tensor:  # [N] bool
        """Return what is found above the threshold; nothing where nothing is looked for."""
        session = self.session()
        if session.found is None:
            return torch.zeros_like(session.selection.mask)
        return (session.found.relevancy > self.threshold.value).any(dim=1)

    def _outside(self) -> str:
        """Return a line for a find that lies outside the picture of everyone who looks, else ""."""
        found, clients = self._found(), [] if self._lookout is None else self._lookout.clients(None)
        if self._lookout is None or not clients or not found.any():
            return ""
        with self.train_lock():
            return "" if self._lookout.sees(found, clients) else OUTSIDE

    def _set_status(self, status: str) -> None:
        self.status = status
        self._refresh()

    def _refresh(self) -> None:
        if self._page is not None:
            self._page.say(self.status, self.last_round)

    def _rerender(self) -> None:
        if self._viewer is not None:
            self._viewer._trigger_rerender()

    def train_lock(self) -> AbstractContextManager[object]:
        """Held while training changes the Gaussians, and while the viewer renders."""
        lock = None if self._viewer is None else self._viewer.train_lock
        return nullcontext() if lock is None else lock

    def _widen(self) -> str:
        with self.train_lock():
            return self.session().widen(self.width.value)

    def _find_after_pause(self) -> None:
        self._worker.run_after_pause(self._find_new, PAUSE)

    def _find_new(self) -> str:
        """Look for what was typed, unless it is what was found last."""
        found = self.session().found
        query = typed_query(self.phrases.value, self.negatives.value)
        if found is None and not query.phrases:
            return ""
        if found is None or found.query.phrases != query.phrases:
            return self.find()
        return "" if query.negatives in (found.query.negatives, found.negatives) else self.find()

    def _pick(self) -> None:
        name = self.names.value
        if name != PICK:
            self.phrases.value, self.names.value = name, PICK
            self.act(self._find_new)

    def _describe_found(self) -> str:
        session = self.session()
        return "" if session.found is None else describe(session.found, self.threshold.value)

    def _describe_show(self) -> str:
        """Return what is shown, or why there is nothing to show."""
        choice, found = self.show.value, self.session().found
        if choice == REGIONS:
            self._regions = rounds.last_pictures(self.run)
            if self._regions is None:
                return "No pictures of a round of guidance were kept in this run."
            return "The last round of guidance, as it was sent and answered; it does not follow the camera."
        if choice == FOCUS:
            if self._scene.focus is None:
                return "No round of guidance and no mark asks for more Gaussians now."
            return "In colour: where Gaussians are added sooner."
        if choice == FEATURES:
            self._scene.searchable()
            return "Alike colours: features that are alike."
        return "Nothing is looked for." if found is None else describe(found, self.threshold.value)

    def _read_rounds(self) -> str:
        self._regions = rounds.last_pictures(self.run)
        self._fill_fields()
        self._refresh()
        return ""

    def _fill_fields(self) -> None:
        """Offer the phrases known for this scene, and its negatives."""
        self.names.set_options([PICK, *phrases_of(self._scene, self.run, self._photos)])
        if self._scene.semantics is not None and not self.negatives.value:
            self.negatives.value = "; ".join(self._scene.semantics.about.negatives)

    def _await_semantics(self) -> None:
        """Wait for the semantic stage, which comes after the last iteration and sends no event."""
        while not can_search(self._scene):
            time.sleep(POLL_EVERY)
        with suppress(RuntimeError):  # the process ends, and takes no more work
            self.act(self._announce_search)

    def _announce_search(self) -> str:
        self._fill_fields()
        return "This scene can be searched now: type what to look for."

    @property
    def _photos(self) -> Path:
        """The folder of the scene that the run was trained on."""
        assert self._viewer is not None
        return Path(self._viewer.datapath)

    def _hint(self) -> str:
        return "" if self._viewer is None else hint(self._scene, self.run, self._photos, self._viewer.trainer is not None)

    @property
    def run(self) -> Path:
        """The run's folder."""
        if self._viewer is None:
            raise InputError("there is no viewer, and so no folder of a run")
        return Path(self._viewer.log_filename).parent

    # the page

    def _setup(self, viewer: Viewer) -> None:
        """Called by nerfstudio's viewer."""
        try:
            super()._setup(viewer)  # type: ignore[no-untyped-call]
            self._viewer, self._lookout = viewer, Lookout(self._scene, viewer)
            viewer.viser_server.on_client_connect(self._welcome)
            self._build(viewer.viser_server, viewer.stats_markdown.order)
            if viewer.trainer is not None and self._scene.has_semantic_stage:
                threading.Thread(target=self._await_semantics, daemon=True, name="panel-words").start()
        except Exception as error:
            warnings.warn(f"the panel for words could not be added to the viewer: {error_message(error)}", stacklevel=2)

    def _welcome(self, client: viser.ClientHandle) -> None:
        def start() -> str:
            assert self._lookout is not None
            with self.train_lock():
                self._lookout.start(client)
            return ""

        self.act(start)

    def _build(self, server: viser.ViserServer, after: float) -> None:
        self._fill_fields()
        self.last_round = rounds.last_round(self.run)
        self.status = self._hint() or self.status
        words, look = (self.phrases, self.names, self.negatives), (self.show, self.threshold, self.opacity)
        rows = (*self.rows(), *self._training_rows())
        self._page = Page(server, after, self.act, words, self.find, look, (self.width,), rows, self.export)
        self._refresh()

    def _training_rows(self) -> tuple[Row, ...]:
        if self._viewer is None or self._viewer.trainer is None:
            return ()
        hint = "While training: press, then drag a box over what shall be reconstructed in more detail"
        return (Row("Train", hint, {"More detail here": self.more_detail}),)
