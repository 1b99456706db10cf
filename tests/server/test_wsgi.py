"""Requests to a WSGI application: what it is told, and bodies that come while they are read."""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Iterable
from functools import partial
from typing import Any
from wsgiref.validate import validator

import pytest
import trio
import trio.testing

from tests.server import network
from tests.server.network import WireClient, errors, in_mock_time, in_trio, masked, until, upgrade
from tests.server.test_http import request, send_anyway
from tests.server.web import TEXT, Client, Environ, chunked, echo, saying, site
from trigger_ddp.server import http, wsgi
from trigger_ddp.server.workers import Workers
from trigger_ddp.server.wsgi import Gateway

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
        for line, status in (("GET nonsense", 400), ("CONNECT example.org:443", 501), ("CONNECT /", 501)):
            client = await web.connect()
            assert (await client.ask(request(line))).status == status
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
        await until(lambda: not web.answering.active, "the end of the request")
        with pytest.raises(OSError, match="has ended"):
            await trio.to_thread.run_sync(lambda: kept[0].read())
        assert (await client.ask(request("GET /"))).status == 200
