"""What an application, a client or the database may do at its worst: the server lives, and is right."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from trigger_ddp.capture.tables import Table
from trigger_ddp.demo.bookstore.models import Author, Book

AUTHORS = "bookstore.author"
INTERNAL_ERROR = (500, "Internal server error")
#: The test's own connections are called so, as the server's evaluations and methods are not.
APPLICATION = "the test"
OTHER_THAN_EVALUATIONS = f"application_name IN ('trigger_ddp listener', '{APPLICATION}')"


@pytest.fixture
def client(server: Server) -> Iterator[DDPClient]:
    """A client whose session and server are well when the test is over."""
    with DDPClient(server.url) as client:
        yield client
        assert client.call("echo", "alive")["result"] == "alive"
        assert client.violations == []
        assert server.process.poll() is None


@pytest.fixture
def watcher(db: Database) -> Iterator[psycopg.Connection]:
    """A connection for looking at the others, which no test cuts."""
    with db.connect() as connection:
        connection.execute(f"SET application_name = '{APPLICATION}'")
        yield connection


@contextlib.contextmanager
def locked(db: Database, table: str) -> Iterator[None]:
    """Keep everyone from reading a table, as a migration does."""
    with db.connect() as connection:
        connection.execute(f"SET application_name = '{APPLICATION}'")
        with connection.transaction():
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield


def wait_for_row(connection: psycopg.Connection, sql: str) -> None:
    """Ask until there is a row."""
    deadline = time.monotonic() + 30
    while connection.execute(sql).fetchone() is None:
        assert time.monotonic() < deadline, sql


def notify(connection: psycopg.Connection, table: Table, operation: str, *keys: list[Any]) -> None:
    """What a trigger of the table would send; any role may send it."""
    rows = [[*key, *[None] * (table.width - len(key))] for key in keys]
    connection.execute(
        "SELECT pg_notify(%s, %s)", [table.channel, json.dumps([table.version, operation, rows])]
    )


def add_authors(db: Database, *names: str) -> None:
    for name in names:
        db.psql(f"INSERT INTO bookstore_author (name, email) VALUES ('{name}', '{name}@x')")


def names_of(client: DDPClient) -> set[str]:
    return {fields["name"] for fields in client.documents[AUTHORS].values()}


def refused(client: DDPClient, name: str) -> dict[str, Any]:
    """The error that a subscription ends with."""
    subscription = client.start_subscription(name)
    answer = client.wait_for(
        lambda m: m.get("id") == subscription or (m["msg"] == "ready" and subscription in m["subs"])
    )
    assert answer["msg"] == "nosub", answer
    error: dict[str, Any] = answer["error"]
    return error


# -- keys -----------------------------------------------------------------------------------------


def test_keys_may_contain_any_character(db: Database, client: DDPClient) -> None:
    """U+001F, made to separate, is what one might join keys with."""
    client.subscribe("SpeciesAndStalls")
    species, stalls = client.documents["species"], client.documents["stalls"]
    db.psql("INSERT INTO zoo_species (code, latin) VALUES (U&'a\\001Fb', 'x'), ('a', 'y'), ('', 'z')")
    db.psql("INSERT INTO zoo_stall (house, number) VALUES (U&'a\\001F1', 2), ('a', 12)")
    client.settle()
    assert {code: fields["latin"] for code, fields in species.items()} == {"a\x1fb": "x", "a": "y", "": "z"}
    assert set(stalls) == {"a\x1f1:2", "a:12"}
    db.psql("UPDATE zoo_species SET latin = latin || '!'; DELETE FROM zoo_stall WHERE number = 2")
    client.settle()
    assert {fields["latin"] for fields in species.values()} == {"x!", "y!", "z!"}
    assert set(stalls) == {"a:12"}


def test_forged_keys_are_looked_into_and_nothing_more(
    db: Database, client: DDPClient, watcher: psycopg.Connection
) -> None:
    add_authors(db, "ada")
    client.subscribe("AllBooks")
    forgeries = [
        [["1"], ["2\x1f3"]], [["\x1f"], ["\x1f\x1f"]], [[""]], [["1"], ["9" * 99]], [["1\n"], ["{}"]],
    ]  # fmt: skip
    for number, keys in enumerate(forgeries):
        notify(watcher, Table.from_model(Author), "U", *keys)
        client.settle()
        add_authors(db, f"after{number}")
        client.settle()
        assert names_of(client) == {"ada", *(f"after{seen}" for seen in range(number + 1))}
    assert not [m for m in client.messages if m["msg"] == "nosub"]


def test_an_id_that_moves_to_another_row_and_query(db: Database, client: DDPClient) -> None:
    """A row is deleted and its unique id inserted with another: the queries learn it one after the other."""
    db.psql("INSERT INTO zoo_keeper (id, aid, name) VALUES (1, 'aaaaaaaaaaaaaaaaa', 'old')")
    for name in ("new", "old"):
        client.subscribe("KeepersNamed", name)
    for row in range(2, 12):
        name = ("new", "old")[row % 2]
        db.psql(
            "BEGIN; DELETE FROM zoo_keeper;"
            f" INSERT INTO zoo_keeper (id, aid, name) VALUES ({row}, 'aaaaaaaaaaaaaaaaa', '{name}'); COMMIT"
        )
        client.settle()
        told = {aid: fields["name"] for aid, fields in client.documents["keepers"].items()}
        assert told == {"aaaaaaaaaaaaaaaaa": name}


# -- publications ---------------------------------------------------------------------------------


@pytest.mark.parametrize("first_ends_first", [True, False])
@pytest.mark.parametrize(
    "names", [("Authors", "AuthorsDependingOnTags"), ("AuthorsDependingOnTags", "Authors")]
)
def test_the_same_sql_with_other_dependencies(
    db: Database, client: DDPClient, names: tuple[str, str], first_ends_first: bool
) -> None:
    subscriptions = [client.subscribe(name) for name in names]
    add_authors(db, "ada")
    db.psql("INSERT INTO bookstore_tag (name) VALUES ('t')")
    client.settle()
    assert names_of(client) == {"ada"}
    for subscription in subscriptions if first_ends_first else reversed(subscriptions):
        client.unsubscribe(subscription)
    assert client.documents[AUTHORS] == {}
    client.subscribe(names[0])
    add_authors(db, "bob")
    client.settle()
    assert names_of(client) == {"ada", "bob"}


@pytest.mark.parametrize("depending_first", [True, False])
def test_dependencies_hold_whoever_else_has_the_same_sql(
    db: Database, server: Server, client: DDPClient, depending_first: bool
) -> None:
    add_authors(db, "ada")
    with DDPClient(server.url) as other:
        if depending_first:
            client.subscribe("AuthorsCalledLikeTagsLive")
            other.subscribe("AuthorsCalledLikeTags")
        else:
            other.subscribe("AuthorsCalledLikeTags")
            client.subscribe("AuthorsCalledLikeTagsLive")
        assert names_of(client) == set()
        db.psql("INSERT INTO bookstore_tag (name) VALUES ('ada')")
        client.settle()
        assert names_of(client) == {"ada"}


def test_a_queryset_of_another_database(db: Database, server: Server, client: DDPClient) -> None:
    server.errors_expected = True
    add_authors(db, "ada")
    error = refused(client, "OfAnotherDatabase")
    assert (error["error"], error["reason"]) == INTERNAL_ERROR
    assert client.documents[AUTHORS] == {}
    server.wait_for_log(r"is of database 'other'")


def test_more_initial_documents_than_may_wait_for_a_client(
    serve: Callable[..., Server], db: Database
) -> None:
    db.psql(
        "INSERT INTO bookstore_author (name, email)"
        " SELECT repeat('x', 90), n || '@x' FROM generate_series(1, 20000) AS n"
    )
    server = serve(DDP_OUTBOX_BYTES="100000")
    with DDPClient(server.url) as client:
        client.subscribe("Authors")
        assert len(client.documents[AUTHORS]) == 20000
        assert client.violations == []
        assert client.call("echo", "alive")["result"] == "alive"


# -- methods --------------------------------------------------------------------------------------


def test_a_method_can_not_end_the_server(server: Server, client: DDPClient) -> None:
    server.errors_expected = True
    for method in ("hostile/exit", "hostile/interrupt", "hostile/exit_on_the_event_loop"):
        error = client.call(method)["error"]
        assert (error["error"], error["reason"]) == INTERNAL_ERROR


def test_a_publication_can_not_end_the_server(server: Server, client: DDPClient) -> None:
    server.errors_expected = True
    error = refused(client, "Exits")
    assert (error["error"], error["reason"]) == INTERNAL_ERROR


def test_the_event_loop_is_no_place_for_queries(server: Server, client: DDPClient) -> None:
    server.errors_expected = True
    error = client.call("hostile/count_authors_on_the_event_loop")["error"]
    assert (error["error"], error["reason"]) == INTERNAL_ERROR
    server.wait_for_log(re.escape("await this.in_thread("))


def test_an_async_method_queries_in_a_thread(db: Database, client: DDPClient) -> None:
    add_authors(db, "ada", "bob")
    assert client.call("hostile/count_authors_in_a_thread")["result"] == 2


def test_an_error_in_the_words_of_a_translation(client: DDPClient) -> None:
    error = client.call("hostile/refuse_lazily")["error"]
    assert (error["error"], error["reason"], error["message"]) == (
        "not-yours", "Not yours", "Not yours [not-yours]",
    )  # fmt: skip
    error = refused(client, "RefusesInTheClientsLanguage")
    assert (error["reason"], error["details"]) == ("Not yours", {"at": "here"})


def test_an_error_whose_details_have_no_json(client: DDPClient) -> None:
    for kind in ("object", "key", "circle", "text"):
        error = client.call("hostile/refuse_with_details", kind)["error"]
        assert (error["error"], error["reason"]) == ("not-yours", "Not yours")


def test_arguments_become_what_the_hints_say(client: DDPClient) -> None:
    def day_after(day: Any) -> Any:
        return client.call("hostile/day_after", day)

    def version_of(value: Any) -> Any:
        return client.call("hostile/version_of", value)

    assert day_after({"$date": 0})["result"] == "date 1970-01-02"
    assert day_after("2024-02-28")["result"] == "date 2024-02-29"
    assert version_of("12345678-1234-4678-9234-567812345678")["result"] == "UUID 4"
    for answer in (day_after("tomorrow"), day_after(3), version_of("4"), version_of({"$date": 0})):
        assert (answer["error"]["error"], answer["error"]["reason"]) == (400, "Match failed")


# -- the database ---------------------------------------------------------------------------------


def test_a_locked_table_concerns_only_those_who_read_it(
    db: Database, server: Server, client: DDPClient, watcher: psycopg.Connection
) -> None:
    book = Table.from_model(Book)
    for price in range(10):  # more queries than there are threads
        client.subscribe("CheapBooks", price)
    with DDPClient(server.url) as other:
        other.subscribe("AllTags")
        with locked(db, "bookstore_book"):
            notify(watcher, book, "U", ["1"])
            wait_for_row(watcher, "SELECT 1 FROM pg_locks WHERE NOT granted")
            assert other.call("echo", 1)["result"] == 1  # with its `updated`
            db.psql("INSERT INTO bookstore_tag (name) VALUES ('while locked')")
            other.settle()
            assert len(other.documents["bookstore.tag"]) == 1
        add_authors(db, "ada")
        db.psql(
            "INSERT INTO bookstore_book (title, author_id, price, in_stock)"
            " SELECT 'Unlocked', id, 5, true FROM bookstore_author"
        )
        client.settle()
        assert [fields["title"] for fields in client.documents["bookstore.book"].values()] == ["Unlocked"]


def test_updated_comes_although_the_connections_are_cut(
    db: Database, server: Server, client: DDPClient, watcher: psycopg.Connection
) -> None:
    """An evaluation that must be repeated takes in what waited behind it: one answer for two questions."""
    author = Table.from_model(Author)
    client.subscribe("Authors")
    with DDPClient(server.url) as other:
        other.subscribe("AllTags")
        with locked(db, "bookstore_author"):
            notify(watcher, author, "U", ["1"])
            wait_for_row(watcher, "SELECT 1 FROM pg_locks WHERE NOT granted")
            notify(watcher, author, "U", ["2"])
            client.send(msg="method", id="waits", method="echo", params=[1])
            client.wait_for(lambda m: m["msg"] == "result" and m["id"] == "waits")
            other.call("echo", 1)  # its fence came later: now the method waits for both looks
            watcher.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = current_database() AND NOT {OTHER_THAN_EVALUATIONS}"
            )
            assert not [m for m in client.messages if m["msg"] == "updated"]
        client.wait_for(lambda m: m["msg"] == "updated" and "waits" in m["methods"])


@pytest.mark.parametrize("name", ["AllTags", "AuthorsCalledLikeTags"])
def test_a_subscription_made_while_the_database_is_away(
    db: Database, server: Server, client: DDPClient, name: str
) -> None:
    client.subscribe("Authors")
    with db.cluster.connect() as elsewhere:
        elsewhere.execute(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS false")
        elsewhere.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [db.name]
        )
        subscription = client.start_subscription(name)
        server.wait_for_log("the database gave no answer, asking again")
        elsewhere.execute(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS true")
    answer = client.wait_for(lambda m: m.get("id") == subscription or subscription in m.get("subs", ()))
    assert answer["msg"] == "ready"
    add_authors(db, "ada")
    client.wait_until(lambda: names_of(client) == {"ada"})
