"""A real server on 127.0.0.1 plays an OpenAI-compatible one, good and bad; what a model would say is never judged here."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmgs_ns.guidance.backends import exchange, openai
from vlmgs_ns.guidance.backends.openai import OpenAIBackend
from vlmgs_ns.guidance.backends.pictures import coordinates_of, seen_size, shrink
from vlmgs_ns.guidance.question import Question
from vlmgs_ns.system.errors import InputError

KEY = "sk-a-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"regions": {"type": "array"}}}


@dataclass
class Reply:
    """What the server does with a request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    """close the connection without a word"""
    length: int | None = None
    """the Content-Length to claim"""
    drip: float = 0.0
    """seconds between two bytes of the body"""


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    payload: Any

    @property
    def prompt(self) -> str:
        return self.payload["messages"][0]["content"][-1]["text"]

    @property
    def pictures(self) -> list[np.ndarray]:
        links = [part["image_url"]["url"] for part in self.payload["messages"][0]["content"][:-1]]
        assert all(link.startswith("data:image/jpeg;base64,") for link in links)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2])))) for link in links]


class Server:
    """Answers with what ``behave`` returns for a request, and remembers the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.behave: Callable[[Request], Reply] = lambda request: says("[]")
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, payload: Any) -> None:
                request = Request(self.path, dict(self.headers), payload)
                server.requests.append(request)
                reply = server.behave(request)
                if reply.drop:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
                self.end_headers()
                if not reply.drip:
                    self.wfile.write(reply.body)
                    return
                for k in range(len(reply.body)):
                    self.wfile.write(reply.body[k : k + 1])
                    if server.over.wait(reply.drip):
                        return

            def log_message(self, *args: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the backend hung up, as some tests want
                    self.close_connection = True

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def play(self, *replies: Reply) -> None:
        """Give these replies one after the other."""
        rest = iter(replies)
        self.behave = lambda request: next(rest)

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = Server()
    yield running
    running.close()


def says(text: Any, **more: Any) -> Reply:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Reply(body=json.dumps({"choices": [choice], "usage": {"completion_tokens": 7}, **more}).encode())


def lists(*names: str) -> Reply:
    return Reply(body=json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode())


def picture(seed: int = 0, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def question(prompt: str = "where?", *pictures: np.ndarray) -> Question:
    return Question("detail", prompt, pictures or (picture(),))


def backend(server: Server, **settings: Any) -> OpenAIBackend:
    """One that does not really sleep: what it would have is in its ``slept``."""
    slept: list[float] = []
    made = OpenAIBackend(**{"base_url": server.url, "model": "m", "schema": SCHEMA, "sleep": slept.append, **settings})
    made.slept = slept  # type: ignore[attr-defined]
    return made


def test_a_good_reply(server: Server) -> None:
    server.behave = lambda request: says('[{"bbox_2d": [1, 2, 3, 4]}]')
    [answer] = backend(server).ask([question("mark it", picture(1), picture(2, 8, 9))])
    assert answer.text == '[{"bbox_2d": [1, 2, 3, 4]}]' and answer.error is None and answer.seconds > 0
    assert answer.details == {
        "attempts": 1,
        "status": 200,
        "finish_reason": "stop",
        "completion_tokens": 7,
        "seen_size": [30, 20],
    }
    [request] = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.prompt == "mark it"
    sent = request.pictures
    assert all(abs(a.astype(int) - b).max() <= 20 for a, b in zip(sent, (picture(1), picture(2, 8, 9)), strict=True))
    assert (request.payload["model"], request.payload["temperature"], request.payload["max_tokens"]) == ("m", 0, 512)
    assert request.payload["response_format"]["json_schema"]["schema"] == SCHEMA


def test_no_questions_ask_nothing(server: Server) -> None:
    assert backend(server).ask([]) == []
    assert backend(server, model="").ask([]) == []
    assert server.requests == []


def test_a_reply_in_parts(server: Server) -> None:
    server.play(says([{"type": "text", "text": "[1"}, {"type": "refusal", "refusal": "no"}, {"type": "text", "text": "]"}]))
    assert backend(server).ask([question()])[0].text == "[1]"


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_schemas_is_asked_without_from_then_on(server: Server, status: int) -> None:
    def behave(request: Request) -> Reply:
        return Reply(status, b'{"error": "unknown field"}') if "response_format" in request.payload else says("[]")

    server.behave = behave
    asker = backend(server)
    first, second = (asker.ask([question()])[0] for _ in range(2))
    assert first.text == second.text == "[]"
    assert (first.details["attempts"], second.details["attempts"]) == (2, 1)
    assert ["response_format" in request.payload for request in server.requests] == [True, False, False]


def test_a_schema_that_worked_is_not_blamed_for_another_fault(server: Server) -> None:
    server.play(says("[]"), Reply(400, b"picture too large"), Reply(400, b"cannot compile json_schema"), says("[]"))
    asker = backend(server)
    answers = [asker.ask([question()])[0] for _ in range(3)]
    assert [answer.text for answer in answers] == ["[]", None, "[]"]
    assert answers[1].error == "HTTP 400: picture too large"
    assert ["response_format" in request.payload for request in server.requests] == [True, True, True, False]


def test_a_request_that_is_wrong_anyway_leaves_the_schema_in_use(server: Server) -> None:
    server.play(Reply(400, b"no"), Reply(400, b"no, really"), says("[]"))
    asker = backend(server)
    assert asker.ask([question()])[0].error == "HTTP 400: no, really"
    assert asker.ask([question()])[0].text == "[]"
    assert "response_format" in server.requests[2].payload


def test_without_a_schema_none_is_sent(server: Server) -> None:
    server.play(Reply(400, b"no"))
    assert backend(server, schema=None).ask([question()])[0].details["attempts"] == 1
    assert "response_format" not in server.requests[0].payload


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("100000", openai.MAX_WAIT, openai.MAX_WAIT),
        pytest.param(formatdate(usegmt=True), 0, 0, id="now"),
        ("soon", 0.5 * openai.FIRST_WAIT, 1.5 * openai.FIRST_WAIT),
        ("-3", 0.5 * openai.FIRST_WAIT, 1.5 * openai.FIRST_WAIT),
    ],
)
def test_a_full_server_is_asked_again_when_it_says(server: Server, header: str, least: float, most: float) -> None:
    server.play(Reply(429, b"full", {"Retry-After": header}), says("[]"))
    asker = backend(server)
    [answer] = asker.ask([question()])
    assert (answer.text, answer.details["attempts"], answer.details["status"]) == ("[]", 2, 200)
    assert len(asker.slept) == 1 and least <= asker.slept[0] <= most


def test_a_broken_server_is_given_up_after_the_retries(server: Server) -> None:
    server.behave = lambda request: Reply(503, b"loading\x1b[31m\nthe model")
    asker = backend(server, retries=3)
    [answer] = asker.ask([question()])
    assert answer.text is None
    assert answer.error == "HTTP 503: loading [31m the model"  # one line, no control characters
    assert answer.details["attempts"] == len(server.requests) == 4
    for k, slept in enumerate(asker.slept):
        assert 0.5 <= slept / (openai.FIRST_WAIT * 2**k) <= 1.5
    assert len(asker.slept) == 3


def test_pauses_differ_and_are_bounded(server: Server) -> None:
    asker = backend(server)
    assert len({asker._pause(1, None) for _ in range(10)}) == 10
    assert max(asker._pause(k, None) for k in range(1, 60)) == openai.MAX_WAIT


def test_a_dropped_connection_is_tried_again(server: Server) -> None:
    server.play(Reply(drop=True), says("[]"))
    asker = backend(server)
    [answer] = asker.ask([question()])
    assert (answer.text, answer.details["attempts"], len(asker.slept)) == ("[]", 2, 1)


def test_a_response_cut_short_is_tried_again(server: Server) -> None:
    whole = says("[]").body
    server.play(Reply(body=whole[:-10], length=len(whole), headers={"Connection": "close"}), says("[]"))
    [answer] = backend(server).ask([question()])
    assert (answer.text, answer.details["attempts"]) == ("[]", 2)


def test_no_server_at_all(server: Server) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        asker = backend(server, base_url=f"http://127.0.0.1:{closed.getsockname()[1]}/v1", retries=1)
        [answer] = asker.ask([question()])
        assert answer.text is None and answer.error == "no connection: Connection refused" and answer.details["attempts"] == 2
        with pytest.raises(InputError, match=r"127\.0\.0\.1:\d+/v1: no connection: Connection refused; start the server"):
            asker.check()


def test_a_server_that_hangs_costs_the_timeout_once(server: Server) -> None:
    def hang(request: Request) -> Reply:
        server.over.wait(30)
        return Reply(drop=True)

    server.behave = hang
    [answer] = backend(server, timeout=0.2).ask([question()])
    server.over.set()
    assert (answer.text, answer.error, answer.details["attempts"]) == (None, "no reply within 0.2 s", 1)
    assert len(server.requests) == 1


def test_a_server_that_drips_is_held_to_the_timeout(server: Server) -> None:
    server.behave = lambda request: Reply(body=b" " * 10_000, drip=0.02)
    [answer] = backend(server, timeout=0.2).ask([question()])
    server.over.set()
    assert (answer.error, answer.details["attempts"]) == ("no complete reply within 0.2 s", 1)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>\x00oops", "the response is not JSON: <html> oops"),
        (b"\xff\xfe\xfa", "the response is not JSON"),
        (b"", "the response is not JSON: (nothing)"),
        (b"[" * 100_000, "the response is not JSON: [[["),
        (b"[]", "the response is not a chat completion: []"),
        (b'{"error": {"message": "no"}}', 'the response is not a chat completion: {"error"'),
        (b'{"choices": []}', "the response is not a chat completion"),
        (b'{"choices": ["text"]}', "the response is not a chat completion"),
        (b'{"choices": [{"message": {"content": [1]}}]}', "the response is not a chat completion"),
        (
            b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}',
            "the reply has no text (finish_reason length)",
        ),
        (b'{"choices": [{"message": {"content": 5}}]}', "the reply has no text"),
        (b'{"choices": [{"message": {"content": " "}}]}', "the reply has no text"),
    ],
)
def test_babble_is_an_answer_without_text(server: Server, body: bytes, error: str) -> None:
    server.behave = lambda request: Reply(body=body)
    [answer] = backend(server).ask([question()])
    assert answer.text is None and answer.error is not None and answer.error.startswith(error)
    assert answer.details["attempts"] == 1


def test_odd_fields_beside_a_good_reply_are_left_out(server: Server) -> None:
    server.play(says("[]", usage={"completion_tokens": "many"}), says("[]", usage=None))
    for _ in range(2):
        [answer] = backend(server).ask([question()])
        assert answer.text == "[]" and "completion_tokens" not in answer.details


@pytest.mark.parametrize("status", [200, 500])
def test_an_endless_response_is_cut_off(server: Server, status: int) -> None:
    server.behave = lambda request: Reply(status, body=b" " * (exchange.MAX_RESPONSE + 1))
    [answer] = backend(server).ask([question()])
    assert (answer.error, answer.details["attempts"]) == ("the response is larger than 4 MB", 1)


def test_the_largest_response_is_read(server: Server) -> None:
    body = says("[]").body
    server.behave = lambda request: Reply(body=body + b" " * (exchange.MAX_RESPONSE - len(body)))
    assert backend(server).ask([question()])[0].text == "[]"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_tried_again_or_repeated(server: Server, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.behave = lambda request: Reply(status, f"bad key {KEY[:8]}".encode())
    asker = backend(server, key_variable="MY_KEY")
    [answer] = asker.ask([question()])
    assert answer.details["attempts"] == 1
    expected = "the server refuses; the key is read from the environment variable MY_KEY, which"
    assert answer.error == f"HTTP {status}: {expected} is set but not accepted"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InputError, match=f"{expected} is not set; start"):
        asker.check()


def test_a_missing_model_or_path_is_not_tried_again(server: Server) -> None:
    server.behave = lambda request: Reply(404, b"model m not found")
    [answer] = backend(server).ask([question()])
    assert answer.error == "HTTP 404: the model does not exist, or the address lacks its /v1: model m not found"
    assert answer.details["attempts"] == 1


def test_the_key_goes_into_one_header_and_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    asker = backend(server, retries=0)
    before = asker.fingerprint
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert backend(server).fingerprint == before
    # As part of a long text it would be cut in two by an excerpt.
    server.play(says("[]"), *(Reply(status, b"x" * pad + KEY.encode()) for status in (500, 418) for pad in (0, 190)), lists("m"))
    answers = [asker.ask([question()])[0] for _ in range(5)]
    asker.check()
    assert answers[0].text == "[]"
    assert [request.headers["Authorization"] for request in server.requests] == [f"Bearer {KEY}"] * 6
    for request in server.requests:
        del request.headers["Authorization"]
    told = [repr(answers), asker.name, asker.fingerprint, repr(server.requests), caplog.text, *capfd.readouterr()]
    assert "sk-a-sec" not in "".join(told)
    assert "***" in answers[1].error


def test_a_key_that_a_server_escapes_is_found_after_decoding(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    once = "".join(f"\\u{ord(letter):04x}" for letter in KEY)  # as JSON escapes it
    twice = once.replace("\\", "\\\\")  # a label escaped once more: whoever parses the reply would decode it
    halves = [{"type": "text", "text": part} for part in (KEY[:9], KEY[9:])]
    choice = f'{{"choices": [{{"message": {{"content": "{once} {twice}"}}, "finish_reason": "{once}"}}]}}'.encode()
    server.play(
        Reply(body=choice), says(halves), Reply(500, once.encode()), Reply(body=f'{{"data": [{{"id": "{once}"}}]}}'.encode())
    )
    asker = backend(server, retries=0)
    answers = [asker.ask([question()])[0] for _ in range(3)]
    assert [answer.text for answer in answers] == ["*** ***", "***", None]
    with pytest.raises(InputError, match=r"only \*\*\*;"):
        asker.check()
    assert "sk-a" not in repr(answers).encode().decode("unicode_escape")


@pytest.mark.parametrize("host", [KEY, KEY.upper(), KEY.replace("s", "%73")])
def test_a_key_in_a_redirect_is_not_shown(server: Server, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.behave = lambda request: Reply(302, headers={"Location": f"http://{host}.example/"})
    [answer] = backend(server).ask([question()])
    assert answer.error == "HTTP 302: redirected to http://***.example, which is not followed; give the address itself"


def test_without_a_key_no_header_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    # A password for this host in ~/.netrc is not for us.
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    # As if it were another machine, for which proxies and the like are looked up.
    monkeypatch.setattr(exchange, "is_this_machine", lambda host: False)
    monkeypatch.setenv("no_proxy", "*")
    backend(server).ask([question()])
    backend(server, key_variable="").ask([question()])
    assert all("Authorization" not in request.headers for request in server.requests) and len(server.requests) == 2


def test_a_key_that_cannot_be_sent_is_not_shown(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("sk-secret\nX-Evil: 1", "sk-secret-ü"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        [answer] = backend(server).ask([question()])
        assert answer.error == "the environment variable OPENAI_API_KEY holds characters that a header cannot; set it again"
    assert server.requests == []


def test_a_server_on_this_machine_is_not_asked_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert backend(server).ask([question()])[0].text == "[]"


def test_redirects_are_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    other = Server()
    try:
        for status in (301, 302, 307, 308):
            server.behave = lambda request, status=status: Reply(status, headers={"Location": other.url + "/chat/completions"})
            [answer] = backend(server).ask([question()])
            assert (
                answer.error == f"HTTP {status}: redirected to http://127.0.0.1, which is not followed; give the address itself"
            )
            with pytest.raises(InputError, match="redirected"):
                backend(server).check()
        assert other.requests == []
    finally:
        other.close()


def test_views_are_asked_about_at_the_same_time(server: Server) -> None:
    # No request is answered before three are there.
    together = threading.Barrier(3, timeout=20)

    def behave(request: Request) -> Reply:
        together.wait()
        return says(request.prompt)

    server.behave = behave
    answers = backend(server, parallel=3, timeout=30).ask([question(str(k)) for k in range(3)])
    assert [answer.text for answer in answers] == ["0", "1", "2"]


def test_no_more_than_parallel_are_in_flight(server: Server) -> None:
    lock, inside, most = threading.Lock(), 0, 0
    pair = threading.Barrier(2, timeout=20)

    def behave(request: Request) -> Reply:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        pair.wait()
        with lock:
            inside -= 1
        pair.wait()
        return says("[]")

    server.behave = behave
    assert all(answer.text == "[]" for answer in backend(server, parallel=2, timeout=30).ask([question()] * 6))
    assert most == 2


def test_a_process_ends_though_a_server_never_answers(server: Server, tmp_path: Path) -> None:
    """Its time-out is ten minutes; were a thread waited for at exit, `communicate` would give up long before."""
    asked = threading.Semaphore(0)

    def behave(request: Request) -> Reply:
        asked.release()
        server.over.wait()
        return Reply(drop=True)

    server.behave = behave
    command = [sys.executable, "-m", "tests.guidance.hanging_server", server.url, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(5):
            assert asked.acquire(timeout=60)
        _, told = process.communicate("\n", timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and told == ""
    assert json.loads((tmp_path / "rounds.jsonl").read_text())["left_out"] == "the run ended before it was answered"


def test_answers_keep_the_order_of_the_questions(server: Server) -> None:
    # The first question is answered last, and the third not at all.
    rest = threading.Semaphore(0)

    def behave(request: Request) -> Reply:
        if request.prompt == "0":
            for _ in range(3):
                assert rest.acquire(timeout=20)
            return says("0")
        rest.release()
        return Reply(400, b"no") if request.prompt == "2" else says(request.prompt)

    server.behave = behave
    answers = backend(server, schema=None, timeout=30).ask([question(str(k)) for k in range(4)])
    assert [answer.text for answer in answers] == ["0", "1", None, "3"]


def test_large_pictures_are_shrunk_before_they_are_sent(server: Server) -> None:
    [answer] = backend(server, max_image_size=40).ask([question("", picture(0, 50, 100))])
    assert server.requests[0].pictures[0].shape == (20, 40, 3) and answer.details["seen_size"] == [40, 20]


def test_where_numbers_count_pixels_the_picture_has_whole_squares(server: Server) -> None:
    asker = backend(server, model="Qwen/Qwen2.5-VL-3B-Instruct")
    assert asker.coordinates == "pixels"
    [answer] = asker.ask([question("", picture(0, 480, 640))])
    assert server.requests[0].pictures[0].shape == (476, 616, 3) and answer.details["seen_size"] == [616, 476]


def test_a_question_that_cannot_be_sent_spares_the_others(server: Server) -> None:
    bad = Question("detail", "bad", (np.zeros((4, 4), np.uint8),))
    broken, good = backend(server).ask([bad, question()])
    assert broken.error is not None and "shape (4, 4)" in broken.error and broken.details["attempts"] == 0
    assert good.text == "[]"


def test_check_accepts_a_server_that_has_the_model(server: Server) -> None:
    server.behave = lambda request: lists("other", "m:latest", "models/g")
    for model in ("other", "m", "m:latest", "g"):
        backend(server, model=model).check()
    assert {request.path for request in server.requests} == {"/v1/models"}


def test_check_names_the_models_there_are(server: Server) -> None:
    server.behave = lambda request: lists("a", "b")
    with pytest.raises(
        InputError, match=r"Error: m: the server at http://127\.0\.0\.1:\d+/v1 does not have this model, only a, b; choose"
    ):
        backend(server).check()


@pytest.mark.parametrize(
    "reply", [Reply(404), Reply(500), Reply(body=b"{}"), Reply(body=b"nonsense"), Reply(body=b'{"data": [1]}')]
)
def test_check_accepts_a_server_without_a_list(server: Server, reply: Reply) -> None:
    server.behave = lambda request: reply
    backend(server).check()
    with pytest.raises(InputError, match=r"does not list its models; name one with --pipeline\.model\.guidance\.server-model"):
        backend(server, model="").check()


def test_check_knows_the_forgotten_v1(server: Server) -> None:
    server.behave = lambda request: Reply(404)
    with pytest.raises(InputError, match=r"the address is probably http://127\.0\.0\.1:\d+/v1;"):
        backend(server, base_url=server.url.removesuffix("/v1")).check()


def test_the_first_model_of_a_list_is_taken_where_none_is_named(server: Server) -> None:
    server.behave = lambda request: lists("qwen2.5vl:3b", "b") if request.payload is None else says("[]")
    checked, unchecked = backend(server, model=""), backend(server, model="")
    checked.check()
    unchecked.ask([question()])
    named = backend(server, model="qwen2.5vl:3b")
    for asker in (checked, unchecked):
        assert (asker.model, asker.coordinates) == ("qwen2.5vl:3b", "pixels")
        assert (asker.name, asker.fingerprint) == (named.name, named.fingerprint)
    assert server.requests[-1].payload["model"] == "qwen2.5vl:3b"
    server.behave = lambda request: Reply(500)
    assert all(answer.error for answer in backend(server, model="").ask([question()] * 2))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "not http or https"),
        ("127.0.0.1:8000/v1", "not http or https"),
        ("file:///etc/passwd", "not http or https"),
        ("http://", "not http or https"),
        ("http://h:port/v1", "not a URL"),
        ("http://[::1/v1", "not a URL"),
        (f"http://me:{KEY}@127.0.0.1/v1", "holds a user name"),
        (f"me:{KEY}@127.0.0.1/v1", "holds a user name"),
        (f"http://127.0.0.1/v1?key={KEY}", "holds a user name, a query"),
    ],
)
def test_an_address_that_is_none(url: str, reason: str) -> None:
    asker = OpenAIBackend(url, "m")
    with pytest.raises(InputError, match=reason) as raised:
        asker.check()
    assert "--pipeline.model.guidance.base-url" in str(raised.value)
    [answer] = asker.ask([question()])
    assert answer.error is not None and reason in answer.error
    assert KEY not in "".join([str(raised.value), repr(answer), asker.name, asker.fingerprint])


def test_the_fingerprint_tells_apart_what_replies_depend_on() -> None:
    def fingerprint(url: str = "http://h/v1", model: str = "m", **settings: Any) -> str:
        return OpenAIBackend(url, model, **settings).fingerprint

    assert fingerprint() == fingerprint("http://h/v1/") == fingerprint(timeout=1, retries=9, parallel=1, key_variable="K")
    different: list[dict[str, Any]] = [
        {},
        {"model": "n"},
        {"url": "http://g/v1"},
        {"max_tokens": 9},
        {"max_image_size": 9},
        {"schema": SCHEMA},
        {"coordinates": "pixels"},
    ]
    assert len({fingerprint(**settings) for settings in different}) == len(different)


@pytest.mark.parametrize(
    ("height", "width", "size", "multiple", "expected"),
    [
        (20, 30, 640, 1, (20, 30)),
        (480, 640, 320, 1, (240, 320)),
        (1000, 1, 100, 1, (100, 1)),
        (480, 640, 640, 28, (476, 616)),
        (5, 60, 640, 28, (28, 56)),
        (56, 28, 640, 28, (56, 28)),
    ],
)
def test_sizes_after_shrinking(height: int, width: int, size: int, multiple: int, expected: tuple[int, int]) -> None:
    shown = shrink(np.full((height, width, 3), 77, np.uint8), size, multiple)
    assert shown.shape == (*expected, 3) and (shown == 77).all()
    assert seen_size(width, height, size, multiple) == expected[::-1]


def test_a_picture_that_fits_is_left_as_it_is() -> None:
    fitting = picture()
    assert shrink(fitting, 30) is fitting


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give uint8"):
        shrink(wrong, 10)


def test_which_models_count_pixels() -> None:
    assert {coordinates_of(name) for name in ("qwen2_5_vl", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5vl:7b")} == {"pixels"}
    assert {coordinates_of(name) for name in ("qwen2_vl", "qwen3_vl", "Qwen/Qwen3-VL-2B-Instruct", "gpt", "")} == {"thousandths"}
