"""Ground for tests with sockets: running in trio, a served application, and clients that misbehave."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trigger_ddp.protocol import frames
from trigger_ddp.server import http, sockets
from trigger_ddp.server.connection import Connection, ConnectionClosed, Limits
from trigger_ddp.server.sockjs_registry import Sessions

#: Seconds after which a test that waits for something is told that it will not come.
PATIENCE = 20

KEY = "x3JJHMbDL1EzLkh9GBhXDw=="
ACCEPT = "HSmrc0sMlYUkAGmm5OPpG2HaGWk="

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def in_trio(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in trio, in real time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def guarded() -> None:
            with trio.fail_after(PATIENCE):
                await test(*args, **kwargs)

        trio.run(guarded)

    return run


def in_mock_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in trio on a clock that jumps to the next deadline once nothing else can happen."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        trio.run(
            functools.partial(test, *args, **kwargs), clock=trio.testing.MockClock(autojump_threshold=0.02)
        )

    return run


async def until(condition: Callable[[], object], what: str) -> None:
    """Look until a state is reached."""
    with trio.move_on_after(PATIENCE):
        while not condition():
            await trio.sleep(0.001)
        return
    pytest.fail(f"never: {what}")


async def echo(connection: Connection) -> None:
    """A session that sends every message back, until the client has no more."""
    while True:
        message = await connection.receive()
        connection.push(frames.frame(connection.wire, message.encode()))
        connection.flush()


class Served:
    """An application listening on a port of 127.0.0.1."""

    def __init__(self, listener: sockets.Listener, nursery: trio.Nursery) -> None:
        self.listener = listener
        self.nursery = nursery
        self.clients: list[trio.SocketStream] = []
        address = sockets.address_of(listener)
        assert isinstance(address, sockets.TCPAddress)
        self.port = address.port
        self.url = sockets.url(listener)
        self.websocket_url = self.url.replace("http:", "ws:") + "websocket"
        self.sockjs_url = self.url.replace("http:", "ws:") + "sockjs/000/abc/websocket"

    async def connect(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.clients.append(stream)
        return stream

    async def open(self, path: str = "/websocket", early: bytes = b"") -> WireClient:
        """A client that has shaken hands."""
        client = WireClient(await self.connect())
        await client.send(upgrade(path) + early)
        head = await client.head()
        assert head.startswith("HTTP/1.1 101 "), head
        assert f"sec-websocket-accept: {ACCEPT}\r\n".lower() in head.lower()
        return client

    async def until_idle(self) -> None:
        """Wait until no connection has a task left."""
        await until(lambda: len(self.nursery.child_tasks) == 1, "all connections' tasks gone")


@contextlib.asynccontextmanager
async def serving(
    session: Callable[[Connection], Awaitable[None]] = echo, **options: Any
) -> AsyncIterator[Served]:
    """Serve an application; options are `http.Application`'s. It has SockJS sessions, too."""
    sessions = Sessions(session, options.get("limits") or Limits())
    app = http.Application(session, sessions=sessions, **options)
    (listener,) = await sockets.open_listeners(["127.0.0.1:0"])

    async def serve(stream: trio.SocketStream) -> None:
        await http.serve_stream(stream, app)

    async with trio.open_nursery() as outer:
        await outer.start(sessions.run)
        nursery_of: list[trio.Nursery] = []

        async def accept() -> None:
            # the accept loop's own nursery holds one task for the listener and one for each connection
            async with trio.open_nursery() as inner:
                nursery_of.append(inner)
                await inner.start(sockets.accept_forever, [listener], serve)
                started.set()

        started = trio.Event()
        outer.start_soon(accept)
        await started.wait()
        (accepting,) = nursery_of[0].child_tasks
        served = Served(listener, accepting.child_nurseries[0])
        try:
            yield served
        finally:
            for client in served.clients:
                client.socket.close()
            outer.cancel_scope.cancel()


def upgrade(path: str = "/websocket", *extra: str, **changed: str | None) -> bytes:
    """A WebSocket handshake; `changed` replaces headers, or leaves them out if None."""
    headers: dict[str, str | None] = {
        "host": "localhost",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec_websocket_version": "13",
        "sec_websocket_key": KEY,
    } | changed
    lines = [f"GET {path} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([*lines, *extra, "", ""]).encode("latin-1")


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's WebSocket frame; its mask is zero, so the payload can be read."""
    first = opcode | (0x80 if fin else 0)
    if len(payload) < 126:
        head = bytes((first, 0x80 | len(payload)))
    elif len(payload) < 1 << 16:
        head = bytes((first, 0x80 | 126)) + len(payload).to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + len(payload).to_bytes(8, "big")
    return head + bytes(4) + payload


def closing(code: int, reason: str = "") -> bytes:
    """A client's close frame."""
    return masked(CLOSE, code.to_bytes(2, "big") + reason.encode())


class WireClient:
    """A client that sends what it is told to and looks at every byte it gets."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def head(self) -> str:
        """The next HTTP response's head."""
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode("latin-1") + "\r\n"

    async def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            await self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. It has to be final and unmasked, as all of ours are."""
        first, length = await self.exactly(2)
        assert first & 0xF0 == 0x80
        assert length < 128
        if length == 126:
            length = int.from_bytes(await self.exactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.exactly(8), "big")
        return first & 0x0F, await self.exactly(length)

    async def text(self) -> str:
        opcode, payload = await self.frame()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    async def close_code(self) -> int:
        """The code of the server's close frame, after which the server has to close the socket."""
        opcode, payload = await self.frame()
        assert opcode == CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big")

    async def rest(self) -> bytes:
        """All that comes until the server closes the socket."""
        with contextlib.suppress(EOFError):
            while True:
                await self._more()
        data, self.buffer = self.buffer, b""
        return data

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError(f"the server closed after {self.buffer!r}")
        self.buffer += data


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server logged as an error."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


class Recorded:
    """A session that notes what it receives and how it ends, and does what the test wants meanwhile."""

    def __init__(self, act: Callable[[Connection], Awaitable[None]] | None = None) -> None:
        self.messages: list[str] = []
        self.ended: list[str] = []
        self.connections: list[Connection] = []
        self._act = act

    async def __call__(self, connection: Connection) -> None:
        self.connections.append(connection)
        if self._act is not None:
            await self._act(connection)
        with pytest.raises(ConnectionClosed) as closed:
            await self._collect(connection)
        assert connection.closed
        assert closed.value.reason == connection.close_reason
        self.ended.append(closed.value.reason)

    async def _collect(self, connection: Connection) -> None:
        while True:
            self.messages.append(await connection.receive())

    async def connected(self, count: int = 1) -> list[Connection]:
        await until(lambda: len(self.connections) == count, f"{count} sessions begun")
        return self.connections

    async def until_ended(self) -> str:
        await until(lambda: self.ended, "the session ended")
        return self.ended[0]
