"""Triggers that are dropped, disabled, replaced or made anew under a running server, while others write.

Whatever happens to them is logged, and subscriptions that would not be live are refused. Once they are
back, every client has what its querysets give.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import override_settings

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.faults.writers import writing
from tests.serving import Server
from tests.test_operations import get, metrics
from tests.test_property import SUBSCRIPTIONS, expected, reset
from tests.test_users import COLUMNS, ok

BOOK, AUTHOR = "bookstore.book", "bookstore.author"

DROP = """
    DO $$ DECLARE t record; BEGIN
        FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname ~ '^ddp' LOOP
            EXECUTE format('DROP TRIGGER %I ON {table}', t.tgname);
        END LOOP;
    END $$;"""
SILENCE = """
    DO $$ DECLARE f record; BEGIN
        FOR f IN SELECT DISTINCT tgfoid::regproc AS name FROM pg_trigger
                  WHERE tgrelid = 'bookstore_book'::regclass AND tgname ~ '^ddp' LOOP
            EXECUTE format('CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS '
                           '''BEGIN RETURN NULL; END''', f.name);
        END LOOP;
    END $$;"""


def install() -> None:
    call_command("ddp_install_triggers", stdout=StringIO(), stderr=StringIO())


@pytest.fixture
def server(db: Database, serve: Callable[..., Server]) -> Server:
    reset(db)
    return serve(DDP_TRIGGER_CHECK_SECONDS="0.1")


@pytest.fixture
def clients(db: Database, server: Server) -> Iterator[list[DDPClient]]:
    """One for each kind of subscription, all up to date."""
    clients = [DDPClient(server.url) for _ in SUBSCRIPTIONS]
    for client, (name, params, _, _) in zip(clients, SUBSCRIPTIONS, strict=True):
        client.subscribe(name, *params)
    yield clients
    for client in clients:
        client.close()


def assert_all_equal(db: Database, clients: list[DDPClient]) -> None:
    """Writers have stopped: every client has what its subscription stands for."""
    for number, client in enumerate(clients):
        client.settle()
        told = {name: documents for name, documents in client.documents.items() if documents}
        wanted = {name: documents for name, documents in expected(db, [number]).items() if documents}
        assert told == wanted
        assert client.violations == []


def wait_for_log(server: Server, words: str, times: int) -> None:
    server.wait_for_log(rf"(?s:(?:{words}.*?){{{times}}})")


def wait_for_looks(db: Database, number: int) -> None:
    """Wait until the server has looked at its triggers so many more times."""
    deadline = time.monotonic() + 30
    with db.connect() as connection:
        looks: set[Any] = set()
        while len(looks) <= number:
            looks |= set(
                connection.execute(
                    "SELECT query_start FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND datname = current_database()"
                    " AND query LIKE 'WITH RECURSIVE wanted AS (%SELECT position, pg_catalog.to_regclass%'"
                )
            )
            assert time.monotonic() < deadline, "the server does not look at its triggers"


def drop(db: Database) -> None:
    db.psql(DROP.format(table="bookstore_book"))


def disable(db: Database) -> None:
    db.psql("ALTER TABLE bookstore_book DISABLE TRIGGER USER")


def silence(db: Database) -> None:
    """Functions that tell nothing, in the place of ours."""
    db.psql(SILENCE)


def outdate(db: Database) -> None:
    """What a newer release would install."""
    with override_settings(DDP_BULK_THRESHOLD=3):
        call_command("ddp_install_triggers", "bookstore.Book", stdout=StringIO())


def remove_functions(db: Database) -> None:
    call_command("ddp_install_triggers", "bookstore.Book", "--uninstall", stdout=StringIO())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (drop, "bookstore_book has no triggers"),
        (disable, "is disabled"),
        (silence, "was edited after it was made"),
        (outdate, "is of version"),
        (remove_functions, "bookstore_book has no triggers"),
    ],
)
def test_clients_equal_their_querysets_after_the_triggers_are_back(
    db: Database,
    server: Server,
    clients: list[DDPClient],
    fault: Callable[[Database], None],
    words: str,
) -> None:
    server.errors_expected = True
    with writing(db) as writers:
        writers.go_on()
        for times in (1, 2):
            fault(db)
            writers.go_on()
            wait_for_log(
                server, f"ERROR[^\n]* bookstore_book may go unnoticed: [^\n]*{words}[^\n]*ddp_ins", times
            )
            with DDPClient(server.url) as newcomer:
                newcomer.start_subscription("CheapBooks", 5)
                refusal = newcomer.wait_for(lambda m: m["msg"] == "nosub")
                assert refusal["error"]["error"] == 500
                newcomer.subscribe("Authors")  # of another table
            writers.go_on()
            assert server.log().count("may go unnoticed") == times
            status, _, body = get(f"{server.url}/_ddp/ready")
            assert status == 503
            assert "no current trigger" in json.loads(body)["checks"]["triggers"]
            assert metrics(server.url)["trigger_ddp_stale_tables"] == 1
            install()
            wait_for_log(server, "bookstore_book has its triggers again", times)
            assert get(f"{server.url}/_ddp/ready")[0] == 200
            writers.go_on()
        writers.stop()
    assert_all_equal(db, clients)
    with DDPClient(server.url) as newcomer:
        newcomer.subscribe("CheapBooks", 5)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (DROP.format(table="bookstore_book"), None),
        (
            "ALTER TABLE bookstore_book DISABLE TRIGGER USER;",
            "ALTER TABLE bookstore_book ENABLE TRIGGER USER;",
        ),
        (SILENCE, None),
    ],
    ids=["dropped", "disabled", "silenced"],
)
def test_triggers_that_were_gone_between_two_looks(
    db: Database, server: Server, clients: list[DDPClient], before: str, after: str | None
) -> None:
    """In one transaction, so that no look ever finds them missing."""
    if after is None:
        made = (
            db.psql(
                "SELECT pg_get_functiondef(tgfoid) || ';', pg_get_triggerdef(oid) || ';' FROM pg_trigger"
                " WHERE tgrelid = 'bookstore_book'::regclass AND tgname ~ '^ddp'"
            )
            .replace("\n|CREATE", "\nCREATE")
            .replace("|CREATE", "CREATE")
        )
        after = made.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER")
    told = [len(client.messages) for client in clients]
    db.psql(f"BEGIN; {before} UPDATE bookstore_book SET price = 4, title = 'unnoticed'; {after} COMMIT;")
    server.wait_for_log("the triggers of bookstore_book were made anew")
    assert_all_equal(db, clients)
    assert any(len(client.messages) > count + 2 for client, count in zip(clients, told, strict=True))
    assert "ERROR" not in server.log()


def test_a_transaction_that_wrote_with_a_silent_function_and_commits_after_the_healing(
    db: Database, server: Server, clients: list[DDPClient]
) -> None:
    """Replacing a function locks no table: only its triggers do."""
    server.errors_expected = True
    silence(db)
    server.wait_for_log("changes of bookstore_book may go unnoticed")
    with db.connect() as writer:
        writer.execute("BEGIN; UPDATE bookstore_book SET price = 1, title = 'late'")
        install()
        server.wait_for_log("bookstore_book has its triggers again")
        clients[0].settle()
        assert "late" not in {book["title"] for book in clients[0].documents[BOOK].values()}
        wait_for_looks(db, 3)
        writer.execute("COMMIT")
    clients[0].wait_until(lambda: {b["title"] for b in clients[0].documents[BOOK].values()} == {"late"})
    assert_all_equal(db, clients)


def test_what_users_are_is_healed_too(db: Database, server: Server) -> None:
    server.errors_expected = True
    db.psql(
        f"INSERT INTO auth_user ({COLUMNS}) VALUES (1, 'ann', '', 'ab', '', '', false, false, true, now());"
        "INSERT INTO zoo_keeper (aid, name, account_id) VALUES ('k', 'Kim', NULL)"
    )
    with DDPClient(server.url) as client:
        ok(client.call("become", 1))
        client.subscribe("MyPersonalKeepers")
        assert client.documents["personal-keepers"] == {}
        db.psql(DROP.format(table="auth_user"))
        server.wait_for_log("changes of auth_user may go unnoticed")
        db.psql("UPDATE auth_user SET is_superuser = true")
        install()
        client.wait_until(lambda: set(client.documents["personal-keepers"]) == {"k"})


def test_a_table_that_is_dropped_and_made_again(
    db: Database, server: Server, clients: list[DDPClient]
) -> None:
    server.errors_expected = True
    db.psql(
        "BEGIN; ALTER TABLE bookstore_book_tags RENAME TO before;"
        "CREATE TABLE bookstore_book_tags (LIKE before INCLUDING ALL);"
        "ALTER TABLE bookstore_book_tags ADD FOREIGN KEY (book_id) REFERENCES bookstore_book,"
        " ADD FOREIGN KEY (tag_id) REFERENCES bookstore_tag; DROP TABLE before CASCADE; COMMIT;"
        "INSERT INTO bookstore_book_tags (id, book_id, tag_id) VALUES (1, 1, 1), (2, 2, 1)"
    )
    server.wait_for_log(
        "changes of bookstore_book_tags may go unnoticed: bookstore_book_tags has no triggers"
    )
    install()
    server.wait_for_log("bookstore_book_tags has its triggers again")
    assert_all_equal(db, clients)


ADD = "ALTER TABLE bookstore_book ADD COLUMN extra_{0} "


def test_a_migration_that_adds_a_column(db: Database, server: Server, clients: list[DDPClient]) -> None:
    """Each kind rewrites the table or not; all of them while others write and clients watch."""
    with writing(db) as writers:
        for number, kind in enumerate(
            (
                "integer",
                "text NOT NULL DEFAULT 'x'",
                "uuid NOT NULL DEFAULT gen_random_uuid()",
                "bigint REFERENCES bookstore_author",
                "integer GENERATED ALWAYS AS (author_id + 1) STORED",
            )
        ):
            writers.go_on()
            db.psql(ADD.format(number) + kind)
            writers.go_on()
            install()
            writers.go_on()
        writers.stop()
    assert_all_equal(db, clients)
    with DDPClient(server.url) as newcomer:
        newcomer.subscribe("CheapBooks", 5)
    db.psql("UPDATE bookstore_book SET title = 'after all that'")
    assert_all_equal(db, clients)
    assert "may go unnoticed" not in server.log()


def test_the_clients_are_told_nothing_where_nothing_was_missed(
    db: Database, server: Server, clients: list[DDPClient]
) -> None:
    told = [len(client.messages) for client in clients]
    install()
    db.psql("CREATE OR REPLACE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';")
    db.psql("ANALYZE; VACUUM bookstore_book; REINDEX TABLE bookstore_book")
    for client, count in zip(clients, told, strict=True):
        client.settle()
        assert [m["msg"] for m in client.messages[count:]] == ["result", "updated"]


def test_writers_alone(db: Database, server: Server, clients: list[DDPClient]) -> None:
    """What the faults are compared with."""
    with writing(db) as writers:
        writers.go_on(200)
        writers.stop()
    assert_all_equal(db, clients)
