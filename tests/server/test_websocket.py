"""WebSocket connections: both wires, every way to end, and clients that are slow or gone."""

from __future__ import annotations

import json
import logging

import pytest
import trio
import trio.testing
import trio_websocket
from websockets.exceptions import ConnectionClosed as ClientSawClose
from websockets.sync.client import connect

from tests.server import network
from tests.server.network import (
    Recorded,
    WireClient,
    closing,
    echo,
    errors,
    in_mock_time,
    in_trio,
    masked,
    serving,
    until,
    upgrade,
)
from trigger_ddp.protocol import frames
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server import http, sockets
from trigger_ddp.server.connection import Connection, Limits

SOCKJS = "/sockjs/000/abc/websocket"


# Both wires


@in_trio
async def test_the_websockets_package_as_a_client() -> None:
    def client(raw: str, sockjs: str) -> None:
        with connect(raw) as ws:
            for message in ("hello", "é\u2028𝄞", "x" * 70_000):
                ws.send(message)
                assert ws.recv() == message
            ws.send(["in ", "frag", "", "ments"])
            assert ws.recv() == "in fragments"
            assert ws.ping().wait(network.PATIENCE)
        assert ws.close_code == 1000
        with connect(sockjs) as ws:
            assert ws.recv() == "o"
            ws.send(json.dumps(["one", 'quoted "two"']))
            assert [ws.recv(), ws.recv()] == ['a["one"]', r'a["quoted \"two\""]']
            ws.send("")
            ws.send("[]")
            ws.send('"alone"')
            assert ws.recv() == 'a["alone"]'
            ws.send("[broken")
            with pytest.raises(ClientSawClose):
                ws.recv()
        assert (ws.close_code, ws.close_reason) == (3000, "Broken framing.")

    async with serving() as served:
        await trio.to_thread.run_sync(client, served.websocket_url, served.sockjs_url)
        await served.until_idle()


@in_trio
async def test_trio_websocket_as_a_client() -> None:
    async with serving() as served, trio_websocket.open_websocket_url(served.websocket_url) as ws:
        await ws.send_message("hello")
        assert await ws.get_message() == "hello"
        await ws.ping(b"are you there")
        await ws.aclose(1001, "going")
        assert ws.closed is not None
        assert ws.closed.code == 1001


@in_trio
async def test_what_a_session_sees_of_its_client() -> None:
    session = Recorded()
    async with serving(session) as served:
        client = WireClient(await served.connect())
        await client.send(upgrade(SOCKJS + "?a=b", "User-Agent: test", "X-Forwarded-For: 1.2.3.4"))
        await client.head()
        assert await client.text() == "o"
        (connection,) = await session.connected()
        assert connection.wire is Wire.SOCKJS
        assert not connection.closed
        assert connection.close_reason == ""
        assert connection.client_address == "127.0.0.1"
        assert connection.request.client_port == client.stream.socket.getsockname()[1]  # type: ignore[attr-defined]
        assert (connection.request.path, connection.request.query) == (SOCKJS, "a=b")
        assert connection.request.http_headers["user-agent"] == "test"
        assert connection.request.http_headers["x-forwarded-for"] == "1.2.3.4"


@in_trio
async def test_pushed_frames_control_frames_and_replies_keep_their_order() -> None:
    session = Recorded()
    async with serving(session) as served:
        client = await served.open()
        (connection,) = await session.connected()
        for number in range(50):
            connection.push(frames.frame(Wire.RAW, b"%d" % number))
        assert connection.statistics().bytes_waiting > 0
        await client.send(masked(network.PING, b"now"))  # its pong goes behind what was pushed before
        for number in range(50):
            assert await client.text() == str(number)
        assert await client.frame() == (network.PONG, b"now")
        assert connection.statistics().bytes_waiting == 0


@in_trio
async def test_frames_that_come_with_the_handshake_are_not_lost() -> None:
    async with serving() as served:
        for _ in range(20):  # the reader and the handshake race each other
            client = await served.open(
                early=masked(network.TEXT, b"early") + masked(network.TEXT, b"bird")[:-2]
            )
            assert await client.text() == "early"
            await client.send(b"rd")
            assert await client.text() == "bird"


@in_mock_time
async def test_sockjs_heartbeats() -> None:
    session = Recorded()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.serve_stream, ours, http.Application(session))
        client = WireClient(theirs)
        await client.send(upgrade(SOCKJS))
        await client.head()
        assert await client.text() == "o"
        begun = trio.current_time()
        for beat in (1, 2, 3):
            assert await client.text() == "h"
            assert trio.current_time() - begun == pytest.approx(45 * beat, abs=0.5)
        await client.send(closing(1000))
        assert await client.close_code() == 1000


# Ends


@in_trio
async def test_the_client_closes() -> None:
    session = Recorded()
    async with serving(session) as served:
        client = await served.open()
        await client.send(masked(network.TEXT, b"last words") + closing(1001, "leaving"))
        assert await client.close_code() == 1001
        assert await client.rest() == b""
        assert await session.until_ended() == "closed: 1001 leaving"
        assert session.messages == ["last words"]
        await client.stream.aclose()
        await served.until_idle()


@in_trio
async def test_the_reason_of_a_client_can_not_pass_for_a_line_of_the_log() -> None:
    session = Recorded()
    async with serving(session) as served:
        client = await served.open()
        await client.send(closing(1001, "leaving\n\x1b[2J"))
        assert await client.close_code() == 1001
        assert await session.until_ended() == r"closed: 1001 'leaving\n\x1b[2J'"
        await client.stream.aclose()
        await served.until_idle()


@pytest.mark.parametrize("how", ["eof", "reset"])
def test_the_client_vanishes(how: str, caplog: pytest.LogCaptureFixture) -> None:
    @in_trio
    async def scenario() -> None:
        session = Recorded()
        async with serving(session) as served:
            client = await served.open()
            if how == "reset":
                client.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # type: ignore[attr-defined]  # SO_LINGER
            await client.stream.aclose()
            assert await session.until_ended() == "the client went away without closing"
            await served.until_idle()

    scenario()
    assert errors(caplog) == []


@pytest.mark.parametrize("sent", [upgrade()[:60], upgrade(), upgrade() + b"\x81"])
def test_the_client_vanishes_during_the_handshake(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    @in_trio
    async def scenario() -> None:
        async with serving() as served:
            for _ in range(20):
                client = WireClient(await served.connect())
                client.stream.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # type: ignore[attr-defined]  # SO_LINGER
                await client.send(sent)
                await client.stream.aclose()
            await served.until_idle()

    scenario()
    assert errors(caplog) == []


@in_trio
async def test_the_server_closes_and_says_why() -> None:
    pushed_late = trio.Event()

    async def close(connection: Connection) -> None:
        connection.push(frames.frame(connection.wire, b"bye"))
        async with trio.open_nursery() as nursery:
            for _ in range(3):  # whoever asks, it is closed once, and each waits for it
                nursery.start_soon(connection.close, 4001, "enough")
            await trio.testing.wait_all_tasks_blocked()
            assert connection.closed
            connection.push(frames.frame(connection.wire, b"too late"))
            connection.flush()
            pushed_late.set()

    session = Recorded(close)
    async with serving(session) as served:
        client = await served.open()
        assert await client.text() == "bye"
        assert await client.frame() == (network.CLOSE, (4001).to_bytes(2, "big") + b"enough")
        await pushed_late.wait()
        await client.send(closing(4001))
        assert await client.rest() == b""
        assert await session.until_ended() == "closed by the server: 4001 enough"


@pytest.mark.parametrize(
    ("arguments", "told", "code"),
    [
        ((), 'c[3000,"Go away!"]', 1000),
        ((1000, "done"), 'c[1000,"done"]', 1000),
        ((4001,), 'c[4001,""]', 4001),
    ],
)
def test_a_sockjs_client_is_told_in_its_own_way(arguments: tuple[object, ...], told: str, code: int) -> None:
    async def close(connection: Connection) -> None:
        await connection.close(*arguments)  # type: ignore[arg-type]

    @in_trio
    async def scenario() -> None:
        async with serving(Recorded(close)) as served:
            client = await served.open(SOCKJS)
            assert await client.text() == "o"
            assert await client.text() == told
            assert await client.close_code() == code

    scenario()


@in_trio
async def test_a_session_that_returns_closes_the_connection() -> None:
    async def session(connection: Connection) -> None:
        connection.push(frames.frame(Wire.RAW, b"that was all"))

    async with serving(session) as served:
        client = await served.open()
        assert await client.text() == "that was all"
        assert await client.close_code() == 1000
        await client.send(closing(1000))
        assert await client.rest() == b""
        await client.stream.aclose()
        await served.until_idle()


@in_trio
async def test_a_session_that_fails_ends_its_own_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def session(connection: Connection) -> None:
        if await connection.receive() == "fail":
            raise ValueError("in the session")
        await echo(connection)

    async with serving(session) as served:
        healthy = await served.open()
        await healthy.send(masked(network.TEXT, b"go on"))
        client = await served.open()
        await client.send(masked(network.TEXT, b"fail"))
        assert await client.close_code() == 1011
        await healthy.send(masked(network.TEXT, b"hello"))
        assert await healthy.text() == "hello"
    assert len(errors(caplog)) == 1
    assert "in the session" in caplog.text


@in_mock_time
async def test_a_client_that_does_not_answer_the_close_is_let_go() -> None:
    ended = trio.Event()

    async def session(connection: Connection) -> None:
        await connection.close()
        ended.set()

    async with serving(session, limits=Limits(close_seconds=5)) as served:
        client = await served.open()
        assert await client.close_code() == 1000
        begun = trio.current_time()
        await ended.wait()
        assert 4.9 < trio.current_time() - begun < 7
        assert await client.rest() == b""


@in_trio
async def test_a_client_that_goes_on_after_the_close_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    async def session(connection: Connection) -> None:
        await connection.close()

    # trio-websocket's reader does not survive the ping; nobody may wait for an answer then
    ping, text = masked(network.PING, b"still there?"), masked(network.TEXT, b"x" * 1000)
    async with serving(session, limits=Limits(close_seconds=1000)) as served:
        for more in (ping, text * 3, ping + text * 50):
            client = await served.open()
            assert await client.close_code() == 1000
            await client.send(more)
            await client.send(closing(1000))
            assert await client.rest() == b""
            await client.stream.aclose()
        await served.until_idle()
    assert errors(caplog) == []


@in_trio
async def test_stopping_the_server_tells_the_clients() -> None:
    session = Recorded()
    async with serving(session) as served:
        raw = await served.open()
        sockjs_client = await served.open(SOCKJS)
        assert await sockjs_client.text() == "o"
        (await session.connected(2))[0].push(frames.frame(Wire.RAW, b"unflushed"))
        served.nursery.cancel_scope.cancel()
        assert await raw.text() == "unflushed"
        assert await raw.close_code() == 1001
        assert await raw.rest() == b""
        assert await sockjs_client.text() == 'c[1001,"the server is stopping"]'
        assert await sockjs_client.close_code() == 1001


@in_trio
async def test_abort_resets_the_connection() -> None:
    async def abort(connection: Connection) -> None:
        connection.abort("no heartbeat")
        connection.abort("only the first reason counts")
        await connection.wait_closed()

    session = Recorded(abort)
    async with serving(session) as served:
        client = WireClient(await served.connect())
        await client.send(upgrade())
        with pytest.raises(trio.BrokenResourceError):
            await client.rest()
        assert await session.until_ended() == "no heartbeat"
        await served.until_idle()


# Clients that are slow


def fill(connection: Connection) -> None:
    """Push more than the kernel will ever take for a client that does not read."""
    while connection.statistics().bytes_waiting < 20_000_000:
        connection.push(frames.frame(Wire.RAW, b"x" * 100_000))
        connection.flush()


@in_trio
async def test_a_client_that_does_not_read_is_cut_off_and_others_are_not() -> None:
    session = Recorded()
    async with serving(session, limits=Limits(outbox_bytes=1_000_000)) as served:
        slow = await served.open()
        await served.open()
        connection, other = await session.connected(2)
        frame = frames.frame(Wire.RAW, b"x" * 10_000)
        while not connection.closed:
            connection.push(frame)
            connection.flush()
            assert connection.statistics().bytes_waiting <= 1_000_000
        assert "too slow" in connection.close_reason
        assert await session.until_ended() == connection.close_reason
        with pytest.raises(trio.BrokenResourceError):
            await slow.rest()
        assert not other.closed
        await until(lambda: len(served.nursery.child_tasks) == 2, "the slow one's task gone")


@in_mock_time
async def test_a_client_that_reads_nothing_for_too_long_is_cut_off() -> None:
    session = Recorded()
    async with serving(session, limits=Limits(outbox_seconds=30)) as served:
        await served.open()
        (connection,) = await session.connected()
        begun = trio.current_time()
        fill(connection)
        await connection.wait_closed()
        assert 30 <= trio.current_time() - begun < 31
        assert "too slow" in connection.close_reason


@in_trio
async def test_a_session_can_pace_itself() -> None:
    async def snapshot(connection: Connection) -> None:
        for _ in range(100):
            connection.push(frames.frame(connection.wire, b"x" * 50_000))
            await connection.wait_at_most(200_000)

    async with serving(Recorded(snapshot), limits=Limits(outbox_bytes=400_000)) as served:
        client = await served.open()
        for _ in range(100):
            assert len(await client.text()) == 50_000


@in_trio
async def test_closing_a_client_that_does_not_read_is_bounded() -> None:
    done = trio.Event()

    async def session(connection: Connection) -> None:
        fill(connection)
        await connection.close()
        done.set()

    async with serving(session, limits=Limits(close_seconds=0.05)) as served:
        await served.open()
        await done.wait()
        await served.until_idle()


@in_trio
async def test_over_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("unix") / "sock"
    (listener,) = await sockets.open_listeners([f"unix:{path}"])
    session = Recorded()
    async with trio.open_nursery() as nursery:
        app = http.Application(session)

        async def serve(stream: trio.SocketStream) -> None:
            await http.serve_stream(stream, app)

        await nursery.start(sockets.accept_forever, [listener], serve)
        async with await trio.open_unix_socket(path) as stream:
            client = WireClient(stream)
            await client.send(upgrade() + masked(network.TEXT, b"hello"))
            await client.head()
            await until(lambda: session.messages == ["hello"], "the message arrived")
            assert session.connections[0].client_address == "unix"
        nursery.cancel_scope.cancel()


@in_trio
async def test_a_connections_life_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="trigger_ddp")
    async with serving() as served:
        client = await served.open()
        port = client.stream.socket.getsockname()[1]  # type: ignore[attr-defined]
        await client.stream.aclose()
        await served.until_idle()
    texts = [record.getMessage() for record in caplog.records]
    assert f"<Connection 127.0.0.1:{port} raw> opened" in texts
    assert f"<Connection 127.0.0.1:{port} raw>: the client went away without closing" in texts
