"""A vision-language model behind any OpenAI-compatible server: vLLM, Ollama, llama.cpp, or a hosted one.

A server that is slow, overloaded, broken or out of reach yields an answer that holds the reason, never an exception. The key is
sent in a header of the request and stored nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from vlmgs_ns.guidance.backends.exchange import ExchangeError, Response, exchange, fault_of, redact
from vlmgs_ns.guidance.backends.pictures import SQUARE, coordinates_of, shrink
from vlmgs_ns.guidance.question import Answer, Coordinates, Question
from vlmgs_ns.system.errors import InputError
from vlmgs_ns.system.json_text import parse_json
from vlmgs_ns.system.text import one_line

MAX_WAIT = 30.0
"""Longest pause before a request is repeated, in seconds, whatever the server asks for."""
FIRST_WAIT = 0.5
"""Pause before the first repetition, in seconds; doubled for each one after it."""
JPEG = {"quality": 95, "subsampling": 0}
"""Encoding of the pictures sent: models see no difference to PNG, which takes 50 times as long to write."""


class OpenAIBackend:
    """Asks a server for chat completions, one request per question, several at a time.

    An answer's details: ``attempts`` (requests sent), ``status`` (HTTP status of the last), ``seen_size`` ([width, height] of the
    first picture as it was sent, in pixels: the unit of the reply where ``coordinates`` is "pixels"), and if the server
    reports them ``completion_tokens`` and ``finish_reason`` ("length": cut off at ``max_tokens``).

    Args:
        base_url: e.g. ``http://127.0.0.1:8000/v1`` (vLLM), ``http://127.0.0.1:11434/v1`` (Ollama). Redirects are not followed.
        model: as the server calls it; "": the first that it lists, found out by ``check`` or the first ``ask``.
        key_variable: environment variable that holds the key, read at each request; nothing is sent where it is not set.
        timeout: seconds for each request, from connecting to the last byte of the reply.
        retries: how often a request is repeated after 429, 5xx or a dropped connection. A timeout is not repeated.
        parallel: requests in flight at a time.
        max_tokens: longest reply.
        max_image_size: pictures are sent as JPEG with at most this many pixels at their longer side.
        coordinates: unit of the coordinates in a reply; "auto": from the model's name.
        schema: JSON schema of a reply, sent as ``response_format``. After a server refuses it, requests go without it.
        sleep: called with seconds before a request is repeated.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 60.0,
        retries: int = 3,
        parallel: int = 5,
        max_tokens: int = 512,
        max_image_size: int = 640,
        coordinates: Coordinates | Literal["auto"] = "auto",
        schema: dict[str, Any] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.needs_evidence = self.quick = False
        self.base_url = base_url.strip().rstrip("/")
        self.model = model
        self.key_variable = key_variable
        self.timeout = timeout
        self.retries = retries
        self.parallel = parallel
        self.max_tokens = max_tokens
        self.max_image_size = max_image_size
        self.schema = schema
        self._coordinates = coordinates
        self._sleep = sleep
        # Its own stream: training's random numbers are not touched.
        self._random = random.Random()
        self._schema_refused = False
        self._schema_accepted = False
        self._settle(model)

    def check(self) -> None:
        """Raise `InputError` for an address that cannot be one, a server out of reach, a refused key or an unknown model."""
        if fault := fault_of(self.base_url):
            raise InputError(fault)
        try:
            names = self._models()
        except ExchangeError as failure:
            raise InputError(
                f"no model can be asked at {self.base_url}: {failure}; start the server, "
                "correct --pipeline.model.guidance.base-url, or do without: --pipeline.model.guidance.backend residual"
            ) from None
        if not self.model:
            if not names:
                raise InputError(
                    f"{self.base_url}: the server does not list its models; name one with --pipeline.model.guidance.server-model"
                )
            self._settle(names[0])
        # Ollama and Google list names with an affix that they do without in a request.
        elif names and not {self.model, f"{self.model}:latest", f"models/{self.model}"} & set(names):
            shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise InputError(
                f"{self.model}: the server at {self.base_url} does not have this model, only {shown}; "
                "choose one of them with --pipeline.model.guidance.server-model"
            )

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order; a question that fails has an answer with the reason."""
        if not questions:
            return []
        if not self.model:
            try:
                self.check()
            except InputError as error:
                return [Answer(None, self._redacted(str(error))) for _ in questions]
        waiting: SimpleQueue[int] = SimpleQueue()
        for k in range(len(questions)):
            waiting.put(k)
        answers = [Answer(None, "the request was cut off")] * len(questions)

        def work() -> None:
            try:
                while True:
                    k = waiting.get_nowait()
                    answers[k] = self._answer(questions[k])
            except Empty:
                return

        # Daemons, unlike a pool's threads: a process that is done does not wait for a server that hangs.
        count = min(self.parallel, len(questions))
        threads = [threading.Thread(target=work, daemon=True, name=f"guidance request {k}") for k in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def release(self) -> None:
        """Do nothing: connections are closed with each question."""

    def _settle(self, model: str) -> None:
        """Set the model, and the name and fingerprint that depend on it."""
        self.model = model
        fault = fault_of(self.base_url)
        # A faulty address may have a password in it.
        place = "an unusable address" if fault else self.base_url
        self.name = f"openai {model or 'first model'} at {place}"
        self.coordinates: Coordinates = coordinates_of(model) if self._coordinates == "auto" else self._coordinates
        settings = [place, model, self.max_tokens, self.max_image_size, self.coordinates, self.schema, JPEG]
        self.fingerprint = "openai " + hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def _answer(self, question: Question) -> Answer:
        start = time.monotonic()
        details: dict[str, Any] = {"attempts": 0}
        text = error = None
        try:
            text = self._redacted(self._reply(question, details))
        except ExchangeError as failure:
            error = self._redacted(str(failure))
        except Exception as failure:
            error = self._redacted(f"{type(failure).__name__}: {failure}")
        return Answer(text, error, time.monotonic() - start, details)

    def _reply(self, question: Question, details: dict[str, Any]) -> str:
        """Return the text of the reply, repeating the request where that may help."""
        if fault := fault_of(self.base_url):
            raise ExchangeError(fault)
        pictures = [shrink(picture, self.max_image_size, SQUARE[self.coordinates]) for picture in question.pictures]
        if pictures:
            details["seen_size"] = [pictures[0].shape[1], pictures[0].shape[0]]
        payload = self._payload(question.prompt, pictures)
        with_schema = "response_format" in payload
        failures = 0
        while True:
            details["attempts"] += 1
            try:
                response = self._send("POST", "/chat/completions", payload)
                details["status"] = response.status
                if "response_format" in payload and self._refuses_schema(response):
                    del payload["response_format"]
                    continue
                _raise_for(response, self._key_hint())
                break
            except ExchangeError as failure:
                failures += 1
                if not failure.again or failures > self.retries:
                    raise
                self._sleep(self._pause(failures, failure.wait))
        if "response_format" in payload:
            self._schema_accepted = True
        elif with_schema:
            # Only now: had it been refused without the schema too, the schema would not have been the reason.
            self._schema_refused = True
        return _text_of(response.text, details)

    def _refuses_schema(self, response: Response) -> bool:
        """Whether a request without the schema may succeed: servers say in many ways that they do not know it."""
        if response.status not in (400, 422):
            return False
        return not self._schema_accepted or "response_format" in response.text.lower() or "schema" in response.text.lower()

    def _payload(self, prompt: str, pictures: list[NDArray[np.uint8]]) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in pictures]
        content.append({"type": "text", "text": prompt})
        payload: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        if self.schema is not None and not self._schema_refused:
            schema = {"name": "regions", "schema": self.schema, "strict": True}
            payload["response_format"] = {"type": "json_schema", "json_schema": schema}
        return payload

    def _pause(self, failures: int, retry_after: float | None) -> float:
        """Return the seconds before the next request: the server's Retry-After, or doubling with jitter; bounded."""
        if retry_after is not None:
            return min(retry_after, MAX_WAIT)
        return min(FIRST_WAIT * 2 ** (failures - 1) * self._random.uniform(0.5, 1.5), MAX_WAIT)

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        if not (key.isascii() and key.isprintable()):
            raise ExchangeError(
                f"the environment variable {self.key_variable} holds characters that a header cannot; set it again"
            )
        return key

    def _key_hint(self) -> str:
        state = "is set but not accepted" if os.environ.get(self.key_variable, "").strip() else "is not set"
        return f"the key is read from the environment variable {self.key_variable}, which {state}"

    def _redacted(self, text: str) -> str:
        return redact(text, os.environ.get(self.key_variable, "").strip())

    def _send(self, method: str, path: str, payload: dict[str, Any] | None = None) -> Response:
        """Return the response to one request; see `exchange`."""
        return exchange(method, self.base_url + path, self._key(), payload, self.timeout)

    def _models(self) -> list[str]:
        """Return the names of the server's models; none where it does not provide a readable list."""
        response = self._send("GET", "/models")
        if response.status == 404:
            if not urlsplit(self.base_url).path:
                raise ExchangeError(f"it has no list of models there; the address is probably {self.base_url}/v1")
            return []
        if response.status in (401, 403) or 300 <= response.status < 400:
            _raise_for(response, self._key_hint())
        try:
            entries = parse_json(response.text)["data"]
            return [name for entry in entries if isinstance(name := entry["id"], str) and name]
        except (ValueError, KeyError, TypeError):
            return []


def _raise_for(response: Response, key_hint: str) -> None:
    """Raise for a status other than 200, with its meaning.

    Raises:
        ExchangeError: for every other status.
    """
    status = response.status
    if status == 200:
        return
    if status in (401, 403):
        # The body is left out: some servers repeat the key in it.
        raise ExchangeError(f"HTTP {status}: the server refuses; {key_hint}")
    if 300 <= status < 400:
        target = urlsplit(response.location)
        where = f"{target.scheme}://{target.hostname}" if target.hostname else "another path"
        raise ExchangeError(f"HTTP {status}: redirected to {where}, which is not followed; give the address itself")
    excerpt = _excerpt(response.text)
    if status == 404:
        raise ExchangeError(f"HTTP 404: the model does not exist, or the address lacks its /v1: {excerpt}")
    if status == 429 or status >= 500:
        raise ExchangeError(f"HTTP {status}: {excerpt}", again=True, wait=_seconds(response.retry_after))
    raise ExchangeError(f"HTTP {status}: {excerpt}")


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None where it is neither."""
    if not retry_after:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _text_of(text: str, details: dict[str, Any]) -> str:
    """Return the reply in a response; finish_reason and completion_tokens go to ``details``.

    Raises:
        ExchangeError: not a chat completion, or one without text.
    """
    try:
        completion = parse_json(text)
    except ValueError:
        raise ExchangeError(f"the response is not JSON: {_excerpt(text)}") from None
    try:
        choice = completion["choices"][0]
        content = choice["message"]["content"]
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part["type"] == "text")
    except (KeyError, IndexError, TypeError):
        raise ExchangeError(f"the response is not a chat completion: {_excerpt(text)}") from None
    reason = choice.get("finish_reason")
    if isinstance(reason, str):
        details["finish_reason"] = reason
    usage = completion.get("usage")
    if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
        details["completion_tokens"] = usage["completion_tokens"]
    if not isinstance(content, str) or not content.strip():
        raise ExchangeError(f"the reply has no text (finish_reason {reason})")
    return content


def _excerpt(text: str) -> str:
    """Return the start of a response, on one line and without control characters."""
    line = one_line(text[:2000])
    return line[:200] + "…" if len(line) > 200 else line or "(nothing)"


def _data_url(picture: NDArray[np.uint8]) -> str:
    """Encode a picture [H, W, 3] as JPEG without chroma subsampling, which would blur edges."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", **JPEG)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
