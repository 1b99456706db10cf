"""Who a client is decides what it sees, and both change while it is connected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server

AUTHORS, KEEPERS, VISITS = "bookstore.author", "owned-keepers", "owned-visits"
COLUMNS = (
    "id, username, password, first_name, last_name, email, is_superuser, is_staff, is_active, date_joined"
)


@pytest.fixture
def people(db: Database) -> Database:
    """Ann (1) and Bob (2) are keepers who visit, Eve (3) is not active."""
    db.psql(
        f"INSERT INTO auth_user ({COLUMNS}) VALUES"
        " (1, 'ann', '', 'abc', '', '', false, false, true, now()),"
        " (2, 'bob', '', 'bcd', '', '', false, false, true, now()),"
        " (3, 'eve', '', '', '', '', false, false, false, now());"
        "INSERT INTO zoo_keeper (id, aid, name, account_id) VALUES"
        " (1, 'aaaaaaaaaaaaaaaaa', 'Ann K', 1), (2, 'bbbbbbbbbbbbbbbbb', 'Bob K', 2);"
        "INSERT INTO zoo_animal (id, name) VALUES (1, 'ape');"
        "INSERT INTO zoo_visit (id, seen, keeper_id, day) VALUES (1, 1, 1, now()), (2, 1, 2, now());"
        "INSERT INTO bookstore_author (id, name, email) SELECT ascii(c), c, c || '@x'"
        " FROM unnest(ARRAY['a', 'b', 'c', 'd']) AS c;"
        "SELECT setval('auth_user_id_seq', 100)"
    )
    return db


@pytest.fixture
def client(people: Database, server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client
        assert client.call("echo", "alive")["result"] == "alive"
        assert client.violations == []


def ok(answer: dict[str, Any]) -> Any:
    assert "error" not in answer, answer
    return answer.get("result")


def told(client: DDPClient, since: int) -> list[tuple[Any, ...]]:
    """What was told from a message on, in short."""
    short = []
    for message in client.messages[since:]:
        kind = message["msg"]
        if kind in ("added", "changed", "removed"):
            short.append((kind, message["collection"], message["id"]))
        elif kind == "ready":
            short.append((kind, *message["subs"]))
        elif kind == "nosub":
            short.append((kind, message["id"]))
        elif kind != "ping":
            short.append((kind,))
    return short


# -- set_user_id ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["become", "login_async", "login_in_thread"])
@pytest.mark.parametrize("user_id", [1, "1"])
def test_a_login_shows_what_is_the_users(client: DDPClient, method: str, user_id: Any) -> None:
    keepers, visits = client.subscribe("MyKeepers"), client.subscribe("MyVisits")
    assert not client.documents[KEEPERS]
    assert client.call("who").get("result") is None
    since = len(client.messages)
    ok(client.call(method, user_id))
    assert told(client, since) == [
        ("added", KEEPERS, "aaaaaaaaaaaaaaaaa"), ("added", VISITS, "1"), ("ready", keepers, visits),
        ("result",), ("updated",),
    ]  # fmt: skip
    assert ok(client.call("who")) == [1, "1", "ann"]
    since = len(client.messages)
    ok(client.call("become_nobody"))
    assert told(client, since)[:3] == [
        ("removed", KEEPERS, "aaaaaaaaaaaaaaaaa"), ("removed", VISITS, "1"), ("ready", keepers, visits),
    ]  # fmt: skip
    assert client.call("who").get("result") is None


@pytest.mark.parametrize("method", ["become", "login_async"])
def test_who_can_not_be_logged_in(client: DDPClient, server: Server, method: str) -> None:
    server.errors_expected = True
    client.subscribe("MyKeepers")
    ok(client.call("become", 1))
    since = len(client.messages)
    for user_id, expected in [
        (99, (403, "User not found")), ("99", (403, "User not found")), ("x", (403, "User not found")),
        ("9" * 30, (403, "User not found")), (10**15, (403, "User not found")),
        (3, (403, "Login forbidden")), ([1], (500, "Internal server error")),
        (True, (500, "Internal server error")), ({"$date": 1}, (500, "Internal server error")),
    ]:  # fmt: skip
        error = client.call(method, user_id)["error"]
        assert (error["error"], error["reason"]) == expected
    client.settle()
    assert not [what for what in told(client, since) if what[0] in ("added", "removed", "changed")]
    assert ok(client.call("who")) == [1, "1", "ann"]
    server.wait_for_log("set_user_id takes a user's document id or primary key, or None, not list")


@pytest.mark.parametrize("method", ["login_and_look", "login_and_look_async"])
def test_the_rest_of_the_method_is_the_new_users(client: DDPClient, method: str) -> None:
    assert ok(client.call(method, 1)) == [None, 1, 1]
    assert ok(client.call(method, 2)) == [1, 2, 2]
    assert ok(client.call(method, None)) == [2, None, None]


def test_a_forgotten_await_is_no_login(client: DDPClient, server: Server) -> None:
    server.errors_expected = True
    assert client.call("login_without_await", 1)["error"]["error"] == 500
    server.wait_for_log("login_without_await has called this.set_user_id without awaiting it")


def test_two_users_with_documents_in_common(client: DDPClient) -> None:
    subscription = client.subscribe("AuthorsOfMyLetter")
    everything = client.subscribe("AllTags")
    ok(client.call("become", 1))
    assert {fields["name"] for fields in client.documents[AUTHORS].values()} == {"a", "b", "c"}
    since = len(client.messages)
    ok(client.call("become", 2))
    assert told(client, since) == [
        ("removed", AUTHORS, "97"), ("added", AUTHORS, "100"), ("ready", subscription, everything),
        ("result",), ("updated",),
    ]  # fmt: skip
    since = len(client.messages)
    ok(client.call("become", 2))
    assert told(client, since) == [("ready", subscription, everything), ("result",), ("updated",)]


def test_after_a_login_changes_are_told(people: Database, client: DDPClient) -> None:
    client.subscribe("AuthorsOfMyLetter")
    ok(client.call("become", 1))
    people.psql(
        "UPDATE bookstore_author SET email = email || '!'; DELETE FROM bookstore_author WHERE id = 97"
    )
    client.settle()
    assert {key: fields["email"] for key, fields in client.documents[AUTHORS].items()} == {
        "98": "b@x!", "99": "c@x!",
    }  # fmt: skip


def test_a_query_that_stays_has_new_company(people: Database, client: DDPClient) -> None:
    ok(client.call("become", 1))
    client.subscribe("script", "any", [["authors", "d"]])
    client.subscribe("AuthorsOfMyLetter")
    ok(client.call("become", 2))  # whose letters have it, too
    since = len(client.messages)
    people.psql("DELETE FROM bookstore_author WHERE name = 'd'")
    client.wait_until(lambda: "100" not in client.documents[AUTHORS])
    client.settle()
    assert told(client, since).count(("removed", AUTHORS, "100")) == 1


def test_a_subscription_that_only_some_may_have(people: Database, client: DDPClient) -> None:
    ok(client.call("become", 1))
    members, keepers = client.subscribe("Members"), client.subscribe("MyKeepers")
    since = len(client.messages)
    ok(client.call("become_nobody"))
    gone = told(client, since)
    assert gone[:4] == [("removed", AUTHORS, key) for key in ("97", "98", "99", "100")]
    assert gone[4:] == [
        ("removed", KEEPERS, "aaaaaaaaaaaaaaaaa"), ("nosub", members), ("ready", keepers),
        ("result",), ("updated",),
    ]  # fmt: skip
    (nosub,) = [m for m in client.messages[since:] if m["msg"] == "nosub"]
    assert nosub["error"]["error"] == "members-only"
    since = len(client.messages)
    people.psql("UPDATE bookstore_author SET email = email || '!'")
    ok(client.call("become", 2))
    client.settle()
    assert not [what for what in told(client, since) if what[1:2] == (AUTHORS,)]


def test_a_user_made_in_the_same_transaction(client: DDPClient, people: Database) -> None:
    client.subscribe("MyKeepers")
    ok(client.call("sign_up", "new"))
    assert ok(client.call("who"))[2] == "new"
    people.psql("UPDATE zoo_keeper SET account_id = (SELECT id FROM auth_user WHERE username = 'new')")
    client.settle()
    assert len(client.documents[KEEPERS]) == 2


def test_a_user_who_is_rolled_back_is_nobody(client: DDPClient) -> None:
    client.subscribe("MyKeepers")
    assert client.call("sign_up", "new", True)["error"]["error"] == "changed-my-mind"
    assert client.call("who").get("result") is None


def test_all_threads_log_in_at_once(serve: Callable[..., Server], people: Database) -> None:
    """Each method holds one, and none is left for the publications."""
    server = serve(DDP_THREADS="2")
    clients = [DDPClient(server.url) for _ in range(8)]
    try:
        for client in clients:
            client.subscribe("MyKeepers")
        for client in clients:
            client.send(msg="method", id="m", method="become", params=[1])
        for client in clients:
            client.wait_for(lambda m: m["msg"] == "updated")
            assert set(client.documents[KEEPERS]) == {"aaaaaaaaaaaaaaaaa"}
            assert client.violations == []
    finally:
        for client in clients:
            client.close()


def test_more_new_documents_than_may_wait_for_a_client(
    serve: Callable[..., Server], people: Database
) -> None:
    people.psql(
        "INSERT INTO zoo_keeper (id, aid, name, account_id)"
        " SELECT n + 100, lpad(n::text, 17, 'x'), repeat('x', 40), 1 FROM generate_series(1, 20000) AS n"
    )
    server = serve(DDP_OUTBOX_BYTES="100000")
    with DDPClient(server.url) as client:
        client.subscribe("MyKeepers")
        ok(client.call("become", 1))
        assert len(client.documents[KEEPERS]) == 20001
        assert client.violations == []


def test_writes_while_users_change(people: Database, client: DDPClient) -> None:
    """Whatever is written in the middle of a switch, what the client has in the end is what is there."""
    client.subscribe("MyKeepers")
    client.subscribe("AuthorsOfMyLetter")
    stop = threading.Event()

    def write() -> None:
        with people.connect() as writer:
            number = 0
            while not stop.is_set():
                number += 1
                writer.execute("UPDATE zoo_keeper SET account_id = 3 - account_id, name = %s", [str(number)])
                writer.execute("DELETE FROM bookstore_author WHERE id = %s", [97 + number % 4])
                writer.execute("INSERT INTO bookstore_author (id, name, email) VALUES (%s, %s, %s)",
                               [97 + number % 4, "abcd"[number % 4], f"{number}@x"])  # fmt: skip

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for number in range(30):
            ok(client.call("become" if number % 4 else "login_async", 1 + number % 2))
        ok(client.call("become", 2))
    finally:
        stop.set()
        writing.join()
    client.settle()
    with people.connect() as reader:
        keepers = reader.execute("SELECT aid, name FROM zoo_keeper WHERE account_id = 2").fetchall()
        authors = reader.execute("SELECT id::text, email FROM bookstore_author WHERE name <> 'a'").fetchall()
    assert {key: fields["name"] for key, fields in client.documents[KEEPERS].items()} == dict(keepers)
    assert {key: fields["email"] for key, fields in client.documents[AUTHORS].items()} == dict(authors)


# -- user_rel -------------------------------------------------------------------------------------


def test_a_row_moves_from_one_users_client_to_anothers(people: Database, server: Server) -> None:
    with DDPClient(server.url) as ann, DDPClient(server.url) as bob:
        for user_id, client in enumerate((ann, bob), 1):
            ok(client.call("become", user_id))
            client.subscribe("MyKeepers")
            client.subscribe("MyVisits")
            assert set(client.documents[VISITS]) == {str(user_id)}
        people.psql("UPDATE zoo_keeper SET account_id = 2")
        ann.wait_until(lambda: not ann.documents[KEEPERS] and not ann.documents[VISITS])
        bob.wait_until(lambda: len(bob.documents[KEEPERS]) == 2 and len(bob.documents[VISITS]) == 2)
        people.psql("DELETE FROM zoo_visit WHERE id = 2")
        bob.wait_until(lambda: set(bob.documents[VISITS]) == {"1"})
        assert ann.violations == bob.violations == []


def test_a_superuser_sees_all_while_being_one(people: Database, client: DDPClient) -> None:
    client.subscribe("MyKeepers")
    client.subscribe("MyKeepersStrictly")
    ok(client.call("become", 1))
    people.psql("UPDATE auth_user SET is_superuser = true WHERE id = 1")
    client.wait_until(lambda: len(client.documents[KEEPERS]) == 2)
    people.psql("UPDATE zoo_keeper SET name = 'known'")
    client.settle()
    assert [fields["name"] for fields in client.documents[KEEPERS].values()] == ["known", "known"]
    assert set(client.documents["zoo.keeper"]) == {"aaaaaaaaaaaaaaaaa"}
    people.psql("UPDATE auth_user SET is_superuser = false WHERE id = 1")
    client.wait_until(lambda: set(client.documents[KEEPERS]) == {"aaaaaaaaaaaaaaaaa"})


# -- the user's own row ---------------------------------------------------------------------------


def test_at_updated_a_method_that_wrote_its_user_has_taken_effect(client: DDPClient) -> None:
    client.subscribe("MyKeepers")
    ok(client.call("become", 1))
    ok(client.call("promote_me"))
    assert len(client.documents[KEEPERS]) == 2


@pytest.mark.parametrize(
    "change", ["UPDATE auth_user SET is_active = false WHERE id = 1", "DELETE FROM auth_user WHERE id = 1",
               "TRUNCATE auth_user CASCADE"],
)  # fmt: skip
def test_a_user_who_is_gone_is_logged_out(people: Database, client: DDPClient, change: str) -> None:
    client.subscribe("MyKeepers")
    ok(client.call("become", 1))
    people.psql(change)
    client.wait_until(lambda: not client.documents[KEEPERS])
    assert client.call("who").get("result") is None


def test_groups_take_effect(people: Database, client: DDPClient) -> None:
    people.psql("INSERT INTO auth_group (id, name) VALUES (1, 'keepers'), (2, 'vets')")
    ok(client.call("become", 1))
    client.subscribe("MyGroups")
    assert not client.documents["groups"]
    people.psql("INSERT INTO auth_user_groups (user_id, group_id) VALUES (1, 1), (2, 2)")
    client.settle()
    assert set(client.documents["groups"]) == {"1"}
    people.psql("UPDATE auth_user_groups SET user_id = 3 - user_id")
    client.settle()
    assert set(client.documents["groups"]) == {"2"}
    people.psql("DELETE FROM auth_user_groups")
    client.settle()
    assert not client.documents["groups"]


def test_what_does_not_concern_the_user_runs_nothing_again(people: Database, client: DDPClient) -> None:
    client.subscribe("MyKeepers")
    ok(client.call("become", 1))
    client.settle()
    since = len(client.messages)
    people.psql("UPDATE auth_user SET is_superuser = true WHERE id = 2; DELETE FROM auth_user WHERE id = 3")
    client.settle()
    assert told(client, since) == [("result",), ("updated",)]


def test_many_changes_of_the_user_are_few_runs(people: Database, client: DDPClient) -> None:
    client.subscribe("MyKeepers")
    ok(client.call("become", 1))
    since = len(client.messages)
    people.psql(
        "".join(f"UPDATE auth_user SET is_superuser = {n % 2 == 0} WHERE id = 1;" for n in range(200))
        + "UPDATE auth_user SET is_superuser = true WHERE id = 1"
    )
    client.wait_until(lambda: len(client.documents[KEEPERS]) == 2)
    client.settle()
    assert len(client.documents[KEEPERS]) == 2
    assert len([what for what in told(client, since) if what[0] == "ready"]) < 100


def test_a_table_of_users_without_trigger_is_named_once(people: Database, server: Server) -> None:
    people.psql(
        "DO $$ DECLARE t record; BEGIN FOR t IN SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        " AND tgrelid = 'auth_user_groups'::regclass LOOP"
        " EXECUTE format('DROP TRIGGER %I ON auth_user_groups', t.tgname); END LOOP; END $$"
    )
    for _ in range(2):
        with DDPClient(server.url) as client:
            ok(client.call("become", 1))
    server.wait_for_log("auth_user_groups has no current trigger.*manage.py ddp_install_triggers`")
    assert server.log().count("has no current trigger") == 1


# -- the connection -------------------------------------------------------------------------------


def test_what_methods_know_of_the_connection(people: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_DISCONNECT_GRACE_PERIOD="0.1")
    with DDPClient(server.url) as client:
        (connected,) = [m for m in client.messages if m["msg"] == "connected"]
        assert ok(client.call("connection")) == [connected["session"], "127.0.0.1", "websocket"]
        ok(client.call("become", 1))
    server.wait_for_log("the connection has ended")
    with DDPClient(server.url) as client:
        client.send(msg="method", id="m", method="hang_up", params=[])
        client.wait_until(lambda: client.closed)
        assert client.socket.close_code == 1000
