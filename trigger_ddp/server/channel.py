"""What the supervisor and a worker tell each other over a socket: a line of JSON for each message."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import AsyncIterator

import msgspec
import trio

from trigger_ddp.server import families

logger = logging.getLogger(__name__)

#: Messages that wait for a side that does not read; further ones are dropped.
MOST_WAITING = 100

_READ_SIZE = 65536


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From a worker: it serves."""


class Replaced(msgspec.Struct, tag=True, frozen=True):
    """To a worker: it is about to be ended, and its successor accepts the other workers from now on."""


class Hurry(msgspec.Struct, tag=True, frozen=True):
    """To a worker that drains: it is to end now."""


class Collect(msgspec.Struct, tag=True, frozen=True):
    """To a worker: it is to send its metrics."""


class Metrics(msgspec.Struct, tag=True, frozen=True):
    """From a worker: its metrics, because of a `Collect`, or because it ends."""

    families: list[families.Plain]


class Ask(msgspec.Struct, tag=True, frozen=True):
    """From a worker: it wants to be told the metrics of all together."""


class Totals(msgspec.Struct, tag=True, frozen=True):
    """To a worker that has asked: the metrics of all together."""

    families: list[families.Plain]


Message = Ready | Replaced | Hurry | Collect | Metrics | Ask | Totals

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class Channel:
    """One side of it. Nothing here waits for the other side but `run` and `messages`.

    Args:
        sock: the socket; it is closed by `close`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._waiting: deque[Message] = deque()
        self._something = trio.Event()
        self._within_line = False  # a line was begun, and nothing can follow if it was not ended

    def put(self, message: Message) -> None:
        """Have `run` send a message."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(message)
            self._something.set()

    async def run(self) -> None:
        """Send what is put, until cancelled or the other side is gone."""
        while await self._send_waiting():
            self._something = trio.Event()
            await self._something.wait()

    async def farewell(self, message: Message) -> None:
        """Send a last message, where `run` was cancelled."""
        self._waiting.clear()
        self._waiting.append(message)
        await self._send_waiting()

    async def _send_waiting(self) -> bool:
        while self._waiting:
            if self._within_line:
                return False
            self._within_line = True
            try:
                await self._stream.send_all(_encode(self._waiting.popleft()) + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            self._within_line = False
        return True

    async def messages(self) -> AsyncIterator[Message]:
        """What the other side sends, until it is gone, or sends something else."""
        buffer = bytearray()
        while True:
            try:
                data = await self._stream.receive_some(_READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            buffer += data
            if b"\n" not in data:
                continue
            *lines, rest = buffer.split(b"\n")
            buffer = rest
            for line in lines:
                try:
                    message = _decode(line)
                except msgspec.MsgspecError as error:
                    logger.error(
                        "what the other side of a worker's channel says can't be understood: %s", error
                    )
                    return
                yield message

    def close(self) -> None:
        """Hang up."""
        self._stream.socket.close()
