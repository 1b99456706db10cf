"""Plain HTTP on the port: routes, SockJS's resources, limits, and whatever bytes arrive."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import ssl
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server import network
from tests.server.network import (
    KEY,
    WireClient,
    errors,
    in_mock_time,
    in_trio,
    masked,
    serving,
    upgrade,
)
from trigger_ddp.server import http, http1, sockjs
from trigger_ddp.server.exchange import Request, Response


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def ask(client: WireClient, data: bytes, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
    """Send a request and read the response to it."""
    await client.send(data)
    return await answer(client, body=body)


async def answer(client: WireClient, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
    """Read one response: status, headers by lower-case name, body."""
    head = await client.head()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    length = int(headers.get("content-length", 0)) if body else 0
    return int(first.split()[1]), headers, await client.exactly(length)


async def demo(asked: Request) -> Response | None:
    """An application's handler."""
    match asked.path:
        case "/page":
            return Response(200, (("Content-Type", "text/html"),), b"<h1>page</h1>")
        case "/echo":
            told = [asked.method, asked.query, asked.http_headers.get("x-a"), asked.client_address]
            return Response(200, (), json.dumps(told).encode() + asked.body)
        case "/fails":
            raise ValueError("the handler's own")
        case "/wrong":
            return Response(200, (("Bad\nName", "x"),))
        case "/large":
            return Response(200, (), b"x" * 10_000_000)
        case _:
            return None


@in_trio
async def test_others_have_their_turn_between_tiny_chunks() -> None:
    """One read may hold thousands of them, each of which takes its time."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    ours, theirs = trio.testing.memory_stream_pair()
    head = request("POST /echo", "Transfer-Encoding: chunked", "Connection: close")
    await theirs.send_all(head + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n")
    await theirs.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await http.serve_stream(ours, http.Application(network.echo, handler=demo))
        nursery.cancel_scope.cancel()
    assert (await WireClient(theirs).rest()).endswith(b"a" * 1000)
    assert turns > 1000


@in_trio
async def test_no_tunnel_begins_here() -> None:
    """A page in answer to CONNECT would switch the connection to another protocol."""
    async with serving(handler=demo) as served:
        for target in ("/page", "localhost:443", "/websocket", "/sockjs/info"):
            client = WireClient(await served.connect())
            status, _, body = await ask(client, request(f"CONNECT {target}"))
            assert (status, body) == (501, b"501 Not Implemented\n")
            await client.stream.aclose()


@in_trio
async def test_a_broken_request_for_a_head_is_told_so_without_a_body() -> None:
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        await client.send(request("HEAD /page", "Transfer-Encoding: chunked") + b"no chunk\r\n")
        head = await client.head()
        assert head.startswith("HTTP/1.1 400 ")
        assert "connection: close" in head.lower()
        assert await client.rest() == b""
        await client.stream.aclose()


@in_trio
async def test_requests_follow_each_other_on_one_connection() -> None:
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        status, headers, body = await ask(client, request("GET /page"))
        assert (status, headers["content-type"], body) == (200, "text/html", b"<h1>page</h1>")
        assert headers["date"].endswith(" GMT")
        status, headers, body = await ask(client, request("HEAD /page"), body=False)
        assert (status, headers["content-length"], body) == (200, "13", b"")
        status, _, body = await ask(
            client, request("POST /echo?a=%20b&c", "X-A: one", "x-a: two", body=b"posted")
        )
        assert (status, body) == (200, b'["POST", "a=%20b&c", "one, two", "127.0.0.1"]posted')
        status, _, body = await ask(client, request("GET /nothing"))
        assert (status, body) == (404, b"404 Error: Page not found\n")
        status, headers, body = await ask(client, request("OPTIONS *"))
        assert (status, headers["allow"], body) == (204, "GET, HEAD, OPTIONS", b"")
        # an offer of another protocol than WebSocket is passed over
        assert (await ask(client, request("GET /page", "Connection: Upgrade", "Upgrade: h2c")))[0] == 200
        assert (await ask(client, request("GET http://localhost/page")))[0] == 200
        assert (await ask(client, request("GET /%70age")))[0] == 200
        # and the same connection may still become a WebSocket
        await client.send(upgrade() + masked(network.TEXT, b"hello"))
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        assert await client.text() == "hello"


@in_trio
async def test_requests_may_be_sent_ahead_and_a_byte_at_a_time() -> None:
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        await client.send(request("GET /page") + request("POST /echo", body=b"ab") + request("GET /page"))
        assert [(await answer(client))[2][-4:] for _ in range(3)] == [b"</h1>"[-4:], b'1"]ab'[-4:], b"/h1>"]
        for byte in request("POST /echo", body=b"slowly") + upgrade() + masked(network.TEXT, b"hi"):
            await client.send(bytes([byte]))
        assert (await answer(client))[2].endswith(b"slowly")
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        assert await client.text() == "hi"


@in_trio
async def test_connection_close_and_http_1_0_are_honoured() -> None:
    async with serving(handler=demo) as served:
        for data in (request("GET /page", "Connection: close"), b"GET /page HTTP/1.0\r\n\r\n"):
            client = WireClient(await served.connect())
            status, headers, body = await ask(client, data)
            assert (status, headers["connection"], body) == (200, "close", b"<h1>page</h1>")
            assert await client.rest() == b""
            await client.stream.aclose()
        await served.until_idle()


@in_trio
async def test_a_failing_handler_is_a_500_and_a_log_entry(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        status, _, body = await ask(client, request("GET /fails"))
        assert (status, body) == (500, b"500 Internal Server Error\n")
        assert (await ask(client, request("GET /page")))[0] == 200
        await client.send(request("GET /wrong"))
        assert await client.rest() == b""
    assert len(errors(caplog)) == 2
    assert "the handler's own" in caplog.text
    assert "/fails" in caplog.text


@in_trio
async def test_without_a_handler_other_paths_are_not_found() -> None:
    async with serving() as served:
        client = WireClient(await served.connect())
        assert (await ask(client, request("GET /")))[0] == 404


# SockJS, as its protocol's own tests have it


@in_trio
async def test_sockjs_greeting_and_unknown_resources() -> None:
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        for path in ("/sockjs", "/sockjs/"):
            status, headers, body = await ask(client, request(f"GET {path}"))
            assert (status, body) == (200, b"Welcome to SockJS!\n")
            assert headers["content-type"] == "text/plain; charset=UTF-8"
        for suffix in ("/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/000/abc/xhr2", "/0/0/0/websocket"):
            assert (await ask(client, request(f"GET /sockjs{suffix}")))[0] == 404
        status, headers, body = await ask(client, request("POST /sockjs/info", body=b"x"))
        assert (status, headers["allow"], body) == (405, "OPTIONS, GET, HEAD", b"")


@in_trio
async def test_sockjs_info() -> None:
    async with serving() as served:
        client = WireClient(await served.connect())
        status, headers, body = await ask(client, request("GET /sockjs/info?cb=abc", "Origin: http://a.test"))
        assert status == 200
        assert headers["content-type"] == "application/json; charset=UTF-8"
        assert headers["cache-control"] == "no-store, no-cache, no-transform, must-revalidate, max-age=0"
        assert headers["access-control-allow-origin"] == "http://a.test"
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["vary"] == "Origin"
        assert not {"expires", "last-modified", "set-cookie"} & set(headers)
        pattern = rb'\{"websocket":true,"origins":\["\*:\*"\],"cookie_needed":false,"entropy":(\d+)\}'
        match = re.fullmatch(pattern, body)
        assert match
        assert 0 <= int(match[1]) < 1 << 32
        _, headers, again = await ask(client, request("GET /sockjs/info"))
        assert again != body
        assert headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in headers


@in_trio
async def test_sockjs_without_a_websocket() -> None:
    async with serving(sockjs=sockjs.Options(websocket=False)) as served:
        client = network.WireClient(await served.connect())
        _, _, body = await ask(client, request("GET /sockjs/info"))
        assert json.loads(body)["websocket"] is False
        status, _, _ = await ask(client, upgrade("/sockjs/000/abc/websocket"))
        assert status == 404
        await served.open("/websocket")


@in_trio
async def test_sockjs_info_preflight() -> None:
    async with serving() as served:
        client = WireClient(await served.connect())
        asked = (
            "Origin: null",
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Headers: x-a, x-b",
        )
        status, headers, body = await ask(client, request("OPTIONS /sockjs/info", *asked))
        assert (status, body) == (204, b"")
        assert "content-length" not in headers
        assert headers["access-control-allow-origin"] == "null"
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["access-control-allow-methods"] == "OPTIONS, GET"
        assert headers["access-control-allow-headers"] == "x-a, x-b"
        assert headers["access-control-max-age"] == "31536000"
        assert headers["cache-control"] == "public, max-age=31536000"
        assert headers["expires"].endswith(" GMT")


# The handshake


@pytest.mark.parametrize(
    ("data", "status", "header"),
    [
        (request("GET /websocket"), 426, ("upgrade", "websocket")),
        (request("GET /sockjs/000/abc/websocket"), 400, None),
        (request("POST /websocket", body=b"x"), 405, ("allow", "GET")),
        (upgrade("/sockjs/000/abc/websocket", connection="close"), 400, None),
        (upgrade(connection=None), 400, None),
        (upgrade(upgrade="h2c"), 426, ("upgrade", "websocket")),
        (upgrade(sec_websocket_version="8"), 426, ("sec-websocket-version", "13")),
        (upgrade(sec_websocket_version=None), 426, ("sec-websocket-version", "13")),
        (upgrade(sec_websocket_key=None), 400, None),
        (upgrade(sec_websocket_key="c2hvcnQ="), 400, None),
        (upgrade(sec_websocket_key="not base64 at all"), 400, None),
        (upgrade("/websocket", f"Sec-WebSocket-Key: {KEY}"), 400, None),
        (upgrade("/websocket", "Content-Length: 1") + b"x", 400, None),
        (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"), 400, None),
        (upgrade("/elsewhere"), 404, None),
        (upgrade("/sockjs/a.b/abc/websocket"), 404, None),
        (upgrade("/sockjs/000/a.b/websocket"), 404, None),
        (upgrade("/sockjs/000//websocket"), 404, None),
        (upgrade("/sockjs//abc/websocket"), 404, None),
        (upgrade("/sockjs/000/abc/websocket/x"), 404, None),
    ],
)
def test_handshakes_that_are_refused(data: bytes, status: int, header: tuple[str, str] | None) -> None:
    @in_trio
    async def scenario() -> None:
        async with serving() as served:
            client = WireClient(await served.connect())
            got, headers, _ = await ask(client, data)
            assert got == status
            if header is not None:
                assert headers[header[0]] == header[1]

    scenario()


@pytest.mark.parametrize(
    "data",
    [
        upgrade("/websocket/"),
        upgrade("/websocket?token=1"),
        upgrade("/sockjs/websocket"),
        upgrade("http://localhost/websocket"),
        upgrade(connection="keep-alive, Upgrade", upgrade="WebSocket"),
        upgrade(host="not..a.domain-" + "x" * 80),  # none of our business
        upgrade("/websocket", "Origin: http://elsewhere.test", "Sec-WebSocket-Protocol: a, b"),
        upgrade("/websocket", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        upgrade("/websocket", "X-Ümlaut: é", "Connection: é").replace("Ü".encode("latin-1"), b"U"),
    ],
)
def test_handshakes_that_are_accepted(data: bytes) -> None:
    @in_trio
    async def scenario() -> None:
        async with serving() as served:
            client = WireClient(await served.connect())
            await client.send(data)
            head = (await client.head()).lower()
            assert head.startswith("http/1.1 101 ")
            assert "sec-websocket-extensions" not in head
            assert "sec-websocket-protocol" not in head
            await client.send(masked(network.TEXT, b"hello"))
            assert await client.text() == "hello"

    scenario()


# Limits


@in_trio
async def test_requests_that_are_too_large_or_not_http_are_answered() -> None:
    tls_hello = bytes.fromhex("16030100c8010000c40303") + bytes(200)
    for data, status in [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000, 431),
        (b"GET /" + b"x" * 200_000, 431),
        (request("POST /echo", "Content-Length: 2000000") + b"x" * 2_000_000, 413),
        (b"garbage\r\n\r\n", 400),
        (tls_hello, 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP\r\nHost: a\r\n\r\n", 400),
        (request("POST /echo", "Transfer-Encoding: chunked") + b"not a length\r\n", 400),
        (request("POST /echo", "Content-Length: 5, 6") + b"12345", 400),
        (b"\x00" * 1000, 400),
    ]:
        async with serving(handler=demo) as served, trio.open_nursery() as sending:
            client = WireClient(await served.connect())
            sending.start_soon(partial(send_anyway, client, data))
            got, headers, _ = await answer(client)
            assert (got, headers.get("connection")) == (status, "close"), data[:40]
            assert await client.rest() == b""
            await client.stream.aclose()
            await served.until_idle()


async def send_anyway(client: WireClient, data: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await client.send(data)  # it may be answered before all of it was sent


@in_trio
async def test_a_body_is_asked_for_when_the_client_waits_to_be() -> None:
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        await client.send(request("POST /echo", "Expect: 100-continue", "Content-Length: 4"))
        assert (await client.head()).startswith("HTTP/1.1 100 ")
        status, _, body = await ask(client, b"body")
        assert (status, body[-4:]) == (200, b"body")


@pytest.mark.parametrize(
    ("sent", "seconds", "status"),
    [
        (b"", http1.HEAD_SECONDS, None),
        (b"GET / HT", http1.HEAD_SECONDS, 408),
        (request("GET /page"), http.KEEP_ALIVE_SECONDS, None),
        (request("GET /page") + b"GET / HT", http1.HEAD_SECONDS, 408),
        (request("POST /echo", "Content-Length: 100") + b"x", http.BODY_SECONDS, 408),
    ],
)
def test_a_client_that_stops_in_the_middle_is_let_go(sent: bytes, seconds: float, status: int | None) -> None:
    @in_mock_time
    async def scenario() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.serve_stream, ours, http.Application(network.echo, demo))
            client = WireClient(theirs)
            await client.send(sent)
            if sent.startswith(b"GET /page"):
                assert (await answer(client))[0] == 200
            begun = trio.current_time()
            if status is not None:
                assert (await answer(client))[0] == status
            assert await client.rest() == b""
            assert seconds <= trio.current_time() - begun < seconds + 2
            await theirs.aclose()

    scenario()


@in_mock_time
async def test_a_later_request_has_no_more_time_than_the_first() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.serve_stream, ours, http.Application(network.echo, demo))
        client = WireClient(theirs)
        assert (await ask(client, request("GET /page")))[0] == 200
        await trio.sleep(http.KEEP_ALIVE_SECONDS / 2)
        begun = trio.current_time()
        assert (await ask(client, b"GET / HT"))[0] == 408
        assert trio.current_time() - begun == pytest.approx(http1.HEAD_SECONDS, abs=0.5)
        assert await client.rest() == b""
        await theirs.aclose()


@in_mock_time
async def test_dripping_a_request_does_not_buy_time() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.serve_stream, ours, http.Application(network.echo, demo))
        begun = trio.current_time()

        async def drip() -> None:
            await theirs.send_all(b"GET / HTTP/1.1\r\nX: ")
            while True:
                await theirs.send_all(b"x")
                await trio.sleep(1)

        async with trio.open_nursery() as dripping:
            dripping.start_soon(drip)
            assert (await answer(WireClient(theirs)))[0] == 408
            dripping.cancel_scope.cancel()
        assert http1.HEAD_SECONDS <= trio.current_time() - begun < http.HEAD_SECONDS + 2
        await theirs.aclose()


@in_mock_time
async def test_a_client_that_does_not_read_its_response_is_let_go() -> None:
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        await client.send(request("GET /large"))
        await trio.sleep(http1.SEND_SECONDS - 1)
        assert len(served.nursery.child_tasks) == 2
        await trio.sleep(3)
        assert len(served.nursery.child_tasks) == 1
        await client.stream.aclose()


# TLS in front


@in_trio
async def test_everything_works_over_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = trio.SSLStream(ours, tls[0], server_side=True, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.serve_stream, server, http.Application(network.echo, demo))
        client = WireClient(
            trio.SSLStream(theirs, tls[1], server_hostname="localhost", https_compatible=True)
        )
        assert (await ask(client, request("GET /page")))[2] == b"<h1>page</h1>"
        await client.send(upgrade())
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        large = b"x" * 300_000
        await client.send(masked(network.TEXT, large))
        assert await client.text() == large.decode()
        await client.send(network.closing(1000))
        assert await client.close_code() == 1000
        assert await client.rest() == b""
        await trio.aclose_forcefully(client.stream)


# Whatever bytes arrive, the server answers or closes, and other connections live

opcodes = st.sampled_from([0, 1, 2, 3, 8, 9, 10, 15])
ws_frames = st.builds(
    lambda opcode, payload, fin, cut: masked(opcode, payload, fin=fin)[: None if cut else -1],
    opcodes,
    st.one_of(st.binary(max_size=300), st.text(max_size=50).map(str.encode), st.just(b'["a"]')),
    st.booleans(),
    st.integers(0, 9).map(bool),
)
heads = st.sampled_from(
    [
        b"",
        upgrade(),
        upgrade("/sockjs/000/abc/websocket"),
        request("GET /page"),
        request("POST /echo", "Content-Length: 20"),
        request("POST /echo", "Transfer-Encoding: chunked"),
        b"GET /page HTTP/1.1\r\n",
    ]
)
attacks = st.tuples(
    heads,
    st.lists(st.one_of(ws_frames, st.binary(max_size=100)), max_size=12).map(b"".join),
    st.lists(st.integers(0, 2000), max_size=6),  # where to cut it into separate sends
    st.tuples(st.booleans(), st.integers(0, 400), st.integers(0, 255)),  # one byte to overwrite, or none
    st.sampled_from(["eof", "reset", "stay"]),
)


@given(st.lists(attacks, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_arrive_the_server_answers_or_closes_and_others_live(
    caplog: pytest.LogCaptureFixture,
    scripts: list[tuple[bytes, bytes, list[int], tuple[bool, int, int], str]],
) -> None:
    caplog.clear()

    async def attack(
        served: network.Served,
        head: bytes,
        rest: bytes,
        cuts: list[int],
        flip: tuple[bool, int, int],
        end: str,
    ) -> None:
        data = bytearray(head + rest)
        if flip[0] and flip[1] < len(data):
            data[flip[1]] = flip[2]
        stream = await served.connect()
        client = WireClient(stream)
        edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        try:
            for start, stop in itertools.pairwise(edges):
                await client.send(bytes(data[start:stop]))
            if end == "stay":
                await trio.testing.wait_all_tasks_blocked()
            elif end == "eof":
                await stream.send_eof()
                await client.rest()
        except trio.BrokenResourceError:
            pass  # the server had enough
        await stream.aclose()

    @in_trio
    async def scenario() -> None:
        async with serving(handler=demo) as served:
            healthy = await served.open()
            async with trio.open_nursery() as nursery:
                for script in scripts:
                    nursery.start_soon(attack, served, *script)
            await healthy.send(masked(network.TEXT, b"still here?"))
            assert await healthy.text() == "still here?"
            await healthy.send(network.closing(1000))
            assert await healthy.close_code() == 1000
            assert await healthy.rest() == b""
            await healthy.stream.aclose()
            await served.until_idle()

    scenario()
    assert errors(caplog) == []


@in_trio
async def test_what_is_served_is_logged_with_the_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="trigger_ddp")
    async with serving(handler=demo) as served:
        client = WireClient(await served.connect())
        port = client.stream.socket.getsockname()[1]  # type: ignore[attr-defined]
        await ask(client, request("GET /page?a"))
        await client.stream.aclose()
        await served.until_idle()
    assert f'127.0.0.1:{port} "GET /page?a" 200 13 ' in caplog.text
