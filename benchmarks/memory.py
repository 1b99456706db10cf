"""What takes up memory: ``python -m benchmarks.memory``.

Resident memory (RSS) of ``trigger-ddp serve`` as anybody runs it, before and after so many more of

idle sessions
    that have connected and done nothing else, 1 000 and then 5 000. Beside them, clients of servers that do
    nothing: a bare accepting socket, trio-websocket, PyPI's websockets, and npm's ws.
subscriptions
    of further sessions to a live query that somebody has, of 10 000 documents. The sessions are there before.
    Loading it leaves room that they fill first, so the quarter of them is taken in which memory grew most.
live queries
    of 1 000 documents each, and of 10 each, with one subscription each. The difference is what documents
    take up, the rest is what the query does. A document's JSON is that of its ``_id`` and fields; the message
    that it is sent in, ``added``, stands beside it.

Every server has had some of the same before, so that what is made once does not count. No garbage is
collected for the sake of the measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.broadcasters import KINDS
from benchmarks.fanout import CLIENTS, connected, node_command
from benchmarks.fleet import Wrong
from benchmarks.scaling import MORE_FILES, allow_files
from tests import postgres

SETTLE_SECONDS = 0.5
PATIENCE = 60
DOCUMENTS, EACH, FEW = 10_000, 1000, 10


@dataclasses.dataclass(frozen=True)
class Ours:
    """What takes up so many KiB.

    Args:
        idle: a session, when there are as many as were asked for.
        further: a subscription to what is there.
        document: each document of a live query.
        query: the live query without them.
        json: a document's JSON, on average.
        added: the message that it is sent in.
    """

    idle: list[float]
    further: float
    document: float
    query: float
    json: float
    added: float


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


def idle_clients_of_rivals(counts: Sequence[int]) -> dict[str, list[float]]:
    """KiB of each, by the server's name, when there are so many."""
    commands = {kind: [sys.executable, "-m", "benchmarks.broadcasters", kind, "x"] for kind in KINDS}
    commands["ws"] = node_command(b"x")
    found: dict[str, list[float]] = {}
    for name, command in commands.items():
        with rival(command) as (pid, port), contextlib.ExitStack() as stack:
            for _ in range(counts[0] // 10):
                stack.callback(connected(port, upgrade=name != "bare").close)
            before = resident(pid)
            found[name] = []
            there = 0
            for count in counts:
                for _ in range(count - there):
                    stack.callback(connected(port, upgrade=name != "bare").close)
                there = count
                found[name].append((resident(pid) - before) / count)
    return found


def ours(
    major: int, counts: Sequence[int], documents: int, each: int, few: int, queries: int, subscriptions: int
) -> Ours:
    """Measure the server.

    Args:
        counts: idle sessions.
        documents: of the live query that is shared.
        each: of each of as many further live queries as ``queries`` says; and
        few: of each of four times as many others.
        subscriptions: further ones to the live query that is shared.
    """
    with contextlib.ExitStack() as stack:
        cluster = postgres.Cluster(major, postgres.binaries()[major])
        stack.callback(cluster.remove)
        # Author 1 has the many documents, then come those with ``each``, and those with ``few``. These two
        # are measured first: where many were loaded there is room in which few would not be seen.
        authors = 5 * queries + 3
        database = Bookstore(authors, authors * each).create(cluster, "memory")
        small = queries + 3
        with database.connect() as connection:
            connection.execute(f"DELETE FROM bookstore_book WHERE author_id >= {small} AND price > {few}")
            connection.execute(
                "INSERT INTO bookstore_book (id, title, author_id, price, in_stock)"
                f" SELECT {10**6} + n, 'Book ' || n, 1, 1, true FROM generate_series(1, {documents - each}) n"
            )
        server = stack.enter_context(
            streams.serving(database, DDP_MAX_CONNECTIONS_PER_ADDRESS=str(2 * counts[-1] + MORE_FILES))
        )
        pid = server.process.pid
        clients = streams.connect(server, counts[0] // 10)
        stack.callback(lambda: streams.close(clients))
        before, first = resident(pid), len(clients)
        idle = []
        for count in counts:
            clients += streams.connect(server, first + count - len(clients), len(clients))
            idle.append((resident(pid) - before) / count)

        unused = iter(clients)

        def subscribe(author: int, wanted: int) -> list[dict[str, Any]]:
            client = next(unused)
            client.subscribe("BooksOfAuthor", author)
            streams.collect([client], PATIENCE, "subscribing")
            if (told := client.data.count(b'"msg":"added"')) != wanted:
                raise Wrong(f"a client was told of {told} documents instead of {wanted}")
            if author > 1:
                return client.messages()
            client.data = bytearray()  # very many
            return []

        def growth(authors: Sequence[int], wanted: int) -> float:
            before = resident(pid)
            for author in authors:
                subscribe(author, wanted)
            return (resident(pid) - before) / len(authors)

        subscribe(small, few)
        of_few = growth(range(small + 1, authors + 1), few)
        told = [message for message in subscribe(2, each) if message["msg"] == "added"]
        of_each = growth(range(3, small), each)
        growth([1] * 20, documents)
        quarters = [growth([1] * (subscriptions // 4), documents) for _ in range(4)]
    encode = msgspec.json.encode
    return Ours(
        idle=idle,
        further=max(quarters),
        document=(of_each - of_few) / (each - few),
        query=of_few - few * (of_each - of_few) / (each - few),
        json=sum(len(encode({"_id": one["id"], **one["fields"]})) for one in told) / each / 1024,
        added=sum(len(encode(one)) for one in told) / each / 1024,
    )


def main() -> None:
    parser = report.parser(__doc__)
    options = parser.parse_args()
    counts = (40, 80) if options.quick else (1000, 5000)
    sizes = (200, 40, 4, 2, 20) if options.quick else (DOCUMENTS, EACH, FEW, 30, 4000)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("memory", str(options.major))
    try:
        allow_files(2 * counts[-1] + MORE_FILES)
        rivals = idle_clients_of_rivals(counts)
        mine = ours(options.major, counts, *sizes)
    except Wrong as error:
        sys.exit(f"benchmarks.memory: {error}")
    trios = rivals["trio-websocket"][-1]
    found.table(
        "an idle client, KiB",
        ("", *(f"of {count}" for count in counts), "times trio-websocket's"),
        [(name, *each, each[-1] / trios) for name, each in {"ours": mine.idle, **rivals}.items()],
    )
    found.table(
        "ours",
        ("", "KiB"),
        [
            (f"a further subscription to {sizes[0]} documents", mine.further),
            ("a live query without its documents", mine.query),
            ("a document", mine.document),
            ("its JSON", mine.json),
            ("the message that it is sent in", mine.added),
            ("a document in times of that message", mine.document / mine.added),
        ],
    )
    if not options.quick:  # a few of each can come to no page, or to less than none
        found.number("idle session", mine.idle[-1], "KiB")
        found.number("further subscription", mine.further, "KiB")
        found.number("live query", mine.query, "KiB")
        found.number("document", mine.document, "KiB")
    for count, one in zip(counts, mine.idle, strict=True):
        found.target(f"an idle session of {count}, in 20 KiB", one / 20, 1)
    found.target("a further subscription, in 2 KiB", mine.further / 2, 1)
    found.target("a document to its JSON", mine.document / mine.json, 2.5)
    found.write(options.json)


if __name__ == "__main__":
    main()
