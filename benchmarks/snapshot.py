"""What it costs to give a client what it subscribes to: ``python -m benchmarks.snapshot``.

cold
    The first subscriber of a live query with 10 000 documents, from just before its ``sub`` is sent until the
    client's recv() returns with ``ready``. Each round is about the books of another author, so that each is
    cold. Measured in turn with it: a process of its own that fetches the same through psycopg and
    encodes each row as JSON, which is all it does: no DDP, no live query, nothing is sent. It encodes
    with msgspec, and with Python's json.
loaded
    Further sessions subscribe to what somebody has, one after the other, with 1 000 and with 10 000
    documents. The floor is a process that does nothing but ``sendall`` of as many bytes to a socket. What
    the server's CPU for 10 000 documents is above that for 1 000, divided by 9 000, is what a document
    costs: in the floor that is the kernel, which copies.
storm
    500 sessions connect, and each subscribes to the same 1 000 documents, all at once.

CPU is the time of the server process, without PostgreSQL's. What the sessions were sent is compared with the
database, or with what the first was sent, when the clock has stopped; if it differs this ends with status 1.
The server is ``trigger-ddp serve``; server, floor, clients and PostgreSQL are processes of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import socket
import statistics
import sys
import time
from collections.abc import Iterable
from decimal import Decimal
from multiprocessing.connection import Connection as Pipe
from typing import Any

import msgspec
import psycopg

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.fleet import Wrong
from benchmarks.scaling import MORE_FILES, allow_files
from benchmarks.streams import Client, Stream
from tests import postgres
from tests.conftest import Database
from tests.serving import Server

PUBLICATION = "BooksOfAuthor"
#: What a document of the collection consists of.
SELECT = """
SELECT id, title, author_id, price, published, in_stock,
       ARRAY(SELECT tag_id FROM bookstore_book_tags WHERE book_id = book.id ORDER BY tag_id)
  FROM bookstore_book book
 WHERE"""
NAMES = ("id", "title", "author_id", "price", "published", "in_stock", "tags_ids")
ENCODERS = ("msgspec", "json")
PATIENCE = 60


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float


def median(costs: Iterable[Cost]) -> Cost:
    listed = list(costs)
    return Cost(statistics.median(c.wall for c in listed), statistics.median(c.cpu for c in listed))


def serve_floor(dsn: str, pipe: Pipe) -> None:
    """What the cold and the loaded are compared with. Sends its port, then an answer to each task.

    A task is an encoder's name and an author, or "send" and a number of bytes.
    """
    encoders = {
        "msgspec": msgspec.json.Encoder().encode,
        "json": lambda row: json.dumps(row, default=str, separators=(",", ":")).encode(),
    }
    listener = socket.create_server((streams.HOST, 0))
    pipe.send(listener.getsockname()[1])
    client, _ = listener.accept()
    with psycopg.connect(dsn, autocommit=True) as connection:
        while True:
            task, argument = pipe.recv()
            data = bytes(argument) if task == "send" else b""
            rows, wall, cpu = 0, time.perf_counter(), time.process_time()
            if task == "send":
                client.sendall(data)
            else:
                encode = encoders[task]
                fetched = connection.execute(f"{SELECT} author_id = %s", [argument]).fetchall()
                rows = len([encode(dict(zip(NAMES, row, strict=True))) for row in fetched])
            pipe.send((rows, Cost(time.perf_counter() - wall, time.process_time() - cpu)))


class Snapshot:
    """One server, on books of which every author has as many as the others."""

    def __init__(self, database: Database, store: Bookstore, server: Server, floor: Pipe) -> None:
        self._store, self._server, self._floor = store, server, floor
        self._sink = Stream(socket.create_connection((streams.HOST, floor.recv())))
        self._connection = psycopg.connect(database.dsn, autocommit=True)
        self._clients: list[Client] = []
        self._first: dict[int, set[bytes]] = {}

    def close(self) -> None:
        streams.close([*self._clients, self._sink])
        self._connection.close()

    @property
    def documents(self) -> int:
        return self._store.books_each

    def connect(self, count: int) -> list[Client]:
        clients = streams.connect(self._server, count, len(self._clients))
        self._clients += clients
        return clients

    def subscribe(self, client: Client, author: int) -> Cost:
        """Until ``ready``."""
        pid = self._server.process.pid
        cpu, wall = streams.rest(pid), time.perf_counter()
        client.subscribe(PUBLICATION, author)
        wall = streams.collect([client], PATIENCE, "subscribing") - wall
        return Cost(wall, streams.rest(pid) - cpu)

    def cold(self, author: int) -> Cost:
        """The first subscriber of an author's books."""
        (client,) = self.connect(1)
        cost = self.subscribe(client, author)
        payloads = client.payloads()
        self._first[author] = set(payloads)
        self._compare(author, [msgspec.json.decode(payload) for payload in payloads])
        return cost

    def encode(self, encoder: str, author: int) -> Cost:
        """The floor of the cold."""
        self._floor.send((encoder, author))
        rows, cost = self._floor.recv()
        if rows != self.documents:
            raise Wrong(f"the floor found {rows} rows, not {self.documents}")
        return cost

    def loaded(self, author: int, sessions: int) -> tuple[Cost, Cost, int]:
        """A further session's cost, that of sending as many bytes, and how many these are."""
        costs, floors = [], []
        size = 0
        for client in self.connect(sessions):
            costs.append(self.subscribe(client, author))
            size = len(client.data)
            self.compare_to_first(author, client)
            self._sink.expect(b"\0", size)
            self._floor.send(("send", size))
            streams.collect([self._sink], PATIENCE, "sending")
            floors.append(self._floor.recv()[1])
        return median(costs), median(floors), size

    def storm(self, author: int, sessions: int) -> tuple[float, Cost]:
        """Seconds in which all connect, and then the cost until all of them are ready."""
        wall = time.perf_counter()
        clients = self.connect(sessions)
        connecting = time.perf_counter() - wall
        pid = self._server.process.pid
        cpu, wall = streams.rest(pid), time.perf_counter()
        for client in clients:
            client.subscribe(PUBLICATION, author)
        wall = streams.collect(clients, PATIENCE, "the storm") - wall
        cpu = streams.rest(pid) - cpu
        for client in clients:
            self.compare_to_first(author, client)
        return connecting, Cost(wall, cpu)

    def compare_to_first(self, author: int, client: Client) -> None:
        payloads = client.payloads()
        if set(payloads) != self._first[author] or len(payloads) != self.documents + 1:
            client_number = client.session.number
            raise Wrong(f"session {client_number} was sent something else than the first subscriber was")

    def _compare(self, author: int, messages: list[dict[str, Any]]) -> None:
        ready = messages.pop()
        rows = self._connection.execute(
            "SELECT id::text, title, price, in_stock FROM bookstore_book WHERE author_id = %s", [author]
        ).fetchall()
        found = sorted(
            (message["id"], fields["title"], _decimal(fields["price"]), fields["in_stock"])
            for message in messages
            if message["msg"] == "added" and (fields := message["fields"])
        )
        if found != sorted(rows) or ready != {"msg": "ready", "subs": ["s"]}:
            raise Wrong(
                f"the subscriber of author {author} was sent {len(found)} books, which are not the"
                f" {len(rows)} of the database"
            )


def _decimal(value: Any) -> Decimal:
    return Decimal(value["$value"] if isinstance(value, dict) else value)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of everything."""

    documents: int
    rounds: int
    fewer_documents: int
    further: int
    storm: int


FULL = Size(10_000, 10, 1_000, 40, 500)
QUICK = Size(200, 2, 50, 3, 10)


def measure(cluster: postgres.Cluster, size: Size, found: report.Report) -> None:
    authors = size.rounds + 1  # one warms up
    with contextlib.ExitStack() as stack:

        def snapshot(documents: int, name: str) -> Snapshot:
            store = Bookstore(authors, authors * documents)
            database = store.create(cluster, name)
            server = stack.enter_context(streams.serving(database))
            floor = stack.enter_context(streams.process(serve_floor, database.dsn))
            new = Snapshot(database, store, server, floor)
            stack.callback(new.close)
            return new

        many, fewer = snapshot(size.documents, "many"), snapshot(size.fewer_documents, "fewer")
        cold: dict[str, list[Cost]] = {name: [] for name in ("ours", *ENCODERS, "ours, fewer")}
        for author in range(1, authors + 1):
            cold["ours"].append(many.cold(author))
            for encoder in ENCODERS if author % 2 else ENCODERS[::-1]:
                cold[encoder].append(many.encode(encoder, author))
            cold["ours, fewer"].append(fewer.cold(author))
        ours, msgspec_, json_, few = (median(costs[1:]) for costs in cold.values())
        found.table(
            f"cold: {size.documents} documents to ready, median of {size.rounds} rounds",
            ("", "ms", "CPU ms", "times msgspec's"),
            [
                (name, cost.wall * 1e3, cost.cpu * 1e3, cost.wall / msgspec_.wall)
                for name, cost in (("psycopg + msgspec", msgspec_), ("psycopg + json", json_), ("ours", ours))
            ],
        )
        found.number("cold, to ready", ours.wall * 1e3, "ms")
        found.number("cold, CPU", ours.cpu * 1e3, "ms CPU")
        found.target("cold, to psycopg and msgspec", ours.wall / msgspec_.wall, 2)
        found.target("cold, to psycopg and json", ours.wall / json_.wall, 2)

        rows, further = [], {}
        for one, first in ((fewer, few), (many, ours)):
            one.loaded(2, 1)  # warms up
            cost, floor, sent = further[one] = one.loaded(2, size.further)
            figures = (cost.wall * 1e3, cost.cpu * 1e3, floor.cpu * 1e3, first.wall / cost.wall)
            rows.append((f"{one.documents} documents, {sent} bytes", *figures, first.cpu / cost.cpu))
            found.number(f"further session, {one.documents} documents", cost.cpu * 1e6, "us CPU")
            found.number(f"further session, {one.documents} documents, to ready", cost.wall * 1e3, "ms")
        found.table(
            f"loaded: a further session, median of {size.further}",
            ("", "ms", "CPU ms", "CPU ms, bare send", "cold/this, ms", "cold/this, CPU"),
            rows,
        )
        more = many.documents - fewer.documents
        each = [
            (further[many][which].cpu - further[fewer][which].cpu) / more * 1e9
            for which in (0, 1)  # type: ignore[union-attr]
        ]
        found.table(
            "CPU of each further document of a further session",
            ("", "ns"),
            [("bare send of the same bytes", each[1]), ("ours", each[0])],
        )
        found.target("cold to loaded, time", ours.wall / further[many][0].wall, 10, "least")
        found.target("cold to loaded, CPU", ours.cpu / further[many][0].cpu, 10, "least")

        connecting, storm = fewer.storm(2, size.storm)
        found.table(
            f"storm: {size.storm} sessions, {fewer.documents} documents at once",
            ("", "s", "ms CPU, each session", "times cold CPU"),
            [
                ("connecting", connecting, "", ""),
                ("to ready", storm.wall, storm.cpu / size.storm * 1e3, storm.cpu / size.storm / few.cpu),
            ],
        )
        found.number("storm, to ready", storm.wall, "s")
        found.number("storm, each session", storm.cpu / size.storm * 1e6, "us CPU")
        found.target("cold to a session of the storm, CPU", few.cpu / (storm.cpu / size.storm), 10, "least")


def main() -> None:
    parser = report.parser(__doc__)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("snapshot", str(options.major))
    try:
        with contextlib.ExitStack() as stack:
            allow_files(size.storm + 2 * size.further + MORE_FILES)
            cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
            stack.callback(cluster.remove)
            measure(cluster, size, found)
    except Wrong as error:
        sys.exit(f"benchmarks.snapshot: {error}")
    found.write(options.json)


if __name__ == "__main__":
    main()
