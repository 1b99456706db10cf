"""The whole path, from psql to what arrives on the socket, with a real server process."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from websockets.sync.client import connect

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_operations import eventually

BOOK, AUTHOR = "bookstore.book", "bookstore.author"


@pytest.fixture
def shelf(db: Database) -> Database:
    db.psql(
        "INSERT INTO bookstore_author (id, name, email) VALUES (1, 'Ada', 'ada@x'), (2, 'Bob', 'bob@x');"
        "INSERT INTO bookstore_book (id, title, author_id, price, published, in_stock) VALUES"
        " (1, 'One', 1, 5.50, '2020-02-29', true), (2, 'Two', 2, NULL, NULL, false)"
    )
    return db


@pytest.fixture
def client(shelf: Database, server: Server) -> Any:
    with DDPClient(server.url) as client:
        yield client
        assert client.violations == []


@pytest.mark.every_major
def test_what_psql_writes_reaches_the_client(shelf, server, client):
    client.subscribe("AllBooks")
    assert client.documents[AUTHOR] == {
        "1": {"name": "Ada", "email": "ada@x"}, "2": {"name": "Bob", "email": "bob@x"},
    }  # fmt: skip
    assert client.documents[BOOK]["1"] == {
        "title": "One", "author_id": "1", "price": "5.50", "published": {"$date": 1582934400000},
        "in_stock": True, "tags_ids": [],
    }  # fmt: skip

    shelf.psql("INSERT INTO bookstore_author (id, name, email) VALUES (3, 'Cyd', 'cyd@x')")
    client.wait_until(lambda: "3" in client.documents[AUTHOR])
    shelf.psql("UPDATE bookstore_book SET price = 7, published = NULL WHERE id = 1")
    client.wait_until(lambda: client.documents[BOOK]["1"]["price"] == "7.00")
    assert client.messages[-1] == {
        "msg": "changed", "collection": BOOK, "id": "1", "fields": {"price": "7.00", "published": None},
    }  # fmt: skip
    shelf.psql("DELETE FROM bookstore_book WHERE id = 2")
    client.wait_until(lambda: "2" not in client.documents[BOOK])


def test_who_subscribes_after_a_commit_is_told_nothing_of_before_by_a_query_that_others_have(
    shelf, server, client
):
    client.subscribe("AllBooks")
    with DDPClient(server.url) as late, psycopg.connect(shelf.dsn) as other:
        # so that the server can't look at what is written now
        other.execute("LOCK TABLE bookstore_book_tags")
        shelf.psql("UPDATE bookstore_book SET title = 'New' WHERE id = 1")
        last_said = (
            "SELECT query_start FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'trigger_ddp listener'"
        )
        before = shelf.psql(last_said)
        subscription = late.start_subscription("AllBooks")
        eventually(lambda: shelf.psql(last_said) != before)  # its fence
        assert not late.documents[BOOK]
        other.rollback()
        late.wait_for(lambda message: message == {"msg": "ready", "subs": [subscription]})
        assert late.documents[BOOK]["1"]["title"] == "New"
        assert not [message for message in late.messages if "One" in json.dumps(message)]
        assert late.violations == []


def test_nor_by_a_query_that_others_just_load(shelf, server, client):
    client.start_subscription("AuthorsThatTakeTime")
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    with DDPClient(server.url) as late:
        eventually(lambda: shelf.psql(sleeping).strip() == "1")
        shelf.psql("UPDATE bookstore_author SET name = 'New' || name")
        late.subscribe("AuthorsThatTakeTime")
        names = [fields["name"] for fields in late.documents["bookstore.author"].values()]
        assert names
        assert all(name.startswith("New") for name in names)
        told = [message for message in late.messages if message.get("collection") == "bookstore.author"]
        assert {message["msg"] for message in told} == {"added"}, "at once as they are"


def test_a_filter_lets_documents_in_and_out(shelf, server, client):
    client.subscribe("CheapBooks", 6)
    assert set(client.documents[BOOK]) == {"1"}
    shelf.psql("UPDATE bookstore_book SET price = 2 WHERE id = 2")
    client.wait_until(lambda: set(client.documents[BOOK]) == {"1", "2"})
    shelf.psql("UPDATE bookstore_book SET price = price + 10")
    client.wait_until(lambda: not client.documents[BOOK])


def test_a_row_outside_every_subscription_is_nobodys_business(shelf, server, client):
    client.subscribe("CheapBooks", 6)
    client.settle()
    told = len(client.messages)
    shelf.psql("UPDATE bookstore_book SET title = 'Two again' WHERE id = 2")
    shelf.psql("UPDATE bookstore_book SET title = title")
    client.settle()
    assert [m["msg"] for m in client.messages[told:]] == ["result", "updated"]


def test_nothing_of_a_transaction_that_rolls_back_is_seen_and_all_of_one_that_commits(shelf, server, client):
    client.subscribe("AllBooks")
    with shelf.connect() as writer, writer.transaction() as transaction:
        writer.execute("UPDATE bookstore_book SET title = 'never'")
        raise psycopg.Rollback(transaction)
    with shelf.connect() as writer, writer.transaction():
        writer.execute("UPDATE bookstore_book SET title = 'first' WHERE id = 1")
        writer.execute("UPDATE bookstore_book SET title = 'last' WHERE id = 1")
    client.settle()
    titles = [
        m["fields"]["title"] for m in client.messages if m["msg"] == "changed" and "title" in m["fields"]
    ]
    assert titles == ["last"]


def test_a_joined_row_that_changes_moves_documents(shelf, server, client):
    client.subscribe("BooksByAuthorEmail", "ada@x")
    assert set(client.documents[BOOK]) == {"1"}
    shelf.psql("UPDATE bookstore_author SET email = 'ada@y' WHERE id = 1")
    client.wait_until(lambda: not client.documents[BOOK] and not client.documents[AUTHOR])
    shelf.psql("UPDATE bookstore_author SET email = 'ada@x' WHERE id = 2")
    client.wait_until(lambda: set(client.documents[BOOK]) == {"2"} and set(client.documents[AUTHOR]) == {"2"})


def test_many_to_many_lists_follow_their_through_table(shelf, server, client):
    client.subscribe("AllBooks")
    shelf.psql("INSERT INTO bookstore_tag (id, name) VALUES (7, 'new'), (8, 'old')")
    shelf.psql("INSERT INTO bookstore_book_tags (book_id, tag_id) VALUES (1, 8), (1, 7)")
    client.wait_until(lambda: client.documents[BOOK]["1"]["tags_ids"] == ["7", "8"])
    shelf.psql("UPDATE bookstore_book_tags SET book_id = 2 WHERE tag_id = 8")
    client.wait_until(
        lambda: (
            (client.documents[BOOK]["1"]["tags_ids"], client.documents[BOOK]["2"]["tags_ids"])
            == (["7"], ["8"])
        )
    )


def test_bulk_statements_and_truncate(shelf, server, client):
    client.subscribe("AllBooks")
    shelf.psql(
        "INSERT INTO bookstore_book (id, title, author_id, in_stock)"
        " SELECT n, 'n' || n, 1, true FROM generate_series(11, 12010) n"
    )
    client.wait_until(lambda: len(client.documents[BOOK]) == 12002)
    shelf.psql("UPDATE bookstore_book SET title = 'same'")
    client.wait_until(lambda: {book["title"] for book in client.documents[BOOK].values()} == {"same"})
    shelf.psql("TRUNCATE bookstore_author CASCADE")
    client.wait_until(lambda: not client.documents[BOOK] and not client.documents[AUTHOR])


def test_overlapping_subscriptions_are_merged(shelf, server, client):
    everything = client.subscribe("AllBooks")
    told = len(client.messages)
    cheap = client.subscribe("CheapBooks", 6)
    assert [m["msg"] for m in client.messages[told:]] == ["ready"], "the client has those documents already"
    client.unsubscribe(everything)
    assert set(client.documents[BOOK]) == {"1"}
    assert not client.documents[AUTHOR]
    client.unsubscribe(cheap)
    assert not client.documents[BOOK]
    assert client.messages[-1] == {"msg": "nosub", "id": cheap}


def test_the_same_subscription_twice_on_one_session(shelf, server, client):
    first = client.subscribe("CheapBooks", 6)
    second = client.subscribe("CheapBooks", 6)
    client.unsubscribe(first)
    shelf.psql("UPDATE bookstore_book SET title = 'still' WHERE id = 1")
    client.wait_until(lambda: client.documents[BOOK]["1"]["title"] == "still")
    client.unsubscribe(second)
    assert not client.documents[BOOK]


def test_methods_of_every_kind(shelf, server, client):
    assert client.call("add", 2, 3)["result"] == 5
    assert client.call("echo", {"$date": 1000})["result"] == {"$date": 1000}
    assert client.call("slow_echo", [1, None])["result"] == [1, None]
    assert "result" not in client.call("echo", None)
    assert client.call("nothing of the kind")["error"] == {
        "isClientSafe": True, "error": 404, "reason": "Method 'nothing of the kind' not found",
        "message": "Method 'nothing of the kind' not found [404]", "errorType": "Meteor.Error",
    }  # fmt: skip
    error = client.call("fail")["error"]
    assert (error["error"], error["reason"], error["details"]) == (
        "out-of-print",
        "No copies left",
        {"copies": 0},
    )
    assert client.call("add", 1)["error"]["reason"] == "Match failed"


def test_at_updated_the_client_has_what_the_method_wrote(shelf, server, client):
    client.subscribe("AllBooks")
    for number in range(50):
        client.call("rename", "1", f"title {number}")
        assert client.documents[BOOK]["1"]["title"] == f"title {number}"


def test_sockjs_and_raw_clients_see_the_same(shelf, server):
    address = server.url.replace("http", "ws") + "/sockjs/123/abcdefgh/websocket"
    with connect(address) as socket:
        assert socket.recv() == "o"
        for message in (
            {"msg": "connect", "version": "1", "support": ["1"]},
            {"msg": "sub", "id": "s", "name": "CheapBooks", "params": [6]},
        ):
            socket.send(json.dumps([json.dumps(message)]))
        received = []
        while not received or received[-1]["msg"] != "ready":
            frame = socket.recv(timeout=20)
            assert frame[0] == "a"
            received += [json.loads(text) for text in json.loads(frame[1:])]
        assert [m["msg"] for m in received] == ["connected", "added", "ready"]
        assert received[1]["fields"]["title"] == "One"


def test_fifty_clients_share_one_live_query(shelf, server):
    clients = [DDPClient(server.url) for _ in range(50)]
    try:
        for client in clients:
            client.start_subscription("AllBooks")
        for client in clients:
            client.wait_for(lambda m: m["msg"] == "ready")
        shelf.psql("UPDATE bookstore_book SET title = 'for all' WHERE id = 1")
        for client in clients:
            client.wait_until(lambda client=client: client.documents[BOOK]["1"]["title"] == "for all")
            assert client.violations == []
    finally:
        for client in clients:
            client.close()
