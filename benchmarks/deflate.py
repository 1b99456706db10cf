"""What WebSocket's permessage-deflate would cost and save: ``python -m benchmarks.deflate``.

The server does not negotiate it. What it tells of 1 000 books and of single changes is recorded here as a
client gets it, message by message, and compressed as it would be without context takeover (RFC 7692, section
7.1.1.1), which is the one way in which one compressed message can be sent to all: each message by itself. In
turn with it, the same message is written to a socket, which is what telling one more client costs. Of what
clients send, each could be compressed too; the server would have to bound what that inflates to.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import statistics
import sys
import time
import zlib
from collections.abc import Callable

from websockets.sync.client import connect

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.fleet import Wrong
from tests import postgres
from tests.conftest import Database

BOOKS = 1000
PATIENCE = 30.0  # seconds for a message to come
LEVELS = (1, 6)
#: What ends a block flushed by itself, and is not sent (RFC 7692, section 7.2.1).
TAIL = b"\x00\x00\xff\xff"


def deflated(message: bytes, level: int) -> bytes:
    """The payload of a compressed frame."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def record(database: Database, url: str, changes: int) -> tuple[list[bytes], list[bytes]]:
    """The messages that tell of all books, and those that tell of one changed book each."""
    documents, changed = [], []
    with connect(url.replace("http", "ws") + "/websocket", compression=None, max_size=None) as client:
        client.send('{"msg":"connect","version":"1","support":["1"]}')
        client.send('{"msg":"sub","id":"1","name":"AllBooks","params":[]}')
        while '"msg":"ready"' not in (text := client.recv(timeout=PATIENCE)):
            if '"msg":"added"' in text:
                documents.append(text.encode())
        for number in range(1, changes + 1):
            database.psql(f"UPDATE bookstore_book SET price = price + 1000 WHERE id = {number}")
            text = client.recv(timeout=PATIENCE)
            if (message := json.loads(text))["msg"] != "changed" or message["id"] != str(number):
                raise Wrong(f"after a change of book {number} the client was told {text[:100]}")
            changed.append(text.encode())
    return documents, changed


def taken(messages: list[bytes], work: Callable[[bytes], object], rounds: int) -> float:
    """The median of microseconds of CPU that a message takes."""
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        for message in messages:
            work(message)
        found.append((time.process_time() - begun) / len(messages) * 1e6)
    return statistics.median(found)


def measure(found: report.Report, documents: list[bytes], changed: list[bytes], rounds: int) -> None:
    """Compress and write both kinds of messages."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def write(message: bytes) -> None:
            ours.send(message)
            theirs.recv(len(message))

        for name, messages in (("added", documents), ("changed", changed)):
            size = sum(map(len, messages)) / len(messages)
            written = taken(messages, write, rounds)
            rows: list[tuple[str | float, ...]] = [("as it is", size, 1.0, written)]
            for level in LEVELS:

                def compress(message: bytes, level: int = level) -> bytes:
                    return deflated(message, level)

                compressed = [compress(message) for message in messages]
                for message, payload in zip(messages, compressed, strict=True):
                    if zlib.decompress(payload + TAIL + b"\x03\x00", -zlib.MAX_WBITS) != message:
                        raise Wrong("what was compressed inflates to something else")
                smaller = sum(map(len, compressed)) / len(messages)
                microseconds = taken(messages, compress, rounds)
                rows.append((f"deflated, level {level}", smaller, smaller / size, microseconds))
                found.number(f"{name}, bytes at level {level} to those as they are", smaller / size, "times")
                found.number(f"{name}, CPU to deflate at level {level}", microseconds, "µs")
            title = f"{len(messages)} messages {name}: CPU to write one to a client, or to deflate it for all"
            found.table(title, ("", "bytes", "times as it is", "CPU µs"), rows)


def main() -> None:
    parser = report.parser(__doc__)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("deflate", str(options.major))
    try:
        with contextlib.ExitStack() as stack:
            cluster = postgres.Cluster(options.major, postgres.binaries()[options.major])
            stack.callback(cluster.remove)
            database = Bookstore(10, BOOKS).create(cluster, "deflate")
            with streams.serving(database) as server:
                documents, changed = record(database, server.url, 3 if options.quick else 50)
            measure(found, documents, changed, 1 if options.quick else 20)
    except Wrong as error:
        sys.exit(f"benchmarks.deflate: {error}")
    found.write(options.json)


if __name__ == "__main__":
    main()
