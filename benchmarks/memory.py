"""What takes up memory: ``python -m benchmarks.memory``.

Resident memory (RSS) of ``trigger-ddp serve`` as anybody runs it, before and after so many more of

idle sessions
    that have connected and done nothing else. Beside them, clients of servers that do nothing: a bare
    accepting socket, trio-websocket, PyPI's websockets, and npm's ws.
subscriptions
    of further sessions to a live query that somebody has, of 10 000 documents. The sessions are there before.
live queries
    of 1 000 documents each, with one subscription. Also told: how many times the documents' JSON that is.

Every server has had some of the same before, so that what is made once does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.broadcasters import KINDS, NODE
from benchmarks.fanout import CLIENTS, connected, node_command
from benchmarks.fleet import Wrong
from benchmarks.scaling import MORE_FILES, allow_files
from tests import postgres

SETTLE_SECONDS = 0.5
PATIENCE = 60
DOCUMENTS, EACH = 10_000, 1000


def resident(pid: int) -> float:
    """KiB of a process, once it has come to rest."""
    streams.rest(pid)
    time.sleep(SETTLE_SECONDS)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return float(line.split()[1])
    raise Wrong(f"process {pid} has no memory")


@contextlib.contextmanager
def rival(command: list[str]) -> Iterator[tuple[int, int]]:
    """Process id and port of a server of `benchmarks.broadcasters`."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "NODE_PATH": str(CLIENTS / "node_modules")},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def idle_clients_of_rivals(count: int) -> dict[str, float]:
    """KiB of each, by the server's name."""
    commands = {kind: [sys.executable, "-m", "benchmarks.broadcasters", kind, "x"] for kind in KINDS}
    commands["ws"] = [*node_command(b"x")[:3], "-", "x"]
    assert NODE in commands["ws"]
    found = {}
    for name, command in commands.items():
        with rival(command) as (pid, port):
            first = [connected(port, upgrade=name != "bare") for _ in range(count // 10)]
            before = resident(pid)
            more = [connected(port, upgrade=name != "bare") for _ in range(count)]
            found[name] = (resident(pid) - before) / count
            for sock in (*first, *more):
                sock.close()
    return found


def ours(major: int, count: int, documents: int, each: int, queries: int) -> dict[str, Any]:
    """KiB of each thing, and how many bytes of JSON a live query has."""
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        cluster = postgres.Cluster(major, postgres.binaries()[major])
        stack.callback(cluster.remove)
        # Author 1 has the many documents, each of the others as many as a live query is to have.
        database = Bookstore(queries + 2, (queries + 2) * each).create(cluster, "memory")
        with database.connect() as connection:
            connection.execute(
                "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
                f" SELECT {10**6} + n, 'Book ' || n, 1, 1, true FROM generate_series(1, {documents - each}) n"
            )
        server = stack.enter_context(
            streams.serving(database, DDP_MAX_CONNECTIONS_PER_ADDRESS=str(20 * count + MORE_FILES))
        )
        pid = server.process.pid
        clients = streams.connect(server, count // 10)
        stack.callback(streams.close, clients)
        before = resident(pid)
        clients += streams.connect(server, count, len(clients))
        found["idle session"] = (resident(pid) - before) / count

        def subscribe(some: list[streams.Client], author: int) -> None:
            for client in some:
                client.subscribe("BooksOfAuthor", author)
                streams.collect([client], PATIENCE, "subscribing")
                if client.data.count(b'"msg":"added"') != (documents if author == 1 else each):
                    raise Wrong("a client was told of the wrong number of documents")

        subscribe(clients[:20], 1)
        before = resident(pid)
        subscribe(clients[20:120], 1)
        found["further subscription"] = (resident(pid) - before) / 100
        subscribe(clients[200:202], 2)
        before = resident(pid)
        for number in range(queries):
            subscribe([clients[210 + number]], 3 + number)
        json = sum(map(len, clients[210].payloads()))
        found["live query"] = (resident(pid) - before) / queries
        found["its JSON"] = json / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    report.add_arguments(parser)
    parser.add_argument("--clients", type=int, default=2000, help="idle ones (default: 2000)")
    parser.add_argument("--major", type=int, default=max(postgres.binaries()), help="PostgreSQL's version")
    options = parser.parse_args()
    count, documents, each, queries = (
        (300, 200, 20, 5) if options.quick else (options.clients, DOCUMENTS, EACH, 30)
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("memory", str(options.major))
    try:
        allow_files(2 * count + MORE_FILES)
        rivals = idle_clients_of_rivals(count)
        mine = ours(options.major, count, documents, each, queries)
    except Wrong as error:
        sys.exit(f"benchmarks.memory: {error}")
    idle = {"ours": mine["idle session"], **rivals}
    found.table(
        f"an idle client, of {count}",
        ("", "KiB", "times trio-websocket's"),
        [(name, size, size / idle["trio-websocket"]) for name, size in idle.items()],
    )
    found.table(
        "ours",
        ("", "KiB"),
        [
            (f"a further subscription to {documents} documents", mine["further subscription"]),
            (f"a live query of {each} documents", mine["live query"]),
            ("their JSON", mine["its JSON"]),
        ],
    )
    for name in ("idle session", "further subscription", "live query"):
        found.number(name, mine[name], "KiB")
    found.target("an idle session, in 20 KiB", mine["idle session"] / 20, 1)
    found.target("a further subscription, in 2 KiB", mine["further subscription"] / 2, 1)
    found.target("a live query to its documents' JSON", mine["live query"] / mine["its JSON"], 2.5)
    found.write(options.json)


if __name__ == "__main__":
    main()
