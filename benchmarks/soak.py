"""An hour of everything at once: ``python -m benchmarks.soak [--seconds 3600] [--seed 1]``.

A real ``trigger-ddp serve`` on a PostgreSQL of its own, with a proxy between the two, and clients that
connect over every wire, log in, subscribe, call methods, leave in good order or vanish, and resume their
sessions; writers that write all the while; and faults: backends that end, connections that are reset, stalled
or slow, locked tables, transactions that stay open, reloads, restarts and crashes of PostgreSQL.

The seed decides what each of them does; when the machine lets them do it can't be decided. Printed are, each
minute and at the end, memory, file descriptors and tasks of the server. It ends with status 1 if at the end,
when the writers have stopped, a client's documents differ from its querysets' results; if a client was ever
told what a strict one would throw on; if the server logged an error that is not one of the faults' own; if
tasks, sessions, live queries or file descriptors are left once all clients have gone; or if memory has grown
by more than a tenth from the second to the last sixth of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.soak_clients import Wanderer
from benchmarks.soak_faults import Faults, Writers
from tests import postgres
from tests.conftest import Database
from tests.ddp import DDPClient
from tests.proxy import Proxy
from tests.serving import ROOT, Server
from tests.test_property import SUBSCRIPTIONS, expected, reset

SETTINGS = "benchmarks.soak_settings"
SAMPLE_SECONDS = 5.0
PROGRESS_SECONDS = 60.0
#: Growth of memory that is taken for a leak.
MOST_GROWTH = 1.1
#: What may be logged as an error: what an application's code meets while its database is away.
OF_FAULTS = re.compile(
    r"OperationalError|InterfaceError|AdminShutdown|CrashShutdown|CannotConnectNow|terminating connection"
)

Sample = dict[str, float]


def scrape(url: str) -> Sample:
    """The server's metrics that have no labels, and its connected sessions as ``sessions``."""
    with urllib.request.urlopen(f"{url}/_ddp/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    sessions = sum(sample.value for sample in samples if sample.name == "trigger_ddp_sessions")
    return {sample.name: sample.value for sample in samples if not sample.labels} | {"sessions": sessions}


class Watch:
    """Samples the server's metrics for as long as it lasts.

    Args:
        url: the server's.
        every: seconds between two samples.

    Attributes:
        samples: seconds since the beginning, and what was read.
    """

    def __init__(self, url: str, every: float) -> None:
        self.samples: list[tuple[float, Sample]] = []
        self._url, self._every = url, every
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def _run(self) -> None:
        told = 0.0
        while not self._stop.wait(self._every):
            at = time.monotonic() - self._begun
            self.samples.append((at, scrape(self._url)))
            if at >= told:
                told += PROGRESS_SECONDS
                print(f"{at / 60:5.0f} min  {describe(self.samples[-1][1])}", flush=True)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def memory(self, sixth: int) -> float:
        """The median of resident bytes in a sixth of the time, 1 to 6."""
        end = self.samples[-1][0]
        return statistics.median(
            sample["process_resident_memory_bytes"]
            for at, sample in self.samples
            if (sixth - 1) / 6 * end <= at <= sixth / 6 * end
        )


def describe(sample: Sample) -> str:
    """A sample in one line."""
    memory = sample["process_resident_memory_bytes"] / 2**20
    return (
        f"{memory:6.1f} MiB  {sample['process_open_fds']:4.0f} files  "
        f"{sample['trigger_ddp_tasks']:5.0f} tasks  {sample['sessions']:4.0f} sessions  "
        f"{sample['trigger_ddp_live_queries']:3.0f} live queries"
    )


def migrate(environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "django", "migrate", "--run-syncdb", "--verbosity", "0"]
    subprocess.run(command, env={**os.environ, **environ}, cwd=ROOT, check=True)


def rest(url: str, live_queries: float) -> Sample:
    """What is left once nobody has anything to do with the server any more, and lingering has ended."""
    for _ in range(120):
        sample = scrape(url)
        if not sample["sessions"] and sample["trigger_ddp_live_queries"] <= live_queries:
            break
        time.sleep(1)
    time.sleep(2)
    return scrape(url)


def differences(database: Database, url: str) -> list[str]:
    """Of new clients, one for each kind of subscription, and so of the live queries that are there."""
    found = []
    for number, (name, params, _, _) in enumerate(SUBSCRIPTIONS):
        with DDPClient(url) as client:
            client.subscribe(name, *params)
            client.settle()
            found += compare(database, number, client)
    return found


def compare(database: Database, number: int, client: DDPClient) -> list[str]:
    told = {collection: documents for collection, documents in client.documents.items() if documents}
    wanted = {name: documents for name, documents in expected(database, [number]).items() if documents}
    told.pop("users", None)
    if told == wanted and not client.violations:
        return []
    return [f"a client of {SUBSCRIPTIONS[number][0]} has {told}, not {wanted}; {client.violations}"]


def errors(server: Server) -> list[str]:
    """What the server logged as an error, but for the faults' own."""
    found = []
    for line in server.log().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(f"not JSON: {line}")
            continue
        if entry["level"] in ("error", "critical") and not OF_FAULTS.search(line):
            found.append(f"{entry['logger']}: {entry['message']} {entry.get('error', '')[-500:]}")
    return found


def soak(options: argparse.Namespace) -> list[str]:
    """Run. Returns what went wrong."""
    wrong: list[str] = []
    major = max(postgres.binaries())
    cluster = postgres.Cluster(major, postgres.binaries()[major])
    try:
        with cluster.connect() as connection:
            connection.execute("CREATE DATABASE soak")
        database = Database(cluster, "soak")
        environ = {**database.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, "PYTHONUNBUFFERED": "1"}
        migrate(environ)
        reset(database)
        with Proxy(cluster.host, cluster.port) as proxy:
            environ |= {"TDDP_TEST_HOST": proxy.host, "TDDP_TEST_PORT": str(proxy.port)}
            arguments = (
                "--bind",
                "127.0.0.1:0",
                "--install-triggers",
                "--log-format",
                "json",
                *options.serve,
            )
            server = Server(*arguments, *options.serve, environ={**os.environ, **environ})
            try:
                wrong += run(options, database, proxy, server)
                server.errors_expected = True
                server.stop()
            finally:
                if server.process.returncode is None:
                    server.kill()
                if options.log:
                    Path(options.log).write_text(server.log())
    finally:
        cluster.remove()
    return wrong


def run(options: argparse.Namespace, database: Database, proxy: Proxy, server: Server) -> list[str]:
    counts: Counter[str] = Counter()
    wrong = differences(database, server.url)  # and all that is made once has been made
    before = rest(server.url, 0)
    print(f"   before  {describe(before)}", flush=True)
    watch = Watch(server.url, min(SAMPLE_SECONDS, options.seconds / 30))
    witnesses = [DDPClient(server.url) for _ in SUBSCRIPTIONS]  # which stay for the whole time
    for client, (name, params, _, _) in zip(witnesses, SUBSCRIPTIONS, strict=True):
        client.subscribe(name, *params)
    clients = [
        Wanderer(server.url, number, options.seed * 10_000 + number, counts)
        for number in range(options.clients)
    ]
    writers = Writers(database, options.rate, options.seed)
    faults = Faults(database, proxy, server, options.pause, options.seed)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end and server.process.poll() is None:
        time.sleep(1)
        for client in witnesses:  # what they were told once is not looked at again
            with client._news:
                del client.messages[1:-200]
    faults.stop()
    for wanderer in clients:
        wanderer.stop()
    for wanderer in clients:
        wanderer.join()
        wrong += wanderer.violations
    writers.stop()
    for number, client in enumerate(witnesses):
        client.settle()
        wrong += compare(database, number, client)
        client.close()
    wrong += differences(database, server.url)
    watch.stop()
    after = rest(server.url, before["trigger_ddp_live_queries"])
    print(f"    after  {describe(after)}")
    print(f"did: {dict(counts)}, {writers.written} statements written, {writers.failed} times refused")
    print(f"faults: {dict(faults.counts)}")
    early, late = watch.memory(2), watch.memory(6)
    sixths = f"{early / 2**20:.1f} MiB in the second sixth, {late / 2**20:.1f} MiB in the last"
    print(f"memory: {sixths}: {late / early:.3f}")
    if late > early * MOST_GROWTH:
        wrong.append(f"memory has grown by {late / early - 1:.0%}")
    for name in ("trigger_ddp_tasks", "trigger_ddp_live_queries", "sessions"):
        if after[name] > before[name]:
            wrong.append(f"{name}: {after[name]:.0f} are left, of {before[name]:.0f} before")
    if (
        after["process_open_fds"] > before["process_open_fds"] + 16
    ):  # threads' connections come as they are needed
        wrong.append(
            f"{after['process_open_fds']:.0f} files are open, {before['process_open_fds']:.0f} were before"
        )
    return wrong + errors(server)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=3600, help="how long (default: an hour)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=40, help="that come and go (default: 40)")
    parser.add_argument("--rate", type=float, default=40, help="statements written a second (default: 40)")
    parser.add_argument("--pause", type=float, default=20, help="seconds between faults (default: 20)")
    parser.add_argument("--log", metavar="FILE", help="keep the server's log here")
    parser.add_argument(
        "--serve", action="append", default=[], metavar="OPTION", help="one more for the server"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:g} s, {options.clients} clients, {options.rate:g} writes/s")
    wrong = soak(options)
    for line in wrong[:20]:
        print(f"WRONG: {line[:2000]}")
    print(f"{len(wrong)} things went wrong" if wrong else "all went well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
