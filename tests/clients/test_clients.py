"""DDP clients as they come from npm, against a running server.

Every client goes the same way: what it shows its user is compared with what PostgreSQL has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.conftest import Client, Refused
from tests.conftest import Database
from tests.serving import Server

BOOKS = "bookstore.book"

# name → program and its environment
CLIENTS = {
    "simpleddp": ("simpleddp.mjs", {}),
    "ddp": ("node_ddp.mjs", {}),
    "ddp.js": ("ddp_js.mjs", {}),
    # all transports that sockjs-client has in Node; the others need a page
    "ddp.js over SockJS": ("ddp_js.mjs", {"SOCKJS": "websocket"}),
    "ddp.js over SockJS's xhr-streaming": ("ddp_js.mjs", {"SOCKJS": "xhr-streaming"}),
    "ddp.js over SockJS's eventsource": ("ddp_js.mjs", {"SOCKJS": "eventsource"}),
    "ddp.js over SockJS's xhr-polling": ("ddp_js.mjs", {"SOCKJS": "xhr-polling"}),
    "Meteor": ("meteor.mjs", {}),
    "@meteorrn/core": ("meteorrn.mjs", {}),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, run_client: Callable[..., Client], server: Server) -> Client:
    """Each client in turn, connected to the test's server."""
    program, environ = CLIENTS[request.param]
    client = run_client(program, server, **environ)
    client.connect()
    return client


def inserted(db: Database, sql: str) -> str:
    """The id that psql prints for an ``INSERT … RETURNING id``."""
    return db.psql(sql).split()[0]


@pytest.fixture
def author(db: Database) -> str:
    """An author with two books; the author's id."""
    author = inserted(
        db, "INSERT INTO bookstore_author (name, email) VALUES ('Ursula', 'u@example.org') RETURNING id"
    )
    for title, price in (("The Dispossessed", "12.50"), ("The Telling", "7.00")):
        db.psql(
            "INSERT INTO bookstore_book (title, author_id, price, in_stock)"
            f" VALUES ('{title}', {author}, {price}, true)"
        )
    return author


def titles(client: Client) -> dict[str, str]:
    """The books as the client has them: title by document id."""
    return {key: fields["title"] for key, fields in client.documents(BOOKS).items()}


def titles_in(db: Database) -> dict[str, str]:
    lines = db.psql("SELECT id || '|' || title FROM bookstore_book ORDER BY id").splitlines()
    return dict(line.split("|", 1) for line in lines)


def test_a_subscription_follows_the_table_until_it_ends(client: Client, author: str, db: Database) -> None:
    subscription = client.subscribe("AllBooks")
    assert titles(client) == titles_in(db) != {}
    assert list(client.documents("bookstore.author")) == [author]

    new = inserted(
        db,
        "INSERT INTO bookstore_book (title, author_id, in_stock)"
        f" VALUES ('Four Ways \"to\" \\ Forgiveness 🌍', {author}, true) RETURNING id",
    )
    client.wait_for(msg="added", collection=BOOKS, id=new)
    assert titles(client) == titles_in(db)
    assert client.documents(BOOKS)[new]["in_stock"] is True

    db.psql(f"UPDATE bookstore_book SET title = 'Five Ways', in_stock = false WHERE id = {new}")
    change = client.wait_for(msg="changed", collection=BOOKS, id=new)
    assert sorted(change["fields"]) == ["in_stock", "title"]
    assert titles(client) == titles_in(db)
    assert client.documents(BOOKS)[new]["in_stock"] is False

    db.psql(f"DELETE FROM bookstore_book WHERE id = {new}")
    client.wait_for(msg="removed", collection=BOOKS, id=new)
    assert titles(client) == titles_in(db)

    client.unsubscribe(subscription)
    assert client.documents(BOOKS) == {}
    assert client.documents("bookstore.author") == {}
    client.close()


def test_a_publication_takes_parameters(client: Client, author: str, db: Database) -> None:
    client.subscribe("CheapBooks", 10)
    assert list(titles(client).values()) == ["The Telling"]

    db.psql("UPDATE bookstore_book SET price = price * 10")
    client.wait_for(msg="removed", collection=BOOKS)
    assert titles(client) == {}

    db.psql("UPDATE bookstore_book SET price = 1 WHERE title = 'The Dispossessed'")
    client.wait_for(msg="added", collection=BOOKS)
    assert list(titles(client).values()) == ["The Dispossessed"]
    client.close()


VALUES = [
    "",
    "Gödel, “Escher”, \\ Bach 🌍",
    -0.5,
    9007199254740991,
    None,
    [1, [2, {"three": [None, True]}]],
    {"when": {"$date": 1_700_000_000_123}},
    {"bytes": {"$binary": "AAECAw=="}},
    "x" * 200_000,
]


def test_methods_take_and_give_values(client: Client) -> None:
    assert [client.call("echo", value) for value in VALUES] == VALUES
    assert client.call("add", 2, 40) == 42
    assert client.call("slow_echo", "async") == "async"
    client.close()


def test_a_method_sees_its_own_writes_in_the_documents_first(
    client: Client, author: str, db: Database
) -> None:
    client.subscribe("AllBooks")
    book = next(iter(client.documents(BOOKS)))
    assert client.call("rename", book, "Always Coming Home") is None
    client.wait_for(msg="updated")
    assert titles(client)[book] == "Always Coming Home"
    client.close()


def test_a_refusal_reaches_the_client_whole(client: Client) -> None:
    def refusal(attempt: Callable[..., Any], *args: Any) -> dict[str, Any]:
        with pytest.raises(Refused) as caught:
            attempt(*args)
        return caught.value.error

    error = {
        "error": "out-of-print",
        "reason": "No copies left",
        "details": {"copies": 0},
        "message": "No copies left [out-of-print]",
        "errorType": "Meteor.Error",
    }
    # Meteor 1.3 does not know isClientSafe.
    assert {"isClientSafe": True, **refusal(client.call, "fail")} == {"isClientSafe": True, **error}
    assert client.wait_for(msg="result")["error"] == {"isClientSafe": True, **error}
    unknown_method = refusal(client.call, "no_such_method")
    assert (unknown_method["error"], unknown_method["reason"]) == (404, "Method 'no_such_method' not found")
    unknown_publication = refusal(client.subscribe, "NoSuchPublication")
    assert (unknown_publication["error"], unknown_publication["reason"]) == (
        404,
        "Subscription 'NoSuchPublication' not found",
    )
    client.close()


def test_a_broken_method_tells_its_client_nothing_and_the_log_everything(
    client: Client, server: Server
) -> None:
    server.errors_expected = True
    with pytest.raises(Refused) as caught:
        client.call("broken")
    assert (caught.value.error["error"], caught.value.error["reason"]) == (500, "Internal server error")
    assert "secret of the test" not in str(caught.value.error)
    server.wait_for_log("secret of the test")
    assert client.call("echo", "still here") == "still here"
    client.close()
