"""What it costs to tell a thousand clients the same: ``python -m benchmarks.fanout``.

ours
    ``trigger-ddp serve``. Every client has subscribed to the same author's books; single rows of these are
    updated, and everybody is told ``changed``. All that is between the commit and the sockets is in its CPU;
    PostgreSQL's own is not.
bare
    The floor: a loop of non-blocking ``send()`` of a frame of as many bytes that is ready, in Python.
trio-websocket
    ``send_message()`` to one client after the other.
websockets
    ``websockets.broadcast()``, of PyPI's websockets on asyncio, which builds the frame once.
ws
    npm's ``ws`` on Node: ``send()`` of a Buffer that is ready.
bare, joined; ws, joined
    The same two, told to put as many messages into one write as ours did in the same round; ``ws`` by
    corking its socket. The other two have no way to.

None of them compresses. Each is a process of its own, and so is what reads their sockets, which counts the
bytes of every client: one that is sent less or more than all others ends the run. They take turns, round
after round. What is printed is the median of the rounds:

one by one
    Every message is with all clients before the next one is sent; each row in a transaction of its own. No
    two messages can share anything, so this is what the ratios of a single-row update are of. The rate of
    ours has the whole path in it, commit and look at the row included; that of the rivals has the line on
    their standard input.
tens
    The same, but ten messages at a time, which are rows of one transaction of ours.
back to back
    As many messages as the server takes, as fast as it can; each row in a transaction of its own. Of ours,
    200 different rows are updated, so that no update is told of together with a later one. Messages a
    second are those that have arrived, until the last of them has. Ours puts several into one write when it
    is behind: compare it with those that are joined.

Messages a write are counted where they arrive, as segments of TCP. A second of CPU is what the server's CPU
alone allows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import report, streams
from benchmarks.audience import Audience
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


@dataclasses.dataclass(frozen=True)
class Mode:
    """How messages follow each other.

    Args:
        title: says it.
        count: messages in a round.
        at_once: so many are sent before what has arrived is waited for.
        rows: of ours, in one transaction.
    """

    title: str
    count: int
    at_once: int
    rows: int


class Rival:
    """One of `benchmarks.broadcasters`.

    Args:
        clients: how many it is to have.
    """

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
        self.audience = Audience([connected(port, upgrade=name != "bare") for _ in range(clients)])
        until = time.perf_counter() + PATIENCE
        while self._say("0 1") != clients:  # a client may know of its connection before the server does
            if time.perf_counter() > until:
                raise Wrong(f"{name} does not have {clients} clients")

    def close(self) -> None:
        self.audience.close()
        self._process.kill()
        self._process.wait()

    def broadcast(self, mode: Mode, joined: int = 1) -> None:
        """Send a round of messages to everybody, and wait until they have arrived."""
        for _ in range(mode.count // mode.at_once):
            self.audience.expect(mode.at_once * self.size)
            self._say(f"{mode.at_once} {joined}")
            self.audience.wait()

    def _say(self, line: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        done, _, clients = self._process.stdout.readline().partition(" ")
        if done != "done":
            raise Wrong(f"{self.name} ended")
        return int(clients)


class Joined:
    """A rival that puts as many messages into a write as ours has just done.

    Attributes:
        joined: so many.
    """

    def __init__(self, rival: Rival) -> None:
        self.name, self.pid, self.audience = f"{rival.name}, joined", rival.pid, rival.audience
        self.joined = 1
        self._rival = rival

    def broadcast(self, mode: Mode) -> None:
        self._rival.broadcast(mode, self.joined)


class Ours:
    """The server, and who writes."""

    name = "ours"

    def __init__(self, server: Server, dsn: str, clients: int) -> None:
        self.pid = server.process.pid
        found = streams.connect(server, clients)
        for one in found:
            one.subscribe("BooksOfAuthor", 1)
        streams.collect(found, PATIENCE, "subscribing")
        for one in found:
            one.payloads()
            one.expect(streams.CHANGED)
        self._writer = psycopg.connect(dsn)
        self._numbers = iter(range(10**5, 10**6))
        expected = self.payload(0, 10**5)
        self.size = len(expected) + 4
        self._write(0, 1)
        streams.collect(found, PATIENCE, "an update")
        for one in found:
            while len(one.data) < self.size:  # `collect` may have been content with the beginning
                one.data += one.socket.recv(self.size - len(one.data))
            if (told := one.payloads()) != [expected]:
                raise Wrong(f"a client was told {told} instead of {expected!r}")
        self.audience = Audience([one.socket for one in found])

    def close(self) -> None:
        self.audience.close()
        self._writer.close()

    def payload(self, row: int, number: int) -> bytes:
        title = f"Title {number:060d}"
        return (
            b'{"msg":"changed","collection":"bookstore.book","id":"%d","fields":{"title":"%s"}}'
            % (1001 + row % ROWS, title.encode())
        )  # fmt: skip

    def broadcast(self, mode: Mode) -> None:
        for start in range(0, mode.count, mode.at_once):
            self.audience.expect(mode.at_once * self.size)
            for row in range(start, start + mode.at_once, mode.rows):
                self._write(row, mode.rows)
            self.audience.wait()

    def _write(self, row: int, rows: int) -> None:
        for one in range(row, row + rows):
            self._writer.execute(UPDATE, [f"Title {next(self._numbers):060d}", 1001 + one % ROWS])
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
        payload = ours.payload(0, 10**5)
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


def measure(everyone: list[Any], clients: int, mode: Mode, rounds: int) -> dict[str, tuple[float, ...]]:
    """Of each: CPU microseconds for a message to one client, how many such arrive in a second, in a write."""
    cpu: dict[str, list[float]] = {one.name: [] for one in everyone}
    rate: dict[str, list[float]] = {one.name: [] for one in everyone}
    writes: dict[str, list[float]] = {one.name: [] for one in everyone}
    messages = mode.count * clients
    for number in range(rounds + 1):
        for one in everyone:
            arrived = one.audience.segments()
            used, begun = cpu_seconds(one.pid), time.perf_counter()
            one.broadcast(mode)
            seconds, used = time.perf_counter() - begun, cpu_seconds(one.pid) - used
            together = messages / (one.audience.segments() - arrived)
            if isinstance(one, Ours):
                for other in everyone:
                    if isinstance(other, Joined):
                        other.joined = max(1, round(together))
            if number:  # the first warms up
                rate[one.name].append(messages / seconds)
                cpu[one.name].append(used / messages * 1e6)
                writes[one.name].append(together)
            one.audience.check()
    median = statistics.median
    return {
        one.name: (median(cpu[one.name]), median(rate[one.name]), median(writes[one.name]))
        for one in everyone
    }


def tell(found: report.Report, mode: Mode, clients: int, measured: dict[str, tuple[float, ...]]) -> None:
    floor = measured["bare"][0]
    found.table(
        f"{mode.title}: {mode.count} messages to {clients} clients",
        ("", "CPU us", "times bare", "messages/s", "a second of CPU", "messages a write"),
        [
            (name, cpu, cpu / floor, round(rate), round(1e6 / cpu), writes)
            for name, (cpu, rate, writes) in measured.items()
        ],
    )
    found.number(f"{mode.title}, CPU", measured["ours"][0], "us CPU")
    found.number(f"{mode.title}, rate", measured["ours"][1], "messages/s", "more")


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--clients", type=int, default=1000, help="of each server (default: 1000)")
    options = parser.parse_args()
    clients, count, rounds = (20, 10, 1) if options.quick else (options.clients, 50, 5)
    single, tens = Mode("one by one", count, 1, 1), Mode("tens", count, 10, 10)
    many = Mode("back to back", 4 * count, 4 * count, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("fanout", str(options.major))
    try:
        allow_files(2 * clients + MORE_FILES)
        measured = {}
        with everybody(options.major, clients) as everyone:
            joined = [Joined(one) for one in everyone if one.name in ("bare", "ws")]
            for mode in (single, tens, many):
                both = everyone if mode is single else [*everyone, *joined]
                measured[mode.title] = measure(both, clients, mode, rounds)
                tell(found, mode, clients, measured[mode.title])
    except Wrong as error:
        sys.exit(f"benchmarks.fanout: {error}")
    one, all_ = measured["one by one"], measured["back to back"]
    found.target("CPU to a bare loop, one by one", one["ours"][0] / one["bare"][0], 1.3)
    ratio = all_["ours"][0] / all_["bare, joined"][0]
    found.target("CPU to a bare loop that joins as many, back to back", ratio, 1.3)
    for rival, limit in (("trio-websocket", 5), ("websockets", 1.5), ("ws", 1)):
        found.target(f"rate to {rival}'s, one by one", one["ours"][1] / one[rival][1], limit, "least")
    for rival, limit in (("trio-websocket", 5), ("websockets", 1.5), ("ws, joined", 1)):
        found.target(f"rate to {rival}'s, back to back", all_["ours"][1] / all_[rival][1], limit, "least")
    found.write(options.json)


if __name__ == "__main__":
    main()
