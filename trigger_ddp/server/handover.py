"""A client that comes back to its session over another worker is carried to the one that has the session.

The worker that accepted the client passes on what it says, and what it is told; frames are made, counted
and bounded where the session is. Between the two go blocks: one byte of kind, four of length, a payload.
"""

from __future__ import annotations

import enum
from contextlib import suppress

import msgspec
import trio

from trigger_ddp.protocol.ending import Ending, of_our_code
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server.connection import Connection, ConnectionClosed, Limits
from trigger_ddp.server.exchange import Request
from trigger_ddp.server.outbox import Outbox, OutboxStatistics

#: What may wait for a client in the worker that passes it on, before that takes no more from the other one.
MOST_PASSED_ON = 256 * 1024

#: What is answered to a worker whose client can resume its session here, and then goes on here.
ACCEPTED = b"y"
REFUSED = b"n"

_READ_SIZE = 65536
_HEAD_BYTES = 5


class _Kind(enum.IntEnum):
    MESSAGE = 1  # from the client: UTF-8
    FRAMES = 2  # to the client, as they are
    CLOSE = 3  # the client's connection: code, reason and ending as JSON
    ABORT = 4  # the client's connection: reason and ending as JSON


def _block(kind: _Kind, payload: bytes) -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(4) + payload


class _Blocks:
    """The blocks that come from the other worker."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> tuple[_Kind, bytes] | None:
        """The next one, or None if there is none any more."""
        while (end := self._end_of_first()) > len(self._buffer):
            try:
                data = await self._stream.receive_some(_READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._buffer += data
        block = _Kind(self._buffer[0]), bytes(self._buffer[_HEAD_BYTES:end])
        del self._buffer[:end]
        return block

    def _end_of_first(self) -> int:
        if len(self._buffer) < _HEAD_BYTES:
            return _HEAD_BYTES
        return _HEAD_BYTES + int.from_bytes(self._buffer[1:_HEAD_BYTES])


async def pass_on(connection: Connection, stream: trio.abc.Stream) -> None:
    """Carry a client's connection to the worker at the other end of a stream, until either of them ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_messages, connection, stream)
        blocks = _Blocks(stream)
        while (block := await blocks.next()) is not None:
            kind, payload = block
            if kind is _Kind.CLOSE:
                code, reason, ending = msgspec.json.decode(payload, type=tuple[int, str, Ending])
                await connection.close(code, reason, ending)
                break
            if kind is _Kind.ABORT:
                connection.abort(*msgspec.json.decode(payload, type=tuple[str, Ending]))
                break
            connection.push(payload)
            connection.flush()
            await connection.wait_at_most(MOST_PASSED_ON)
        else:
            connection.abort("its session has ended in another worker")
        nursery.cancel_scope.cancel()


async def _pass_messages(connection: Connection, stream: trio.abc.Stream) -> None:
    try:
        while True:
            message = await connection.receive()
            await stream.send_all(_block(_Kind.MESSAGE, message.encode()))
    except ConnectionClosed:
        await trio.aclose_forcefully(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the other worker has gone, as `pass_on` notices


class CarriedConnection:
    """The connection of a client that another worker passes on; see `Connection` for what all this does.

    Args:
        stream: to the other worker.
        nursery: where what waits for it is sent; it must outlive the connection.
        wire, request: the client's.
        limits: what the client may take up.
    """

    def __init__(
        self, stream: trio.abc.Stream, nursery: trio.Nursery, wire: Wire, request: Request, limits: Limits
    ) -> None:
        self.wire = wire
        self.request = request
        self.closed_here = False
        self._limits = limits
        self._outbox = Outbox(
            stream, nursery, max_bytes=limits.outbox_bytes, max_seconds=limits.outbox_seconds
        )
        self._blocks = _Blocks(self._outbox)
        self._closing: str | None = None
        self._ending = Ending.LOST
        self._receiving = False

    def __repr__(self) -> str:
        return f"<CarriedConnection {self.request.client} {self.wire.value}>"

    @property
    def client_address(self) -> str:
        """The client's address."""
        return self.request.client_address

    @property
    def closed(self) -> bool:
        """Whether it is closed or closing."""
        return self._closing is not None or self._outbox.ended.is_set()

    @property
    def close_reason(self) -> str:
        """Why it is, for the log; empty while it is open."""
        return self._closing or self._outbox.end_reason or ("closed" if self.closed else "")

    @property
    def ending(self) -> Ending:
        """The same in one word."""
        return self._ending

    def statistics(self) -> OutboxStatistics:
        """How the other worker keeps up right now."""
        return self._outbox.statistics()

    async def receive(self) -> str:
        """The client's next message.

        Raises:
            ConnectionClosed: there is none any more.
        """
        self._receiving = True
        try:
            while (block := await self._blocks.next()) is not None:
                if self._closing is None:
                    return block[1].decode()
        finally:
            self._receiving = False
        if self._closing is None:
            self._closing = self._outbox.end_reason or "the client went away"
        await self._outbox.aclose()
        raise ConnectionClosed(self.close_reason)

    def accept(self) -> None:
        """Tell the other worker that the client is taken over; comes before everything else."""
        self._outbox.append(ACCEPTED)

    async def refuse(self) -> None:
        """Tell the other worker that it is not, and end."""
        self._outbox.append(REFUSED)
        self._outbox.flush()
        await self._outbox.aclose()

    def push(self, frame: bytes) -> None:
        """Append frames to what waits to be sent."""
        if self._closing is None and frame:
            self._outbox.append(_block(_Kind.FRAMES, frame))

    def send(self, frame: bytes) -> None:
        self.push(frame)
        self.flush()

    def flush(self) -> None:
        """Send what was pushed."""
        self._outbox.flush()

    async def wait_at_most(self, count: int) -> None:
        """Wait until at most `count` bytes wait to be sent, or the connection is gone."""
        await self._outbox.wait_at_most(count)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self._outbox.ended.wait()

    async def close(self, code: int = 1000, reason: str = "", ending: Ending | None = None) -> None:
        """Send what waits, and have the other worker close the connection."""
        if self._closing is None and not self._outbox.ended.is_set():
            self._closing = f"closed by the server: {code} {reason}".rstrip()
            self.closed_here = True
            self._ending = ending or of_our_code(code)
            told = (code, reason, self._ending)
            self._outbox.append(_block(_Kind.CLOSE, msgspec.json.encode(told)))
            self._outbox.flush()
        with trio.move_on_after(2 * self._limits.close_seconds):  # the client has the half of it
            if self._receiving:
                await self._outbox.ended.wait()
            else:
                with suppress(ConnectionClosed):
                    await self.receive()
        await self._outbox.aclose()

    def abort(self, reason: str, ending: Ending = Ending.SERVER) -> None:
        """Cut the connection now."""
        if self._closing is None:
            self._closing, self._ending = reason, ending
            # As far as the socket takes it: there it stays to be read, though nothing follows.
            self._outbox.append(_block(_Kind.ABORT, msgspec.json.encode((reason, ending))))
            self._outbox.flush()
        self._outbox.abort(reason, ending)
