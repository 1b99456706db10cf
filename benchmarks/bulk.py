"""What one statement costs that changes a hundred thousand rows: ``python -m benchmarks.bulk``.

``UPDATE bookstore_book SET in_stock = NOT in_stock`` on 100 000 books of 1 000 authors, while 100 sessions
subscribe: 95 to the books of an author each, five to all books that cost 10 or less, which are 10 000.

The statement is measured with our triggers, and without any in between. It changes more rows than
DDP_BULK_THRESHOLD, so that one notification says that anything may have changed; all live queries are loaded
again. Measured is the time from just before COMMIT until every client has called a method after it and been
told ``updated``: then it has been told of everything. The floor is a process that selects through psycopg
what each live query has, once, encodes each row as JSON, and sends it to as many sockets as there are
sessions.
Then what each client has is compared with the database. Printed is also the server's memory before, and the
most that it has had.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import statistics
import sys
import time
from decimal import Decimal
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import msgspec
import psycopg

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.fleet import Wrong
from benchmarks.scaling import MORE_FILES, allow_files
from benchmarks.snapshot import SELECT
from tests import postgres
from tests.conftest import Database
from tests.serving import Server

UPDATE = "UPDATE bookstore_book SET in_stock = NOT in_stock"
PATIENCE = 120


def floor(dsn: str, authors: int, wide: int, price: int, pipe: Pipe) -> None:
    """Selects, encodes and sends, once for each word that comes; answers with the seconds."""
    encode = msgspec.json.Encoder(enc_hook=str).encode
    listener = socket.create_server((streams.HOST, 0), backlog=authors + wide)
    pipe.send(listener.getsockname()[1])
    clients = [listener.accept()[0] for _ in range(authors + wide)]
    with psycopg.connect(dsn, autocommit=True) as connection:
        while True:
            pipe.recv()
            begun = time.perf_counter()
            for author, client in zip(range(1, authors + 1), clients, strict=False):
                rows = connection.execute(f"{SELECT} author_id = %s", [author]).fetchall()
                client.sendall(b"".join([encode(row) for row in rows]))
            rows = connection.execute(f"{SELECT} price <= %s", [price]).fetchall()
            data = b"".join([encode(row) for row in rows])
            for client in clients[authors:]:
                client.sendall(data)
            pipe.send(time.perf_counter() - begun)


class Bulk:
    """One server with its clients, and who writes."""

    def __init__(self, database: Database, server: Server, narrow: int, wide: int, price: int) -> None:
        self._server, self._price = server, price
        self._writer = psycopg.connect(database.dsn)
        self._clients = streams.connect(server, narrow + wide)
        self._authors: list[int | None] = [*range(1, narrow + 1), *[None] * wide]
        self._books: list[dict[str, tuple[Decimal, bool]]] = [{} for _ in self._clients]
        for client, author in zip(self._clients, self._authors, strict=True):
            if author is None:
                client.subscribe("CheapBooks", float(price))
            else:
                client.subscribe("BooksOfAuthor", author)
            streams.collect([client], PATIENCE, "subscribing")
        self._take()

    def close(self) -> None:
        streams.close(self._clients)
        self._writer.close()

    def update(self) -> tuple[float, float]:
        """Seconds of the statement, and from its commit until all have been told."""
        begun = time.perf_counter()
        self._writer.execute(UPDATE)
        committing = time.perf_counter()
        self._writer.commit()
        statement = time.perf_counter() - begun
        for client in self._clients:
            client.keep_expecting("echo", 1)
        told = streams.collect(self._clients, PATIENCE, "telling of the update") - committing
        self._take()
        self._compare()
        return statement, told

    def bare(self) -> float:
        """Seconds of the statement without triggers; nobody hears of it."""
        self._writer.execute("SET session_replication_role = replica")
        begun = time.perf_counter()
        self._writer.execute(UPDATE)
        self._writer.commit()
        statement = time.perf_counter() - begun
        # … and back, so that what the clients have is right again.
        self._writer.execute(UPDATE)
        self._writer.execute("SET session_replication_role = DEFAULT")
        self._writer.commit()
        return statement

    def vacuum(self) -> None:
        self._writer.autocommit = True
        self._writer.execute("VACUUM bookstore_book")
        self._writer.autocommit = False

    def memory(self, what: str) -> float:
        """MiB of the server: ``VmRSS``, or ``VmHWM``, the most it ever was."""
        status = Path(f"/proc/{self._server.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(what))
        return int(line.split()[1]) / 1024

    def _take(self) -> None:
        for client, books in zip(self._clients, self._books, strict=True):
            for message in client.messages():
                fields = message.get("fields", {})
                if message["msg"] == "added":
                    books[message["id"]] = _price(fields["price"]), fields["in_stock"]
                elif message["msg"] == "changed" and "in_stock" in fields:
                    books[message["id"]] = books[message["id"]][0], fields["in_stock"]
            client.data.clear()

    def _compare(self) -> None:
        rows = self._writer.execute(
            "SELECT id::text, author_id, price, in_stock FROM bookstore_book"
        ).fetchall()
        self._writer.commit()
        for author, books in zip(self._authors, self._books, strict=True):
            expected = {
                key: (price, in_stock)
                for key, of, price, in_stock in rows
                if of == author or (author is None and price <= self._price)
            }
            if books != expected:
                raise Wrong(
                    f"a client has {len(books)} books, which are not the {len(expected)} it should have"
                )


def _price(value: object) -> Decimal:
    return Decimal(value["$value"] if isinstance(value, dict) else str(value))


def main() -> None:
    parser = report.parser(__doc__)
    options = parser.parse_args()
    books, authors, narrow, wide, rounds = 100_000, 1_000, 95, 5, 5
    if options.quick:
        books, authors, narrow, wide, rounds = 6_000, 60, 5, 2, 1
    price = books // authors // 10
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("bulk", str(options.major))
    taken: dict[str, list[float]] = {name: [] for name in ("bare", "ours", "floor", "told")}
    try:
        with contextlib.ExitStack() as stack:
            allow_files(4 * (narrow + wide) + MORE_FILES)
            cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
            stack.callback(cluster.remove)
            database = Bookstore(authors, books).create(cluster, "bulk")
            server = stack.enter_context(streams.serving(database))
            pipe = stack.enter_context(streams.process(floor, database.dsn, narrow, wide, price))
            port = pipe.recv()
            sinks = [
                streams.Stream(socket.create_connection((streams.HOST, port))) for _ in range(narrow + wide)
            ]
            stack.callback(streams.close, sinks)
            stack.enter_context(streams.draining(sinks))
            bulk = Bulk(database, server, narrow, wide, price)
            stack.callback(bulk.close)
            before = bulk.memory("VmRSS")
            for number in range(rounds + 1):
                figures = [bulk.bare()]
                bulk.vacuum()
                figures += bulk.update()
                bulk.vacuum()
                pipe.send("go")
                figures.append(pipe.recv())
                if number or options.quick:  # the first warms up
                    for name, seconds in zip(("bare", "ours", "told", "floor"), figures, strict=True):
                        taken[name].append(seconds)
            after, most = bulk.memory("VmRSS"), bulk.memory("VmHWM")
    except Wrong as error:
        sys.exit(f"benchmarks.bulk: {error}")
    bare, ours, floor_, told = (statistics.median(seconds) for seconds in taken.values())
    found.table(
        f"UPDATE of {books} rows, median of {rounds}",
        ("", "s", "times the floor"),
        [
            ("the statement without triggers", bare, 1.0),
            ("the statement with ours", ours, ours / bare),
            (f"select, encode, send to {narrow + wide} sockets", floor_, 1.0),
            ("from commit until everybody has been told", told, told / floor_),
        ],
    )
    memory = [("before", before), ("after", after), ("most", most)]
    found.table("memory of the server", ("", "MiB"), memory)
    found.number("the statement", ours, "s")
    found.number("until everybody has been told", told, "s")
    found.number("most memory", most, "MiB")
    found.target("the statement, to without triggers", ours / bare, 1.5)
    found.target("until everybody has been told, to select and send", told / floor_, 3)
    found.write(options.json)


if __name__ == "__main__":
    main()
