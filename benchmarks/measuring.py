"""Measures what `benchmarks.scaling` tells: one server, its sessions, and a writer that waits for both."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Iterator

import psycopg

from benchmarks.bookstore import Bookstore
from benchmarks.cases import Case, Write, Writes
from benchmarks.clocks import cpu_seconds
from benchmarks.fleet import Fleet, Wrong
from tests.conftest import Database
from tests.serving import Server

WARM_UP_WRITES, WARM_UP_SECONDS = 10, 1.0
#: Subscribing may take that many times as long as the writes.
SUBSCRIBING_PATIENCE = 6
#: Server and PostgreSQL rest if they use less than this share of one processor for this long.
REST_SHARE, REST_SECONDS = 0.06, 0.005
#: What has not arrived after this long a rest never will.
LOST_SECONDS = 5.0


_pairs = itertools.count()


class GivenUp(Exception):
    """It takes too long. Its text says what."""


class Patience:
    """Raises `GivenUp` when called after so many seconds."""

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds, self._what = seconds, what
        self._until = time.perf_counter() + seconds

    @property
    def over(self) -> bool:
        return time.perf_counter() > self._until

    def __call__(self) -> None:
        if self.over:
            raise GivenUp(f"{self._what} takes more than {self._seconds:g} s")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Args:
        subscriptions: how many there are, one number after the other, ascending.
        writes: how many are measured of each kind with each number; an even number.
        rate: most writes a second.
        patience: seconds for the writes of one kind with one number of subscriptions.
    """

    subscriptions: list[int]
    writes: int
    rate: float
    patience: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """The cost of each write in seconds."""

    cpu: float
    postgres: float
    latencies: list[float]
    writes: int

    @property
    def columns(self) -> tuple[float, ...]:
        percentiles = statistics.quantiles(self.latencies, n=100, method="inclusive")
        return self.cpu, self.postgres, percentiles[49], percentiles[98]


class Measuring:
    """One server with its sessions, and a writer.

    Args:
        database: with the books.
        store: how they were dealt out.
        server: serves the database, and nobody else.
        options: the command line's.
    """

    def __init__(self, database: Database, store: Bookstore, server: Server, options: Options) -> None:
        self._store, self._options = store, options
        self._pid = server.process.pid
        self.fleet = Fleet(server.host, server.port)
        self._writer = psycopg.connect(database.dsn)
        self._admin = psycopg.connect(database.dsn, autocommit=True)
        self._subscriptions = 0

    def close(self) -> None:
        self.fleet.close()
        self._writer.close()
        self._admin.close()

    def subscribe(self, case: Case, subscriptions: int) -> None:
        """Make it that many subscriptions."""
        self.fleet.grow(case.sessions(subscriptions, self._options.subscriptions[-1]))
        numbers = range(self._subscriptions + 1, subscriptions + 1)
        wanted = [(self._holder(number), case.params(number)) for number in numbers]
        seconds = self._options.patience * SUBSCRIBING_PATIENCE
        self.fleet.subscribe(case.publication, wanted, Patience(seconds, "subscribing"))
        self._subscriptions = subscriptions
        documents = sum(session.documents for session in self.fleet.sessions)
        if documents != (expected := subscriptions * case.documents(self._store)):
            raise Wrong(f"{subscriptions} subscriptions were told {documents} documents, not {expected}")

    def _holder(self, number: int) -> int:
        return (number - 1) % len(self.fleet.sessions)

    def measure(self, case: Case, writes: Writes) -> Measured:
        """The cost of each of those writes, of as many as patience is enough for."""
        self._rest()
        warm_up = min(WARM_UP_SECONDS, self._options.patience)
        self._write(case, writes, min(WARM_UP_WRITES, self._options.writes), warm_up)
        self.fleet.latencies.clear()
        cpu, backends = cpu_seconds(self._pid), self._backends()
        written = self._write(case, writes, self._options.writes, self._options.patience)
        cpu = cpu_seconds(self._pid) - cpu
        used = sum(seconds - backends.get(pid, 0.0) for pid, seconds in self._backends().items())
        latencies = list(self.fleet.latencies)
        self.fleet.fence(Patience(self._options.patience, "a method on every session"))
        return Measured(cpu / written, used / written, latencies, written)

    def _write(self, case: Case, writes: Writes, most: int, seconds: float) -> int:
        """Write that often, or until the time is over; a pair is always completed. Returns how often."""
        started = time.perf_counter()
        done = 0
        while done < most and (not done or time.perf_counter() < started + seconds):
            pair = next(_pairs)
            author = 1 + pair * 7919 % case.authors(self._subscriptions)
            for number in (2 * pair, 2 * pair + 1):
                self._pump_until(started + done / self._options.rate)
                self._write_one(case, writes(self._store, author, number), author)
                done += 1
        return done

    def _write_one(self, case: Case, write: Write, author: int) -> None:
        self._writer.execute(write.sql, write.params)
        holders = range(len(self.fleet.sessions)) if case.shared else [self._holder(author)]
        self.fleet.expect(holders, write.messages)
        self._writer.commit()
        in_time = Patience(self._options.patience, "one write")
        used, since = self._used(), time.perf_counter()
        while self.fleet.missing:
            self.fleet.pump(0.1)
            in_time()
            if (now := self._used()) > used + REST_SHARE * 0.1:
                used, since = now, time.perf_counter()
            elif time.perf_counter() > since + LOST_SECONDS:
                raise Wrong(
                    f"{self.fleet.describe_missing()} although {write.sql!r} {write.params} was committed"
                )
        self._rest(in_time)

    def _pump_until(self, until: float) -> None:
        while (left := until - time.perf_counter()) > 0:
            self.fleet.pump(left)

    # -- other processes' clocks ----------------------------------------------------------------

    def _backends(self) -> dict[int, float]:
        """The CPU seconds of each of PostgreSQL's processes that serves the server."""
        pids = self._admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> ALL(%s)",
            [[self._admin.info.backend_pid, self._writer.info.backend_pid]],
        )
        self._pids = [pid for (pid,) in pids]
        return {pid: cpu_seconds(pid) for pid in self._pids}

    def _used(self) -> float:
        seconds = cpu_seconds(self._pid)
        for pid in self._pids:
            with contextlib.suppress(OSError):  # the server may close a connection
                seconds += cpu_seconds(pid)
        return seconds

    def _rest(self, in_time: Patience | None = None) -> None:
        """Wait until what was written has no more consequences."""
        if in_time is None:
            in_time = Patience(self._options.patience, "coming to rest")
            self._backends()
        used = self._used()
        while True:
            self._pump_until(time.perf_counter() + REST_SECONDS)
            before, used = used, self._used()
            if used - before < REST_SHARE * REST_SECONDS:
                return
            in_time()


@contextlib.contextmanager
def measuring(database: Database, store: Bookstore, options: Options) -> Iterator[Measuring]:
    """A server for the measurements of one case."""
    # A ping to every session would be work that no write causes.
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", **database.environ, "DDP_HEARTBEAT_INTERVAL": "0.0"}
    environ["DDP_MAX_SESSION_SHARE"] = "1.0"  # subscribing is most of what is done, and is not measured
    server = Server("--bind", "127.0.0.1:0", "--install-triggers", environ=environ)
    try:
        found = Measuring(database, store, server, options)
        try:
            yield found
        finally:
            found.close()
    except BaseException:
        server.kill()
        raise
    try:
        server.stop()
    except AssertionError as error:
        raise Wrong(str(error)) from None
