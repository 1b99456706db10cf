"""One of several processes that serve the same addresses, as it sees itself.

The supervisor starts each with its listening sockets open already, and one socket between the two on which
they send each other `Message`s, a line of JSON each. When that is closed, the other side is gone.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence

import msgspec
import trio

from trigger_ddp.server.shares import Shares

logger = logging.getLogger(__name__)

#: The environment variable that tells a process that it is a worker; its value is an `Assignment`.
ENVIRONMENT = "TRIGGER_DDP_WORKER"

_READ_SIZE = 65536


class Assignment(msgspec.Struct, frozen=True):
    """What a worker is given when it is started.

    Args:
        number: 1 for the first worker; its successors have the same.
        channel: file descriptor of the socket to the supervisor.
        listeners: file descriptors of the sockets that all workers accept connections from.
        sibling_listener: that of the one where the other workers reach this one.
        sibling_paths: where each worker is reached by the others, the first worker's first.
        shares: path of the file of `Shares`.
    """

    number: int
    channel: int
    listeners: list[int]
    sibling_listener: int
    sibling_paths: list[str]
    shares: str


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From a worker: it serves."""


Message = Ready

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class Channel:
    """One side of what goes between the supervisor and a worker."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._turn = trio.Lock()

    async def send(self, message: Message) -> None:
        """Send a message, unless the other side is gone."""
        async with self._turn:
            try:
                await self._stream.send_all(_encode(message) + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                logger.debug("nobody is there to hear %r", message)

    async def messages(self) -> AsyncIterator[Message]:
        """What the other side sends, until it is gone."""
        buffer = bytearray()
        while True:
            try:
                data = await self._stream.receive_some(_READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            buffer += data
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                yield _decode(line)

    def close(self) -> None:
        """Hang up."""
        self._stream.socket.close()


@dataclasses.dataclass(eq=False, slots=True)
class Worker:
    """This process, if it is one of several.

    Args:
        number: 1 for the first.
        sibling_paths: of the Unix sockets at which workers reach each other, the first worker's first.
        shares: how many connections each worker has.
    """

    number: int
    sibling_paths: Sequence[str]
    shares: Shares
    _assignment: Assignment
    _channel: Channel | None = None

    @classmethod
    def from_environment(cls) -> Worker | None:
        """The worker that this process is, or None. Ask once: what it is made of is not left for children."""
        text = os.environ.pop(ENVIRONMENT, None)
        if text is None:
            return None
        told = msgspec.json.decode(text, type=Assignment)
        for descriptor in (told.channel, told.sibling_listener, *told.listeners):
            os.set_inheritable(descriptor, False)
        return cls(told.number, told.sibling_paths, Shares(told.shares, told.number), told)

    def listeners(self) -> list[trio.SocketListener]:
        """The sockets to accept clients from. Call once, inside of trio."""
        return [_listener(descriptor) for descriptor in self._assignment.listeners]

    def sibling_listener(self) -> trio.SocketListener:
        """The socket to accept the other workers from. Call once, inside of trio."""
        return _listener(self._assignment.sibling_listener)

    async def run(self) -> None:
        """Tell the supervisor that this worker serves; end the process in good order once it is gone."""
        self._channel = Channel(socket.socket(fileno=self._assignment.channel))
        await self._channel.send(Ready())
        async for message in self._channel.messages():
            logger.debug("the supervisor says %r", message)
        logger.error("the supervisor is gone, and without it this worker ends")
        os.kill(os.getpid(), signal.SIGTERM)


def _listener(descriptor: int) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
