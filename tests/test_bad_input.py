"""What goes wrong for one client: it is told what, the log has the whole story, nobody else notices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server

INTERNAL_ERROR = {
    "isClientSafe": True, "error": 500, "reason": "Internal server error",
    "message": "Internal server error [500]", "errorType": "Meteor.Error",
}  # fmt: skip


@pytest.fixture
def bystander(db: Database, server: Server) -> Iterator[DDPClient]:
    """Another client, whose subscription lives on whatever happens."""
    with DDPClient(server.url) as bystander:
        bystander.subscribe("AllBooks")
        yield bystander
        db.psql("INSERT INTO bookstore_author (name, email) VALUES ('still', 'here@x')")
        bystander.wait_until(lambda: bystander.documents["bookstore.author"])
        assert bystander.violations == []


@pytest.fixture
def client(server: Server, bystander: DDPClient) -> Iterator[DDPClient]:
    """A client whose session still answers when the test is over."""
    with DDPClient(server.url) as client:
        yield client
        assert client.call("echo", "alive")["result"] == "alive"


@pytest.mark.parametrize(
    "text", ["", "{", "null", "5", '"x"', "]", "\ud7ff", "[" * 100_000, '{"msg"}', "NaN"]
)
def test_what_is_not_a_message(client, text):
    client.send_text(text)
    assert client.wait_for(lambda m: m["msg"] == "error") == {"msg": "error", "reason": "Bad request"}


def test_an_unknown_message_names_itself(client):
    client.send(msg="dance", with_="me")
    assert client.wait_for(lambda m: m["msg"] == "error") == {
        "msg": "error", "reason": "Bad request", "offendingMessage": {"msg": "dance", "with_": "me"},
    }  # fmt: skip


def test_a_publication_nobody_declared(client):
    client.send(msg="sub", id="s", name="Nothing")
    error = client.wait_for(lambda m: m["msg"] == "nosub")["error"]
    assert error == {
        "isClientSafe": True, "error": 404, "reason": "Subscription 'Nothing' not found",
        "message": "Subscription 'Nothing' not found [404]", "errorType": "Meteor.Error",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "params", "log"),
    [
        ("Raises", [], "RuntimeError: the publication's secret"),
        ("FailsInSQL", [], "division by zero"),
        ("BooksOfAuthor", ["not a number"], "ValueError"),
        ("NotAQueryset", [], "not a queryset"),
        ("NoTrigger", [], "manage.py ddp_install_triggers"),
    ],
)
def test_a_subscription_that_fails_is_a_500_and_a_traceback(server, client, name, params, log):
    server.errors_expected = True
    client.send(msg="sub", id="s", name=name, params=params)
    assert client.wait_for(lambda m: m["msg"] == "nosub") == {
        "msg": "nosub",
        "id": "s",
        "error": INTERNAL_ERROR,
    }
    assert "secret" not in json.dumps(client.messages)
    server.wait_for_log(re.escape(log))
    assert "Traceback" in server.log()


@pytest.mark.parametrize("params", [[], ["a", "b"], [3], [None], [{"a": 1}]])
def test_parameters_that_do_not_fit_a_publication(client, params):
    client.send(msg="sub", id="s", name="BooksByAuthorEmail", params=params)
    error = client.wait_for(lambda m: m["msg"] == "nosub")["error"]
    assert (error["error"], error["reason"]) == (400, "Match failed")


def test_a_publication_may_refuse_in_its_own_words(client):
    client.send(msg="sub", id="s", name="Refuses")
    error = client.wait_for(lambda m: m["msg"] == "nosub")["error"]
    assert (error["error"], error["reason"], error["message"]) == (
        "members-only",
        "Members only",
        "Members only [members-only]",
    )


def test_a_query_that_starts_to_fail_ends_its_subscription(db, server, client):
    server.errors_expected = True
    db.psql("INSERT INTO bookstore_author (id, name, email) VALUES (50, 'x', 'y@z')")
    client.subscribe("OneDividedByPrice")
    db.psql("INSERT INTO bookstore_book (title, author_id, price, in_stock) VALUES ('free', 50, 0, true)")
    assert client.wait_for(lambda m: m["msg"] == "nosub")["error"] == INTERNAL_ERROR
    server.wait_for_log("division by zero")
    db.psql("DELETE FROM bookstore_book")
    client.subscribe("OneDividedByPrice")


def test_a_method_that_raises(server, client):
    server.errors_expected = True
    assert client.call("broken")["error"] == INTERNAL_ERROR
    server.wait_for_log("RuntimeError: the secret of the test")
    assert "secret" not in json.dumps(client.messages)


@pytest.mark.parametrize("params", [["1", 2], [1, None], [1, 2, 3], [[], {}]])
def test_parameters_that_do_not_fit_a_method(client, params):
    error = client.call("add", *params)["error"]
    assert (error["error"], error["reason"]) == (400, "Match failed")


def test_a_method_whose_result_has_no_ejson_form(server, client):
    server.errors_expected = True
    assert client.call("not_ejson")["error"] == INTERNAL_ERROR


def test_a_failed_transaction_leaves_no_trace(db, server, client):
    server.errors_expected = True
    client.call("write_then_fail")
    assert db.psql("SELECT count(*) FROM bookstore_tag WHERE name = 'never'") == "0\n"


def test_a_message_over_the_limit_closes_only_its_own_connection(serve, db):
    server = serve(DDP_MAX_MESSAGE_BYTES="2048")
    with DDPClient(server.url) as other, connect(server.url.replace("http", "ws") + "/websocket") as socket:
        socket.send(json.dumps({"msg": "connect", "version": "1", "support": ["1"], "x": "y" * 4000}))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert other.call("echo", 1)["result"] == 1


def test_the_server_pings_and_gives_up_on_the_silent(serve, db):
    server = serve(DDP_HEARTBEAT_INTERVAL="0.2", DDP_HEARTBEAT_TIMEOUT="0.5")
    with DDPClient(server.url) as talks, connect(server.url.replace("http", "ws") + "/websocket") as silent:
        silent.send(json.dumps({"msg": "connect", "version": "1", "support": ["1"]}))
        received: list[Any] = []
        with pytest.raises(ConnectionClosed):
            received.extend(map(json.loads, silent))
        assert {"msg": "ping"} in received
        talks.wait_until(lambda: sum(m["msg"] == "ping" for m in talks.messages) >= 3)
        assert talks.call("echo", 1)["result"] == 1


def test_a_forged_notification_ends_nobodys_subscription(db, server, client):
    """Any role may NOTIFY: what no trigger sent is looked into, and nothing more."""
    channels = db.psql("SELECT DISTINCT substring(prosrc from 'ddp1_bookstore_author_[0-9a-f]+') FROM pg_proc"
                       " WHERE proname LIKE 'ddp1_bookstore_author%'").split()  # fmt: skip
    [channel] = channels
    version = db.psql("SELECT DISTINCT substring(prosrc from '\\[\"([0-9a-f]{8})\"') FROM pg_proc"
                      " WHERE proname LIKE 'ddp1_bookstore_author%'").strip()  # fmt: skip
    client.subscribe("AllBooks")
    for payload in ("", "nonsense", "[]", f'["{version}","U",[["no number"]]]', f'["{version}","D",[["1"]]]'):
        db.psql(f"SELECT pg_notify('{channel}', $${payload}$$)")
    db.psql("INSERT INTO bookstore_author (name, email) VALUES ('real', 'r@x')")
    client.wait_until(lambda: client.documents["bookstore.author"])
    assert not [m for m in client.messages if m["msg"] == "nosub"]
