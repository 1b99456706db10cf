"""One WebSocket connection: handshake, messages in, frames out, and an end that always comes.

trio-websocket speaks the protocol; it is imported here and nowhere else. What it leaves to others:

- it has wsproto and h11 read the request once more, is undone by headers that are none of its business (a
  Host that is no domain name), loses bytes that arrive before the handshake is answered, and keeps all that
  was needed for it as long as the connection lasts: the handshake is answered here, and `_Upgraded` begins
  behind it;
- it never sends the close frame that a protocol error (1002, 1007) calls for: `_Channel.aclose` does;
- its reader task raises where a client pings, or goes on sending too much, after our close frame:
  `_Reader` keeps that from the session's tasks;
- it collects the fragments of a message without counting the empty ones: `_Channel` counts what
  arrives without ever becoming a message.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Iterator

import trio
import trio_websocket
import wsproto
from wsproto.connection import Connection as Frames
from wsproto.utilities import generate_accept_token

from trigger_ddp.protocol import frames
from trigger_ddp.protocol.ending import Ending, of_final_code, of_our_code
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server import sockjs
from trigger_ddp.server.connection import Connection, ConnectionClosed, Limits
from trigger_ddp.server.exchange import Request
from trigger_ddp.server.metrics import Metrics
from trigger_ddp.server.outbox import Outbox, OutboxStatistics

logger = logging.getLogger(__name__)

#: Codes that stand for a close without a frame; they are never sent.
_NOT_ON_THE_WIRE = (1005, 1006, 1015)
#: That of them which stands for a close frame that had none.
_NO_CODE = 1005
#: What one read takes. wsproto needs some 30 µs for a frame however small, and nothing else runs
#: meanwhile: a client of empty frames must not be given more than a few hundred at a time.
_READ_SIZE = 4096
_CLOSE_OPCODE = 0x88
#: RFC 6455, section 4.2.2.
_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n"
)
#: Bytes that may arrive on top of twice the largest message without completing one: control frames.
_UNFINISHED_ALLOWANCE = 256 * 1024


class WebSocketConnection:
    """A WebSocket client after the handshake: a `Connection`.

    One task at a time may be in `receive()`, and one should nearly always be: while a message is not
    taken, pings are not answered and the client's going is not noticed. All else may be called by any
    task on the trio thread.

    Args:
        wire: what frames the client wants; hand `frames.frame(wire, message)` to `push()`.
        request: the HTTP request that opened the connection.
    """

    __slots__ = (
        "_channel", "_closing", "_ending", "_limits", "_pending", "_reader", "_websocket", "closed_here",
        "request", "send", "wire",
    )  # fmt: skip

    def __init__(
        self,
        wire: Wire,
        request: Request,
        channel: _Channel,
        reader: _Reader,
        websocket: trio_websocket.WebSocketConnection,
        limits: Limits,
    ) -> None:
        self.wire = wire
        self.request = request
        #: `push` and `flush` in one.
        self.send = channel.send
        self._channel = channel
        self._reader = reader
        self._websocket = websocket
        self._limits = limits
        self._pending: Iterator[str] = iter(())  # what else SockJS's last frame had
        self._closing: str | None = None  # why we are closing, once we are
        self._ending = Ending.SERVER  # the same in one word
        #: Whether it is closed in good order, by us; then the client is not to come back to its session.
        self.closed_here = False

    def __repr__(self) -> str:
        return f"<Connection {self.request.client} {self.wire.value}>"

    @property
    def client_address(self) -> str:
        """The address at the other end of the socket, without the port."""
        return self.request.client_address

    @property
    def closed(self) -> bool:
        """Whether closing has begun, from either side. What is pushed from now on goes nowhere."""
        return (
            self._closing is not None
            or self._channel.ended.is_set()
            or self._channel.close_sent
            or self._websocket.closed is not None
        )

    @property
    def close_reason(self) -> str:
        """Why the connection is closed or closing, for the log; empty while it is open."""
        if self._closing is not None:
            return self._closing
        if self._channel.end_reason is not None:
            return self._channel.end_reason
        if self._channel.violation is not None:
            return self._channel.violation
        closed = self._websocket.closed
        if closed is None:
            return "closed" if self.closed else ""
        if closed.code == 1006:
            return "the client went away without closing"
        # the client's own words, which are not to look like a line of the log, or what trio-websocket found
        # wrong with what it sent
        reason = closed.reason or ""
        return f"closed: {closed.code} {reason if reason.isprintable() else ascii(reason)}".rstrip()

    @property
    def ending(self) -> Ending:
        """The same in one word; means something once the connection is gone."""
        if self._closing is not None:
            return self._ending
        if self._channel.end_reason is not None:
            return self._channel.ending
        if self._channel.violation is not None:
            return Ending.TOO_LARGE
        closed = self._websocket.closed
        return Ending.LOST if closed is None else of_final_code(closed.code)

    def statistics(self) -> OutboxStatistics:
        """How this client keeps up right now."""
        return self._channel.statistics()

    async def receive(self) -> str:
        """The text of the client's next DDP message.

        A binary message is answered by closing with 1003, broken SockJS framing with 3000.

        Raises:
            ConnectionClosed: there is none any more.
        """
        while True:
            if self._closing is not None:
                raise ConnectionClosed(self.close_reason)
            if (text := next(self._pending, None)) is not None:
                await trio.lowlevel.checkpoint()  # or a frame of many messages would keep others waiting
                return text
            try:
                message = await self._websocket.get_message()
            except trio_websocket.ConnectionClosed:
                raise ConnectionClosed(self.close_reason) from None
            self._channel.unfinished = 0
            if isinstance(message, bytes):
                await self.close(1003, "DDP messages are text")
            elif self._is_too_large(message):
                await self.close(1009, "the message is too large")
            elif self.wire is Wire.RAW:
                return message
            else:
                try:
                    self._pending = iter(sockjs.unframe(message))
                except sockjs.BrokenFraming:
                    await self.close(3000, "Broken framing.", abruptly=True)

    def _is_too_large(self, message: str) -> bool:
        # trio-websocket counts characters; most messages are too short for that to make a difference.
        most = self._limits.max_message_bytes
        return len(message) > most // 4 and len(message.encode()) > most

    def push(self, frame: bytes) -> None:
        """Append a whole WebSocket frame to what waits to be sent. Never waits, never raises.

        Nothing leaves before `flush()`. Ignored once the connection is closing. A client that can't
        keep up is cut off: see `close_reason`.
        """
        if not self._channel.sealed:
            self._channel.append(frame)

    def flush(self) -> None:
        """Send what was pushed, as far as the socket takes it now; the rest follows by itself."""
        self._channel.flush()

    async def wait_at_most(self, count: int) -> None:
        """Wait until at most `count` bytes wait to be sent, or the connection is gone.

        For whoever has much to send at once and would otherwise fill the outbox of a client that reads.
        """
        await self._channel.wait_at_most(count)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        await self._channel.ended.wait()

    async def close(
        self, code: int = 1000, reason: str = "", ending: Ending | None = None, *, abruptly: bool = False
    ) -> None:
        """Send what waits and a close frame, wait for the client's, and close the socket.

        Takes at most `Limits.close_seconds` and a moment of lingering; a client that does not answer is
        cut off. May be called again, and by several tasks; each returns once the connection is gone.
        A SockJS client is told first, in its own way: ``c[3000,"Go away!"]`` unless code or reason say more.

        Args:
            code: a WebSocket close code.
            reason: for the client, at most 123 bytes of UTF-8; more is cut off.
            ending: see there; by default what the code stands for.
            abruptly: a SockJS client is not told in its own way, as SockJS has it for broken framing.
        """
        if self._closing is not None:
            await self._channel.ended.wait()
            return
        self._begin_close(code, reason, ending, abruptly)
        with trio.move_on_after(self._limits.close_seconds) as patience:
            self._reader.cancel_when_done(patience)
            await self._websocket.aclose(code, reason or None)
        if patience.cancelled_caught:
            logger.debug("%r did not answer the close", self)
        await self._reader.stop()
        await self._channel.aclose()

    def leave(self, code: int = 1001, reason: str = "the server is stopping") -> None:
        """Send what waits and a close frame as far as the socket takes it now, and wait for nothing."""
        if self._closing is None:
            self._begin_close(code, reason)
        self._channel.say_close(code, reason)

    def abort(self, reason: str, ending: Ending = Ending.SERVER) -> None:
        """Reset the connection now, without a close frame.

        Args:
            reason: for the log; see `close_reason`.
            ending: the same in one word.
        """
        if self._closing is None and not self._channel.ended.is_set():
            self._closing, self._ending = reason, ending
            self._channel.seal()
        self._channel.abort(reason, ending)

    def _begin_close(
        self, code: int, reason: str, ending: Ending | None = None, abruptly: bool = False
    ) -> None:
        self._channel.seal()
        if already := self.close_reason:
            self._closing, self._ending = already, self.ending
            return
        self._closing = f"closed by the server: {code} {reason}".rstrip()
        self._ending = ending or of_our_code(code)
        self.closed_here = True
        if self.wire is Wire.SOCKJS and not abruptly:
            told = (code, reason) if reason or code != 1000 else (3000, "Go away!")
            self._channel.append(frames.sockjs_close_frame(*told))  # after which SockJS allows no other

    async def beat(self) -> None:
        """Send SockJS heartbeats until cancelled."""
        while True:
            await trio.sleep(self._limits.sockjs_heartbeat)
            self.push(frames.SOCKJS_HEARTBEAT)
            self.flush()


class _Upgraded(wsproto.WSConnection):
    """wsproto's connection as it is once a server has accepted the handshake."""

    def __init__(self) -> None:
        self.client = False
        self.connection = self._frames = Frames(wsproto.ConnectionType.SERVER)

    def events(self) -> Generator[wsproto.events.Event, None, None]:
        return self._frames.events()


class _Channel(Outbox):
    """The outbox as the stream under trio-websocket; see the module's text for what it adds."""

    __slots__ = ("_max_unfinished", "close_sent", "unfinished", "violation", "websocket")

    def __init__(
        self, stream: trio.abc.Stream, nursery: trio.Nursery, limits: Limits, *, early: bytes
    ) -> None:
        super().__init__(
            stream, nursery, replay=early, max_bytes=limits.outbox_bytes, max_seconds=limits.outbox_seconds
        )
        self.websocket: trio_websocket.WebSocketConnection | None = None
        #: Whether a close frame is on its way; no frame may follow it.
        self.close_sent = False
        #: What the client did that trio-websocket does not mind and we do, once it did.
        self.violation: str | None = None
        #: Bytes received since the last whole message was taken.
        self.unfinished = 0
        self._max_unfinished = 2 * limits.max_message_bytes + _UNFINISHED_ALLOWANCE

    def say_close(self, code: int, reason: str) -> None:
        """Send a close frame, if none was sent, as far as the socket takes it now."""
        if not self.close_sent:
            self.close_sent = True
            self.seal()
            self.append(frames.close_frame(code, reason))
        self.flush()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if bytes(data[:1])[0] == _CLOSE_OPCODE:
            self.close_sent = True
            self.seal()
        await super().send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        self.unfinished += len(data)
        if self.unfinished > self._max_unfinished:
            self.violation = f"{self.unfinished} bytes came without a whole message"
            self.say_close(1009, self.violation)
            await self.aclose()
            raise trio.ClosedResourceError
        return data

    async def aclose(self) -> None:
        closed = self.websocket.closed if self.websocket is not None else None
        if closed is not None and not self.close_sent:
            if closed.code == _NO_CODE:
                self.say_close(1000, "")
            elif closed.code not in _NOT_ON_THE_WIRE:
                self.say_close(closed.code, closed.reason or "")
        # What was said last should arrive even if the task that closes is being cancelled; the time that
        # this can take is bounded.
        with trio.CancelScope(shield=True):
            await super().aclose()


class _Reader:
    """Runs trio-websocket's reader task apart from all others, so that its failure is its own."""

    __slots__ = ("_channel", "_client", "_done", "_scope", "_waiting")

    def __init__(self, channel: _Channel, client: str) -> None:
        self._channel = channel
        self._client = client
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._waiting: trio.CancelScope | None = None

    def cancel_when_done(self, scope: trio.CancelScope) -> None:
        """Cancel a task that waits for something to be read, once nothing will be."""
        self._waiting = scope

    async def stop(self) -> None:
        """Cancel the reader and wait until it is gone."""
        self._scope.cancel()
        await self._done.wait()

    async def run(self, websocket: trio_websocket.WebSocketConnection) -> None:
        """Read until the end."""
        try:
            with self._scope:
                # As trio-websocket's wrap_server_stream would, which insists on a handshake of its own.
                await websocket._reader_task()
        except trio_websocket.ConnectionClosed:
            logger.debug("%s went away", self._client)
        except Exception as error:
            # Not only once the close frame is sent: wsproto refuses to answer a ping from when it was made.
            if self._channel.sealed:
                logger.debug("%s went on after the close frame: %r", self._client, error)
            else:
                logger.exception("reading from %s failed", self._client)
                self._channel.abort("reading failed", Ending.ERROR)
        finally:
            self._done.set()
            if self._waiting is not None:
                self._waiting.cancel()


async def serve(
    stream: trio.abc.Stream,
    request: Request,
    *,
    key: bytes,
    early: bytes,
    wire: Wire,
    on_connection: Callable[[Connection], Awaitable[None]],
    limits: Limits,
    metrics: Metrics,
) -> None:
    """Accept a WebSocket handshake and run `on_connection` until it returns; then close the connection.

    Args:
        stream: the client, its request read. It is closed on return.
        request: a WebSocket upgrade that was found to be in order.
        key: its ``Sec-WebSocket-Key``.
        early: bytes that were read after the request.
        wire: the framing that the request's path stands for.
        on_connection: the session. An exception from it closes with 1011 and is logged.
        limits: what the client may take up.
        metrics: where the connection and its end are counted.

    Raises:
        Nothing but `trio.Cancelled`; the client is then told 1001 as far as that takes no waiting.
    """
    async with trio.open_nursery() as nursery:
        channel = _Channel(stream, nursery, limits, early=early)
        channel.append(_ACCEPTED % generate_accept_token(key))
        websocket = channel.websocket = trio_websocket.WebSocketConnection(
            channel, _Upgraded(), max_message_size=limits.max_message_bytes, receive_buffer_size=_READ_SIZE
        )
        reader = _Reader(channel, request.client)
        connection = WebSocketConnection(wire, request, channel, reader, websocket, limits)
        nursery.start_soon(reader.run, websocket, name=f"reader {request.client}")
        metrics.connections[wire] += 1
        try:
            channel.flush()
            await _converse(connection, on_connection, nursery)
        finally:
            connection.leave()
            metrics.disconnections[connection.ending] += 1
            logger.debug("%r: %s", connection, connection.close_reason)
            with trio.CancelScope(shield=True):  # each of these is bounded
                await reader.stop()
                await channel.aclose()
            nursery.cancel_scope.cancel()


async def _converse(
    connection: WebSocketConnection,
    on_connection: Callable[[Connection], Awaitable[None]],
    nursery: trio.Nursery,
) -> None:
    logger.debug("%r opened", connection)
    if connection.wire is Wire.SOCKJS:
        connection.push(frames.SOCKJS_OPEN)
        connection.flush()
        if connection._limits.sockjs_heartbeat:
            nursery.start_soon(connection.beat, name=f"heartbeat {connection.request.client}")
    try:
        await on_connection(connection)
    except ConnectionClosed:
        pass  # the session had nothing to add
    except Exception:
        logger.exception("the session of %r failed", connection)
        await connection.close(1011, "Internal server error")
    await connection.close()
