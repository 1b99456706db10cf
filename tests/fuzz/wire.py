"""Ground for the entrances with connections: a client with a script, and what looks at the answers."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator

import h11
import trio
import trio.testing

from trigger_ddp.protocol import frames
from trigger_ddp.server.connection import Connection

#: Seconds of the mock clock after which a connection is one that never ends.
FOR_EVER = 10_000.0

_CLOSE = 8
#: What may be on the wire; a client's own code comes back to it.
_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
_MOST_PIECES = 100


class Client(trio.abc.HalfCloseableStream):
    """The server's end of a connection whose client sends some chunks and then nothing more.

    Args:
        chunks: what comes, one read after the other.
        stays: seconds after which the client closes its sending side; it reads to the end, if it reads.
        reads: whether the client takes in what it is sent.

    Attributes:
        received: what the server has sent.
        closed: whether the server has closed the connection.
        left: whether the client had closed its side before that.
    """

    def __init__(self, chunks: Iterable[bytes], stays: float = 0.0, reads: bool = True) -> None:
        self.received = bytearray()
        self.closed = self.left = False
        self._chunks = deque(chunks)
        self._stays = stays
        self._reads = reads
        self._closing = trio.Event()
        self._eof_sent = self._receiving = self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._receiving:
            raise trio.BusyResourceError("two receive at a time")
        self._receiving = True
        try:
            self._check_open()
            await trio.lowlevel.checkpoint()
            if not self._chunks:
                with trio.move_on_after(0 if self.left else self._stays):
                    await self._closing.wait()
            self._check_open()
            if not self._chunks:
                self.left = True
                return b""
            chunk = self._chunks.popleft()
            if max_bytes is not None and len(chunk) > max_bytes:
                self._chunks.appendleft(chunk[max_bytes:])
            return chunk[:max_bytes]
        finally:
            self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("two send at a time")
        self._sending = True
        try:
            self._check_open()
            await trio.lowlevel.checkpoint()
            if not self._reads:
                await self._closing.wait()
            self._check_open()
            if self._eof_sent:
                raise trio.ClosedResourceError("can't send after EOF")
            self.received += data
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        self._check_open()
        self._eof_sent = True
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        self._closing.set()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this end is closed")


def pieces(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of one size, larger where they would be too many; 0: whole."""
    size = size and max(size, len(data) // _MOST_PIECES)
    return [data[start : start + size] for start in range(0, len(data), size)] if size else [data]


async def echo(connection: Connection) -> None:
    """A session that sends every message back, and closes or fails where one asks for that."""
    while True:
        message = await connection.receive()
        connection.push(frames.frame(connection.wire, message.encode()))
        connection.flush()
        if message == "close":
            await connection.close(4000, "as asked")


def run(main: Callable[[], Awaitable[None]], clock: trio.abc.Clock | None = None) -> None:
    """Run in trio on a clock that jumps, and insist on the end, and that no error was logged.

    Args:
        main: what is run.
        clock: another clock.
    """

    async def bounded() -> None:
        with trio.fail_after(FOR_EVER):
            await main()

    with nothing_logged():
        trio.run(bounded, clock=clock or trio.testing.MockClock(autojump_threshold=0))


class _Complaints(logging.Handler):
    """Keeps errors, and messages that a client could have forged lines of the log with."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.ERROR:
            self.records.append(record)
        elif not message.isprintable():
            self.lines.append(message)


@contextlib.contextmanager
def nothing_logged() -> Iterator[None]:
    """Raise what was logged as an error, if anything was; debug messages are looked at, too."""
    handler = _Complaints()
    logger = logging.getLogger("trigger_ddp")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    for record in handler.records:
        error = record.exc_info[1] if record.exc_info else None
        raise AssertionError(f"logged: {record.msg} {error!r}") from error
    assert not handler.lines, handler.lines


# -- what the client reads ---------------------------------------------------------------------------


def methods(sent: bytes) -> list[str]:
    """The methods of the requests in what a client sent, up to where it is no HTTP any more."""
    found: list[str] = []
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=32 * 1024)
    server.receive_data(sent)
    try:
        while not isinstance(event := server.next_event(), (type, h11.ConnectionClosed)):
            if isinstance(event, h11.Request):
                found.append(event.method.decode())
            elif isinstance(event, h11.EndOfMessage):
                server.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                server.send(h11.EndOfMessage())
                server.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        pass  # from here on it is answered once, if at all, as to a GET
    return found


class Answer:
    """One response as a client reads it."""

    def __init__(self, head: h11.Response, body: bytes, *, complete: bool) -> None:
        self.status = head.status_code
        self.headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        self.body = body
        self.complete = complete


def answers(received: bytes, asked: Iterable[str]) -> tuple[list[Answer], bytes]:
    """Read responses as h11's client does, which raises where they are not well-formed.

    Args:
        received: all that the server sent.
        asked: the methods of the requests.

    Returns:
        The responses, and what comes behind one that switches to WebSocket. Only the last may be incomplete.
    """
    found: list[Answer] = []
    rest = received
    for method in itertools.chain(asked, itertools.repeat("GET")):
        if not rest:
            break
        assert not found or "close" not in found[-1].headers.get("connection", ""), "said close, and went on"
        client = h11.Connection(h11.CLIENT)
        upgrade = [] if method == "CONNECT" else [("connection", "upgrade"), ("upgrade", "websocket")]
        client.send(h11.Request(method=method, target="/", headers=[("host", "x"), *upgrade]))
        client.send(h11.EndOfMessage())
        client.receive_data(rest)
        client.receive_data(b"")
        head, body, complete, informed = None, b"", True, False
        try:
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    return found, client.trailing_data[0]
                if isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    assert isinstance(event, h11.InformationalResponse), event
                    informed = True
        except h11.RemoteProtocolError:
            if head is None and informed:
                return found, b""  # who is told to continue, and goes away instead, is not answered
            if head is None:
                raise
            complete = False
        assert head is not None
        found.append(Answer(head, bytes(body), complete=complete))
        assert "date" in found[-1].headers
        rest = client.trailing_data[0] if complete else b""
    return found, b""


def websocket_frames(received: bytes) -> list[tuple[int, bytes]]:
    """A server's frames: whole, unmasked, and none behind a close frame."""
    found: list[tuple[int, bytes]] = []
    rest = received
    while rest:
        assert not found or found[-1][0] != _CLOSE, "a frame behind the close frame"
        assert len(rest) >= 2, "half a frame"
        first, length = rest[:2]
        assert first & 0x70 == 0, "a reserved bit"
        assert first & 0x80, "a fragment"
        assert length < 128, "a masked frame"
        size = {126: 2, 127: 8}.get(length, 0)
        if size:
            length = int.from_bytes(rest[2 : 2 + size])
        assert len(rest) >= 2 + size + length, "half a frame"
        payload, rest = rest[2 + size : 2 + size + length], rest[2 + size + length :]
        opcode = first & 0x0F
        assert opcode in (1, _CLOSE, 10), opcode
        if opcode == 1:
            payload.decode()
        elif opcode == _CLOSE and payload:
            code = int.from_bytes(payload[:2])
            assert code in _CLOSE_CODES, code
            payload[2:].decode()
        found.append((opcode, payload))
    return found
