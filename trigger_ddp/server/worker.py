"""One of several processes that serve the same addresses, as it sees itself.

The supervisor starts each with its listening sockets open already, and a `Channel` between the two. When that
is closed, the other side is gone.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import trio
from prometheus_client.core import Metric

from trigger_ddp.server import families
from trigger_ddp.server.channel import Ask, Channel, Collect, Hurry, Message, Metrics, Ready, Replaced, Totals
from trigger_ddp.server.shares import Shares

logger = logging.getLogger(__name__)

#: The environment variable that tells a process that it is a worker; its value is an `Assignment`.
ENVIRONMENT = "TRIGGER_DDP_WORKER"

#: Seconds that a worker that ends takes at most to say what it has counted.
FAREWELL_SECONDS = 1.0
#: Seconds that the supervisor has to tell the metrics of all workers.
COLLECT_SECONDS = 3.0


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
        shares: that of the file of `Shares`.
    """

    number: int
    channel: int
    listeners: list[int]
    admin_listeners: list[int]
    console_listeners: list[int]
    sibling_listener: int
    sibling_paths: list[str]
    shares: int

    @property
    def descriptors(self) -> list[int]:
        """All file descriptors."""
        listeners = (*self.listeners, *self.admin_listeners, *self.console_listeners)
        return [self.channel, self.sibling_listener, self.shares, *listeners]


class Worker:
    """This process, if it is one of several.

    Args:
        assignment: what it was given.

    Attributes:
        number: 1 for the first.
        sibling_paths: of the Unix sockets at which workers reach each other, the first worker's first.
        shares: how many connections each worker has.
        replaced: set once its successor serves the other workers.
        hurried: set once it is to end without draining any longer. SIGTERM may come from others, too, such as
            systemd, which sends it to all processes of a service; a second one is no such order.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.number = assignment.number
        self.sibling_paths = assignment.sibling_paths
        self.shares = Shares(assignment.shares, assignment.number)
        self._assignment = assignment
        self.replaced = trio.Event()
        self.hurried = trio.Event()
        self._channel: Channel | None = None
        self._told: trio.Event | None = None  # while the totals are asked for
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
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server serves, and does more than end at it
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
        channel.put(Ready())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.run)
                async for message in channel.messages():
                    self._hear(channel, message, collect)
                logger.error("the supervisor is gone, and without it this worker ends")
                shutil.rmtree(Path(self.sibling_paths[0]).parent, ignore_errors=True)
                os.kill(os.getpid(), signal.SIGTERM)
                await trio.sleep_forever()
        finally:
            with trio.move_on_after(FAREWELL_SECONDS, shield=True):
                await channel.farewell(Metrics(families.to_plain(collect())))
            channel.close()

    def _hear(self, channel: Channel, message: Message, collect: Callable[[], Iterable[Metric]]) -> None:
        match message:
            case Collect():
                channel.put(Metrics(families.to_plain(collect())))
            case Totals():
                self._totals = families.from_plain(message.families)
                if self._told is not None:
                    self._told.set()
            case Replaced():
                self.replaced.set()
            case Hurry():
                self.hurried.set()

    async def collect(self) -> list[Metric] | None:
        """The metrics of all workers together, of those too that have ended; None: nobody tells."""
        assert self._channel is not None
        if self._told is None:
            self._told = trio.Event()
            self._channel.put(Ask())
        told = self._told
        with trio.move_on_after(COLLECT_SECONDS):
            await told.wait()
        if self._told is told:
            self._told = None
        return self._totals if told.is_set() else None


def _listener(descriptor: int) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))
