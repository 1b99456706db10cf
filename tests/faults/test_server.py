"""The server itself is killed and started again: clients of npm come back by themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tests.clients.conftest import Client
from tests.conftest import Database
from tests.faults.watching import PATIENCE, PatientWriters, fill
from tests.oracle import Oracle, differences, queries
from tests.serving import Server

COLLECTIONS = ("bookstore.book", "bookstore.author")

#: Programs and what each subscribes to; Meteor's own client merges.
CLIENTS: list[tuple[str, list[tuple[str, list[object]]]]] = [
    ("simpleddp.mjs", [("BooksByAuthorEmail", ["1@x"])]),
    ("simpleddp.mjs", [("CheapestBooks", [3])]),
    ("meteor.mjs", [("AllBooks", []), ("TaggedBooks", ["t1"])]),
]


def trouble(client: Client, subscriptions: list[tuple[str, list[object]]]) -> list[str]:
    has = {name: client.documents(name) for name in COLLECTIONS}
    asked = [query for name, params in subscriptions for query in queries(name, params)]
    return differences(has, Oracle().documents(asked))


def test_a_server_that_is_killed_and_started_again(
    db: Database, serve: Callable[..., Server], run_client: Callable[..., Client]
) -> None:
    fill(db)
    server = serve()
    clients = [(run_client(program, server, RECONNECT="1"), wanted) for program, wanted in CLIENTS]
    for client, subscriptions in clients:
        client.connect()
        for name, params in subscriptions:
            client.subscribe(name, *params)
    writers = PatientWriters(db.connect)
    try:
        writers.go_on()
        server.kill()
        for client, _ in clients:
            client.documents(COLLECTIONS[0])  # reads what it was told before
            client.messages.clear()
        writers.go_on()
        again = Server(
            "--bind", f"{server.host}:{server.port}",
            environ={**os.environ, "PYTHONUNBUFFERED": "1", **db.environ},
        )  # fmt: skip
        try:
            for client, _ in clients:
                client.wait_for(msg="ready")
            writers.go_on()
            writers.stop()
            until = time.monotonic() + PATIENCE
            for client, subscriptions in clients:
                client.call("echo", "settled?")
                while wrong := trouble(client, subscriptions):
                    assert time.monotonic() < until, wrong
                client.close()
        except BaseException:
            again.kill()
            raise
        again.stop()
    finally:
        writers.stop()
