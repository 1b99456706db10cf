"""Responses of a WSGI application: the rules of PEP 3333, and applications that fail."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.server.network import errors, in_trio, until
from tests.server.test_http import request
from tests.server.web import PATIENCE, TEXT, Body, Environ, saying, site

# The response


@in_trio
async def test_each_part_of_a_response_is_sent_at_once() -> None:
    go_on = threading.Semaphore(0)

    def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        for number in range(5):
            yield b"part %d" % number
            assert go_on.acquire(timeout=PATIENCE)

    async with site(application) as web:
        client = await web.connect()
        await client.send(request("GET /"))
        assert (b"transfer-encoding", b"chunked") in (await client.head()).headers
        for number in range(5):
            assert await client.part() == b"part %d" % number
            go_on.release()
        assert await client.part() == b""
        assert (await client.ask(request("HEAD /"))).status == 200


@in_trio
async def test_lengths_of_responses(caplog: pytest.LogCaptureFixture) -> None:
    def sized(length: int) -> list[tuple[str, str]]:
        return [("Content-Length", str(length))]

    parts = (b"one", b"", b"two")
    for application, length, body, complete, troubles in [
        (saying(*parts, headers=sized(6)), "6", b"onetwo", True, 0),
        (saying(*parts, headers=sized(4)), "4", b"onet", True, 1),
        (saying(*parts, headers=sized(3)), "3", b"one", True, 1),
        (saying(*parts, headers=sized(7)), "7", b"onetwo", False, 1),
        (saying(headers=sized(7)), "26", b"500 Internal Server Error\n", True, 1),
        (saying(headers=sized(0)), "0", b"", True, 0),
        (saying(b"x", headers=sized(0)), "0", b"", True, 1),
        (saying(), "0", b"", True, 0),
        (saying(b"", b""), "0", b"", True, 0),
    ]:
        caplog.clear()
        async with site(application) as web:
            client = await web.connect()
            answer = await client.ask(request("GET /"))
            assert (answer.headers.get("content-length"), answer.body) == (length, body)
            assert answer.complete == complete
            if complete:  # and the next response is found where this one ends
                assert (await client.ask(request("GET /"))).body == body
            else:
                assert await client.is_closed()
        assert len(errors(caplog)) == (2 * troubles if complete else troubles)


@in_trio
async def test_a_body_that_is_there_as_a_whole_has_a_length() -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return [b"ab", b"c"]

    async with site(application) as web:
        client = await web.connect()
        for method, body in (("GET", b"abc"), ("HEAD", b"")):
            answer = await client.ask(request(f"{method} /"))
            assert (answer.headers["content-length"], answer.body) == ("3", body)


@in_trio
async def test_responses_without_a_body() -> None:
    endless = Body(iter(lambda: b"x" * 1000, None))

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        status = {"/204": "204 No Content", "/304": "304 Not Modified"}.get(environ["PATH_INFO"], "200 OK")
        start_response(status, [*TEXT, ("Content-Length", "7")])
        return endless

    async with site(application) as web:
        client = await web.connect()
        for line, status, length in [
            ("HEAD /", 200, "7"), ("GET /204", 204, None), ("GET /304", 304, "7"), ("HEAD /204", 204, None)
        ]:  # fmt: skip
            answer = await client.ask(request(line))
            assert (answer.status, answer.headers.get("content-length"), answer.body) == (status, length, b"")
        assert "transfer-encoding" not in answer.headers
    assert endless.closed == 4


@in_trio
async def test_http_1_0_is_told_by_the_end_of_the_connection() -> None:
    async with site(saying(b"one", b"two")) as web:
        client = await web.connect()
        answer = await client.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert (answer.body, answer.headers["connection"]) == (b"onetwo", "close")
        assert "transfer-encoding" not in answer.headers


@in_trio
async def test_start_response_by_the_rules(caplog: pytest.LogCaptureFixture) -> None:
    import sys

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/twice":
                start_response("200 OK", TEXT)
                start_response("201 Created", TEXT)
            case "/replaced":
                start_response("200 OK", [("Content-Length", "999"), ("X-A", "b")])
                try:
                    raise ValueError("found out late")
                except ValueError:
                    start_response("503 Later", TEXT, sys.exc_info())
                return [b"replaced"]
            case "/too-late":
                write = start_response("200 OK", TEXT)
                write(b"already sent")
                try:
                    raise ValueError("too late to tell")
                except ValueError:
                    start_response("500 Sorry", TEXT, sys.exc_info())
                raise AssertionError("not reached")
            case "/written":
                write = start_response("200 OK", TEXT)
                write(b"one")
                write(b"two")
                return [b"three"]
            case "/hop":
                start_response("200 Ümlaut", [("Connection", "x"), ("keep-alive", "5"), ("X-A", " é ")])
                return [b""]
            case "/text":
                start_response("200 OK", TEXT)
                return ["text"]  # type: ignore[list-item]
        return []

    async with site(application) as web:
        client = await web.connect()
        for path in ("/twice", "/never", "/text"):
            assert (await client.ask(request(f"GET {path}"))).status == 500
        assert len(errors(caplog)) == 3
        answer = await client.ask(request("GET /replaced"))
        assert (answer.status, answer.body, answer.headers.get("x-a")) == (503, b"replaced", None)
        assert (await client.ask(request("GET /written"))).body == b"onetwothree"
        answer = await client.ask(request("GET /hop"))
        assert not {"connection", "keep-alive"} & set(answer.headers)
        assert answer.headers["x-a"] == "é"
        answer = await client.ask(request("GET /too-late"))
        assert (answer.status, answer.body, answer.complete) == (200, b"already sent", False)
        assert await client.is_closed()
    assert "too late to tell" in caplog.text
    assert "found out late" not in caplog.text


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: injected", []),
        ("200", []),
        ("100 Continue", []),
        ("101 Switching", []),
        ("2000 OK", []),
        (200, []),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "a\0b")]),
        ("200 OK", [("X\r\nY", "a")]),
        ("200 OK", [("X Y", "a")]),
        ("200 OK", [("X:", "a")]),
        ("200 OK", [("X", "\u2028")]),
        ("200 OK", [("X", b"bytes")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "2")]),
    ],
)
def test_responses_that_would_say_something_else(
    status: Any, headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @in_trio
    async def scenario() -> None:
        async with site(saying(b"x", status=status, headers=headers)) as web:
            client = await web.connect()
            for _ in range(2):
                answer = await client.ask(request("GET /"))
                assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
                assert set(answer.headers) == {"date", "content-type", "content-length"}

    scenario()
    assert len(errors(caplog)) == 2


@in_trio
async def test_files_are_sent_in_large_blocks() -> None:
    content = random.Random(1).randbytes(300_000)
    sizes: list[int] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            sizes.append(size or 0)
            return super().read(size)

    file = File(content)

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [*TEXT, ("Content-Length", str(len(content)))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 4096)
        return wrapped

    async with site(application) as web:
        client = await web.connect()
        assert (await client.ask(request("GET /"))).body == content
        await until(lambda: file.closed, "the file closed")
    assert min(sizes) >= 65536


# Applications that fail


@in_trio
async def test_an_application_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    bodies: list[Body] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/raises":
                raise ValueError("before anything is sent")
            case "/exits":
                raise SystemExit(1)
            case "/close":
                start_response("200 OK", TEXT)
                return Closing([b"all of it"])

        def parts() -> Iterator[bytes]:
            if environ["PATH_INFO"] == "/middle":
                yield b"some"
            raise ValueError("while it is sent")

        start_response("200 OK", TEXT)
        bodies.append(Body(parts()))
        return bodies[-1]

    class Closing(list[bytes]):
        def close(self) -> None:
            raise ValueError("while it is closed")

    async with site(application) as web:
        client = await web.connect()
        for path in ("/raises", "/iterating"):
            assert (await client.ask(request(f"GET {path}"))).body == b"500 Internal Server Error\n"
            assert (await client.ask(request(f"HEAD {path}"))).headers["content-length"] == "26"
        assert (await client.ask(request("GET /close"))).body == b"all of it"
        answer = await client.ask(request("GET /middle"))
        assert (answer.status, answer.body, answer.complete) == (200, b"some", False)
        assert await client.is_closed()
        client = await web.connect()
        assert (await client.ask(request("GET /exits"))).status == 500
        assert (await (await web.connect()).ask(request("GET /close"))).status == 200
    assert [body.closed for body in bodies] == [1, 1, 1]
    for words in ("before anything is sent", "while it is sent", "while it is closed", "SystemExit"):
        assert words in caplog.text
    assert "GET /raises of 127.0.0.1:" in caplog.text
