"""Whether a flood of writes leaves anybody behind: ``python -m benchmarks.flood``.

A writer changes 5 000 rows a second for a minute, while 500 clients subscribe, each over its own WebSocket:
two in five to the books of an author, ``filter(author_id=…)``; three in ten to an author and the books by a
join, ``filter(author__email=…)``; one in five to an author's five cheapest books; the others all to the
books of one author. Each row gets another title and another price, so that the windows move. Rows are
written 50 to a transaction, unless ``--rows`` says how many.

Printed are, as a series over the time, the rows written so far, the server's memory (RSS), the age of the
oldest change that is not evaluated, the bytes that wait for clients, and the messages that have arrived.
After the last commit every client calls a method, whose ``updated`` says that it has been told of everything:
the time until the last of them has it is how far behind the server was. Then what each client has is
compared with the database. It ends with status 1 if they differ, or if a client was cut off.

Writer and clients are processes of their own; so is PostgreSQL, which does not wait for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.bookstore import Bookstore
from benchmarks.cases import WINDOW
from benchmarks.clocks import cpu_seconds
from benchmarks.fleet import Wrong
from benchmarks.followers import Follower, Followers
from benchmarks.scaling import MORE_FILES, allow_files
from tests import postgres
from tests.conftest import Database
from tests.serving import Server

BOOKS_EACH = 20
SUBSCRIBING_SECONDS = 120
#: Seconds after the last write in which everybody must have everything.
CATCHING_UP_SECONDS = 120

#: What is subscribed to: the share of the clients, and SQL of the books of one of these authors.
KINDS = {
    "BooksOfAuthor": (0.4, "author_id = %s ORDER BY id"),
    "BooksByAuthorEmail": (
        0.3,
        "author_id = (SELECT id FROM bookstore_author WHERE email = %s) ORDER BY id",
    ),
    "CheapestOfAuthor": (0.2, f"author_id = %s ORDER BY price, id LIMIT {WINDOW}"),
}


def wanted(clients: int) -> list[tuple[str, list[Any]]]:
    """What each client subscribes to."""
    found: list[tuple[str, list[Any]]] = []
    for name, (share, _) in KINDS.items():
        for _ in range(int(clients * share)):
            author = len(found) + 1
            found.append((name, [f"{author}@x" if "Email" in name else author]))
    return found + [("BooksOfAuthor", [1])] * (clients - len(found))


def write(dsn: str, store: Bookstore, rate: float, rows: int, seconds: float, written: Any) -> None:
    """Change so many rows a second, ``rows`` in each transaction. Runs in a process of its own."""
    chosen = random.Random(1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        started = time.perf_counter()
        number = 0
        while number < rate * seconds:
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            books = chosen.sample(range(1, store.books + 1), rows)
            connection.execute(
                "UPDATE bookstore_book SET title = %s || id, price = 1 + (id * 7919 + %s) %% 97"
                " WHERE id = ANY(%s)",
                [f"Title {number} ", number, books],
            )
            number += rows
            written.value = number


def reading(server: Server) -> dict[str, float]:
    """What the server says of itself."""
    with urllib.request.urlopen(f"{server.url}/_ddp/metrics") as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in lines}


def memory(pid: int) -> float:
    """MB that a process has in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def compare(follower: Follower, name: str, params: list[Any], connection: psycopg.Connection) -> None:
    """What a client has must be what the database has."""
    rows = connection.execute(
        f"SELECT id, title, price FROM bookstore_book WHERE {KINDS[name][1]}", params
    ).fetchall()
    expected = {str(key): (title, float(price)) for key, title, price in rows}
    books = follower.documents["bookstore.book"]
    found = {key: (fields["title"], float(_number(fields["price"]))) for key, fields in books.items()}
    if found != expected:
        differing = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
        raise Wrong(f"{name}{params} has {len(found)} books, and {differing[:5]} not as the database has")


def _number(value: Any) -> Any:
    return value["$value"] if isinstance(value, dict) else value


def flood(database: Database, store: Bookstore, server: Server, options: argparse.Namespace) -> None:
    subscriptions = wanted(options.clients)
    clients = Followers(server.host, server.port)
    try:
        clients.subscribe(subscriptions, SUBSCRIBING_SECONDS)
        processes = multiprocessing.get_context("spawn")
        written = processes.Value("q", 0)
        writer = processes.Process(
            target=write,
            args=(database.dsn, store, options.rate, options.rows, options.seconds, written),
            daemon=True,
        )
        print(f"{'s':>5}{'rows':>9}{'RSS MB':>8}{'lag s':>7}{'outbox kB':>11}{'messages':>10}{'CPU %':>7}")
        writer.start()
        while not written.value and writer.is_alive():
            clients.pump(0.01)
        started, shown = time.perf_counter(), 0.0
        clients.messages = 0
        used = cpu_seconds(server.process.pid)
        while writer.is_alive():
            clients.pump(0.05)
            passed = time.perf_counter() - started
            if passed >= shown:
                used = show(server, passed, int(written.value), clients.messages, used, options.every)
                shown += options.every
        writer.join()
        ended = time.perf_counter()
        if writer.exitcode:
            raise Wrong("the writer failed")
        clients.fence(CATCHING_UP_SECONDS)
        behind = time.perf_counter() - ended
        show(server, time.perf_counter() - started, int(written.value), clients.messages, used, options.every)
        with psycopg.connect(database.dsn) as connection:
            for follower, (name, params) in zip(clients.all, subscriptions, strict=True):
                compare(follower, name, params, connection)
        print(
            f"\n{written.value / (ended - started):.0f} rows a second written;"
            f" all {len(clients.all)} clients equal to the database {behind:.2f} s after the last commit"
        )
    finally:
        clients.close()


def show(server: Server, passed: float, rows: int, messages: int, used: float, every: float) -> float:
    now = cpu_seconds(server.process.pid)
    found = reading(server)
    print(
        f"{passed:5.0f}{rows:9d}{memory(server.process.pid):8.0f}"
        f"{found['trigger_ddp_oldest_change_seconds']:7.2f}{found['trigger_ddp_outbox_bytes'] / 1000:11.0f}"
        f"{messages:10d}{(now - used) / every * 100:7.0f}",
        flush=True,
    )
    return now


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=5000, help="rows a second (default: 5000)")
    parser.add_argument("--rows", type=int, default=50, help="rows in one transaction (default: 50)")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--clients", type=int, default=500, help="how many subscribe (default: 500)")
    parser.add_argument("--every", type=float, default=5, help="seconds between two lines (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a few of everything: is it right, not how fast")
    parser.add_argument("--major", type=int, default=max(postgres.binaries()), help="PostgreSQL's version")
    options = parser.parse_args()
    if options.quick:
        options.rate, options.seconds, options.clients, options.every = 2000, 2, 30, 0.5
    store = Bookstore(max(options.clients, 10), max(options.clients, 10) * BOOKS_EACH)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    try:
        with contextlib.ExitStack() as stack:
            allow_files(options.clients + MORE_FILES)
            cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
            stack.callback(cluster.remove)
            database = store.create(cluster, "flood")
            server = Server(
                "--bind", "127.0.0.1:0", "--install-triggers",
                environ={**os.environ, "PYTHONUNBUFFERED": "1", **database.environ},
            )  # fmt: skip
            stack.callback(server.kill)
            print(
                f"PostgreSQL {options.major}, {store.books} books of {store.authors} authors,"
                f" {options.clients} clients, {options.rate:g} rows a second,"
                f" {options.rows} to a transaction\n"
            )
            flood(database, store, server, options)
            server.stop()
    except Wrong as error:
        sys.exit(f"benchmarks.flood: {error}")


if __name__ == "__main__":
    main()
