"""One SockJS session without a WebSocket: frames out by whatever request receives, messages in by others.

A receiving request takes what waits, or waits for it. Between two of them nobody receives, which is no
reason to end the session until it has lasted for `Limits.sockjs_disconnect_delay`. A request that breaks
off is one: nobody knows what of its response has arrived.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence

import trio

from trigger_ddp.protocol import frames
from trigger_ddp.protocol.ending import Ending, of_our_code
from trigger_ddp.protocol.frames import Wire
from trigger_ddp.server.connection import ConnectionClosed, Limits
from trigger_ddp.server.exchange import Request, Send
from trigger_ddp.server.outbox import OutboxStatistics

logger = logging.getLogger(__name__)

OPEN = b"o"
HEARTBEAT = b"h"
ANOTHER_RECEIVES = frames.sockjs_close(2010, "Another connection still open")
INTERRUPTED = frames.sockjs_close(1002, "Connection interrupted")

#: Bytes of messages above which no further message is put into the same frame.
_FRAME_BYTES = 64 * 1024
#: What a message that waits takes up besides its characters.
_MESSAGE_OVERHEAD = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Framing:
    """How a transport lays SockJS's frames into a response.

    Args:
        wrap: makes the response's bytes of a frame.
        prelude: what the response begins with.
        most_bytes: the response ends behind the frame that reaches this size, the prelude not counted.
    """

    wrap: Callable[[bytes], bytes]
    prelude: bytes = b""
    most_bytes: int = 1

    async def send_only(self, frame: bytes, send: Send) -> None:
        """A whole response with one frame."""
        if self.prelude:
            await send(self.prelude)
        await send(self.wrap(frame))


class SockJSSession:
    """A SockJS client that uses plain HTTP requests: a `Connection`.

    Args:
        request: the one that opened the session.
        limits: what the client may take up.

    Attributes:
        close_frame: what the client is told that still asks once the session is over; None before.
    """

    wire = Wire.SOCKJS_HTTP

    def __init__(self, request: Request, limits: Limits) -> None:
        self.request = dataclasses.replace(request, body=b"")
        self.close_frame: bytes | None = None
        self.closed_here = False
        self._limits = limits
        self._closing: str | None = None  # why it is closed or closing
        self._ending = Ending.SERVER  # the same in one word
        self._ended = trio.Event()
        self._greeted = False
        self._queue: deque[tuple[float, bytes]] = deque()  # with the time from which on they wait
        self._in_flight: tuple[float, int] | None = None  # bytes of it that a response is sending
        self._bytes_waiting = 0
        self._bytes_sent = 0
        self._news = trio.Event()  # for the request that receives
        self._progress = trio.lowlevel.ParkingLot()
        self._receiver: trio.CancelScope | None = None
        self._away_since = trio.current_time()
        self._inbox: deque[str] = deque()
        self._inbox_size = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._sender_waits = False

    def __repr__(self) -> str:
        return f"<SockJSSession {self.request.client}>"

    # -- a Connection ---------------------------------------------------------------------------

    @property
    def client_address(self) -> str:
        """The address from which the session was opened."""
        return self.request.client_address

    @property
    def closed(self) -> bool:
        """Whether it is over, or closing."""
        return self._closing is not None

    @property
    def close_reason(self) -> str:
        """Why it is, for the log; empty while it is open."""
        return self._closing or ""

    @property
    def ending(self) -> Ending:
        """The same in one word."""
        return self._ending

    def statistics(self) -> OutboxStatistics:
        """How this client keeps up right now."""
        oldest = self._oldest()
        seconds = 0.0 if oldest is None else trio.current_time() - oldest
        return OutboxStatistics(self._bytes_waiting, self._bytes_sent, seconds)

    async def receive(self) -> str:
        """The next message that the client has sent.

        Raises:
            ConnectionClosed: there is none any more.
        """
        await trio.lowlevel.checkpoint()
        while self._closing is None:
            if self._inbox:
                text = self._inbox.popleft()
                self._inbox_size -= len(text) + _MESSAGE_OVERHEAD
                self._room.unpark_all()
                return text
            await self._arrived.park()
        raise ConnectionClosed(self.close_reason)

    def push(self, frame: bytes) -> None:
        """Append frames to what waits. Ends the session if that is more than `Limits.outbox_bytes`."""
        if self._closing is not None or not frame:
            return
        self._queue.append((trio.current_time(), frame))
        self._bytes_waiting += len(frame)
        if self._bytes_waiting > self._limits.outbox_bytes:
            self.abort(
                f"the client is too slow: {self._bytes_waiting} bytes were waiting for it", Ending.SLOW
            )

    def send(self, frame: bytes) -> None:
        """`push` and `flush` in one."""
        self.push(frame)
        self.flush()

    def flush(self) -> None:
        """Wake the request that receives, if there is one."""
        if self._queue:
            self._news.set()

    async def wait_at_most(self, count: int) -> None:
        """Wait until at most `count` bytes wait, or the session is over."""
        self.flush()
        await trio.lowlevel.checkpoint()
        while self._bytes_waiting > count:
            await self._progress.park()

    async def wait_closed(self) -> None:
        """Wait until the session is over."""
        await self._ended.wait()

    async def close(self, code: int = 1000, reason: str = "", ending: Ending | None = None) -> None:
        """Have the client fetch what waits and then the news that it is over, within `Limits.close_seconds`.

        That is ``c[3000,"Go away!"]`` unless code or reason say more.
        """
        self._begin_close(code, reason, ending)
        try:
            with trio.move_on_after(self._limits.close_seconds):
                await self._ended.wait()
        finally:
            self._end()

    def abort(self, reason: str, ending: Ending = Ending.SERVER) -> None:
        """End the session now. A request that receives is cut, and the next one told of an interruption."""
        if self._closing is None:
            self._closing, self._ending, self.close_frame = reason, ending, INTERRUPTED
        self._end()

    def _begin_close(self, code: int, reason: str, ending: Ending | None = None) -> None:
        if self._closing is not None:
            return
        self._closing = f"closed by the server: {code} {reason}".rstrip()
        self._ending = ending or of_our_code(code)
        self.closed_here = True
        told = (code, reason) if reason or code != 1000 else (3000, "Go away!")
        self.close_frame = frames.sockjs_close(*told)
        self._news.set()
        self._arrived.unpark_all()
        self._room.unpark_all()

    def _end(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        self._greeted = True
        self._queue.clear()
        self._inbox.clear()
        self._in_flight = None
        self._bytes_waiting = self._inbox_size = 0
        for waiting in (self._progress, self._arrived, self._room):
            waiting.unpark_all()
        if self._receiver is not None:
            self._receiver.cancel()

    # -- requests that receive ------------------------------------------------------------------

    async def answer(self, framing: Framing, send: Send) -> None:
        """Run the response of a request that receives.

        Raises:
            trio.BrokenResourceError: the session was cut, and the response has no end.
        """
        if framing.prelude:
            await send(framing.prelude)
        if self._receiver is not None:
            await send(framing.wrap(ANOTHER_RECEIVES))
            return
        complete = False
        with trio.CancelScope() as scope:
            self._receiver = scope
            try:
                await self._deliver(framing, send)
                complete = True
            finally:
                self._receiver = None
                self._away_since = trio.current_time()
                if not complete:
                    self.abort("the client broke off a request that was to receive", Ending.LOST)
        if not complete:
            raise trio.BrokenResourceError(self.close_reason)

    async def _deliver(self, framing: Framing, send: Send) -> None:
        heartbeat = self._limits.sockjs_heartbeat or math.inf
        size = 0
        while size < framing.most_bytes:
            frame = self._next_frame()
            if frame is None:
                self._news = trio.Event()
                with trio.move_on_after(heartbeat):
                    await self._news.wait()
                    continue
                frame = HEARTBEAT
            data = framing.wrap(frame)
            await send(data)
            size += len(data)
            if self._in_flight is not None:
                self._bytes_waiting -= self._in_flight[1]
                self._bytes_sent += self._in_flight[1]
                self._in_flight = None
                self._progress.unpark_all()
            if frame is self.close_frame:
                self._receiver = None  # it ends by itself
                self._end()
                return

    def _next_frame(self) -> bytes | None:
        if not self._greeted:
            self._greeted = True
            return OPEN
        if not self._queue:
            return self.close_frame
        since, first = self._queue.popleft()
        messages, size = [first], len(first)
        while self._queue and size < _FRAME_BYTES:
            messages.append(self._queue.popleft()[1])
            size += len(messages[-1])
        self._in_flight = since, size
        return frames.sockjs_array(b"".join(messages))

    # -- requests that send ---------------------------------------------------------------------

    async def take_in(self, texts: Sequence[str]) -> bool:
        """Messages of the client, which are passed over if the session is closing.

        While as much waits already as one message may hold, this waits, with one request at a time.

        Returns:
            Whether they were taken; if not, the client sends faster than it can be served.
        """
        most = self._limits.max_message_bytes
        if any(len(text) > most // 4 and len(text.encode()) > most for text in texts):
            self._begin_close(1009, "the message is too large")
        if self._inbox_size >= most:
            if self._sender_waits:
                return False
            self._sender_waits = True
            try:
                with trio.move_on_after(self._limits.outbox_seconds):
                    while self._inbox_size >= most and self._closing is None:
                        await self._room.park()
            finally:
                self._sender_waits = False
            if self._inbox_size >= most and self._closing is None:
                return False
        if self._closing is None:
            self._inbox.extend(texts)
            self._inbox_size += sum(len(text) + _MESSAGE_OVERHEAD for text in texts)
            self._arrived.unpark_all()
        return True

    # -- time -----------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Cut the session once its client has stayed away, or has left a byte waiting, for too long."""
        away, slow = self._limits.sockjs_disconnect_delay, self._limits.outbox_seconds
        while not self._ended.is_set():
            oldest = self._oldest()
            gone_at = math.inf if self._receiver is not None else self._away_since + away
            late_at = math.inf if oldest is None else oldest + slow
            now = trio.current_time()
            if gone_at <= now:
                self.abort(f"the client has not come back for {away:g} seconds", Ending.LOST)
            elif late_at <= now:
                self.abort(
                    f"the client is too slow: it has not taken in {self._bytes_waiting} bytes, "
                    f"the oldest for {slow:g} seconds",
                    Ending.SLOW,
                )
            # What begins to wait meanwhile is not due before the last of these.
            with trio.move_on_at(min(gone_at, late_at, now + min(away, slow))):
                await self._ended.wait()

    def _oldest(self) -> float | None:
        """When the oldest of what waits began to."""
        if self._in_flight is not None:
            return self._in_flight[0]
        return self._queue[0][0] if self._queue else None
