"""The bridge to a WSGI application: what PEP 3333 asks for, bodies in both directions, and rude clients."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any
from wsgiref.validate import validator

import pytest
import trio
import trio.testing

from tests.server import network
from tests.server.network import WireClient, errors, in_mock_time, in_trio, masked, until, upgrade
from tests.server.test_http import request, send_anyway
from tests.server.web import Client, site
from trigger_ddp.server import http, wsgi
from trigger_ddp.server.workers import Workers
from trigger_ddp.server.wsgi import Gateway

Environ = dict[str, Any]
TEXT = [("Content-Type", "text/plain")]
PATIENCE = 10


def echo(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Answers with the path and what was sent."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", TEXT)
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["PATH_INFO"].encode("latin-1"), b" ", body]


def saying(*parts: Any, status: str = "200 OK", headers: Any = TEXT) -> Callable[..., Any]:
    """An application that answers so, whatever it is asked."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response(status, list(headers))
        return iter(parts)

    return application


def chunked(line: str, *chunks: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return request(line, "Transfer-Encoding: chunked") + framed


class Body:
    """An iterable that counts how often it was closed."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self.parts

    def close(self) -> None:
        self.closed += 1


# What the application is told


@in_trio
async def test_the_bridge_is_valid_by_the_standard_librarys_validator() -> None:
    async with site(validator(partial(only_echo))) as web:
        client = await web.connect()
        for data, body in [
            (request("GET /a%20b?c=d"), b"GET /a b "),
            (request("POST /x", body=b"posted"), b"POST /x posted"),
            (chunked("POST /x", b"in", b" parts"), b"POST /x in parts"),
            (request("HEAD /x"), b""),
            (request("GET /last", "Connection: close"), b"GET /last "),
        ]:
            answer = await client.ask(data)
            assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/plain", body)
            assert answer.headers["date"].endswith(" GMT")
        assert await client.is_closed()


def only_echo(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """`echo`, whose body is read once, as the validator wants."""
    return echo(environ, start_response)


def told(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Answers with the environ."""
    start_response("200 OK", TEXT)
    return [json.dumps({name: value for name, value in environ.items() if _plain(value)}).encode()]


def _plain(value: Any) -> bool:
    return isinstance(value, str | bool | tuple)


@in_trio
async def test_the_environ() -> None:
    async with site(told) as web:
        client = await web.connect()
        environ = json.loads(
            (
                await client.ask(
                    request(
                        "POST /caf%C3%A9/%2F?q=%20a&b",
                        "Content-Type: text/x",
                        "X-A: one",
                        "x-a: two",
                        "Cookie: a=b",
                        "Cookie: c=d",
                        "X_A: forged",
                        "Content_Length: 99",
                        "Proxy: http://evil.test",
                        body=b"abc",
                    )
                )
            ).body
        )
        assert environ["REQUEST_METHOD"] == "POST"
        assert environ["SCRIPT_NAME"] == ""
        assert environ["PATH_INFO"].encode("latin-1").decode() == "/café//"
        assert environ["QUERY_STRING"] == "q=%20a&b"
        assert environ["CONTENT_TYPE"] == "text/x"
        assert environ["CONTENT_LENGTH"] == "3"
        assert environ["HTTP_X_A"] == "one,two"
        assert environ["HTTP_COOKIE"] == "a=b; c=d"
        assert environ["HTTP_HOST"] == "localhost"
        assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(web.served.port))
        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert environ["wsgi.url_scheme"] == "http"
        assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"]) == (True, False)
        assert environ["wsgi.run_once"] is False
        assert not {"HTTP_PROXY", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"} & set(environ)
        environ = json.loads((await client.ask(b"GET http://a.test/b HTTP/1.0\r\n\r\n")).body)
        assert (environ["PATH_INFO"], environ["SERVER_PROTOCOL"]) == ("/b", "HTTP/1.0")
        assert "CONTENT_LENGTH" not in environ


@in_trio
async def test_clients_behind_proxies() -> None:
    headers = "X-Forwarded-For: 6.6.6.6, 9.9.9.9", "X-Forwarded-Proto: https"
    for count, address, scheme in [(0, "127.0.0.1", "http"), (1, "9.9.9.9", "https")]:
        async with site(told, served={"forwarded_count": count}, forwarded_count=count) as web:
            environ = json.loads((await (await web.connect()).ask(request("GET /", *headers))).body)
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (address, scheme)
            assert ("REMOTE_PORT" in environ) == (count == 0)


@in_trio
async def test_several_processes_are_told_of() -> None:
    async with site(told, multiprocess=True) as web:
        environ = json.loads((await (await web.connect()).ask(request("GET /"))).body)
        assert environ["wsgi.multiprocess"] is True


@in_trio
async def test_tls_makes_the_scheme(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with Workers(1) as workers:
        ours, theirs = trio.testing.memory_stream_pair()
        app = http.Application(network.echo, web=Gateway(told, workers))
        server = trio.SSLStream(ours, tls[0], server_side=True, https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, server, app)
            inside = trio.SSLStream(theirs, tls[1], server_hostname="localhost", https_compatible=True)
            client = Client(inside)
            for body in (b"", b"x" * 100_000):
                environ = json.loads((await client.ask(request("POST /", body=body))).body)
                assert environ["wsgi.url_scheme"] == "https"
            await trio.aclose_forcefully(inside)


@in_trio
async def test_a_stream_without_an_address() -> None:
    async with Workers(1) as workers:
        ours, theirs = trio.testing.memory_stream_pair()
        app = http.Application(network.echo, web=Gateway(told, workers))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(http.serve_stream, ours, app, peer=("unix", None)))
            client = Client(theirs)
            data = request("GET /").replace(b"localhost", b"books.test:81")
            environ = json.loads((await client.ask(data)).body)
            assert environ["REMOTE_ADDR"] == ""
            assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("books.test", "81")
            environ = json.loads((await client.ask(request("GET /"))).body)
            assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")
            await theirs.aclose()


# Which requests are the application's


@in_trio
async def test_the_servers_own_paths_stay_its_own() -> None:
    async with site(echo) as web:
        client = await web.connect()
        assert (await client.ask(request("GET /sockjs"))).body == b"Welcome to SockJS!\n"
        assert (await client.ask(request("GET /websocket"))).status == 426
        for path in ("/_ddp", "/_ddp/", "/_ddp/unknown", "/%5Fddp/unknown", "/_ddp%2funknown"):
            assert (await client.ask(request(f"GET {path}"))).status == 404, path
        assert (await client.ask(request("OPTIONS *"))).status == 204
        assert (await client.ask(request("GET /_ddpx"))).body == b"GET /_ddpx "
        assert (await client.ask(request("GET /sockjsx"))).body == b"GET /sockjsx "
        assert (await client.ask(upgrade("/elsewhere"))).body == b"GET /elsewhere "
        wire = WireClient(client.stream)
        await wire.send(upgrade() + masked(network.TEXT, b"hello"))
        assert (await wire.head()).startswith("HTTP/1.1 101 ")
        assert await wire.text() == "hello"


@in_trio
async def test_targets_that_are_no_paths() -> None:
    async with site(echo) as web:
        for line in ("GET nonsense", "CONNECT example.org:443"):
            client = await web.connect()
            assert (await client.ask(request(line))).status == 400
            assert await client.is_closed()


# Requests on the wire

STREAM = [
    (request("GET /one"), b"GET /one "),
    (request("POST /two", body=b"x" * 1000), b"POST /two " + b"x" * 1000),
    (chunked("POST /three", b"a" * 300, b"b"), b"POST /three " + b"a" * 300 + b"b"),
    (request("POST /four", body=b"GET /evil HTTP/1.1\r\n\r\n"), b"POST /four GET /evil HTTP/1.1\r\n\r\n"),
    (request("GET /five", "Connection: close"), b"GET /five "),
]


@pytest.mark.parametrize("seed", ["whole", "bytes", *range(5)])
def test_requests_may_be_cut_anywhere(seed: str | int) -> None:
    @in_trio
    async def scenario() -> None:
        data = b"".join(sent for sent, _ in STREAM) + b"\x00junk after the last request"
        cuts = range(len(data)) if seed == "bytes" else []
        if isinstance(seed, int):
            cuts = sorted(random.Random(seed).sample(range(len(data)), 12))
        async with site(echo) as web:
            client = await web.connect()
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                        await send_anyway(WireClient(client.stream), data[start:end])
                        await trio.lowlevel.checkpoint()

                nursery.start_soon(send)
                assert [(await client.answer()).body for _ in STREAM] == [body for _, body in STREAM]
                assert await client.is_closed()

    scenario()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("POST /", "Transfer-Encoding: chunked", "Content-Length: 4") + b"0\r\n\r\nGET /e", 400),
        (request("POST /", "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\nGET /e", 400),
        (request("POST /", "Transfer-Encoding: chunked").replace(b"/1.1", b"/1.0") + b"0\r\n\r\n", 400),
        (request("POST /", "Content-Length: 4", "Content-Length: 5") + b"12345", 400),
        (request("POST /", "Content-Length: 4, 5") + b"12345", 400),
        (request("POST /", "Content-Length: +4") + b"1234", 400),
        (request("POST /", "Content-Length: 0x4") + b"1234", 400),
        (request("POST /", "Content-Length : 4") + b"1234", 400),
        (request("POST /", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", 501),
        (request("POST /", "Transfer-Encoding: chunked\x0b") + b"0\r\n\r\n", 400),
        (request("POST /", "Transfer-Encoding: chunked") + b"0x1\r\na\r\n0\r\n\r\n", 400),
        (request("POST /", "Transfer-Encoding: chunked") + b"1\r\nabc\r\n0\r\n\r\n", 400),
        (request("GET /", "X: a\x00b"), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
    ],
)
def test_requests_of_two_meanings_are_refused(data: bytes, status: int) -> None:
    @in_trio
    async def scenario() -> None:
        calls = []

        def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
            calls.append(environ["PATH_INFO"])
            return echo(environ, start_response)

        async with site(application) as web, trio.open_nursery() as nursery:
            client = await web.connect()
            nursery.start_soon(send_anyway, WireClient(client.stream), data)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert await client.is_closed()
        assert calls == []

    scenario()


@in_trio
async def test_a_folded_header_is_no_header_of_its_own() -> None:
    async with site(told) as web:
        data = request("POST /", "X: a\r\n Content-Length: 9", body=b"abc")
        environ = json.loads((await (await web.connect()).ask(data)).body)
        assert (environ["HTTP_X"], environ["CONTENT_LENGTH"]) == ("a Content-Length: 9", "3")


# The request's body


@in_trio
async def test_a_large_body_flows_while_it_is_sent() -> None:
    half = 500_000

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [*TEXT, ("Content-Length", str(2 * half))])
        write(environ["wsgi.input"].read(half))
        return [environ["wsgi.input"].read()]

    async with site(application) as web:
        client = await web.connect()
        await client.send(request("PUT /", f"Content-Length: {2 * half}") + b"a" * half)
        await client.head()
        got = b""
        while len(got) < half:
            got += await client.part()
        await client.send(b"b" * half)
        while part := await client.part():
            got += part
        assert got == b"a" * half + b"b" * half


@in_trio
async def test_all_ways_to_read() -> None:
    body = b"first line\nsecond\n\nand more" + b"z" * 200_000 + b"\nend"
    results: list[Any] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        file = environ["wsgi.input"]
        how = environ["PATH_INFO"]
        if how == "/iterate":
            results.append(list(file))
        elif how == "/lines":
            results.append([file.readline(), file.readline(3), *file.readlines()])
        elif how == "/sizes":
            results.append([file.read(5), file.read(0), file.read(150_000), file.read(-1), file.read(10)])
        start_response("200 OK", TEXT)
        return []

    async with site(application) as web:
        client = await web.connect()
        for how in ("/iterate", "/lines", "/sizes"):
            for data in (request(f"POST {how}", body=body), chunked(f"POST {how}", body[:50], body[50:])):
                assert (await client.ask(data)).status == 200
                assert b"".join(results[-1]) == body
        assert results[0] == body.splitlines(keepends=True)
        assert results[2][:2] == [b"first line\n", b"sec"]
        assert [len(part) for part in results[4]] == [5, 0, 150_000, len(body) - 150_005, 0]


@in_trio
async def test_the_body_is_asked_for_when_the_application_wants_it() -> None:
    async with site(echo) as web:
        client = await web.connect()
        await client.send(request("POST /a", "Expect: 100-continue", "Content-Length: 4"))
        assert (await client.head()).status_code == 100
        assert (await client.ask(b"body")).body == b"POST /a body"
        await client.send(request("POST /a", "Expect: 100-continue", "Transfer-Encoding: chunked"))
        assert (await client.head()).status_code == 100
        assert (await client.ask(b"4\r\nbody\r\n0\r\n\r\n")).body == b"POST /a body"
    async with site(saying(b"no thanks", status="403 Forbidden")) as web:
        client = await web.connect()
        answer = await client.ask(request("POST /a", "Expect: 100-continue", "Content-Length: 4"))
        assert (answer.status, answer.body, answer.headers["connection"]) == (403, b"no thanks", "close")
        assert await client.is_closed()


@in_trio
async def test_a_body_that_nobody_reads_is_no_request() -> None:
    body = (request("GET /evil") * 2000)[: wsgi.PREFETCH_BYTES + 10_000]
    async with site(saying(b"answer", headers=[("Content-Length", "6")])) as web:
        client = await web.connect()
        for _ in range(3):
            answer = await client.ask(request("POST /", body=body))
            assert (answer.body, answer.headers.get("connection")) == (b"answer", None)
        await client.send(request("POST /", f"Content-Length: {10**9}") + body)
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"answer", "close")
        assert await client.is_closed()


@in_trio
async def test_bodies_that_are_too_large() -> None:
    limit = 200_000
    async with site(echo, max_body_bytes=limit) as web:
        client = await web.connect()
        assert (await client.ask(request("POST /", body=b"x" * limit))).status == 200
        assert (await client.ask(chunked("POST /", b"x" * limit))).status == 200
        for data in (
            request("POST /", f"Content-Length: {limit + 1}", "Expect: 100-continue"),
            chunked("POST /", *[b"x" * 10_000] * 20, b"x"),
        ):
            client = await web.connect()
            answer = await client.ask(data)
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert await client.is_closed()


@in_trio
async def test_a_body_that_turns_out_to_be_none() -> None:
    seen: list[BaseException] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            seen.append(error)
            raise
        return []

    async with site(application) as web:
        client = await web.connect()
        data = chunked("POST /", b"x" * 100_000)[:-5] + b"not a length\r\n"
        assert (await client.ask(data)).status == 400
        assert await client.is_closed()
    assert seen == []  # it is not even called: nobody knows how long the body is


def test_a_body_that_comes_too_slowly(caplog: pytest.LogCaptureFixture) -> None:
    for beginning in (b"", b"x", b"x" * (wsgi.PREFETCH_BYTES + 1)):
        seen: list[BaseException] = []

        def application(environ: Environ, start_response: Any, seen: list[BaseException] = seen) -> Any:
            try:
                environ["wsgi.input"].read()
            except OSError as error:
                seen.append(error)
                raise

        @in_mock_time
        async def scenario(beginning: bytes = beginning, application: Any = application) -> None:
            async with Workers(1) as workers:
                ours, theirs = trio.testing.memory_stream_pair()
                app = http.Application(network.echo, web=Gateway(application, workers))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(http.serve_stream, ours, app)
                    client = Client(theirs)
                    begun = trio.current_time()
                    await client.send(request("POST /", "Content-Length: 1000000") + beginning)
                    assert (await client.answer()).status == 408
                    assert await client.is_closed()
                    assert wsgi.BODY_SECONDS <= trio.current_time() - begun < wsgi.BODY_SECONDS + 3
                    await theirs.aclose()

        scenario()
        assert len(seen) == (len(beginning) > wsgi.PREFETCH_BYTES)
    assert errors(caplog) == []


@in_mock_time
async def test_dripping_a_body_does_not_buy_time() -> None:
    async with Workers(1) as workers:
        ours, theirs = trio.testing.memory_stream_pair()
        app = http.Application(network.echo, web=Gateway(echo, workers))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, app)
            client = Client(theirs)
            begun = trio.current_time()
            await client.send(request("POST /", "Content-Length: 1000000"))

            async def drip(bytes_a_second: int) -> None:
                while True:
                    await client.send(b"x" * bytes_a_second)
                    await trio.sleep(1)

            async with trio.open_nursery() as dripping:
                dripping.start_soon(drip, wsgi.BODY_RATE // 2)
                assert (await client.answer()).status == 408
                dripping.cancel_scope.cancel()
            assert trio.current_time() - begun < 2.5 * wsgi.BODY_SECONDS
            await theirs.aclose()


@in_trio
async def test_the_body_can_not_be_read_when_all_is_over() -> None:
    kept: list[Any] = []

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        kept.append(environ["wsgi.input"])
        start_response("200 OK", [("Content-Length", "0")])
        return []

    async with site(application) as web:
        client = await web.connect()
        assert (await client.ask(request("POST /", body=b"x" * 100_000))).status == 200
        await until(lambda: not web.gateway.active, "the end of the request")
        with pytest.raises(OSError, match="has ended"):
            await trio.to_thread.run_sync(lambda: kept[0].read())
        assert (await client.ask(request("GET /"))).status == 200


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


# Clients that go, and clients that stay


@in_trio
async def test_a_response_ends_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Semaphore(0)
    body = Body([])

    def parts() -> Iterator[bytes]:
        yield b"first"
        assert go_on.acquire(timeout=PATIENCE)
        yield b"second"
        raise AssertionError("nobody is there for a third")

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        body.parts = parts()
        return body

    async with in_memory(application) as client:
        await client.send(request("GET /"))
        await client.head()
        assert await client.part() == b"first"
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        go_on.release()
        await until(lambda: body.closed, "the response closed")
    assert errors(caplog) == []


@contextlib.asynccontextmanager
async def in_memory(application: Any) -> AsyncIterator[Client]:
    """A client of an application, with nothing between them that could be late."""
    async with Workers(1) as workers:
        app = http.Application(network.echo, web=Gateway(application, workers))
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, app)
            yield Client(theirs)
            await theirs.aclose()


@in_trio
async def test_an_application_that_reads_from_a_client_who_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BaseException] = []
    called = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        called.set()
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            seen.append(error)
            raise ValueError("as frameworks do") from error
        return []

    async with site(application) as web:
        client = await web.connect()
        await client.send(request("POST /", "Content-Length: 1000000") + b"x" * 100_000)
        await until(called.is_set, "the application called")
        await client.stream.aclose()
        await until(lambda: seen, "the error")
        await web.served.until_idle()
    assert errors(caplog) == []


@in_trio
async def test_a_client_that_only_closes_its_side_is_answered() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        assert go_on.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"x" * 300_000]

    async with in_memory(application) as client:
        await client.send(request("GET /"))
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        answer = await client.answer()
        assert (len(answer.body), answer.complete) == (300_000, True)
        assert await client.is_closed()


@in_trio
async def test_a_connection_that_is_lost_frees_what_is_no_thread() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        assert go_on.wait(PATIENCE)
        start_response("200 OK", TEXT)
        return [b"late"]

    async with site(application, threads=1) as web:
        clients = [await web.connect() for _ in range(3)]
        for client in clients:
            await client.send(request("GET /"))
        await until(lambda: web.workers.statistics().waiting == 2, "two waiting")
        for client in clients:
            assert isinstance(client.stream, trio.SocketStream)
            client.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0: a reset
            await client.stream.aclose()
        await web.served.until_idle()
        assert web.gateway.active == 0
        go_on.set()
        await until(lambda: not web.workers.statistics().running, "the thread free")
        assert (await (await web.connect()).ask(request("GET /"))).body == b"late"


@in_trio
async def test_who_reads_slowly_does_not_hold_a_thread() -> None:
    size = wsgi.SEND_BEHIND_BYTES
    async with Workers(1) as workers:
        app = http.Application(network.echo, web=Gateway(saying(b"x" * size), workers))
        ours, theirs = trio.testing.lockstep_stream_pair()  # which takes nothing that is not read
        others, mine = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, app)
            nursery.start_soon(http.serve_stream, others, app)
            await theirs.send_all(request("GET /"))
            for _ in range(2):
                assert len((await Client(mine).ask(request("GET /"))).body) == size
            assert len((await Client(theirs).answer()).body) == size
            await theirs.aclose()
            await mine.aclose()


@in_trio
async def test_a_response_without_end_waits_for_its_reader() -> None:
    made = 0

    def parts() -> Iterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 100_000

    async with Workers(1) as workers:
        app = http.Application(network.echo, web=Gateway(saying_from(parts), workers))
        ours, theirs = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, app)
            await theirs.send_all(request("GET /"))
            client = Client(theirs)
            await client.head()
            got = 0
            while got < 1_000_000:
                got += len(await client.part())
            await trio.sleep(0.05)
            assert made <= 14
            await theirs.aclose()


def saying_from(parts: Callable[[], Iterator[bytes]]) -> Callable[..., Any]:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return parts()

    return application


@in_trio
async def test_busy_threads_make_requests_wait_and_too_many_come_again() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/hangs":
            assert go_on.wait(PATIENCE)
        return echo(environ, start_response)

    async with site(application, threads=2, max_waiting=1) as web:
        hanging = [await web.connect() for _ in range(2)]
        for client in hanging:
            await client.send(request("GET /hangs"))
        await until(lambda: web.workers.statistics().running == 2, "both threads busy")
        waiting = await web.connect()
        await waiting.send(request("GET /waits"))
        await until(lambda: web.workers.statistics().waiting == 1, "one waiting")
        client = await web.connect()
        answer = await client.ask(request("GET /refused"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        # what is not the application's needs no thread of it
        wire = WireClient(await web.served.connect())
        await wire.send(upgrade() + masked(network.TEXT, b"hello"))
        assert (await wire.head()).startswith("HTTP/1.1 101 ")
        go_on.set()
        for client, path in ((hanging[0], b"/hangs"), (hanging[1], b"/hangs"), (waiting, b"/waits")):
            assert (await client.answer()).body == b"GET " + path + b" "
        assert (await waiting.ask(request("GET /again"))).status == 200


@in_trio
async def test_requests_that_run_are_finished_before_the_end() -> None:
    go_on = threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        assert go_on.wait(PATIENCE)
        return echo(environ, start_response)

    async with site(application) as web, trio.open_nursery() as nursery:
        client = await web.connect()
        await client.send(request("GET /"))
        await until(lambda: web.gateway.active, "the request")
        drained = trio.Event()

        async def drain() -> None:
            await web.gateway.drained()
            drained.set()

        nursery.start_soon(drain)
        await trio.testing.wait_all_tasks_blocked()
        assert not drained.is_set()
        go_on.set()
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"GET / ", "close")
        assert await client.is_closed()
        await drained.wait()


@pytest.mark.parametrize("at_once", [False, True])
def test_the_end_of_the_server_lets_no_thread_wait(at_once: bool) -> None:
    outcome: list[BaseException] = []
    called, go_on = threading.Event(), threading.Event()

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        called.set()
        assert go_on.wait(PATIENCE)
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            outcome.append(error)
            raise
        return []

    @in_trio
    async def scenario() -> None:
        async with Workers(1) as workers:
            app = http.Application(network.echo, web=Gateway(application, workers))
            ours, theirs = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(http.serve_stream, ours, app)
                await theirs.send_all(request("POST /", "Content-Length: 1000000") + b"x" * 100_000)
                await until(called.is_set, "the application called")
                go_on.set()
                if at_once:
                    time.sleep(0.01)  # what the thread asks for comes together with the end
                else:
                    await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            await until(lambda: outcome, "the application's end")

    for _ in range(20 if at_once else 1):
        outcome.clear()
        called.clear()
        go_on.clear()
        scenario()


@in_mock_time
async def test_a_client_that_is_too_slow_for_the_rest_of_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"some")
        return [environ["wsgi.input"].read()]

    async with in_memory(application) as client:
        await client.send(request("POST /", "Content-Length: 100000") + b"x" * 70_000)
        answer = await client.answer()
        assert (answer.status, answer.body, answer.complete) == (200, b"some", False)
        assert await client.is_closed()
    assert errors(caplog) == []


@in_trio
async def test_the_context_of_one_request_is_not_that_of_the_next() -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        before = variable.get()
        variable.set(environ["PATH_INFO"])
        start_response("200 OK", TEXT)
        return [before.encode()]

    async with site(application, threads=1) as web:
        client = await web.connect()
        assert [(await client.ask(request("GET /a"))).body for _ in range(2)] == [b"unset"] * 2


# The access log


@in_trio
async def test_every_request_has_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trigger_ddp.access")
    async with site(echo, served={"forwarded_count": 1}, max_body_bytes=10) as web:
        client = await web.connect()
        forged = 'X-Forwarded-For: 1.2.3.4"\x85\x9b31m'.encode("latin-1")
        await client.ask(request("GET /a?b=%22"))
        await client.ask(request("GET /sockjs"))
        await client.ask(request('GET /"\\', "X: y").replace(b"X: y", forged))
        await client.ask(request("POST /", "Content-Length: 11"))
        await (await web.connect()).ask(b"nonsense\r\n\r\n")
        wire = WireClient(await web.served.connect())
        await wire.send(upgrade())
        await wire.head()
        await wire.stream.aclose()
        with contextlib.suppress(trio.BrokenResourceError):
            await (await web.served.connect()).aclose()
        await web.served.until_idle()
    records = [record for record in caplog.records if record.name == "trigger_ddp.access"]
    fields = ("method", "target", "status", "bytes")
    assert sorted(tuple(getattr(record, name) for name in fields) for record in records) == sorted(
        [
            ("GET", "/a?b=%22", 200, len(b"GET /a ")),
            ("GET", "/sockjs", 200, len(b"Welcome to SockJS!\n")),
            ("GET", "/\\x22\\x5c", 200, len(b'GET /"\\ ')),
            ("POST", "/", 413, len(b"413 Content Too Large\n")),
            ("-", "-", 400, len(b"400 Bad Request\n")),
            ("GET", "/websocket", 101, 0),
        ]
    )
    assert [record.client for record in records if record.target == "/\\x22\\x5c"] == [
        "1.2.3.4\\x22\\x85\\x9b31m"
    ]  # type: ignore[attr-defined]
    assert all(record.seconds >= 0 for record in records)  # type: ignore[attr-defined]
    assert all(record.getMessage().isprintable() for record in records)
