"""Clients that only collect bytes while the clock runs, and look at them when it has stopped."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection as Pipe
from typing import Any

import msgspec

from benchmarks.clocks import cpu_seconds
from benchmarks.fleet import CLOSE, CONNECTED_AT_ONCE, PING, TEXT, Session, Wrong
from tests.conftest import Database
from tests.serving import Server

HOST = "127.0.0.1"
#: What every message of its kind has once, and no value of a book or an author.
CONNECTED, READY, CHANGED, UPDATED = (
    f'"msg":"{msg}"'.encode() for msg in ("connected", "ready", "changed", "updated")
)
#: Bytes that a last message has at most.
LAST_MESSAGE = 100
#: A process rests if it uses less than this share of a processor for this long.
REST_SHARE, REST_SECONDS, RESTLESS_SECONDS = 0.06, 0.01, 20

_read = msgspec.json.decode


class Stream:
    """What arrives on a socket.

    Args:
        connected: the socket.

    Attributes:
        data: everything since it was emptied.
        missing: how often what is waited for must still come.
    """

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.data = bytearray()
        self.missing = 0
        self._awaited = b""
        self._at_end = False

    def expect(self, awaited: bytes, times: int = 1) -> None:
        """Forget what came, and wait for these bytes that often from now on: see `collect`."""
        self.data = bytearray()
        self._awaited, self.missing, self._at_end = awaited, times, False

    def expect_at_end(self, awaited: bytes) -> None:
        """The same where they are in the last message: to look for them in all others takes a while, too."""
        self.expect(awaited)
        self._at_end = True

    def take(self, data: bytes) -> None:
        start = max(0, len(self.data) - len(self._awaited) + 1)
        self.data += data
        if self._at_end:
            start = max(start, len(self.data) - LAST_MESSAGE)
        self.missing -= self.data.count(self._awaited, start)


class Client(Stream):
    """A DDP session."""

    def __init__(self, number: int, server: Server) -> None:
        self.session = Session(number, server.host, server.port)
        super().__init__(self.session.socket)

    def subscribe(self, publication: str, *params: Any) -> None:
        self.expect_at_end(READY)
        self.session.send([{"msg": "sub", "id": "s", "name": publication, "params": list(params)}])

    def call(self, method: str, *params: Any) -> None:
        """Ask for an answer, of which `collect` waits for the last part, ``updated``."""
        self.expect(UPDATED)
        self.session.send([{"msg": "method", "id": "m", "method": method, "params": list(params)}])

    def keep_expecting(self, method: str, *params: Any) -> None:
        """As `call`, but what has come already is not forgotten."""
        self._awaited = UPDATED
        self.missing = 1 - self.data.count(UPDATED)
        self.session.send([{"msg": "method", "id": "m", "method": method, "params": list(params)}])

    def payloads(self) -> list[bytes]:
        """The messages in `data`, without their frames.

        Raises:
            Wrong: the server has refused something, or has closed the connection.
        """
        found = []
        for opcode, payload in self.session.frames(bytes(self.data)):
            if opcode == TEXT:
                found.append(payload)
            elif opcode == CLOSE:
                raise Wrong(f"the server closed session {self.session.number}: {payload[2:]!r}")
            elif opcode != PING:
                raise Wrong(f"session {self.session.number} was sent a frame of opcode {opcode}")
        self.data = bytearray()
        return found

    def messages(self) -> list[dict[str, Any]]:
        found = [_read(payload) for payload in self.payloads()]
        for message in found:
            if message["msg"] in ("nosub", "failed", "error"):
                raise Wrong(f"the server refuses session {self.session.number}: {message}")
        return found


def connect(server: Server, count: int, first: int = 0) -> list[Client]:
    """So many sessions, all of which the server has told that they are connected."""
    clients: list[Client] = []
    while len(clients) < count:
        numbers = range(first + len(clients), first + min(count, len(clients) + CONNECTED_AT_ONCE))
        new = [Client(number, server) for number in numbers]
        for client in new:
            client.expect(CONNECTED)
            client.session.shake_hands()
        collect(new, 30, "connecting")
        for client in new:
            client.messages()
        clients += new
    return clients


def collect(streams: Sequence[Stream], seconds: float, what: str) -> float:
    """Take in what arrives until every stream has what it expects; returns the time when the last had it.

    Raises:
        Wrong: a connection ended, or it takes longer than ``seconds``.
    """
    until = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        waiting = {stream for stream in streams if stream.missing > 0}
        for stream in waiting:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        at = time.perf_counter()
        while waiting:
            for key, _ in selector.select(0.2):
                stream: Stream = key.data
                data = stream.socket.recv(1 << 16)
                at = time.perf_counter()
                if not data:
                    raise Wrong(f"a connection was closed while {what}")
                stream.take(data)
                if stream.missing <= 0:
                    waiting.remove(stream)
                    selector.unregister(stream.socket)
            if time.perf_counter() > until:
                stream = next(iter(waiting))
                raise Wrong(
                    f"{what} takes more than {seconds:g} s: {len(waiting)} clients lack something, the first"
                    f" {stream.missing} messages, after {bytes(stream.data[-200:])!r}"
                )
    return at


@contextlib.contextmanager
def draining(streams: Sequence[Stream]) -> Iterator[None]:
    """In this block a thread reads what arrives, and forgets it."""
    stopped = threading.Event()

    def read() -> None:
        with selectors.DefaultSelector() as selector:
            for stream in streams:
                selector.register(stream.socket, selectors.EVENT_READ)
            while not stopped.is_set():
                for key, _ in selector.select(0.05):
                    key.fileobj.recv(1 << 18)  # type: ignore[union-attr]

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def close(streams: Sequence[Stream]) -> None:
    for stream in streams:
        stream.socket.close()


@contextlib.contextmanager
def serving(database: Database, **environ: str) -> Iterator[Server]:
    """``trigger-ddp serve`` on a database, without pings, which nothing that is measured causes."""
    variables = {"PYTHONUNBUFFERED": "1", **database.environ, "DDP_HEARTBEAT_INTERVAL": "0.0", **environ}
    server = Server("--bind", f"{HOST}:0", "--install-triggers", environ={**os.environ, **variables})
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    try:
        server.stop()
    except AssertionError as error:
        raise Wrong(str(error)) from None


@contextlib.contextmanager
def process(target: Callable[..., None], *args: Any) -> Iterator[Pipe]:
    """``target(*args, pipe)`` in a process of its own; yields the pipe's other end."""
    ours, theirs = multiprocessing.Pipe()
    spawned = multiprocessing.get_context("spawn").Process(target=target, args=(*args, theirs), daemon=True)
    spawned.start()
    theirs.close()  # now only the process has it, so that its end is noticed
    try:
        yield ours
    finally:
        spawned.terminate()
        spawned.join()


def rest(pid: int) -> float:
    """Wait until a process has nothing to do; returns the processor time that it has used by then."""
    until = time.perf_counter() + RESTLESS_SECONDS
    used = cpu_seconds(pid)
    while True:
        time.sleep(REST_SECONDS)
        before, used = used, cpu_seconds(pid)
        if used - before < REST_SHARE * REST_SECONDS:
            return used
        if time.perf_counter() > until:
            raise Wrong(f"process {pid} does not come to rest")
