"""Errors of the user's input, reported in one message.

nerfstudio's commands catch nothing: a ``ValueError`` from inside them ends in a page of traceback. ``InputError`` is a
``ValueError`` for callers, and a ``SystemExit`` for the interpreter, which prints the message alone and exits with status 1.
"""

from __future__ import annotations

from vlmgs_ns.system.text import printable


class InputError(SystemExit, ValueError):
    """A value from outside that cannot be used.

    The message names the value, the reason and the fix, in that order.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(f"Error: {message}"))
