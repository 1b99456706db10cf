"""The two servers that benchmarks.latency compares, each with a client that understands just enough of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psycopg
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request, TextMessage

from tests.conftest import Database
from tests.serving import Server

HOST = "127.0.0.1"
FLOOR = """
CREATE TABLE floor (LIKE bookstore_book INCLUDING ALL);
INSERT INTO floor SELECT * FROM bookstore_book;
CREATE FUNCTION floor() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('floor', NEW.id::text); RETURN NULL; END $$;
CREATE TRIGGER floor AFTER UPDATE ON floor FOR EACH ROW EXECUTE FUNCTION floor();
"""


@dataclasses.dataclass(frozen=True)
class Client:
    """A client that is told of changed rows.

    Args:
        table: the rows'.
        socket: where the server's messages arrive.
        told: the ids of the rows that bytes from the socket tell of, as far as messages are complete.
    """

    table: str
    socket: socket.socket
    told: Callable[[bytes], list[int]]


@contextlib.contextmanager
def floor(database: Database) -> Iterator[Client]:
    """A client of the least server there can be, on a copy of the books."""
    with database.connect() as connection:
        connection.execute(FLOOR)
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    server = spawn.Process(target=serve_floor, args=(database.dsn, theirs), daemon=True)
    server.start()
    theirs.close()  # now only the process has it, so that its end would be noticed
    rest = b""

    def told(data: bytes) -> list[int]:
        nonlocal rest
        *lines, rest = (rest + data).split(b"\n")
        return [int(line) for line in lines]

    try:
        yield Client("floor", socket.create_connection((HOST, ours.recv())), told)
    finally:
        server.terminate()
        server.join()


def serve_floor(dsn: str, pipe: Pipe) -> None:
    """The least server: sends its port through the pipe, and every key that it hears of to one client."""

    async def serve() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host=HOST)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("LISTEN floor")
            pipe.send(listener.socket.getsockname()[1])
            stream = await listener.accept()
            while True:
                await trio.lowlevel.wait_readable(connection.fileno())
                connection.pgconn.consume_input()
                while notification := connection.pgconn.notifies():
                    await stream.send_all(notification.extra + b"\n")

    trio.run(serve)


@contextlib.contextmanager
def trigger_ddp(database: Database, authors: int) -> Iterator[Client]:
    """A client of ``trigger-ddp serve`` that has subscribed to the books of that many authors, one by one."""
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", **database.environ}
    server = Server("--bind", f"{HOST}:0", "--install-triggers", environ=environ)
    try:
        session = Session(server)
        session.subscribe(authors)
        yield Client("bookstore_book", session.socket, session.told)
        session.socket.shutdown(socket.SHUT_RDWR)
    except BaseException:
        server.kill()
        raise
    server.stop()


class Session:
    """A DDP session on a WebSocket."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection((server.host, server.port))
        self._websocket = WSConnection(ConnectionType.CLIENT)
        self._text = ""
        self.socket.sendall(self._websocket.send(Request(host=server.host, target="/websocket")))
        self.messages(self.socket.recv(65536))  # the server accepts
        self.send(msg="connect", version="1", support=["1"])

    def send(self, **message: Any) -> None:
        self.socket.sendall(self._websocket.send(TextMessage(json.dumps(message))))

    def messages(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that are complete with ``data``; pings are answered."""
        self._websocket.receive_data(data)
        messages = []
        for event in self._websocket.events():
            if isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    messages.append(json.loads(self._text))
                    self._text = ""
        if any(message.get("msg") == "ping" for message in messages):
            self.send(msg="pong")
        return messages

    def subscribe(self, authors: int) -> None:
        """Subscribe to the books of each author, and wait until all are there."""
        for author in range(1, authors + 1):
            self.send(msg="sub", id=str(author), name="BooksOfAuthor", params=[author])
        ready = 0
        while ready < authors:
            for message in self.messages(self.socket.recv(65536)):
                if message.get("msg") in ("nosub", "failed", "error"):
                    raise SystemExit(f"the server refuses: {message}")
                ready += len(message.get("subs", ()))

    def told(self, data: bytes) -> list[int]:
        return [int(message["id"]) for message in self.messages(data) if message.get("msg") == "changed"]
