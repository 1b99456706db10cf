"""Transactions that stay open for long stall nobody who does not need what they hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.faults.watching import PatientWriters, Watching, fill, watching

BOOKS, AUTHORS = "bookstore.book", "bookstore.author"

#: What a writer may have done that then does nothing for minutes; nobody else wants these rows.
HELD = {
    "changed rows": "UPDATE bookstore_book SET title = 'held' WHERE id = 1000;"
    " INSERT INTO bookstore_author (id, name, email) VALUES (1001, 'new', 'new@x')",
    "a locked row": "SELECT 1 FROM bookstore_book WHERE id = 1000 FOR UPDATE",
    "a locked table": "LOCK TABLE zoo_visit IN ACCESS EXCLUSIVE MODE",
    "an old snapshot": "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM bookstore_book",
    "a listener": "LISTEN others; NOTIFY others; COMMIT; BEGIN; SELECT 1",
    "a bulk of notifications": "INSERT INTO bookstore_book (title, author_id, in_stock)"
    " SELECT 'bulk', 1000, false FROM generate_series(1, 6000)",
}


@pytest.fixture
def watch(db: Database) -> Iterator[Watching]:
    fill(db)
    db.psql(
        "INSERT INTO bookstore_author (id, name, email) VALUES (1000, 'a', 'a@y');"
        "INSERT INTO bookstore_book (id, title, author_id, in_stock) VALUES (1000, 'free', 1000, true);"
        "SELECT setval('bookstore_book_id_seq', 2000)"
    )
    with watching(db) as watch:
        yield watch


def test_idle_transactions_stall_nobody(db: Database, watch: Watching) -> None:
    client = watch.clients[0]
    writers = PatientWriters(db.connect)
    try:
        for what, statements in HELD.items():
            with db.connect() as idle:
                for statement in ("BEGIN", *statements.split(";")):
                    idle.execute(statement)
                for number in range(3):
                    writers.go_on(20)
                    assert "error" not in client.call("rename", "2", f"{what} {number}")
                    db.psql(
                        "INSERT INTO bookstore_author (id, name, email) VALUES (1002, 'x', 'x@y')"
                        f" ON CONFLICT (id) DO UPDATE SET name = '{what} {number}'"
                    )
                    client.settle()
                    assert number == 0 or client.documents[AUTHORS]["1002"]["name"] == f"{what} {number}"
                with DDPClient(watch.server.url) as newcomer:
                    newcomer.subscribe("AllBooks")
                    assert newcomer.documents[BOOKS].keys() == client.documents[BOOKS].keys()
                untold = "1001" not in client.documents[AUTHORS]
                assert untold or what != "changed rows"
                idle.execute("COMMIT")
    finally:
        writers.stop()
    watch.assert_all_equal()
    assert "WARNING" not in watch.server.log()
