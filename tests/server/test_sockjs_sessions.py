"""Sessions of SockJS without a WebSocket: who receives, what ends them, and their bounds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.server.network import Served, WireClient, echo, errors, in_mock_time, in_trio, serving, until
from tests.server.test_http import ask, request
from tests.server.test_sockjs_http import (
    ANOTHER,
    GO_AWAY,
    INTERRUPTED,
    PRELUDE,
    Stream,
    asked,
    close,
    poll,
    poll_for,
    send,
    whole,
)
from trigger_ddp.protocol import frames
from trigger_ddp.server import sockjs
from trigger_ddp.server.connection import Connection, Limits

# One receives at a time, and what ends a session


@in_trio
async def test_one_receives_at_a_time() -> None:
    async with serving() as served:
        first = await asked(served, "POST /sockjs/000/s/xhr_streaming")
        assert await first.chunk() + await first.chunk() == PRELUDE + b"o\n"
        assert await whole(served, "POST /sockjs/000/s/xhr_streaming") == PRELUDE + ANOTHER + b"\n"
        assert await poll(served) == ANOTHER + b"\n"
        assert await whole(served, "GET /sockjs/000/s/jsonp?c=x") == (
            b'/**/x("c[2010,\\"Another connection still open\\"]");\r\n'
        )
        await send(served, b'["x"]')
        assert await first.chunk() == b'a["x"]\n'


@in_trio
async def test_a_session_that_closes_says_so_until_it_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(close, limits=Limits(sockjs_disconnect_delay=1)) as served:
        assert await poll(served) == b"o\n"
        assert await poll(served) == GO_AWAY + b"\n"
        assert await poll(served) == GO_AWAY + b"\n"
        await send(served, b'["ignored"]')
        assert await whole(served, "GET /sockjs/000/s/jsonp?c=x") == b'/**/x("c[3000,\\"Go away!\\"]");\r\n'
        assert await whole(served, "GET /sockjs/000/t/eventsource") == (
            b"\r\ndata: o\r\n\r\ndata: " + GO_AWAY + b"\r\n\r\n"
        )
        with trio.fail_after(20):
            while (frame := await poll(served)) == GO_AWAY + b"\n":
                await trio.sleep(0.01)  # not to keep the server from forgetting
        assert frame == b"o\n"
    assert errors(caplog) == []


@in_trio
async def test_streams_end_behind_the_close() -> None:
    async with serving(close) as served:
        for _ in range(2):
            stream = await asked(served, "POST /sockjs/000/s/xhr_streaming")
            assert await stream.rest() in (
                PRELUDE + b"o\n" + GO_AWAY + b"\n",
                PRELUDE + GO_AWAY + b"\n",
            )
        # HTTP/1.0 has no chunks
        client = WireClient(await served.connect())
        await client.send(b"POST /sockjs/000/t/xhr_streaming HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        head = (await client.head()).lower()
        assert "transfer-encoding" not in head
        assert "content-length" not in head
        assert "connection: close" in head
        assert await client.rest() == PRELUDE + b"o\n" + GO_AWAY + b"\n"


@asynccontextmanager
async def listening_in(limits: Limits | None = None) -> AsyncIterator[tuple[Served, list[Connection]]]:
    """A server that echoes, and its sessions as they come."""
    connections: list[Connection] = []

    async def session(connection: Connection) -> None:
        connections.append(connection)
        await echo(connection)

    async with serving(session, limits=limits or Limits()) as served:
        yield served, connections


async def opened(served: Served, connections: list[Connection]) -> Connection:
    """A session that has been opened by a poll."""
    assert await poll(served) == b"o\n"
    await until(lambda: connections, "the session")
    return connections[0]


@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming"])
def test_who_breaks_off_has_lost_the_session(transport: str) -> None:
    @in_trio
    async def scenario() -> None:
        async with listening_in() as (served, connections):
            connection = await opened(served, connections)
            client = WireClient(await served.connect())
            await client.send(request(f"POST /sockjs/000/s/{transport}"))
            with trio.move_on_after(0.1):
                await connection.wait_closed()
            assert not connection.closed
            await client.stream.aclose()
            await connection.wait_closed()
            assert "broke off" in connection.close_reason
            assert not connection.closed_here
            assert await poll(served) == INTERRUPTED + b"\n"
            assert await poll(served) == INTERRUPTED + b"\n"

    scenario()


@in_trio
async def test_what_is_asked_for_behind_a_stream_waits_for_its_end() -> None:
    async with serving() as served:
        client = WireClient(await served.connect())
        polling = request("POST /sockjs/000/s/xhr")
        await client.send(polling + polling + polling)
        stream = Stream(client)
        await client.head()
        assert await stream.rest() == b"o\n"
        await send(served, b'["1"]')
        await client.head()
        assert await stream.rest() == b'a["1"]\n'
        await send(served, b'["2"]')
        await client.head()
        assert await stream.rest() == b'a["2"]\n'


@in_mock_time
async def test_who_stays_away_has_lost_the_session() -> None:
    async with listening_in(Limits(sockjs_disconnect_delay=60)) as (served, connections):
        connection = await opened(served, connections)
        await trio.sleep(59)
        assert not connection.closed
        await send(served, b'["x"]')
        assert await poll(served) == b'a["x"]\n'
        since = trio.current_time()
        await connection.wait_closed()
        assert 59.9 < trio.current_time() - since < 60.1
        assert connection.close_reason == "the client has not come back for 60 seconds"


@in_mock_time
async def test_what_waits_too_long_is_the_end() -> None:
    async with listening_in(Limits(outbox_seconds=30)) as (served, connections):
        connection = await opened(served, connections)
        await trio.sleep(5)
        since = trio.current_time()
        await send(served, b'["x"]')
        await connection.wait_closed()
        assert 29.9 < trio.current_time() - since < 30.1
        assert "the client is too slow" in connection.close_reason
        assert await poll(served) == INTERRUPTED + b"\n"


@in_trio
async def test_what_waits_is_bounded() -> None:
    async with listening_in(Limits(outbox_bytes=1000)) as (served, connections):
        connection = await opened(served, connections)
        await send(served, json.dumps(["x" * 400]).encode())
        await until(lambda: connection.statistics().bytes_waiting > 400, "the echo")
        assert not connection.closed
        await send(served, json.dumps(["x" * 700]).encode())
        await connection.wait_closed()
        assert "the client is too slow" in connection.close_reason
        assert connection.statistics().bytes_waiting == 0
        assert await poll(served) == INTERRUPTED + b"\n"


@in_trio
async def test_who_does_not_read_a_stream_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def session(connection: Connection) -> None:
        frame = frames.frame(connection.wire, b"x" * 100_000)
        while not connection.closed:
            connection.push(frame)
            connection.flush()
            await connection.wait_at_most(1_000_000)
        ended.set()

    ended = trio.Event()
    limits = Limits(outbox_seconds=0.5, sockjs_response_bytes=1 << 40)
    async with serving(session, limits=limits) as served:
        client = WireClient(await served.connect())
        await client.send(request("POST /sockjs/000/s/xhr_streaming"))
        await ended.wait()
        assert not (await client.rest()).endswith(b"0\r\n\r\n")  # nobody takes that for the whole
    assert errors(caplog) == []


@in_mock_time
async def test_heartbeats() -> None:
    async with listening_in(Limits(sockjs_heartbeat=45)) as (served, _):
        assert await poll(served) == b"o\n"
        since = trio.current_time()
        assert await poll(served) == b"h\n"
        assert 44.9 < trio.current_time() - since < 45.1
        stream = await asked(served, "GET /sockjs/000/s/eventsource")
        assert await stream.chunk() == b"\r\n"
        for number in (2, 3):
            assert await stream.chunk() == b"data: h\r\n\r\n"
            assert 45 * number - 0.1 < trio.current_time() - since < 45 * number + 0.1


@in_trio
async def test_a_stream_ends_after_so_many_bytes() -> None:
    async with serving(limits=Limits(sockjs_response_bytes=4096)) as served:
        stream = await asked(served, "POST /sockjs/000/s/xhr_streaming")
        assert await stream.chunk() + await stream.chunk() == PRELUDE + b"o\n"
        for _ in range(31):
            await send(served, b'["' + b"x" * 128 + b'"]')
            assert await stream.chunk() == b'a["' + b"x" * 128 + b'"]\n'
        assert await stream.chunk() == b""
        # and the client goes on with the next one, on the same connection
        assert await stream.ask(request("GET /sockjs/000/s/eventsource")) == 200
        assert await stream.chunk() == b"\r\n"
        await send(served, b'["' + b"y" * 4096 + b'"]')
        assert await stream.rest() == b'data: a["' + b"y" * 4096 + b'"]\r\n\r\n'


@in_trio
async def test_much_that_waits_comes_in_several_frames() -> None:
    async with listening_in() as (served, connections):
        connection = await opened(served, connections)
        texts = [f"{number:05}" * 2000 for number in range(30)]
        await send(served, json.dumps(texts).encode())
        await until(lambda: connection.statistics().bytes_waiting == 30 * 10_003, "the echoes")
        got: list[str] = []
        while len(got) < len(texts):
            part = json.loads((await poll(served))[1:])
            assert len(part) <= 7
            got += part
        assert got == texts
        statistics = connection.statistics()
        assert (statistics.bytes_waiting, statistics.bytes_sent) == (0, 30 * 10_003)


# A Connection


@in_trio
async def test_what_the_session_sees_of_its_client() -> None:
    async with listening_in() as (served, connections):
        assert await whole(served, "POST /sockjs/000/s/xhr?x=1", "X-A: one", body=b"{}") == b"o\n"
        await until(lambda: connections, "the session")
        (connection,) = connections
        assert connection.client_address == "127.0.0.1"
        assert connection.request.http_headers["x-a"] == "one"
        assert connection.request.body == b""
        assert (connection.closed, connection.closed_here, connection.close_reason) == (False, False, "")


@in_trio
async def test_closing_delivers_what_waits_and_the_reason() -> None:
    async with listening_in() as (served, connections):
        connection = await opened(served, connections)
        connection.push(frames.frame(connection.wire, b"the last words"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.close, 1000, "done")
            await until(lambda: connection.closed, "closing")
            nursery.start_soon(connection.close)
            connection.push(frames.frame(connection.wire, b"too late"))
            assert await poll(served) == b'a["the last words"]\n'
            assert await poll(served) == b'c[1000,"done"]\n'
        assert connection.closed_here
        assert connection.close_reason == "closed by the server: 1000 done"


@in_mock_time
async def test_closing_does_not_wait_for_ever() -> None:
    async with listening_in(Limits(close_seconds=5)) as (served, connections):
        connection = await opened(served, connections)
        connection.push(frames.frame(connection.wire, b"x"))
        since = trio.current_time()
        await connection.close()
        assert 4.9 < trio.current_time() - since < 5.1
        assert await poll(served) == GO_AWAY + b"\n"


@in_trio
async def test_aborting_cuts_a_stream() -> None:
    async with listening_in() as (served, connections):
        stream = await asked(served, "POST /sockjs/000/s/xhr_streaming")
        assert await stream.chunk() + await stream.chunk() == PRELUDE + b"o\n"
        await until(lambda: connections, "the session")
        connections[0].abort("no answer to a ping")
        assert await stream.client.rest() == b""
        assert await poll(served) == INTERRUPTED + b"\n"
        assert connections[0].close_reason == "no answer to a ping"


@in_trio
async def test_a_session_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def session(connection: Connection) -> None:
        await connection.receive()
        raise ValueError("the session's own")

    async with serving(session) as served:
        assert await poll(served) == b"o\n"
        await send(served, b'["x"]')
        assert await poll(served) == b'c[1011,"Internal server error"]\n'
    assert len(errors(caplog)) == 1
    assert "the session's own" in caplog.text


# Bounds on what comes in


@in_trio
async def test_too_large_a_message_closes() -> None:
    async with serving(limits=Limits(max_message_bytes=600_000)) as served:
        assert await poll(served) == b"o\n"
        await send(served, json.dumps(["é" * 299_999]).encode())  # escaped, larger than other bodies may be
        assert len(await poll(served)) > 500_000
        await send(served, json.dumps(["é" * 300_001], ensure_ascii=False).encode())
        assert await poll(served) == b'c[1009,"the message is too large"]\n'
        assert await poll(served, "t") == b"o\n"
        await send(served, json.dumps(["x" * 2_000_000]).encode(), "t", status=413)
        await send(served, json.dumps(["x" * 1_100_000]).encode(), "nobody", status=413)


@in_trio
async def test_who_sends_faster_than_is_received_waits() -> None:
    async def session(connection: Connection) -> None:
        await go_on.wait()
        await echo(connection)

    go_on = trio.Event()
    async with serving(session, limits=Limits(max_message_bytes=1024)) as served:
        assert await poll(served) == b"o\n"
        await send(served, json.dumps(["x" * 1000]).encode())
        done = []

        async def one_more() -> None:
            await send(served, b'["y"]')
            done.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_more)
            await trio.sleep(0.2)
            assert not done
            await send(served, b'["z"]', status=503)
            go_on.set()
        assert await poll_for(served, 2) == ["x" * 1000, "y"]


@in_mock_time
async def test_who_waits_to_send_does_so_for_a_while() -> None:
    async def session(connection: Connection) -> None:
        await trio.sleep_forever()

    async with serving(session, limits=Limits(max_message_bytes=1024, outbox_seconds=30)) as served:
        assert await poll(served) == b"o\n"
        await send(served, json.dumps(["x" * 1000]).encode())
        since = trio.current_time()
        await send(served, b'["y"]', status=503)
        assert 29.9 < trio.current_time() - since < 30.1


@in_trio
async def test_sessions_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(sockjs_sessions=3, sockjs_sessions_per_address=2)
    async with serving(limits=limits) as served:
        assert await poll(served, "a") == b"o\n"
        assert await poll(served, "b") == b"o\n"
        client = WireClient(await served.connect())
        for name in ("c", "d"):
            status, _, body = await ask(client, request(f"POST /sockjs/000/{name}/xhr"))
            assert (status, body) == (503, b"503 Service Unavailable\n")
        assert caplog.text.count("DDP_SOCKJS_SESSIONS_PER_ADDRESS are open with 127.0.0.1") == 1
        await send(served, b'["x"]', "a")  # those that are open go on
        assert await poll(served, "a") == b'a["x"]\n'
    async with serving(limits=dataclasses.replace(limits, sockjs_sessions=1)) as served:
        assert await poll(served, "a") == b"o\n"
        client = WireClient(await served.connect())
        assert (await ask(client, request("POST /sockjs/000/b/xhr")))[0] == 503


@in_trio
async def test_sessions_that_are_over_make_room() -> None:
    async with serving(close, limits=Limits(sockjs_sessions=2, sockjs_sessions_per_address=2)) as served:
        for name in "abcd":
            assert await poll(served, name) == b"o\n"
            assert await poll(served, name) == GO_AWAY + b"\n"
        assert await poll(served, "d") == GO_AWAY + b"\n"
        assert await poll(served, "a") == b"o\n"  # forgotten


@in_trio
async def test_the_cookie_of_load_balancers() -> None:
    async with serving(sockjs=sockjs.Options(cookie=True)) as served:
        client = WireClient(await served.connect())
        _, headers, body = await ask(client, request("GET /sockjs/info"))
        assert json.loads(body)["cookie_needed"] is True
        assert "set-cookie" not in headers
        stream = await asked(served, "POST /sockjs/000/s/xhr")
        assert stream.headers["set-cookie"] == "JSESSIONID=dummy; path=/"
        assert await stream.rest() == b"o\n"
        stream = await asked(served, "GET /sockjs/000/t/eventsource", "Cookie: a=b; JSESSIONID=abc; c=d")
        assert stream.headers["set-cookie"] == "JSESSIONID=abc; path=/"
        _, headers, _ = await ask(client, request("POST /sockjs/000/s/jsonp_send", body=b'["x"]'))
        assert headers["set-cookie"] == "JSESSIONID=dummy; path=/"
