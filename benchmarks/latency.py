"""How long a committed row takes to its client: ``python -m benchmarks.latency``.

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

import contextlib
import math
import statistics
import threading
import time
from collections.abc import Iterator

import psycopg

from benchmarks import report, servers
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


def measure(paths: dict[str, Path], writer: psycopg.Connection, rate: float, seconds: float) -> None:
    """The paths in turn, each for that long."""
    turns = math.ceil(seconds)
    updates = math.ceil(rate * seconds / turns)
    for path in paths.values():
        path.run(writer, math.ceil(rate * WARM_UP_SECONDS), rate)
        path.latencies.clear()
    for _ in range(turns):
        for path in paths.values():
            path.run(writer, updates, rate)


@contextlib.contextmanager
def both(major: int, subscriptions: int) -> Iterator[tuple[dict[str, Path], psycopg.Connection]]:
    """The paths, and who writes."""
    with contextlib.ExitStack() as stack:
        cluster = postgres.Cluster(major, postgres.binaries()[major])
        stack.callback(cluster.remove)
        database = Bookstore(subscriptions, BOOKS).create(cluster, "latency")
        paths = {
            "floor": Path(stack.enter_context(servers.floor(database))),
            "whole path": Path(stack.enter_context(servers.trigger_ddp(database, subscriptions))),
        }
        yield paths, stack.enter_context(psycopg.connect(database.dsn))


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[10, 100, 1000],
        help="updates a second, up to 1000 (default: 10 100 1000)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=15, help="on each path at each rate (default: 15)")
    parser.add_argument("--subscriptions", type=int, default=1, help="of the client (default: 1)")
    options = parser.parse_args()
    if options.quick:
        options.rates, options.seconds = [100.0], 0.5
    if max(options.rates) > BOOKS:
        parser.error("a book would be updated again before the client can have heard of it")
    found = report.Report("latency", str(options.major))
    rows = []
    targets = []
    with both(options.major, options.subscriptions) as (paths, writer):
        for rate in options.rates:
            measure(paths, writer, rate, options.seconds)
            p50: dict[str, float] = {}
            p99: dict[str, float] = {}
            for name, path in paths.items():
                percentiles = statistics.quantiles(path.latencies, n=100)
                p50[name], p99[name] = percentiles[49] * 1000, percentiles[98] * 1000
            ratios = [each["whole path"] / each["floor"] for each in (p50, p99)]
            rows.append(
                (f"{rate:g}", p50["floor"], p99["floor"], p50["whole path"], p99["whole path"], *ratios)
            )
            found.number(f"{rate:g}/s, p50", p50["whole path"], "ms")
            found.number(f"{rate:g}/s, p99", p99["whole path"], "ms")
            targets.append((f"p50 to the floor's at {rate:g}/s", ratios[0]))
    found.table(
        f"commit to client, subscriptions: {options.subscriptions}",
        ("updates/s", "floor p50", "p99 ms", "whole path p50", "p99 ms", "ratio p50", "p99"),
        rows,
    )
    for name, ratio in targets:
        found.target(name, ratio, 2)
    found.write(options.json)


if __name__ == "__main__":
    main()
