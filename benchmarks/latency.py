"""How long a committed row takes to its client: ``python -m benchmarks.latency [--rate 100] [--seconds 5]``.

Two paths lead from the writer, which updates one row in each transaction, to a client on a TCP socket:

floor
    A trigger written by hand notifies the key; a trio process LISTENs through psycopg and writes the key to
    the socket, and that is all. No server in Python that learns of rows by NOTIFY can be much faster.
whole path
    ``trigger-ddp serve`` as anybody runs it: its triggers, its listener, the query for the changed key, the
    merge with what the client has, a DDP message in a WebSocket frame. The client holds ``--subscriptions``
    of them, each to the books of another author; an update is about one book.

A latency is the time from just before the writer sends COMMIT until the client's recv() returns with the
message: the commit is in it, the client's parsing is not. The writer keeps to its rate whether or not earlier
updates have arrived. The floor and the server are processes of their own; the writer and both clients share
a third. PostgreSQL is started for the run, and does not wait for the disk. The paths take turns of a second,
so that a machine that gets slower meanwhile slows both. It fails unless every update arrives.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import threading
import time

import psycopg

from benchmarks import servers
from benchmarks.bookstore import Bookstore
from tests import postgres

BOOKS = 1000
WARM_UP_SECONDS = 0.5
ARRIVAL_SECONDS = 20


class Path:
    """One way from the writer to a client.

    Args:
        client: its end.

    Attributes:
        latencies: seconds that each update took.
    """

    def __init__(self, client: servers.Client) -> None:
        self.latencies: list[float] = []
        self._client = client
        self._update = f"UPDATE {client.table} SET title = %s WHERE id = %s"
        self._under_way: dict[int, float] = {}  # book to the time of its commit
        self._arrived = threading.Condition()
        threading.Thread(target=self._read, daemon=True, name=f"client of {client.table}").start()

    def _read(self) -> None:
        while data := self._client.socket.recv(65536):
            now = time.perf_counter()
            books = self._client.told(data)
            with self._arrived:
                self.latencies += [now - self._under_way.pop(book) for book in books]
                self._arrived.notify()

    def run(self, connection: psycopg.Connection, updates: int, rate: float) -> None:
        """Commit that many updates, ``rate`` a second, and wait until the client has heard of all."""
        started = time.perf_counter()
        for number in range(updates):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            book = number % BOOKS + 1
            connection.execute(self._update, (f"{number} at {started}", book))
            self._under_way[book] = time.perf_counter()
            connection.commit()
        with self._arrived:
            if not self._arrived.wait_for(lambda: not self._under_way, ARRIVAL_SECONDS):
                raise SystemExit(f"{len(self._under_way)} of {updates} updates did not arrive")


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """The latencies of each path, in seconds."""
    turns = math.ceil(options.seconds)
    updates = math.ceil(options.rate * options.seconds / turns)
    with contextlib.ExitStack() as stack:
        cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
        stack.callback(cluster.remove)
        database = Bookstore(options.subscriptions, BOOKS).create(cluster, "latency")
        paths = {
            "floor": Path(stack.enter_context(servers.floor(database))),
            "whole path": Path(stack.enter_context(servers.trigger_ddp(database, options.subscriptions))),
        }
        writer = stack.enter_context(psycopg.connect(database.dsn))
        for path in paths.values():
            path.run(writer, math.ceil(options.rate * WARM_UP_SECONDS), options.rate)
            path.latencies.clear()
        for _ in range(turns):
            for path in paths.values():
                path.run(writer, updates, options.rate)
        return {name: path.latencies for name, path in paths.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a committed row takes to its client.")
    parser.add_argument("--rate", type=float, default=100, help="updates a second, up to 1000 (default: 100)")
    parser.add_argument("--seconds", type=float, default=5, help="how long on each path (default: 5)")
    parser.add_argument("--subscriptions", type=int, default=1, help="the client's, up to 1000 (default: 1)")
    parser.add_argument("--major", type=int, default=max(postgres.binaries()), help="PostgreSQL's version")
    options = parser.parse_args()
    if options.rate > BOOKS:
        parser.error("a book would be updated again before the client can have heard of it")
    latencies = measure(options)
    print(
        f"PostgreSQL {options.major}, {options.rate:g} updates/s, {len(latencies['floor'])} on each path,"
        f" subscriptions: {options.subscriptions}"
    )
    percentiles = {name: statistics.quantiles(path, n=100) for name, path in latencies.items()}
    for name, found in percentiles.items():
        print(f"{name:10}  p50 {found[49] * 1000:7.2f} ms  p99 {found[98] * 1000:7.2f} ms")
    p50, p99 = (percentiles["whole path"][n] / percentiles["floor"][n] for n in (49, 98))
    print(f"{'ratio':10}  p50 {p50:7.2f}     p99 {p99:7.2f}")


if __name__ == "__main__":
    main()
