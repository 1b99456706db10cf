"""What clients that misbehave cost all others: ``python -m benchmarks.hostile``.

A well-behaved client has a subscription to an author's books. Rows are written one after the other, each
when the client has been told of the one before; the time from just before COMMIT until its recv() is the
latency. It is measured undisturbed, then under one kind of attack, then undisturbed again, and so on: the
ratio is of the attacked to the mean of the undisturbed ones before and after it, all of one server with its
default settings, except that nobody may come back to a lost session. `benchmarks.attacks` has the
attackers, each kind a process of its own with an address of its own; that they take processor time too is
part of what is measured.

Then stand the server's memory (RSS, MB) at the end of the attack, what it has refused, and how connections
have ended during the attack, by the reasons of its metrics.

It ends with status 1 if the well-behaved client is told anything wrong, or is cut off.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from benchmarks.attacks import ATTACKS
from benchmarks.bookstore import Bookstore
from benchmarks.fleet import Wrong
from benchmarks.flood import memory, reading
from benchmarks.followers import Followers
from tests import postgres
from tests.serving import ROOT, Server

AUTHORS, BOOKS = 100, 5000
BEGIN_SECONDS = 60
WRITE_SECONDS = SETTLE_SECONDS = 60
#: Seconds between two writes: a little more than DDP_REQUERY_INTERVAL, which is not what is to be measured.
BETWEEN = 0.01


class Measuring:
    """The well-behaved client, and the writer."""

    def __init__(self, server: Server, dsn: str) -> None:
        self._clients = Followers(server.host, server.port)
        self._clients.subscribe([("BooksOfAuthor", [1])], BEGIN_SECONDS)
        self._clients.on_changed = self._note
        self._writer = psycopg.connect(dsn)
        self._writer.execute("SET synchronous_commit = off")
        self._server = server
        self._number = 0
        self._title = ""
        self._arrived_at = 0.0

    def close(self) -> None:
        self._clients.close()
        self._writer.close()

    def _note(self, message: dict[str, Any], at: float) -> None:
        if message["fields"] != {"title": self._title}:
            raise Wrong(f"the client was told {message}, not of {self._title!r}")
        self._arrived_at = at

    def latencies(self, seconds: float) -> list[float]:
        """Of as many writes as are made in that time, and 20 at least."""
        found: list[float] = []
        until = time.perf_counter() + seconds
        while len(found) < 20 or time.perf_counter() < until:
            self._number += 1
            self._title, self._arrived_at = f"Title {self._number}", 0.0
            self._writer.execute("UPDATE bookstore_book SET title = %s WHERE id = 1", [self._title])
            committed = time.perf_counter()
            self._writer.commit()
            self._clients.wait(lambda: self._arrived_at > 0, WRITE_SECONDS, "one write")
            found.append(self._arrived_at - committed)
            pause = time.perf_counter() + BETWEEN
            while (left := pause - time.perf_counter()) > 0:
                self._clients.pump(left)
        return found

    def wait_for(self, begun: Callable[[], bool]) -> None:
        """Answer pings until an attack has begun."""
        self._clients.wait(begun, BEGIN_SECONDS, "the beginning of an attack")

    def settle(self) -> None:
        """Wait until nothing of an attack is left: no session, and no live query that lingers."""
        until = time.perf_counter() + SETTLE_SECONDS
        while True:
            self._clients.fence(WRITE_SECONDS)
            found = reading(self._server)
            connected = found['trigger_ddp_sessions{state="connected"}']
            if (connected, found["trigger_ddp_live_queries"]) == (1, 1):
                return
            if time.perf_counter() > until:
                raise Wrong(f"{connected:.0f} sessions are left of an attack that has ended")
            self._clients.pump(0.2)


@contextlib.contextmanager
def attacked(title: str, server: Server, measuring: Measuring) -> Iterator[None]:
    """A ``with`` block during which clients misbehave."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attacks", title, server.host, str(server.port)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said: list[str] = []
            listening = threading.Thread(target=lambda: said.append(process.stdout.readline()), daemon=True)  # type: ignore[union-attr]
            listening.start()
            measuring.wait_for(lambda: bool(said))
            if said != ["begun\n"]:
                raise Wrong(f"the attackers of {title!r} failed")
            yield
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        finally:
            process.kill()


def percentiles(latencies: list[float]) -> tuple[float, float]:
    found = statistics.quantiles(latencies, n=100, method="inclusive")
    return found[49] * 1000, found[98] * 1000


def reasons(before: dict[str, float], after: dict[str, float]) -> str:
    """What was refused and how connections have ended in between."""
    found = []
    for name, value in after.items():
        match = re.fullmatch(r'trigger_ddp_(?:refusals|disconnections)_total\{reason="(\w+)"\}', name)
        if match and value > before.get(name, 0):
            found.append(f"{match[1]} {value - before.get(name, 0):.0f}")
    return ", ".join(found)


def run(server: Server, dsn: str, options: argparse.Namespace) -> None:
    measuring = Measuring(server, dsn)
    try:
        measuring.latencies(options.seconds / 2)  # for everything to get warm
        print(f"{'':38}{'undisturbed ms':>16}{'attacked ms':>17}{'ratio':>14}")
        print(f"{'':38}{'p50':>8}{'p99':>8}{'p50':>9}{'p99':>8}{'p50':>8}{'p99':>6}{'MB':>6}")
        before = percentiles(measuring.latencies(options.seconds))
        for title in ATTACKS:
            if not title.startswith(options.only):
                continue
            metrics = reading(server)
            with attacked(title, server, measuring):
                under = percentiles(measuring.latencies(options.seconds))
                used = memory(server.process.pid)
            measuring.settle()
            after = percentiles(measuring.latencies(options.seconds))
            usual = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
            print(
                f"{title:38}{usual[0]:8.2f}{usual[1]:8.2f}{under[0]:9.2f}{under[1]:8.2f}"
                f"{under[0] / usual[0]:8.2f}{under[1] / usual[1]:6.1f}{used:6.0f}"
                f"  {reasons(metrics, reading(server))}",
                flush=True,
            )
            before = after
    finally:
        measuring.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (default: 5)")
    parser.add_argument("--only", default="", help="only attacks whose title starts so")
    parser.add_argument(
        "--quick", action="store_true", help="a moment of everything: do others live, not how"
    )
    parser.add_argument("--major", type=int, default=max(postgres.binaries()), help="PostgreSQL's version")
    options = parser.parse_args()
    if options.quick:
        options.seconds = 0.1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    store = Bookstore(AUTHORS, BOOKS)
    try:
        with contextlib.ExitStack() as stack:
            cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
            stack.callback(cluster.remove)
            database = store.create(cluster, "hostile")
            server = Server(
                "--bind", "127.0.0.1:0", "--install-triggers",
                environ={
                    **os.environ, "PYTHONUNBUFFERED": "1", **database.environ,
                    "DDP_DISCONNECT_GRACE_PERIOD": "0.0",  # or attackers would be expected back
                    **({"DDP_LINGER": "0.1"} if options.quick else {}),
                },
            )  # fmt: skip
            stack.callback(server.kill)
            print(f"PostgreSQL {options.major}, {options.seconds:g} s for each measurement\n")
            try:
                run(server, database.dsn, options)
            except Wrong:
                print(server.log()[-3000:], file=sys.stderr)
                raise
            troubles = [
                line for line in server.log().splitlines() if re.search("ERROR|CRITICAL|Traceback", line)
            ]
            if troubles:
                raise Wrong(f"the server logged errors: {troubles[:3]}")
            server.stop()
    except Wrong as error:
        sys.exit(f"benchmarks.hostile: {error}")


if __name__ == "__main__":
    main()
