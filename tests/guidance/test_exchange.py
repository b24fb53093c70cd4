"""Servers that never finish, on real sockets, and what of a server's text may go further."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vlmgs_ns.guidance.backends.exchange import ExchangeError, exchange, redact
from vlmgs_ns.guidance.backends.openai import OpenAIBackend
from vlmgs_ns.system.errors import InputError

KEY = "Sk-a/secret-0123"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

ENDLESS = {
    "nothing at all": (b"", b""),
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "header": (OK + b"X-Long: ", b"a"),
    "headers": (OK, b"X-A: b\r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunk extension": (CHUNKED + b"1;ext=", b"x"),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "trailers": (CHUNKED + b"1\r\n \r\n0\r\n", b"X-A: b\r\n"),
}
"""What a server sends at once, and then again and again."""


@contextmanager
def endless(first: bytes, then: bytes, pause: float = 0.02) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield the address of a server that answers so, and whether its client has hung up on it."""
    over, hung_up = threading.Event(), threading.Event()

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except TimeoutError:  # nobody came
            return
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(first)
                while not over.wait(pause):
                    connection.sendall(then) if then else connection.send(b"") or connection.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:  # nothing to read, and not hung up
                over.wait()
            except OSError:
                hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", lambda: hung_up.wait(5)
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """The first exchange imports a library, which on a busy machine takes longer than the deadlines here."""
    with pytest.raises(ExchangeError):
        exchange("GET", "http://127.0.0.1:9/v1", "", None, 60)


@pytest.mark.parametrize("kind", ENDLESS)
def test_one_deadline_holds_whatever_the_server_drips(kind: str) -> None:
    with endless(*ENDLESS[kind]) as (url, hung_up):
        begin = time.monotonic()
        with pytest.raises(ExchangeError, match=r"^no (complete )?reply within 0\.3 s$"):
            exchange("GET", url, "", None, 0.3)
        assert 0.25 < time.monotonic() - begin < 5
        assert not ENDLESS[kind][1] or hung_up()


@pytest.mark.parametrize("kind", ["headers", "100 Continue", "chunks", "trailers"])
def test_a_flood_ends_too(kind: str) -> None:
    with endless(*ENDLESS[kind], pause=0.0) as (url, hung_up):
        with pytest.raises(ExchangeError):
            exchange("GET", url, "", None, 0.5)
        assert hung_up()


def test_the_list_of_models_is_held_to_the_same_deadline() -> None:
    with endless(*ENDLESS["status line"]) as (url, _), pytest.raises(InputError, match=r"no reply within 0\.3 s; start the"):
        OpenAIBackend(url, "m", timeout=0.3).check()


def test_nothing_of_a_server_steers_the_terminal() -> None:
    with endless(b"HTTP/1.1 \x1b[31m\x1b]0;title\x07 no\r\n\r\n", b"x") as (url, _), pytest.raises(ExchangeError) as raised:
        exchange("GET", url, "", None, 5)
    assert str(raised.value).isprintable() and "the connection was dropped" in str(raised.value)


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br"])
def test_a_compressed_response_is_not_unpacked(encoding: str) -> None:
    with (
        endless(OK + f"Content-Encoding: {encoding}\r\nContent-Length: 1\r\n\r\nx".encode(), b"x") as (url, _),
        pytest.raises(ExchangeError, match="compressed"),
    ):
        exchange("GET", url, "", None, 5)


def test_the_key_is_found_however_it_is_written() -> None:
    escaped = "".join(f"\\u{ord(letter):04X}" for letter in KEY)
    for text in (KEY, KEY.lower(), KEY.upper(), escaped, escaped.lower(), KEY.replace("/", "\\/"), KEY.replace("/", "%2F")):
        assert redact(f"a{text}b", KEY) == "a***b"
    for wrong, at in itertools.product("xyz", range(len(KEY))):
        other = KEY[:at] + wrong + KEY[at + 1 :]
        assert redact(other, KEY) == other
    assert redact("EMPTY words", "EMPTY") == "EMPTY words"


def test_no_one_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ExchangeError, match=r"^no connection: Connection refused$") as raised:
        exchange("GET", f"http://127.0.0.1:{port}/v1", "", None, 5)
    assert raised.value.again
