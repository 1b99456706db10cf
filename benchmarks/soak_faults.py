"""What goes wrong during `benchmarks.soak`."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg

from tests.conftest import Database
from tests.faults.writers import STATEMENTS
from tests.proxy import Proxy
from tests.serving import Server


class Writers:
    """Threads that write at a rate, whatever happens to the database.

    Args:
        database: where.
        rate: statements a second of all together.
        seed: decides what they write.
    """

    def __init__(self, database: Database, rate: float, seed: int, threads: int = 2) -> None:
        self.written = self.failed = 0
        self._database = database
        self._pause = threads / rate
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._write, args=(random.Random(seed + number),), name=f"writer {number}"
            )
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            try:
                with self._database.connect() as connection:
                    while not self._stop.wait(chance.expovariate(1 / self._pause)):
                        connection.execute(_statement(chance))
                        self.written += 1
            except psycopg.Error:
                self.failed += 1
                self._stop.wait(0.2)


def _statement(chance: random.Random) -> str:
    if chance.random() < 0.02:  # many rows at once, more than one notification holds
        return (
            "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
            f" SELECT n, 'bulk', 1, 99, true FROM generate_series(1000, {1000 + chance.randint(1, 500)}) n"
            " ON CONFLICT (id) DO UPDATE SET title = 'bulk' || random()"
        )
    return chance.choice(STATEMENTS).format(
        id=chance.randint(1, 60), author=chance.randint(1, 3), n=chance.randint(1, 9)
    )


class Faults:
    """One fault after the other, with pauses between.

    Args:
        database: whose server and connections suffer.
        proxy: between the server and the database.
        server: the server.
        pause: seconds between two, on average.
        seed: decides which.

    Attributes:
        counts: how often each was done.
    """

    def __init__(self, database: Database, proxy: Proxy, server: Server, pause: float, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._database, self._proxy, self._server = database, proxy, server
        self._pause = pause
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults")
        self._thread.start()

    def stop(self) -> None:
        """End them, with everything mended."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        kinds: list[tuple[int, Callable[[], None]]] = [
            (5, self.terminate), (4, self.cut), (2, self.stall), (2, self.slow), (2, self.lock),
            (2, self.idle_in_transaction), (2, self.reload), (1, self.restart), (1, self.crash),
        ]  # fmt: skip
        weights = [weight for weight, _ in kinds]
        while not self._stop.wait(self._chance.uniform(0.5, 1.5) * self._pause):
            [(_, fault)] = self._chance.choices(kinds, weights)
            self.counts[fault.__name__.replace("_", " ")] += 1
            try:
                fault()
            except psycopg.Error:
                self.counts["met by another"] += 1

    def terminate(self) -> None:
        """Some backends end."""
        with self._database.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND random() < 0.5"
            )

    def cut(self) -> None:
        """The server's connections are reset."""
        self._proxy.cut()

    def stall(self) -> None:
        """Nothing passes for some time, and nothing says so."""
        self._proxy.stall()
        self._stop.wait(self._chance.uniform(2, 30))
        self._proxy.resume()

    def slow(self) -> None:
        self._proxy.slow(50_000)
        self._stop.wait(self._chance.uniform(2, 20))
        self._proxy.resume()

    def lock(self) -> None:
        """Nobody can read or write the books."""
        with self._database.connect() as connection, connection.transaction():
            connection.execute("LOCK TABLE bookstore_book")
            self._stop.wait(self._chance.uniform(1, 5))

    def idle_in_transaction(self) -> None:
        """A transaction that has written does not end for long."""
        with self._database.connect() as connection, connection.transaction():
            connection.execute("UPDATE bookstore_author SET name = 'late' WHERE id = 3")
            self._stop.wait(self._chance.uniform(5, 40))

    def reload(self) -> None:
        self._server.process.send_signal(signal.SIGHUP)

    def restart(self) -> None:
        self._database.cluster.stop()
        time.sleep(self._chance.uniform(0, 5))
        self._database.cluster.start()

    def crash(self) -> None:
        """kill -9, of all of PostgreSQL's processes by way of the first."""
        self._database.cluster.stop(signal.SIGQUIT)
        self._database.cluster.start()
