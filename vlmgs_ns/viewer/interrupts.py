"""Stretches of code that nerfstudio's viewer may not cut off.

The viewer stops a render that is out of date by raising from a trace function, at any line of Python. Raised at the end
of a ``with lock:`` block, the exception comes before the release: a lock of a thread pool stays held, and the next render, in
training too, waits for ever. An import that is cut off stays broken.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """No trace function is called in this thread until the block ends; the viewer's interruption comes right after it."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
