"""A TCP proxy whose faults a test switches on: it stalls, cuts, slows down or refuses connections."""

from __future__ import annotations

import contextlib
import dataclasses
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Any, Literal, Self

CHUNK = 64 * 1024
TICK = 0.01

Mode = Literal["pass", "stall", "slow"]


@dataclasses.dataclass(eq=False)
class _Pipe:
    """One direction of one connection: what was read from `source` and is not yet written to `sink`."""

    source: socket.socket
    sink: socket.socket
    buffer: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False
    forgotten: bool = False


class Proxy:
    """Listens on a free port of 127.0.0.1 and forwards to one address, in a thread of its own.

    Its methods may be called from any thread and act at once:

        with Proxy("127.0.0.1", 5432) as proxy:
            ...connect to proxy.port...
            proxy.stall()      # connections stay open and nothing passes, as behind a dead router
            proxy.resume()
            proxy.forget()     # present connections stay stalled, new ones pass: a router lost its table
        proxy.cut()        # present connections end with a reset
            proxy.slow(1000)   # bytes per second in each direction of each connection
            proxy.refuse()     # new connections are closed at once; accept() ends that

    Args:
        host, port: where to forward to.
        receive_buffer: size of the kernel's receive buffer towards the client, in bytes; a small one makes
            a stalled client feel it sooner.
    """

    def __init__(self, host: str, port: int, *, receive_buffer: int | None = None) -> None:
        self.target = (host, port)
        self.accepted = 0
        self._mode: Mode = "pass"
        self._rate = 0.0
        self._refusing = False
        self._pipes: list[_Pipe] = []
        self._lock = threading.Lock()
        self._listening = socket.socket()
        if receive_buffer is not None:  # accepted sockets inherit it
            self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self._listening.setblocking(False)
        self.host, self.port = self._listening.getsockname()
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake()
        self._thread.join()
        self.cut()
        for sock in (self._listening, self._waker, self._woken):
            sock.close()

    def stall(self) -> None:
        self._set("stall")

    def slow(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._set("slow")

    def resume(self) -> None:
        self._set("pass")

    def refuse(self) -> None:
        self._refusing = True

    def accept(self) -> None:
        self._refusing = False

    def forget(self) -> None:
        """Never pass anything on present connections again; they stay open."""
        with self._lock:
            for pipe in self._pipes:
                pipe.forgotten = True
        self._wake()

    def cut(self) -> None:
        """Reset every present connection, on both sides."""
        with self._lock:
            for pipe in self._pipes:
                # A linger of zero seconds makes close() send RST instead of FIN.
                with contextlib.suppress(OSError):
                    pipe.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                pipe.source.close()
            self._pipes.clear()
        if self._thread.is_alive():
            self._wake()

    @property
    def connections(self) -> int:
        """Number of connections that are open now."""
        with self._lock:
            return len({frozenset((pipe.source, pipe.sink)) for pipe in self._pipes})

    def _set(self, mode: Mode) -> None:
        self._mode = mode
        self._wake()

    def _wake(self) -> None:
        self._waker.send(b"!")

    def _run(self) -> None:
        while not self._closing:
            with selectors.DefaultSelector() as selector, self._lock:
                self._register(selector)
                # Held only while looking; cut() closes sockets and then wakes us.
                self._lock.release()
                try:
                    ready = selector.select(TICK if self._mode == "slow" else None)
                finally:
                    self._lock.acquire()
                readable = {key.fileobj for key, events in ready if events & selectors.EVENT_READ}
                self._act(readable)
            if self._mode == "slow":
                time.sleep(TICK)

    def _register(self, selector: selectors.BaseSelector) -> None:
        wanted: dict[socket.socket, int] = {
            self._woken: selectors.EVENT_READ,
            self._listening: selectors.EVENT_READ,
        }
        if self._mode != "stall":
            for pipe in self._pipes:
                if pipe.forgotten:
                    continue
                if pipe.buffer:
                    wanted[pipe.sink] = wanted.get(pipe.sink, 0) | selectors.EVENT_WRITE
                elif not pipe.ended:
                    wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
        for sock, events in wanted.items():
            selector.register(sock, events)

    def _act(self, readable: set[Any]) -> None:
        if self._woken in readable:
            self._woken.recv(CHUNK)
        if self._listening in readable:
            self._open()
        if self._mode == "stall":
            return
        limit = CHUNK if self._mode == "pass" else max(1, int(self._rate * TICK))
        for pipe in list(self._pipes):
            if pipe.forgotten:
                continue
            try:
                if not pipe.buffer and not pipe.ended and pipe.source in readable:
                    chunk = pipe.source.recv(limit)
                    pipe.ended = not chunk
                    pipe.buffer += chunk
                if pipe.buffer:
                    del pipe.buffer[: pipe.sink.send(pipe.buffer)]
                if pipe.ended and not pipe.buffer:
                    self._drop(pipe)
            except BlockingIOError:
                continue
            except OSError:
                self._drop(pipe)

    def _open(self) -> None:
        client, _ = self._listening.accept()
        if self._refusing:
            client.close()
            return
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        self.accepted += 1
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pipes += [_Pipe(client, server), _Pipe(server, client)]

    def _drop(self, broken: _Pipe) -> None:
        """Close a connection whose one side has ended; PostgreSQL's protocol has no half-closed state."""
        pair = {broken.source, broken.sink}
        self._pipes = [pipe for pipe in self._pipes if pipe.source not in pair]
        for sock in pair:
            sock.close()
