"""One HTTP request and its whole response under one deadline, whatever the server does.

A client's own timeouts bound the wait for the next byte; a server that sends one now and then holds such a client for ever. Here
the clock bounds everything together: finding the host, connecting, sending, and every byte of the status line, the headers and
the body. When it runs out, the socket is closed. What a server sends is not trusted: text from it is printable and without the
key.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import ssl
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from vlmgs_ns.system.text import one_line

MAX_RESPONSE = 4 * 2**20
"""Bytes of a response; more is refused."""
SHORTEST_KEY = 8
"""Least number of characters of a secret key; shorter ones are placeholders like "EMPTY", which ordinary text may contain."""


class ExchangeError(Exception):
    """The reason why a request has no reply, as one printable line for the user."""

    def __init__(self, reason: str, again: bool = False, wait: float | None = None) -> None:
        super().__init__(one_line(reason))
        self.again = again  # whether repeating the request may help
        self.wait = wait  # seconds that the server asks to wait


@dataclass(frozen=True)
class Response:
    """What a server sent."""

    status: int
    retry_after: str
    location: str
    text: str
    """Its body."""


def exchange(method: str, url: str, key: str, payload: dict[str, Any] | None, timeout: float) -> Response:
    """Send one request on a connection of its own and return the response, whatever its status; redirects are not followed.

    Args:
        key: sent as bearer token; "" sends none. Where the server repeats it, the response has ``***``.
        payload: sent as JSON.
        timeout: seconds for the whole exchange.

    Raises:
        ExchangeError: no connection, a dropped one, no complete response in time, or one that is too large or compressed.
    """
    import httpx

    body = bytearray()
    try:
        # Not asyncio.run, which would wait for a name server beyond the deadline.
        with closing(asyncio.new_event_loop()) as loop:
            return loop.run_until_complete(asyncio.wait_for(_exchange(method, url, key, payload, body), timeout))
    except asyncio.TimeoutError:
        raise ExchangeError(f"no {'complete ' if body else ''}reply within {timeout:g} s") from None
    except httpx.ConnectError as error:
        cause = _cause(error)
        if isinstance(cause, ssl.SSLError):
            raise ExchangeError(f"no safe connection: {cause}") from None
        reason = os.strerror(cause.errno) if isinstance(cause, ConnectionError) and cause.errno else str(cause)
        raise ExchangeError(f"no connection: {reason}", again=True) from None
    except httpx.TransportError as error:
        raise ExchangeError(redact(f"the connection was dropped: {_cause(error)}", key), again=True) from None
    except (httpx.InvalidURL, ImportError, ValueError) as error:  # of the address, or of a proxy in the environment
        raise ExchangeError(f"no connection: {error}") from None


async def _exchange(method: str, url: str, key: str, payload: dict[str, Any] | None, body: bytearray) -> Response:
    import httpx

    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    # A server on this machine is never reached through a proxy.
    elsewhere = not is_this_machine(urlsplit(url).hostname or "")
    async with (
        httpx.AsyncClient(trust_env=elsewhere, verify=_certificates(), timeout=None, headers=headers) as client,
        client.stream(method, url, json=payload) as response,
    ):
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ExchangeError("the response is compressed, which was not asked for")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_RESPONSE:
                raise ExchangeError(f"the response is larger than {MAX_RESPONSE // 2**20} MB")
        retry_after, location = (redact(response.headers.get(name, ""), key) for name in ("Retry-After", "Location"))
        # Before anything is read off it or cut out of it, by which half a key would escape.
        return Response(response.status_code, retry_after, location, redact(body.decode("utf-8", "replace"), key))


@cache
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()


def fault_of(base_url: str) -> str | None:
    """Return the fault of a server's address, without repeating a possible password; None where it is valid."""
    fix = "give --pipeline.model.guidance.base-url like http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(base_url)
        parts.port  # noqa: B018 - raises if it is none
    except ValueError:
        return f"the server's address is not a URL; {fix}"
    if "@" in base_url or parts.query or parts.fragment:
        return f"the server's address holds a user name, a query or a fragment; {fix}, and the key in an environment variable"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{base_url or 'an empty address'}: not http or https with a host; {fix}"
    return None


def redact(text: str, key: str) -> str:
    """Return the text with ``***`` for the key, also where it is in other case or escaped as in JSON or a URL."""
    if len(key) < SHORTEST_KEY:
        return text
    letters = (rf"(?:\\?{re.escape(letter)}|\\u{ord(letter):04x}|%{ord(letter):02x})" for letter in key)
    return re.sub("".join(letters), "***", text, flags=re.IGNORECASE)


def is_this_machine(host: str) -> bool:
    """Return whether a host's name or address is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cause(error: BaseException) -> BaseException:
    """Return the innermost cause of a failed connection, e.g. "Connection refused"."""
    while inner := next(iter(getattr(error, "exceptions", ())), error.__cause__ or error.__context__):
        error = inner
    return error
