"""Clients that watch while something fails and others write, and what they have to have in the end."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from django.contrib.auth import get_user_model

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.faults.writers import STATEMENTS, Writers
from tests.oracle import Oracle, differences, queries
from tests.proxy import Proxy
from tests.serving import Server, start_server
from tests.test_property import reset
from tests.test_users import COLUMNS

#: Everything selected, an equality, a join, a slice, a subquery, many-to-many.
SUBSCRIPTIONS: list[tuple[str, list[Any]]] = [
    ("AllBooks", []),
    ("BooksOfAuthor", [1]),
    ("BooksByAuthorEmail", ["1@x"]),
    ("CheapestBooks", [3]),
    ("BooksOfTheProlific", [2]),
    ("TaggedBooks", ["t1"]),
]
#: Of a collection with a `user_rel`, for whom it is.
OWN = ("MyPersonalKeepers", 1)

#: How long the longest fault and its healing may take.
PATIENCE = 120


class PatientWriters(Writers):
    """Writers that connect again whenever PostgreSQL fails them.

    Args:
        connect: makes a connection to wherever writes are to go now.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection], threads: int = 2) -> None:
        self._connect = connect
        self._end = threading.Event()
        super().__init__(None, threads)  # type: ignore[arg-type]  # `connect` stands for it

    def _write(self, db: Database, chance: random.Random) -> None:
        numbers = iter(range(10**9))
        while not self._stopped:
            try:
                with self._connect() as connection:
                    while not self._stopped:
                        self._write_one(connection, chance, next(numbers))
            except psycopg.errors.DeadlockDetected:
                continue
            except psycopg.OperationalError:
                self._end.wait(0.05)

    def _write_one(self, connection: psycopg.Connection, chance: random.Random, number: int) -> None:
        statements = (*STATEMENTS, "UPDATE zoo_keeper SET name = 'k{n}', account_id = 1 + {n} % 2")
        connection.execute(
            chance.choice(statements).format(
                id=chance.randint(1, 12), author=chance.randint(1, 3), n=chance.randint(1, 9)
            )
        )
        with self._news:
            self.written += 1
            self._news.notify_all()
        self._end.wait(0.003)  # leave some of the machine to the server

    def stop(self) -> None:
        self._end.set()
        super().stop()


class Watching:
    """A server and its clients, one for each kind of subscription.

    Args:
        server: the server.
        db: what it serves.
    """

    def __init__(self, server: Server, db: Database) -> None:
        self.server = server
        self.db = db
        self._marks = 0
        self.clients: list[DDPClient] = []
        try:
            for name, params in SUBSCRIPTIONS:
                self._open().subscribe(name, *params)
            own = self._open()
            own.call("become", OWN[1])
            own.subscribe(OWN[0])
        except BaseException:
            self.close()
            raise

    def _open(self) -> DDPClient:
        client = DDPClient(self.server.url)
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()

    @contextlib.contextmanager
    def healing(self, fault: str, connect: Callable[[], psycopg.Connection] | None = None) -> Iterator[None]:
        """A fault happens in the block; a change that is made afterwards arrives.

        How long that took is printed, for docs/faults.md.

        Args:
            fault: what the documentation calls it.
            connect: makes a connection to where changes are made then, if not to the database as before.
        """
        began = time.monotonic()
        yield
        over = time.monotonic()
        self._marks += 1
        self._mark(connect or self.db.connect)
        client = self.clients[0]
        client.wait_until(
            lambda: client.documents["bookstore.book"].get("99", {}).get("title") == f"mark {self._marks}",
            PATIENCE,
        )
        now = time.monotonic()
        print(f"HEALED {fault}: {now - began:.1f} s after it began, {now - over:.1f} s after it was over")

    def _mark(self, connect: Callable[[], psycopg.Connection]) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with connect() as connection:
                    connection.execute(
                        "INSERT INTO bookstore_book (id, title, author_id, in_stock)"
                        " VALUES (99, %(title)s, 1, true)"
                        " ON CONFLICT (id) DO UPDATE SET title = EXCLUDED.title",
                        {"title": f"mark {self._marks}"},
                    )
                return
            except psycopg.OperationalError:  # a backend was killed, and the others have yet to notice
                assert time.monotonic() < until

    def differences(self) -> list[str]:
        """What is wrong, as Django's ORM sees it, with what the clients have."""
        oracle, user = Oracle(), get_user_model().objects.get(pk=OWN[1])
        asked = [*((name, params, None) for name, params in SUBSCRIPTIONS), (OWN[0], [], user)]
        return [
            f"{name}{params}: {line}"
            for client, (name, params, whose) in zip(self.clients, asked, strict=True)
            for line in differences(client.documents, oracle.documents(queries(name, params, whose)))
        ]

    def assert_all_equal(self) -> None:
        """Writers have stopped, and the fault is over: everybody comes to have what its querysets give."""
        for client in self.clients:
            call = client.start_call("echo", "settled?")
            client.wait_until(
                lambda call=call, client=client: any(  # type: ignore[misc]
                    message["msg"] == "updated" and call in message["methods"]
                    for message in reversed(client.messages)
                ),
                PATIENCE,
            )
        assert self.differences() == []
        for client in self.clients:
            assert client.violations == []
            assert not client.closed
            assert [m for m in client.messages if m["msg"] == "nosub"] == []


def fill(db: Database) -> None:
    """Rows for the writers to begin with, and users."""
    reset(db)
    db.psql(
        "INSERT INTO bookstore_book_tags (id, book_id, tag_id) VALUES (1, 1, 1), (2, 2, 1);"
        f"INSERT INTO auth_user ({COLUMNS}) VALUES (1, 'ann', '', 'ab', '', '', false, false, true, now()),"
        " (2, 'bob', '', 'bc', '', '', false, false, true, now());"
        "INSERT INTO zoo_keeper (aid, name, account_id) VALUES ('k', 'Kim', 1), ('l', 'Lea', 2)"
    )


@contextlib.contextmanager
def watching(db: Database, *, proxy: Proxy | None = None, **environ: str) -> Iterator[Watching]:
    """A server on ``db`` with clients, and everything of the server's through ``proxy`` if there is one."""
    if proxy is not None:
        environ |= {"TDDP_TEST_HOST": proxy.host, "TDDP_TEST_PORT": str(proxy.port)}
    server = start_server(db, "--debug-port", "0", **environ)
    try:
        watching = Watching(server, db)
        try:
            yield watching
        finally:
            watching.close()
    except BaseException:
        print(server.log())
        server.kill()
        raise
    server.stop()


def as_setting(value: object) -> str:
    """A ``DDP_*`` setting as the test project reads it from the environment."""
    return json.dumps(value)
