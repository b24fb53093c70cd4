"""The thread on which the panel's actions run, one after the other; each ends in a message, also when it fails."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from vlmgs_ns.system.errors import InputError
from vlmgs_ns.viewer.controls import Action


class Worker:
    """Runs actions.

    Args:
        before: called before each; its words begin the message.
        done: given the message of each, which is empty where there is nothing to say.
    """

    def __init__(self, before: Action, done: Callable[[str], None]) -> None:
        self._before, self._done = before, done
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="panel")
        self._pause: threading.Timer | None = None
        self.client: int | None = None
        """Number of the client that the present action was asked for by; None: not known."""

    def run(self, action: Action, client: int | None = None) -> Future[None]:
        """Run an action once those before it are done."""
        return self._thread.submit(self._run, action, client)

    def run_after_pause(self, action: Action, seconds: float) -> None:
        """Run an action unless another is asked for within so many seconds."""
        self.cancel_pause()
        self._pause = threading.Timer(seconds, lambda: self.run(action))
        self._pause.daemon = True
        self._pause.start()

    def cancel_pause(self) -> None:
        """Leave out what waits for the end of its pause."""
        if self._pause is not None:
            self._pause.cancel()

    def _run(self, action: Action, client: int | None) -> None:
        try:
            self.client, first = client, self._before()
            try:
                message = action()
            except Exception as error:
                message = error_message(error)
            self._done(f"{first} {message}".strip())
        except Exception as error:  # the page may be gone
            warnings.warn(f"viewer panel: {error_message(error)}", stacklevel=2)


def error_message(error: Exception) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split()).removeprefix("Error: ")
    if isinstance(error, InputError):
        begin = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]  # a path stays as it is
        return begin + text[1:].rstrip(".") + "."
    return f"That failed ({type(error).__name__}: {text}); the scene is as it was."
