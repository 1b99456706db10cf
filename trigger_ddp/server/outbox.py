"""What waits to be sent to one client: appended without waiting, written together, bounded."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

import trio

from trigger_ddp.protocol.ending import Ending
from trigger_ddp.server import sockets

#: Buffers handed to one writev(); the kernel's limit is 1024.
_BUFFERS_PER_WRITE = 64
#: Bytes handed to one send_all() of a stream that is not a plain socket.
_SLICE = 65536
#: SO_LINGER on with 0 seconds: closing resets the connection and drops what the kernel still holds.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """How one client keeps up.

    Args:
        bytes_waiting: appended and not yet handed to the kernel.
        bytes_sent: handed to the kernel.
        oldest_seconds: for how long the oldest waiting byte has been refused; 0.0 if none was.
    """

    bytes_waiting: int
    bytes_sent: int
    oldest_seconds: float


def _write_of(stream: trio.abc.Stream) -> Callable[[bytes], int] | None:
    """A non-blocking write to a plain socket; None if it is none."""
    if os.name != "posix" or not isinstance(stream, trio.SocketStream):
        return None
    # trio has no public name for the socket that its own wraps. Asking that for the file descriptor, each
    # time, takes a third of the time that all else but the system call does.
    plain = getattr(stream.socket, "_sock", None)
    if plain is None:
        return lambda data: os.write(stream.socket.fileno(), data)
    write: Callable[[bytes], int] = plain.send
    return write


class Outbox(trio.abc.Stream):
    """A stream whose sending side is a bounded queue that any code on the trio thread may append to.

    `append()` and `flush()` neither wait nor raise. `flush()` makes one non-blocking write of all that
    was appended; what the socket does not take waits for a task that exists only as long as something
    waits. Bytes leave in the order of the appends, `send_all()`'s included, so frames never interleave.

    A client that falls behind by more than `max_bytes`, or leaves a byte waiting for more than
    `max_seconds`, is cut off: the socket is reset, `end_reason` says why, further appends are ignored,
    and tasks in `send_all()` and `receive_some()` get `trio.BrokenResourceError` or `ClosedResourceError`.

    On a `trio.SocketStream` the direct write is the ``send()`` of the socket beneath, which is non-blocking;
    a closed one has no file descriptor, so a reused number can't be hit.
    Any other stream (TLS, memory) is written to by the waiting task alone.

    Args:
        stream: where the bytes go and come from. The outbox owns it.
        nursery: where the waiting task runs; it must outlive the outbox.
        replay: bytes already read from the stream, returned by `receive_some()` before any others.
        max_bytes: most bytes that may wait.
        max_seconds: longest that a byte may wait once it was refused.
    """

    __slots__ = (
        "_closing", "_direct", "_draining", "_fresh", "_max_bytes", "_max_seconds", "_nursery",
        "_progress", "_receiving", "_socket", "_stream", "_stuck", "_write", "bytes_sent",
        "bytes_waiting", "end_reason", "ended", "ending", "replay", "sealed",
    )  # fmt: skip

    def __init__(
        self,
        stream: trio.abc.Stream,
        nursery: trio.Nursery,
        *,
        replay: bytes = b"",
        max_bytes: int,
        max_seconds: float,
    ) -> None:
        self.replay = replay
        #: Set once nothing can be sent any more, whoever ended it.
        self.ended = trio.Event()
        #: Why the client was cut off or lost; None while open and after an orderly `aclose()`.
        self.end_reason: str | None = None
        #: The same as a word; only together with `end_reason`.
        self.ending = Ending.SERVER
        self.bytes_waiting = 0
        self.bytes_sent = 0
        self._stream = stream
        self._socket = stream.socket if os.name == "posix" and isinstance(stream, trio.SocketStream) else None
        self._nursery = nursery
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._fresh: list[bytes] = []  # appended since the last flush
        # Flushed and refused, with the time of it. None where there is nothing, as nearly always: idle
        # clients are many, and should be small.
        self._stuck: deque[tuple[float, memoryview]] | None = None
        self._draining = False
        self._closing = False  # nothing is appended any more, nor after the end
        self.sealed = False  # `push` and `send` are ignored
        self._write = _write_of(stream)
        self._direct = self._write is not None  # and nothing is in the way of `send`
        self._receiving = False
        self._progress: trio.lowlevel.ParkingLot | None = None  # once somebody waits for it

    def statistics(self) -> OutboxStatistics:
        """How this client keeps up right now."""
        oldest = trio.current_time() - self._stuck[0][0] if self._stuck else 0.0
        return OutboxStatistics(self.bytes_waiting, self.bytes_sent, oldest)

    # Sending without waiting

    def append(self, data: bytes) -> None:
        """Put bytes behind all others. They are written by the next `flush()` or `send_all()`.

        Ignored once the outbox has ended. Ends it if more than `max_bytes` wait even after a flush.
        """
        if self._closing:
            return
        self._fresh.append(data)
        self.bytes_waiting += len(data)
        if self.bytes_waiting > self._max_bytes:
            self.flush()
            if self.bytes_waiting > self._max_bytes:
                self.abort(
                    f"the client is too slow: {self.bytes_waiting} bytes were waiting for it", Ending.SLOW
                )

    def send(self, data: bytes) -> None:
        """`append()` and `flush()`, unless it is sealed.

        This is what a change costs for each client that is told of it: nearly always one write, and little
        besides.
        """
        if self._direct and not self.bytes_waiting:
            try:
                sent = self._write(data)  # type: ignore[misc]
            except OSError:
                sent = 0  # below it fails once more, or is a wait
            self.bytes_sent += sent
            if sent == len(data):
                return
            data = data[sent:]
        if not self.sealed:
            self.append(data)
            self.flush()

    def seal(self) -> None:
        """Ignore what is sent from now on; what is appended still goes out."""
        self.sealed = True
        self._direct = False

    def flush(self) -> None:
        """Write all that was appended, as far as the socket takes it, in one system call."""
        if not self._fresh:
            return
        data = self._fresh[0] if len(self._fresh) == 1 else b"".join(self._fresh)
        self._fresh = []
        sent = 0
        if self._write is not None and not self._stuck:
            try:
                sent = self._write(data)
            except BlockingIOError:
                pass
            except OSError as error:
                self._lost(error)
                return
            self.bytes_sent += sent
            self.bytes_waiting -= sent
        if sent < len(data):
            if self._stuck is None:
                self._stuck = deque()
            self._stuck.append((trio.current_time(), memoryview(data)[sent:]))
            if not self._draining:
                self._draining = True
                self._nursery.start_soon(self._drain, name="outbox of a slow client")

    def abort(self, reason: str, ending: Ending = Ending.SERVER) -> None:
        """Cut the client off now: drop what waits and reset the connection. No effect if already ended."""
        if self.ended.is_set():
            return
        self._end(reason)
        self.ending = ending
        sock = sockets.socket_beneath(self._stream)
        if sock is not None:
            with contextlib.suppress(OSError):  # not a TCP socket, or one that is gone
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        if self._socket is not None:
            self._socket.close()
        else:
            self._nursery.start_soon(sockets.close_at_once, self._stream)

    # The waiting task

    async def _drain(self) -> None:
        try:
            while self._stuck:
                with trio.move_on_at(self._stuck[0][0] + self._max_seconds) as waiting:
                    sent = await self._write_stuck()
                if waiting.cancelled_caught:
                    # Only a part of a frame may have gone out: nothing could follow it, so this is the end.
                    self.abort(
                        f"the client is too slow: it has not taken in {self.bytes_waiting} bytes, "
                        f"the oldest for {self._max_seconds:g} seconds",
                        Ending.SLOW,
                    )
                    return
                self._forget_sent(sent)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self._lost(error)
        except trio.Cancelled:
            self.abort("the server stopped sending", Ending.SHUTDOWN)
            raise
        finally:
            self._draining = False
            if not self._stuck:
                self._stuck = None

    async def _write_stuck(self) -> int:
        """Write the oldest of what waits; returns the number of bytes taken."""
        assert self._stuck
        if self._socket is None:
            data = self._stuck[0][1][:_SLICE]
            await self._stream.send_all(data)
            return len(data)
        await self._socket.wait_writable()
        if not self._stuck:  # it has ended in the very moment in which the client took something
            return 0
        buffers = [data for _, data in itertools.islice(self._stuck, _BUFFERS_PER_WRITE)]
        try:
            return os.writev(self._socket.fileno(), buffers)
        except BlockingIOError:
            return 0

    def _forget_sent(self, count: int) -> None:
        if self.ended.is_set():
            return
        self.bytes_sent += count
        self.bytes_waiting -= count
        while count and self._stuck:
            since, data = self._stuck[0]
            if count < len(data):
                self._stuck[0] = since, data[count:]
                break
            count -= len(data)
            self._stuck.popleft()
        self._note_progress()

    async def _wait_for_progress(self) -> None:
        if self._progress is None:
            self._progress = trio.lowlevel.ParkingLot()
        await self._progress.park()

    def _note_progress(self) -> None:
        if self._progress is not None:
            self._progress.unpark_all()
            self._progress = None

    def _lost(self, error: Exception) -> None:
        self.abort(f"the connection was lost: {error}", Ending.LOST)

    def _end(self, reason: str | None) -> None:
        self.end_reason = reason
        self._closing = True
        self.seal()
        self.ended.set()
        self._fresh = []
        self._stuck = None
        self.bytes_waiting = 0
        self._note_progress()

    # trio.abc.Stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Append, flush, and wait until these bytes are with the kernel.

        Cancelling ends the waiting, not the sending.
        """
        self._check_open()
        self.append(bytes(data))
        target = self.bytes_sent + self.bytes_waiting
        self.flush()
        await trio.lowlevel.checkpoint()
        while self.bytes_sent < target:
            self._check_open()
            await self._wait_for_progress()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until nothing is waiting to be sent."""
        self._check_open()
        await self.wait_at_most(0)
        self._check_open()

    async def wait_at_most(self, count: int) -> None:
        """Wait until at most `count` bytes wait to be sent, or the outbox has ended."""
        self.flush()
        await trio.lowlevel.checkpoint()
        while self.bytes_waiting > count:
            await self._wait_for_progress()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes from the client, those of `replay` first; empty at the end."""
        self._check_open()
        if self.replay:
            await trio.lowlevel.checkpoint()
            data, self.replay = self.replay[:max_bytes], self.replay[max_bytes:] if max_bytes else b""
            return data
        self._receiving = True
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        """Close the connection in order; what still waits to be sent is dropped. May be called again.

        Where no direct write is possible, so that even what would be taken at once still waits, it gets
        `sockets.LINGER_SECONDS`: what was said last, such as a close frame, is to arrive over TLS, too.
        """
        if self._socket is None and self.bytes_waiting:
            self._closing = True
            self.seal()
            with trio.move_on_after(sockets.LINGER_SECONDS):
                await self.wait_at_most(0)
        if not self.ended.is_set():
            self._end(None)
            if not self._receiving:
                await sockets.close_gently(self._stream)
                return
        await sockets.close_at_once(self._stream)

    def _check_open(self) -> None:
        if self.end_reason is not None:
            raise trio.BrokenResourceError(self.end_reason)
        if self._closing:
            raise trio.ClosedResourceError("this outbox was closed")
