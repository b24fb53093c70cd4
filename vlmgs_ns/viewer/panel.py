"""The panel in nerfstudio's viewer: words to look for, what was found, and what to do with it.

nerfstudio finds it as an attribute of the model and calls `_setup` once its own page stands; the panel then adds its folders
above the tabs. Whatever is pressed runs on one worker thread, one action after the other, and ends in the status
line, errors too.
"""

from __future__ import annotations

import threading
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import viser
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer_elements import ViewerControl, ViewerDropdown, ViewerSlider, ViewerText
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException
from torch import Tensor

from vlmgs_ns.densify.strategy import Round as Densification
from vlmgs_ns.guidance.round import Round
from vlmgs_ns.semantics.scene_semantics import EMBEDDED
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer import rounds
from vlmgs_ns.viewer.controls import Action, Page, Row
from vlmgs_ns.viewer.frame import SHOWS, Frame
from vlmgs_ns.viewer.session import MOST_PHRASES, Session, parsed
from vlmgs_ns.words.find import THRESHOLD

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from vlmgs_ns.method.model import VlmFastGSModel

PAUSE = 0.8
"""Seconds without a key after which typed words are looked for: the page does not tell when Enter is pressed."""
LOOK_AGAIN = 1.0
"""Seconds between looks at whether training has made the scene searchable."""
PICK = "choose …"
VOID = "Training has changed the Gaussians: what was found, selected or hidden before is no more."
FINDS, MASK, FEATURES, REGIONS, FOCUS, ALONE = SHOWS


class Panel(ViewerControl):
    """One per model; also before there is a viewer, and where there never is one."""

    def __init__(self, model: VlmFastGSModel) -> None:
        self._model = model
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
            cb_hook=lambda _: self._typed(),
        )  # fmt: skip
        self.names = ViewerDropdown(
            "or pick", PICK, [PICK], hint="What was named in this scene; picking one finds it", cb_hook=lambda _: self._picked()
        )
        self.negatives = ViewerText(
            "But not", "", hint="What every find has to beat: general words, or what is found by mistake; semicolons between",
            cb_hook=lambda _: self._typed(),
        )  # fmt: skip
        self.show = ViewerDropdown(
            "Show", FINDS, list(SHOWS), hint="What the picture shows; the selection is outlined in white",
            cb_hook=lambda _: self.act(self._choose),
        )  # fmt: skip
        self.threshold = ViewerSlider(
            "Threshold", THRESHOLD, 0.0, 1.0, 0.01, hint="Relevancy above which something counts as found: higher finds less",
            cb_hook=lambda _: self.act(self._recount),
        )  # fmt: skip
        self.opacity = ViewerSlider(
            "Opacity", 0.6, 0.0, 1.0, 0.05, hint="How strongly finds are coloured and the rest is darkened",
            cb_hook=lambda _: self._rerender(),
        )  # fmt: skip

    # what the model asks

    def frame(self) -> Frame | None:
        """What to show now; None where it is not the viewer that renders: metrics and other commands know no edits."""
        if not isinstance(threading.current_thread(), RenderStateMachine):
            return None
        model, session = self._model, self._session
        focus = model.strategy_state.get("guided")
        if focus is not None and len(focus) != len(model.means):
            focus = None
        if session is not None and not session.fits(model):
            session = None
        return Frame(
            show=self.show.value,
            threshold=self.threshold.value,
            opacity=self.opacity.value,
            found=None if session is None else session.found,
            edits=None if session is None else session.selection.state,
            focus=focus,
            regions=self._regions,
        )  # fmt: skip

    def painted(self, frame: Frame, outputs: dict[str, Any], camera: Cameras, inside: Tensor | None) -> dict[str, Any]:
        """The outputs with `rgb` as the frame shows it, and as they are where that fails; `inside` [N] bool: which are drawn."""
        try:
            splats, pinhole = self._model.splats(), self._model.pinhole(camera)
            return {**outputs, "rgb": frame.painted(outputs["rgb"], splats, pinhole, inside, outputs.get("semantics_pca"))}
        except IOChangeException:  # the viewer wants another picture already
            raise
        except Exception as error:
            warnings.warn(f"viewer: {told(error)}", stacklevel=2)  # no message to the page from here: it may be cut off half-way
            return outputs

    def follow(self) -> None:
        """Told after every step of training: where Gaussians were born or died, selection and finds are void."""
        if self._drop_stale():
            self.act(lambda: VOID)

    def tell(self, asked: Round, done: Densification) -> None:
        """Show a round of guidance and the densification that used it."""
        boxes = sum(len(view.boxes) for view in asked.regions or [])
        effect = f"{boxes} regions, {done.focused} added, {done.doomed} pruned"
        self.last_round = f"Last round of guidance: {asked.phase}, step {asked.step}: {effect}"
        if self._viewer is not None:
            self.act(self._read_rounds)

    # what is pressed

    def act(self, action: Action) -> Future[None]:
        """Run an action on the worker and show what it says, errors too; an empty line leaves the status as it is."""
        return self._worker.submit(self._safely, action)

    def find(self) -> str:
        """Look for what stands in the field, and make sure that it can be seen."""
        if self._pause is not None:
            self._pause.cancel()
        if self.phrases.value.strip() and self.show.value not in (FINDS, MASK):
            self.show.value = FINDS
        if self._viewer is not None and self._viewer.control_panel.output_render not in ("rgb", "not set"):
            self._viewer.control_panel._output_render.value = "rgb"
        self._say("Looking …")
        return self.session().find(
            self._model, self.phrases.value, self.negatives.value, self.threshold.value, lock=self._lock()
        )  # fmt: skip

    def select(self) -> str:
        """Select what is found."""
        with self._lock():
            return self.session().select(self._model, self.threshold.value)

    def invert(self) -> str:
        """Select all the others."""
        return self.session().invert()

    def grow(self) -> str:
        """Add to the selection what hangs together with it."""
        with self._lock():
            return self.session().grow(self._model, self.threshold.value)

    def tidy(self) -> str:
        """Drop strays from the selection."""
        with self._lock():
            return self.session().tidy(self._model)

    def hide(self) -> str:
        """Show the selected ones no longer."""
        return self.session().hide()

    def isolate(self) -> str:
        """Show the selected ones alone."""
        return self.session().isolate()

    def show_all(self) -> str:
        """Hide nothing."""
        return self.session().show_all()

    def undo(self) -> str:
        """Take back the last change."""
        return self.session().undo()

    def export(self) -> str:
        """Write the selected ones into the run's folder."""
        with self._lock():
            return self.session().export(self._model, self.run / "exports")

    def session(self) -> Session:
        """Of the present Gaussians: a new one, and a note about it, where training has changed them."""
        self._drop_stale()
        session = self._session
        if session is None:
            session = self._session = Session(self._model)
        return session

    # inside

    def _drop_stale(self) -> bool:
        """Whether something was lost because training has changed the Gaussians."""
        session = self._session
        if session is None or session.fits(self._model):
            return False
        self._session = None
        return session.touched

    def _safely(self, action: Action) -> None:
        try:
            void = self._drop_stale()
            try:
                said = action()
            except Exception as error:
                said = told(error)
            if void:
                said = f"{VOID} {said}".strip()
            if said:
                self._say(said)
            self._rerender()
        except Exception as error:  # the page may be gone
            warnings.warn(f"viewer panel: {told(error)}", stacklevel=2)

    def _say(self, status: str) -> None:
        self.status = status
        self._refresh()

    def _refresh(self) -> None:
        if self._page is not None:
            self._page.say(self.status, self.last_round)

    def _rerender(self) -> None:
        if self._viewer is not None:
            self._viewer._trigger_rerender()

    def _lock(self) -> AbstractContextManager[object]:
        """Held while training changes the Gaussians, and while the viewer renders."""
        lock = None if self._viewer is None else self._viewer.train_lock
        return nullcontext() if lock is None else lock

    def _typed(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._pause = threading.Timer(PAUSE, lambda: self.act(self._find_new))
        self._pause.daemon = True
        self._pause.start()

    def _find_new(self) -> str:
        """What was typed, unless it is what was found last."""
        found = self.session().found
        phrases, negatives = parsed(self.phrases.value, "Find"), parsed(self.negatives.value, "But not")
        if found is None and not phrases:
            return ""
        if found is not None and list(found.phrases) == phrases and negatives in ([], list(found.negatives)):
            return ""
        return self.find()

    def _picked(self) -> None:
        name = self.names.value
        if name != PICK:
            self.phrases.value, self.names.value = name, PICK
            self.act(self._find_new)

    def _recount(self) -> str:
        session = self.session()
        return "" if session.found is None else session.found.told(self.threshold.value)

    def _choose(self) -> str:
        """Say what is shown, or why there is nothing to show."""
        choice, found = self.show.value, self.session().found
        if choice == REGIONS:
            self._regions = rounds.last_pictures(self.run)
            if self._regions is None:
                return "No pictures of a round of guidance were kept in this run."
            return "The last round of guidance, as it was sent and answered; it does not follow the camera."
        if choice == FOCUS:
            if self._model.strategy_state.get("guided") is None:
                return "No round of guidance has chosen any Gaussians in this run."
            return "In colour: what the last round of guidance chose."
        if choice == FEATURES:
            self._model.searchable()
            return "Alike colours: features that are alike."
        return "Nothing is looked for." if found is None else found.told(self.threshold.value)

    def _read_rounds(self) -> str:
        self._regions = rounds.last_pictures(self.run)
        self._offer()
        self._refresh()
        return ""

    def _offer(self) -> None:
        """Fill the fields with what this scene has."""
        self.names.set_options([PICK, *self.known()])
        if self._model.semantics is not None and not self.negatives.value:
            self.negatives.value = "; ".join(self._model.semantics.about.negatives)

    def _await_words(self) -> None:
        """The semantic stage comes after the last iteration, and tells nobody."""
        while not self._can_search():
            time.sleep(LOOK_AGAIN)
        self.act(self._announce)

    def _announce(self) -> str:
        self._offer()
        return "This scene can be searched now: type what to look for."

    def known(self) -> list[str]:
        """What can be looked for: what a model named, the run's own phrases, and what the embedded encoder was taught."""
        found = rounds.labels(self.run)
        semantics = self._model.semantics
        found += self._model.prompts
        if semantics is not None:
            found += [text for text in semantics.texts if text not in semantics.about.negatives]
            if semantics.about.clip == EMBEDDED:
                found += embedded_words()
        return list(dict.fromkeys(found))

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
            if viewer.trainer is not None and self._model.config.semantics.enabled:
                threading.Thread(target=self._await_words, daemon=True, name="panel-words").start()
        except Exception as error:
            warnings.warn(f"the panel for words could not be added to the viewer: {told(error)}", stacklevel=2)

    def _build(self, server: viser.ViserServer, after: float) -> None:
        self._offer()
        self.last_round = rounds.last_told(self.run)
        if not self._can_search():
            self.status = self._why_not()
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
        )
        self._page = Page(server, after, self.act, words, self.find, look, rows, self.export)
        self._refresh()

    def _can_search(self) -> bool:
        return self._model.semantics is not None and self._model.semantics.complete

    def _why_not(self) -> str:
        if self._viewer is not None and self._viewer.trainer is not None and self._model.config.semantics.enabled:
            return "Training: this scene can be searched with words after the last iteration."
        try:
            self._model.searchable()
        except InputError as error:
            return told(error)
        return self.status


def embedded_words() -> list[str]:
    """What the embedded tiny encoder was taught, without colours and patterns."""
    from vlmgs_ns.toy.furniture import CATALOGUE
    from vlmgs_ns.toy.phrases import SURFACES

    return [*sorted({"table", *(kind.noun for kind in CATALOGUE)}), *SURFACES]


def told(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split()).removeprefix("Error: ")
    if isinstance(error, InputError):
        begin = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]  # a path stays as it is
        return begin + text[1:].rstrip(".") + "."
    return f"That failed ({type(error).__name__}: {text}); the scene is as it was."
