"""Replies that were paid for once: kept on disk by what was asked of whom."""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import suppress
from pathlib import Path

from vlmgs_ns.guidance.question import Answer, Backend, Question
from vlmgs_ns.system.atomic import replacing
from vlmgs_ns.system.json_text import parse_json


class ReplyMemory:
    """One small JSON file per reply in a folder, named by the hash of the backend's fingerprint, the prompt and the pictures.

    Beside the reply it holds its details: what the numbers of a reply count depends on the size that the model saw.

    Failures are not kept. A damaged file is discarded with a warning; where the folder cannot be written, nothing is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, backend: Backend, question: Question) -> Answer | None:
        """The reply to the same question from the same backend, if it is known."""
        path = self._path(backend, question)
        try:
            kept = parse_json(path.read_text(encoding="utf-8"))
            text, details = kept["text"], kept["details"]
            if not isinstance(text, str) or not isinstance(details, dict):
                raise TypeError(f"text is {type(text).__name__}, details {type(details).__name__}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path}: this kept reply is damaged ({error!r}); it is discarded and asked for again", stacklevel=2)
            with suppress(OSError):
                path.unlink()
            return None
        return Answer(text, details={**details, "remembered": True})

    def keep(self, backend: Backend, question: Question, answer: Answer) -> None:
        """Remember a reply."""
        if answer.text is None:
            return
        path = self._path(backend, question)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                kept = {"backend": backend.name, "text": answer.text, "details": answer.details}
                partial.write_text(json.dumps(kept), encoding="utf-8")
        except (OSError, ValueError, TypeError) as error:
            warnings.warn(f"{path}: replies cannot be kept ({error}); the run goes on without", stacklevel=2)

    def _path(self, backend: Backend, question: Question) -> Path:
        digest = hashlib.sha256()
        for part in (backend.fingerprint, backend.coordinates, question.phase, question.prompt):
            digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
        for picture in question.pictures:
            digest.update(repr(picture.shape).encode())
            digest.update(picture.tobytes())
        return self.folder / f"{digest.hexdigest()[:40]}.json"
