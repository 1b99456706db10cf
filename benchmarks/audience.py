"""Those who are told, for `benchmarks.fanout`: their sockets, which a process of its own reads."""

from __future__ import annotations

import contextlib
import multiprocessing
import selectors
import socket
import struct
from multiprocessing.connection import Connection as Pipe

from benchmarks.fleet import Wrong

PATIENCE = 60.0
#: Where ``tcpi_data_segs_in`` stands in Linux's ``struct tcp_info``.
_DATA_SEGMENTS = 152


def _segments(sock: socket.socket) -> int:
    """Segments with data that have arrived: over loopback, one for each write of up to 64 KB."""
    found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _DATA_SEGMENTS + 4)
    return int(struct.unpack_from("I", found, _DATA_SEGMENTS)[0])


def count_bytes(sockets: list[socket.socket], pipe: Pipe) -> None:
    """Read all sockets until the pipe ends.

    For each number that comes through it, say when every socket has got so many bytes in all: None if it was
    exactly so many, or what is wrong. None asks for how many segments there were.
    """
    selector = selectors.DefaultSelector()
    for number, sock in enumerate(sockets):
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, number)
    selector.register(pipe, selectors.EVENT_READ)
    buffer = bytearray(1 << 18)
    # Totals, never set back: what arrives before the number that it is compared with does not get lost.
    totals, goal, lacking = [0] * len(sockets), 0, 0
    while True:
        for key, _ in selector.select():
            if key.data is None:
                try:
                    asked = pipe.recv()
                except EOFError:
                    return
                if asked is None:
                    pipe.send(sum(map(_segments, sockets)))
                    continue
                goal, lacking = asked, sum(total < asked for total in totals)
                if not lacking:
                    pipe.send(_verdict(totals, goal))
                continue
            with contextlib.suppress(BlockingIOError):
                count = key.fileobj.recv_into(buffer)  # type: ignore[union-attr]
                if not count:
                    pipe.send(f"the server closed the connection of client {key.data}")
                    return
                before = totals[key.data]
                totals[key.data] = before + count
                if before < goal <= before + count:
                    lacking -= 1
                    if not lacking:
                        pipe.send(_verdict(totals, goal))


def _verdict(totals: list[int], goal: int) -> str | None:
    """What is wrong, if anything, when nobody lacks anything."""
    for number, total in enumerate(totals):
        if total != goal:
            return f"client {number} was sent {total - goal} bytes more than it was to be"
    return None


class Audience:
    """The clients of one server, read by a process of their own.

    Args:
        sockets: connected and ready, with nothing on the way. They are closed here.
    """

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._due = 0
        fork = multiprocessing.get_context("fork")  # it gets the sockets
        self._process = fork.Process(target=count_bytes, args=(sockets, theirs), daemon=True)
        self._process.start()
        theirs.close()
        for sock in sockets:
            sock.close()

    def expect(self, each: int) -> None:
        """Every client gets so many more bytes."""
        self._due += each
        self._pipe.send(self._due)

    def wait(self) -> None:
        """Until all have arrived.

        Raises:
            Wrong: a client got less, or more.
        """
        if not self._pipe.poll(PATIENCE):
            raise Wrong("not everything arrived")
        if wrong := self._pipe.recv():
            raise Wrong(wrong)

    def segments(self) -> int:
        """How many writes have arrived: see `_segments`."""
        self._pipe.send(None)
        return int(self._pipe.recv())

    def check(self) -> None:
        """That still nobody has got anything but what was expected."""
        self.expect(0)
        self.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
