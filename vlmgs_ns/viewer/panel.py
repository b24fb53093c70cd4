"""The panel in nerfstudio's viewer: fields for phrases, what is found, and buttons that select, hide and export it.

nerfstudio finds the panel as an attribute of the model and calls `_setup` once its own page exists; the panel then adds its
folders above the tabs. Every action runs on one worker thread, one after the other, and ends with a message in the status line,
also when it fails.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import viser
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.utils import get_camera
from nerfstudio.viewer.viewer import Viewer
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerDropdown, ViewerSlider, ViewerText
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from torch import Tensor

from vlmgs_ns.densify.strategy import Densification
from vlmgs_ns.guidance.round import Round
from vlmgs_ns.semantics.embedded import caution, things_in
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer import rounds
from vlmgs_ns.viewer.controls import Action, Page, Row
from vlmgs_ns.viewer.found import describe
from vlmgs_ns.viewer.frame import SHOWS, Frame
from vlmgs_ns.viewer.scene import ShownScene
from vlmgs_ns.viewer.session import MOST_PHRASES, Session, typed_query
from vlmgs_ns.words.query import THRESHOLD

PAUSE = 0.8
"""Seconds without a key after which what was typed is looked for: the page sends no event for Enter."""
POLL_EVERY = 1.0
"""Seconds between checks whether training has made the scene searchable."""
BOX_HEIGHT = 480
"""Height, in pixels, of the picture that a drawn box is of."""
SMALLEST = 0.01
"""Side of a box, as a fraction of the picture, below which it was a click."""
PICK = "choose …"
RESET = "Training has added or removed Gaussians, so that what was found, selected and hidden was reset."
FINDS, MASK, FEATURES, REGIONS, FOCUS, ALONE = SHOWS


class Panel(ViewerControl):
    """Controls of one scene; it exists before there is a viewer, and without one."""

    def __init__(self, scene: ShownScene) -> None:
        self._scene = scene
        self._viewer: Viewer | None = None
        self.status = "Type what to look for."
        self.last_round = ""
        self._session: Session | None = None
        self._regions: Tensor | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="panel")
        self._pause: threading.Timer | None = None
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

    def paint(
        self,
        frame: Frame,
        outputs: dict[str, Any],
        camera: Cameras,
        inside: Tensor | None,  # [N] bool
    ) -> dict[str, Any]:
        """Return the outputs with `rgb` as the frame shows it, unchanged where that fails.

        Args:
            inside: which Gaussians are drawn; None: all.
        """
        try:
            splats, pinhole = self._scene.splats(), self._scene.pinhole(camera)
            return {**outputs, "rgb": frame.paint(outputs["rgb"], splats, pinhole, inside, outputs.get("semantics_pca"))}
        except IOChangeException:  # the viewer wants another picture already
            raise
        except Exception as error:
            # Not to the page: this thread may be interrupted half-way through a message.
            warnings.warn(f"viewer: {error_message(error)}", stacklevel=2)
            return outputs

    def after_step(self) -> None:
        """Reset finds and selection where a step of training has added or removed Gaussians."""
        if self._drop_stale_session():
            self.act(lambda: RESET)

    def show_round(self, round_: Round, densification: Densification) -> None:
        """Show a round of guidance and the densification that used it."""
        boxes = sum(len(view.boxes) for view in round_.regions or [])
        effect = f"{boxes} regions, {densification.focused} added, {densification.doomed} pruned"
        self.last_round = f"Last round of guidance: {round_.phase}, step {round_.step}: {effect}"
        if self._viewer is not None:
            self.act(self._read_rounds)

    # actions

    def act(self, action: Action) -> Future[None]:
        """Run an action on the worker and show its message, or its error; an empty message leaves the status as it is."""
        return self._worker.submit(self._run, action)

    def find(self) -> str:
        """Look for the phrases in the field, and switch the page to a picture that shows them."""
        if self._pause is not None:
            self._pause.cancel()
        if self.phrases.value.strip() and self.show.value not in (FINDS, MASK):
            self.show.value = FINDS
        if self._viewer is not None and self._viewer.control_panel.output_render not in ("rgb", "not set"):
            self._viewer.control_panel._output_render.value = "rgb"
        self._set_status("Looking …")
        found = self.session().find(self.phrases.value, self.negatives.value, self.threshold.value, lock=self._train_lock())
        return f"{found} {self._caution()}".rstrip() if self.phrases.value.strip() else found

    def select(self) -> str:
        """Select the Gaussians found."""
        with self._train_lock():
            return self.session().select(self.threshold.value)

    def invert(self) -> str:
        """Select what is not selected, and nothing else."""
        return self.session().invert()

    def grow(self) -> str:
        """Add connected Gaussians to the selection."""
        with self._train_lock():
            return self.session().grow(self.threshold.value)

    def tidy(self) -> str:
        """Drop faint and stray Gaussians from the selection."""
        with self._train_lock():
            return self.session().tidy()

    def hide(self) -> str:
        """Hide the selected Gaussians."""
        return self.session().hide()

    def isolate(self) -> str:
        """Hide all but the selected Gaussians."""
        return self.session().isolate()

    def show_all(self) -> str:
        """Show all Gaussians."""
        return self.session().show_all()

    def undo(self) -> str:
        """Undo the last change of what is selected or hidden."""
        return self.session().undo()

    def export(self) -> str:
        """Write the selected Gaussians into the run's folder."""
        with self._train_lock():
            return self.session().export(self.run / "exports")

    def more_detail(self) -> str:
        """Wait for a box over the picture; training then adds Gaussians sooner where it shows the scene."""
        if self._viewer is None:
            raise InputError("there is no viewer to draw a box in")
        viewer = self._viewer

        def drawn(event: viser.ScenePointerEvent) -> None:
            viewer.viser_server.scene.remove_pointer_callback()
            camera = get_camera(viewer.get_camera_state(event.client), BOX_HEIGHT)
            self.act(lambda: self.want_detail(camera, event.screen_pos))

        viewer.viser_server.scene.on_pointer_event("rect-select")(drawn)
        return "Drag a box over what shall be more detailed."

    def want_detail(self, camera: Cameras, corners: Sequence[tuple[float, float]]) -> str:
        """Want what a box of the picture shows in detail; its corners are fractions of the picture."""
        (left, right), (top, bottom) = (
            sorted(min(max(edge, 0.0), 1.0) for edge in edges) for edges in zip(*corners, strict=True)
        )
        if right - left < SMALLEST or bottom - top < SMALLEST:
            return "That box is too small: press More detail here again and drag."
        self._scene.want_detail(camera, (left, top, right, bottom))
        return "From the next densification on, Gaussians are added there sooner."

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

    def _run(self, action: Action) -> None:
        try:
            reset = self._drop_stale_session()
            try:
                message = action()
            except Exception as error:
                message = error_message(error)
            if reset:
                message = f"{RESET} {message}".strip()
            if message:
                self._set_status(message)
            self._rerender()
        except Exception as error:  # the page may be gone
            warnings.warn(f"viewer panel: {error_message(error)}", stacklevel=2)

    def _set_status(self, status: str) -> None:
        self.status = status
        self._refresh()

    def _refresh(self) -> None:
        if self._page is not None:
            self._page.say(self.status, self.last_round)

    def _rerender(self) -> None:
        if self._viewer is not None:
            self._viewer._trigger_rerender()

    def _train_lock(self) -> AbstractContextManager[object]:
        """Held while training changes the Gaussians, and while the viewer renders."""
        lock = None if self._viewer is None else self._viewer.train_lock
        return nullcontext() if lock is None else lock

    def _find_after_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._pause = threading.Timer(PAUSE, lambda: self.act(self._find_new))
        self._pause.daemon = True
        self._pause.start()

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
        self.names.set_options([PICK, *self.known()])
        if self._scene.semantics is not None and not self.negatives.value:
            self.negatives.value = "; ".join(self._scene.semantics.about.negatives)

    def _await_semantics(self) -> None:
        """Wait for the semantic stage, which comes after the last iteration and sends no event."""
        while not self._can_search():
            time.sleep(POLL_EVERY)
        self.act(self._announce_search)

    def _announce_search(self) -> str:
        self._fill_fields()
        return "This scene can be searched now: type what to look for."

    def known(self) -> list[str]:
        """Return the phrases to offer: labels of guidance, the run's own phrases, and the names in an embedded room."""
        found = rounds.labels(self.run)
        semantics = self._scene.semantics
        found += self._scene.prompts
        if semantics is not None:
            found += [text for text in semantics.texts if text not in semantics.about.negatives]
            found += things_in(self.data)
        return list(dict.fromkeys(found))

    @property
    def data(self) -> Path:
        """The folder of the scene's photos."""
        if self._viewer is None:
            raise InputError("there is no viewer, and so no folder of photos")
        return Path(self._viewer.datapath)

    def _caution(self) -> str:
        """Return the line for a scene that its encoder does not know, else ""."""
        semantics = self._scene.semantics
        return "" if semantics is None or self._viewer is None else caution(semantics.about.clip, self.data, self.run)

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
            self._viewer = viewer
            self._build(viewer.viser_server, viewer.stats_markdown.order)
            if viewer.trainer is not None and self._scene.has_semantic_stage:
                threading.Thread(target=self._await_semantics, daemon=True, name="panel-words").start()
        except Exception as error:
            warnings.warn(f"the panel for words could not be added to the viewer: {error_message(error)}", stacklevel=2)

    def _build(self, server: viser.ViserServer, after: float) -> None:
        self._fill_fields()
        self.last_round = rounds.last_round(self.run)
        self.status = (self._caution() or self.status) if self._can_search() else self._search_hint()
        words, look = (self.phrases, self.names, self.negatives), (self.show, self.threshold, self.opacity)
        rows = (
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
                "Hide or isolate what is selected, in this viewer only: the trained scene stays as it is",
                {"Hide": self.hide, "Isolate": self.isolate},
            ),
            Row("Back", "Undo: the last change of what is selected or hidden", {"Show all": self.show_all, "Undo": self.undo}),
            *self._training_rows(),
        )
        self._page = Page(server, after, self.act, words, self.find, look, rows, self.export)
        self._refresh()

    def _training_rows(self) -> tuple[Row, ...]:
        if self._viewer is None or self._viewer.trainer is None:
            return ()
        hint = "While training: press, then drag a box over what shall be reconstructed in more detail"
        return (Row("Train", hint, {"More detail here": self.more_detail}),)

    def _can_search(self) -> bool:
        return self._scene.semantics is not None and self._scene.semantics.complete

    def _search_hint(self) -> str:
        if self._viewer is not None and self._viewer.trainer is not None and self._scene.has_semantic_stage:
            return "Training: this scene can be searched with words after the last iteration."
        try:
            self._scene.searchable()
        except InputError as error:
            return error_message(error)
        return self.status


def error_message(error: Exception) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split()).removeprefix("Error: ")
    if isinstance(error, InputError):
        begin = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]  # a path stays as it is
        return begin + text[1:].rstrip(".") + "."
    return f"That failed ({type(error).__name__}: {text}); the scene is as it was."
