"""How many clients can come in a second: ``python -m benchmarks.connects``.

Each connects to a WebSocket, says DDP's ``connect``, subscribes to the 100 documents of an author, waits
for ``ready``, and goes. So many do that at a time that the server always has something to do; they are a
process of their own, which sends bytes that are ready and looks for the end of the answer.

ours
    ``trigger-ddp serve --workers 2``, and with one process. Somebody has subscribed to the same before, as
    after a restart, when all clients come back.
trio-websocket, websockets, ws
    Servers that accept a WebSocket, read two messages, and send the very messages that ours was seen to
    send, each by a call of its own. There is no database, and nothing is decided.

They take turns. Every client must get all its documents, and exactly as many bytes as any other. CPU is
that of all processes of a server, without PostgreSQL's; beside it stands that of the clients for each of
them, and how many a second of the server's CPU alone would allow: with two cores, clients, PostgreSQL and
server share them. p50 and p99 are with so many at a time, so most of it is waiting for one's turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
import trio_websocket
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from benchmarks import report, streams
from benchmarks.bookstore import Bookstore
from benchmarks.clocks import cpu_seconds
from benchmarks.fanout import CLIENTS, UPGRADE, node_command
from benchmarks.fleet import TEXT, Session, Wrong, frame
from benchmarks.scaling import allow_files
from tests import postgres
from tests.serving import Server

DOCUMENTS = 100
AT_ONCE = 32
PATIENCE = 30.0
ASKING = frame(TEXT, b'{"msg":"connect","version":"1","support":["1"]}') + frame(
    TEXT, b'{"msg":"sub","id":"s","name":"BooksOfAuthor","params":[1]}'
)
READY = b'{"msg":"ready","subs":["s"]}'


def trio_server(texts: list[str]) -> None:
    async def hold(request: trio_websocket.WebSocketRequest) -> None:
        websocket = await request.accept()
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            await websocket.get_message()
            await websocket.send_message(texts[0])
            await websocket.get_message()
            for text in texts[1:]:
                await websocket.send_message(text)
            await websocket.get_message()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server: Any = await nursery.start(trio_websocket.serve_websocket, hold, streams.HOST, 0, None)
            print(server.port, flush=True)

    trio.run(main)


def asyncio_server(texts: list[str]) -> None:
    messages = [text.encode() for text in texts]

    async def hold(websocket: ServerConnection) -> None:
        await websocket.recv()
        await websocket.send(messages[0], text=True)
        await websocket.recv()
        for message in messages[1:]:
            await websocket.send(message, text=True)
        await websocket.wait_closed()

    async def main() -> None:
        async with serve_websockets(hold, streams.HOST, 0, compression=None, backlog=1024) as server:
            print(server.sockets[0].getsockname()[1], flush=True)
            await server.serve_forever()

    asyncio.run(main())


NODE = """
const { WebSocketServer } = require("ws");
const [connected, ...others] = JSON.parse(process.argv[2]).map((text) => Buffer.from(text));
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false, backlog: 1024 });
server.on("listening", () => console.log(server.address().port));
server.on("connection", (client) => {
  let heard = 0;
  client.on("error", () => {});
  client.on("message", () => {
    if (++heard === 1) return client.send(connected, { binary: false });
    for (const each of others) client.send(each, { binary: false });
  });
});
"""

KINDS = {"trio-websocket": trio_server, "websockets": asyncio_server}


class Target:
    """A server that clients come to.

    Args:
        pids: of all its processes.
        size: bytes that each client is to be sent after the handshake.
    """

    def __init__(self, name: str, port: int, pids: list[int], size: int) -> None:
        self.name, self.port, self.pids, self.size = name, port, pids, size
        self.rates: list[float] = []
        self.cpus: list[float] = []
        self.clients_cpus: list[float] = []
        self.latencies: list[float] = []

    @property
    def cpu(self) -> float:
        return sum(map(cpu_seconds, self.pids))

    def come_and_go(self, seconds: float, measured: bool) -> None:
        """Have clients come for so long."""
        latencies: list[float] = []
        used, ours, begun = self.cpu, time.process_time(), time.perf_counter()
        with selectors.DefaultSelector() as selector:
            for _ in range(AT_ONCE):
                self._come(selector)
            while (now := time.perf_counter()) < begun + seconds:
                for key, _ in selector.select(PATIENCE):
                    sock, (since, received) = key.fileobj, key.data
                    assert isinstance(sock, socket.socket)
                    try:
                        data = sock.recv(1 << 17)
                    except BlockingIOError:
                        continue
                    if not received and data:
                        sock.sendall(ASKING)  # as a browser does: after the handshake
                    received += data
                    if received.endswith(READY):
                        documents = received.count(b'"msg":"added"')
                        size = len(received) - received.index(b"\r\n\r\n") - 4
                        if (documents, size) != (DOCUMENTS, self.size):
                            raise Wrong(f"{self.name} sent {documents} documents in {size} bytes")
                        latencies.append(time.perf_counter() - since)
                        selector.unregister(sock)
                        sock.close()
                        self._come(selector)
                    elif not data:
                        raise Wrong(f"{self.name} closed a connection after {bytes(received[-200:])!r}")
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
        if measured:
            if len(latencies) < 2:
                raise Wrong(f"nobody got an answer of {self.name}")
            self.rates.append(len(latencies) / (now - begun))
            self.cpus.append((self.cpu - used) / len(latencies))
            self.clients_cpus.append((time.process_time() - ours) / len(latencies))
            self.latencies += latencies

    def _come(self, selector: selectors.BaseSelector) -> None:
        sock = socket.create_connection((streams.HOST, self.port))
        sock.sendall(UPGRADE)
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, (time.perf_counter(), bytearray()))


def _processes(server: Server) -> list[int]:
    """The server's, and its workers'."""
    found = [server.process.pid]
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parent = int(file.read_text().rpartition(")")[2].split()[1])
            if parent == server.process.pid:
                found.append(int(file.parent.name))
    return found


def answers(server: Server) -> list[str]:
    """What a client is sent."""
    session = Session(0, server.host, server.port)
    session.shake_hands()
    session.send([{"msg": "sub", "id": "s", "name": "BooksOfAuthor", "params": [1]}])
    found: list[str] = []
    while READY.decode() not in found[-1:]:
        if not (data := session.socket.recv(1 << 17)):
            raise Wrong("ours closed the first connection")
        found += [payload.decode() for opcode, payload in session.frames(data) if opcode == TEXT]
    session.socket.close()
    return found


def framed(text: str) -> int:
    """Bytes of a short message with its frame."""
    size = len(text.encode())
    return size + (2 if size < 126 else 4)


@contextlib.contextmanager
def everybody(major: int) -> Iterator[list[Target]]:
    with contextlib.ExitStack() as stack:
        cluster = postgres.Cluster(major, postgres.binaries()[major])
        stack.callback(cluster.remove)
        database = Bookstore(1, DOCUMENTS).create(cluster, "connects")
        targets = []
        for name, options in (("ours, 1 process", ()), ("ours, 2 workers", ("--workers", "2"))):
            server = Server(
                "--bind", f"{streams.HOST}:0", "--install-triggers", *options,
                environ={**os.environ, "PYTHONUNBUFFERED": "1", **database.environ},
            )  # fmt: skip
            stack.callback(server.kill)
            for client in streams.connect(server, 8):  # some of which every worker has
                client.subscribe("BooksOfAuthor", 1)
                streams.collect([client], PATIENCE, "subscribing")
                stack.callback(client.socket.close)
            texts = answers(server)
            size = sum(map(framed, texts))
            targets.append(Target(name, server.port, _processes(server), size))
        rivals = {
            kind: [sys.executable, "-m", "benchmarks.connects", "--serve", kind, json.dumps(texts)]
            for kind in KINDS
        }
        rivals["ws"] = [node_command(b"")[0], "-e", NODE, "-", json.dumps(texts)]
        for name, command in rivals.items():
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "NODE_PATH": str(CLIENTS / "node_modules")},
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            targets.append(Target(name, int(process.stdout.readline()), [process.pid], size))
        yield targets


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "TEXTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        kind, texts = options.serve
        KINDS[kind](json.loads(texts))
        return
    seconds, rounds = (1.0, 1) if options.quick else (5.0, 4)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are removed
    found = report.Report("connects", str(options.major))
    try:
        allow_files(4096)
        with everybody(options.major) as targets:
            for number in range(rounds + 1):
                for target in targets:
                    target.come_and_go(seconds if number else seconds / 3, measured=number > 0)
    except Wrong as error:
        sys.exit(f"benchmarks.connects: {error}")
    median = statistics.median
    least = median(targets[-1].cpus)
    rows = []
    for target in targets:
        cpu, percentiles = median(target.cpus), statistics.quantiles(target.latencies, n=100)
        rows.append(
            (
                target.name, round(median(target.rates)), percentiles[49] * 1e3, percentiles[98] * 1e3,
                cpu * 1e3, cpu / least, round(1 / cpu), median(target.clients_cpus) * 1e3,
            )
        )  # fmt: skip
    found.table(
        f"connect, subscribe to {DOCUMENTS} documents, ready; {AT_ONCE} at a time",
        ("", "a second", "p50 ms", "p99 ms", "CPU ms", "times ws", "a second of CPU", "clients' CPU ms"),
        rows,
    )
    by_name = {row[0]: row for row in rows}
    found.number("2 workers, rate", by_name["ours, 2 workers"][1], "connects/s", "more")
    found.number("2 workers, p99", by_name["ours, 2 workers"][3], "ms")
    found.number("1 process, CPU", by_name["ours, 1 process"][4], "ms CPU")
    found.target("connects/s of 2 workers, in 1 500", by_name["ours, 2 workers"][1] / 1500, 1, "least")
    found.write(options.json)


if __name__ == "__main__":
    main()
