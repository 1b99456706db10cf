"""What it costs to tell a thousand clients the same: ``python -m benchmarks.fanout``.

ours
    ``trigger-ddp serve``. Every client has subscribed to the same author's books; single rows of these are
    updated, each in a transaction of its own, and everybody is told ``changed``. All that is between the
    commit and the sockets is in its CPU; PostgreSQL's own is not.
bare
    The floor: a loop of non-blocking ``send()`` of a frame of as many bytes that is ready, in Python.
trio-websocket
    ``send_message()`` to one client after the other.
websockets
    ``websockets.broadcast()``, of PyPI's websockets on asyncio, which builds the frame once.
ws
    npm's ``ws`` on Node: ``send()`` of a Buffer that is ready.

None of them compresses. Each is a process of its own, and so is what reads their sockets, which counts
the bytes. They take turns, round after round. What is printed is the median of the rounds:

one by one
    Every message is with all clients before the next one is sent. CPU of the server for each message and
    client.
back to back
    As many messages as the server takes, as fast as it can. Of ours, 200 different rows are updated, so
    that no update is told of together with a later one. Messages a second are those that have arrived,
    until the last of them has.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.broadcasters import KINDS, NODE
from benchmarks.clocks import cpu_seconds
from benchmarks.fleet import Wrong
from benchmarks.scaling import MORE_FILES, allow_files
from tests import postgres
from tests.serving import Server

CLIENTS = Path(__file__).resolve().parent.parent / "tests" / "clients"
UPDATE = "UPDATE bookstore_book SET title = %s WHERE id = %s"
ROWS = 200
PATIENCE = 60
UPGRADE = (
    b"GET /websocket HTTP/1.1\r\nHost: benchmark\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def count_bytes(sockets: list[socket.socket], pipe: Pipe) -> None:
    """Read all sockets for ever; tells when each has got as many more bytes as it was last told to expect."""
    selector = selectors.DefaultSelector()
    for sock in sockets:
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
    selector.register(pipe, selectors.EVENT_READ)
    buffer = bytearray(1 << 18)
    got = expected = 0  # since the beginning: what is expected may be there before it is expected
    waited_for = False
    while True:
        for key, _ in selector.select():
            if key.fileobj is pipe:
                try:
                    expected += pipe.recv() * len(sockets)
                except EOFError:
                    return
                waited_for = True
                continue
            with contextlib.suppress(BlockingIOError):
                count = key.fileobj.recv_into(buffer)  # type: ignore[union-attr]
                if not count:
                    pipe.send(-1)
                    return
                got += count
        if waited_for and got >= expected:
            pipe.send(got - expected)
            waited_for = False


class Audience:
    """The clients of one server, read by a process of their own.

    Args:
        sockets: connected and ready.
    """

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        fork = multiprocessing.get_context("fork")  # it gets the sockets
        self._process = fork.Process(target=count_bytes, args=(sockets, theirs), daemon=True)
        self._process.start()
        theirs.close()
        for sock in sockets:
            sock.close()

    def expect(self, each: int) -> None:
        """From now on every client gets so many bytes."""
        self._pipe.send(each)

    def wait(self) -> None:
        """Until all have arrived."""
        if not self._pipe.poll(PATIENCE):
            raise Wrong("not everything arrived")
        if more := self._pipe.recv():
            raise Wrong(f"{more} bytes more arrived than were sent")

    def close(self) -> None:
        self._process.kill()
        self._process.join()


class Rival:
    """One of `benchmarks.broadcasters`."""

    def __init__(self, name: str, command: list[str], payload: bytes, clients: int) -> None:
        self.name = name
        self.size = len(payload) + 4
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "NODE_PATH": str(CLIENTS / "node_modules")},
        )  # fmt: skip
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self.pid = self._process.pid
        self._audience = Audience([connected(port, upgrade=name != "bare") for _ in range(clients)])

    def close(self) -> None:
        self._audience.close()
        self._process.kill()
        self._process.wait()

    def broadcast(self, count: int, one_by_one: bool) -> None:
        """Send so many messages to everybody, and wait until they have arrived."""
        for times in [1] * count if one_by_one else [count]:
            self._audience.expect(times * self.size)
            self._say(f"{times} 0")
            self._audience.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            raise Wrong(f"{self.name} ended")


class Ours:
    """The server, and who writes."""

    name = "ours"

    def __init__(self, server: Server, dsn: str, clients: int) -> None:
        self.pid = server.process.pid
        found = streams.connect(server, clients)
        for one in found:
            one.subscribe("BooksOfAuthor", 1)
        streams.collect(found, PATIENCE, "subscribing")
        self._audience = Audience([one.socket for one in found])
        self._writer = psycopg.connect(dsn)
        self._numbers = iter(range(10**5, 10**6))
        self.size = len(self.payload(0)) + 4

    def close(self) -> None:
        self._audience.close()
        self._writer.close()

    def payload(self, row: int) -> bytes:
        title = f"Title {10**5:060d}"
        return (
            b'{"msg":"changed","collection":"bookstore.book","id":"%d","fields":{"title":"%s"}}'
            % (1001 + row % ROWS, title.encode())
        )  # fmt: skip

    def broadcast(self, count: int, one_by_one: bool) -> None:
        if one_by_one:
            for number in range(count):
                self._audience.expect(self.size)
                self._write(number)
                self._audience.wait()
        else:
            self._audience.expect(count * self.size)
            for number in range(count):
                self._write(number)
            self._audience.wait()

    def _write(self, number: int) -> None:
        self._writer.execute(UPDATE, [f"Title {next(self._numbers):060d}", 1001 + number % ROWS])
        self._writer.commit()


def connected(port: int, upgrade: bool) -> socket.socket:
    """A client of a server on this machine, of a WebSocket if it is to be upgraded."""
    sock = socket.create_connection((streams.HOST, port))
    if upgrade:
        sock.sendall(UPGRADE)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := sock.recv(4096)):
                raise Wrong("a server refused a client")
            head += data
    return sock


def node_command(payload: bytes) -> list[str]:
    """Node's ws, installed from npm with the clients of the tests."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Wrong("node and npm are needed, and not on the PATH")
    if not (CLIENTS / "node_modules" / "ws").exists():
        subprocess.run([npm, "ci"], cwd=CLIENTS, check=True, capture_output=True)
    return [node, "-e", NODE, "-", payload.decode()]


@contextlib.contextmanager
def everybody(major: int, clients: int) -> Iterator[list[Any]]:
    """Ours first, then the rivals, each with its clients."""
    with contextlib.ExitStack() as stack:
        cluster = postgres.Cluster(major, postgres.binaries()[major])
        stack.callback(cluster.remove)
        store = Bookstore(1, 2000)
        database = store.create(cluster, "fanout")
        with database.connect() as connection:  # those of the rows that are written, and nothing else
            connection.execute(f"DELETE FROM bookstore_book WHERE id NOT BETWEEN 1001 AND {1000 + ROWS}")
        server = stack.enter_context(
            streams.serving(database, DDP_MAX_CONNECTIONS_PER_ADDRESS=str(clients + MORE_FILES))
        )
        ours = Ours(server, database.dsn, clients)
        stack.callback(ours.close)
        payload = ours.payload(0)
        commands = {
            kind: [sys.executable, "-m", "benchmarks.broadcasters", kind, payload.decode()] for kind in KINDS
        }
        commands["ws"] = node_command(payload)
        found: list[Any] = [ours]
        for kind, command in commands.items():
            rival = Rival(kind, command, payload, clients)
            stack.callback(rival.close)
            found.append(rival)
        yield found


def measure(everyone: list[Any], clients: int, count: int, rounds: int, one_by_one: bool) -> dict[str, Any]:
    """Of each, CPU microseconds for a message to one client, and how many such arrive in a second."""
    cpu: dict[str, list[float]] = {one.name: [] for one in everyone}
    rate: dict[str, list[float]] = {one.name: [] for one in everyone}
    for number in range(rounds + 1):
        for one in everyone:
            used, begun = cpu_seconds(one.pid), time.perf_counter()
            one.broadcast(count, one_by_one)
            if number:  # the first warms up
                rate[one.name].append(count * clients / (time.perf_counter() - begun))
                cpu[one.name].append((cpu_seconds(one.pid) - used) / count / clients * 1e6)
    median = statistics.median
    return {one.name: (median(cpu[one.name]), median(rate[one.name])) for one in everyone}


def tell(found: report.Report, title: str, measured: dict[str, tuple[float, float]]) -> None:
    floor = measured["bare"][0]
    found.table(
        title,
        ("", "CPU us", "times bare", "messages/s"),
        [(name, cpu, cpu / floor, round(rate)) for name, (cpu, rate) in measured.items()],
    )
    how = title.partition(":")[0]
    found.number(f"{how}, CPU", measured["ours"][0], "us CPU")
    found.number(f"{how}, rate", measured["ours"][1], "messages/s", "more")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_arguments(parser)
    parser.add_argument("--clients", type=int, default=1000, help="of each server (default: 1000)")
    parser.add_argument("--major", type=int, default=max(postgres.binaries()), help="PostgreSQL's version")
    options = parser.parse_args()
    clients, count, rounds = (20, 5, 1) if options.quick else (options.clients, 50, 5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("fanout", str(options.major))
    try:
        allow_files(2 * clients + MORE_FILES)
        with everybody(options.major, clients) as everyone:
            single = measure(everyone, clients, count, rounds, one_by_one=True)
            tell(found, f"one by one: {count} messages to {clients} clients", single)
            many = measure(everyone, clients, 4 * count, rounds, one_by_one=False)
            tell(found, f"back to back: {4 * count} messages to {clients} clients", many)
    except Wrong as error:
        sys.exit(f"benchmarks.fanout: {error}")
    found.target("CPU to a bare loop, one by one", single["ours"][0] / single["bare"][0], 1.3)
    found.target("CPU to a bare loop, back to back", many["ours"][0] / many["bare"][0], 1.3)
    for rival, limit in (("trio-websocket", 5), ("websockets", 1.5), ("ws", 1)):
        found.target(f"rate to {rival}'s, back to back", many["ours"][1] / many[rival][1], limit, "least")
    found.write(options.json)


if __name__ == "__main__":
    main()
