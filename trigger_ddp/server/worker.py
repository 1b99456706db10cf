"""One of several processes that serve the same addresses, as it sees itself.

The supervisor starts each with its listening sockets open already, and one socket between the two on which
they send each other `Message`s, a line of JSON each. When that is closed, the other side is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec
import trio
from prometheus_client.core import Metric

from trigger_ddp.server import families
from trigger_ddp.server.shares import Shares

logger = logging.getLogger(__name__)

#: The environment variable that tells a process that it is a worker; its value is an `Assignment`.
ENVIRONMENT = "TRIGGER_DDP_WORKER"

#: Seconds that a worker that ends takes at most to say what it has counted.
FAREWELL_SECONDS = 1.0

_READ_SIZE = 65536


class Assignment(msgspec.Struct, frozen=True):
    """What a worker is given when it is started.

    Args:
        number: 1 for the first worker; its successors have the same.
        channel: file descriptor of the socket to the supervisor.
        listeners: file descriptors of the sockets that all workers accept clients from.
        admin_listeners: of those where health and metrics are served; none: where clients are.
        console_listeners: of those for the debug console of this one.
        sibling_listener: that of the one where the other workers reach this one.
        sibling_paths: where each worker is reached by the others, the first worker's first.
        shares: path of the file of `Shares`.
    """

    number: int
    channel: int
    listeners: list[int]
    admin_listeners: list[int]
    console_listeners: list[int]
    sibling_listener: int
    sibling_paths: list[str]
    shares: str

    @property
    def descriptors(self) -> list[int]:
        """All file descriptors."""
        listeners = (*self.listeners, *self.admin_listeners, *self.console_listeners)
        return [self.channel, self.sibling_listener, *listeners]


class Ready(msgspec.Struct, tag=True, frozen=True):
    """From a worker: it serves."""


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


Message = Ready | Collect | Metrics | Ask | Totals

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


class Worker:
    """This process, if it is one of several.

    Args:
        assignment: what it was given.

    Attributes:
        number: 1 for the first.
        sibling_paths: of the Unix sockets at which workers reach each other, the first worker's first.
        shares: how many connections each worker has.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.number = assignment.number
        self.sibling_paths = assignment.sibling_paths
        self.shares = Shares(assignment.shares, assignment.number)
        self._assignment = assignment
        self._channel: Channel | None = None
        self._asking = trio.Lock()
        self._told = trio.Event()
        self._totals: list[Metric] = []

    @classmethod
    def from_environment(cls) -> Worker | None:
        """The worker that this process is, or None. Ask once: what it is made of is not left for children."""
        text = os.environ.pop(ENVIRONMENT, None)
        if text is None:
            return None
        assignment = msgspec.json.decode(text, type=Assignment)
        for descriptor in assignment.descriptors:
            os.set_inheritable(descriptor, False)
        return cls(assignment)

    def listeners(self) -> list[trio.SocketListener]:
        """The sockets to accept clients from. Call once, inside of trio; so with the others."""
        return [_listener(descriptor) for descriptor in self._assignment.listeners]

    def admin_listeners(self) -> list[trio.SocketListener]:
        """The sockets to serve health and metrics on; none: they are served where clients are."""
        return [_listener(descriptor) for descriptor in self._assignment.admin_listeners]

    def console_listeners(self) -> list[trio.SocketListener]:
        """The sockets for this worker's debug console."""
        return [_listener(descriptor) for descriptor in self._assignment.console_listeners]

    def sibling_listener(self) -> trio.SocketListener:
        """The socket to accept the other workers from."""
        return _listener(self._assignment.sibling_listener)

    async def run(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Tell the supervisor that this worker serves, and its metrics; end the process in good order once it
        is gone.

        Args:
            collect: gives the metrics of this process.
        """
        self._channel = channel = Channel(socket.socket(fileno=self._assignment.channel))
        await channel.send(Ready())
        try:
            async for message in channel.messages():
                match message:
                    case Collect():
                        await channel.send(Metrics(families.to_plain(collect())))
                    case Totals():
                        self._totals = families.from_plain(message.families)
                        self._told.set()
            logger.error("the supervisor is gone, and without it this worker ends")
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            with trio.move_on_after(FAREWELL_SECONDS, shield=True):
                await channel.send(Metrics(families.to_plain(collect())))

    async def collect(self) -> list[Metric]:
        """The metrics of all workers together, those included that have ended."""
        assert self._channel is not None
        async with self._asking:
            self._told = trio.Event()
            await self._channel.send(Ask())
            await self._told.wait()
            return self._totals


def _listener(descriptor: int) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
