"""Publications that are functions, and universal ones, with a real server and real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_users import COLUMNS, ok, told

AUTHORS = "bookstore.author"


@pytest.fixture
def people(db: Database) -> Database:
    db.psql(
        f"INSERT INTO auth_user ({COLUMNS}) VALUES"
        " (1, 'ann', '', 'ab', '', '', false, false, true, now()),"
        " (2, 'bob', '', 'bc', '', '', false, false, true, now());"
        "INSERT INTO bookstore_author (id, name, email) VALUES (1, 'a', 'a@x'), (2, 'b', 'b@x')"
    )
    return db


@pytest.fixture
def client(people: Database, server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client
        assert client.call("echo", "alive")["result"] == "alive"
        assert client.violations == []


def drive(client: DDPClient, step: str, *arguments: Any, name: str = "x") -> Any:
    return ok(client.call("handles/drive", name, step, *arguments))


def drive_from_elsewhere(server: Server, step: str) -> None:
    """As `drive`, for a client whose own messages wait."""
    with DDPClient(server.url) as other:
        assert drive(other, step) is None


def ended(client: DDPClient, subscription: str) -> dict[str, Any] | None:
    """The error of the `nosub` that ends a subscription."""
    return client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == subscription).get("error")


# -- what a handle does ---------------------------------------------------------------------------


def test_a_function_publishes_what_it_likes(client: DDPClient) -> None:
    subscription = client.subscribe(
        "script", "x",
        [["added", "things", "1", {"n": 1, "m": 1}], ["added", "others", 7, {"at": {"$date": 5}}], ["ready"]],
    )  # fmt: skip
    assert client.documents == {"things": {"1": {"n": 1, "m": 1}}, "others": {"7": {"at": {"$date": 5}}}}
    assert drive(client, "changed", "things", "1", {"n": 2}, ["m"]) is None
    assert drive(client, "added", "things", "2", {}) is None
    assert client.documents["things"] == {"1": {"n": 2}, "2": {}}
    assert drive(client, "removed", "things", "2") is None
    assert "shows no document '2' of collection 'things'" in drive(client, "removed", "things", "2")
    assert "shows no document '2' of collection 'things'" in drive(client, "changed", "things", "2", {})
    since = len(client.messages)
    client.unsubscribe(subscription)
    assert told(client, since) == [
        ("removed", "things", "1"), ("removed", "others", "7"), ("nosub", subscription),
    ]  # fmt: skip
    assert drive(client, "added", "things", "3", {}) is None
    assert client.documents["things"] == {}


def test_without_ready_it_never_is(client: DDPClient) -> None:
    subscription = client.start_subscription("script", "x", [["added", "things", "1", {}]])
    client.settle()
    assert set(client.documents["things"]) == {"1"}
    assert not [m for m in client.messages if m["msg"] == "ready"]
    drive(client, "ready")
    drive(client, "ready")
    client.settle()
    assert [m for m in client.messages if m["msg"] == "ready"] == [{"msg": "ready", "subs": [subscription]}]


def test_the_next_message_waits_for_it(client: DDPClient, server: Server) -> None:
    for release in ("ready", "unblock"):
        client.start_subscription("script", release, [["added", "things", release, {}], [release], ["sleep"]])
        client.settle()
        assert release in client.documents["things"]
    client.start_subscription("script", "x", [["added", "things", "x", {}], ["sleep"]])
    client.send(msg="method", id="waits", method="echo", params=[1])
    client.wait_until(lambda: "x" in client.documents["things"])
    with DDPClient(server.url) as other:
        other.settle()  # whoever need not wait has been answered by now
    assert not [m for m in client.messages if m.get("id") == "waits"]
    drive_from_elsewhere(server, "unblock")
    client.wait_for(lambda m: m["msg"] == "result" and m["id"] == "waits")


def test_querysets_beside_it(people: Database, client: DDPClient) -> None:
    subscription = client.subscribe("script", "x", [["added", AUTHORS, "9", {"name": "z"}], ["authors", "a"]])
    assert {key: fields["name"] for key, fields in client.documents[AUTHORS].items()} == {"9": "z", "1": "a"}
    ready = [m for m in client.messages if m["msg"] == "ready"]
    assert client.messages.index(ready[0]) > max(
        number for number, m in enumerate(client.messages) if m["msg"] == "added"
    )
    people.psql("UPDATE bookstore_author SET name = 'a' WHERE id = 2")
    client.settle()
    assert set(client.documents[AUTHORS]) == {"1", "2", "9"}
    client.unsubscribe(subscription)
    assert client.documents[AUTHORS] == {}


def test_it_may_be_ready_before_its_querysets(client: DDPClient) -> None:
    client.subscribe("script", "x", [["ready"], ["authors", "a"]])
    client.settle()
    client.wait_until(lambda: set(client.documents[AUTHORS]) == {"1"})
    assert len([m for m in client.messages if m["msg"] == "ready"]) == 1


def test_documents_merge_with_those_of_live_queries(people: Database, client: DDPClient) -> None:
    client.subscribe("script", "x", [["ready"]])
    drive(client, "added", AUTHORS, "1", {"name": "by hand", "rank": 1})
    authors = client.subscribe("Authors")
    assert client.documents[AUTHORS]["1"] == {"name": "by hand", "rank": 1, "email": "a@x"}
    drive(client, "added", AUTHORS, "2", {"name": "too late", "rank": 2})
    assert client.documents[AUTHORS]["2"] == {"name": "b", "rank": 2, "email": "b@x"}
    people.psql("UPDATE bookstore_author SET name = name || '!', email = email || '!'")
    client.settle()
    assert client.documents[AUTHORS] == {
        "1": {"name": "by hand", "rank": 1, "email": "a@x!"}, "2": {"name": "b!", "rank": 2, "email": "b@x!"},
    }  # fmt: skip
    drive(client, "changed", AUTHORS, "1", {}, ["name"])
    assert client.documents[AUTHORS]["1"] == {"name": "a!", "rank": 1, "email": "a@x!"}
    people.psql("DELETE FROM bookstore_author WHERE id = 2")
    client.settle()
    assert client.documents[AUTHORS]["2"] == {"name": "too late", "rank": 2}
    client.unsubscribe(authors)
    assert client.documents[AUTHORS] == {"1": {"rank": 1}, "2": {"name": "too late", "rank": 2}}


def test_this_is_bound(client: DDPClient) -> None:
    ok(client.call("become", 1))
    client.subscribe("script", "x", [["who"], ["ready"]])
    (connected,) = [m for m in client.messages if m["msg"] == "connected"]
    assert client.documents["who"]["me"] == {"name": "ann", "id": "1", "session": connected["session"]}


# -- the end --------------------------------------------------------------------------------------


def test_an_endless_function_ends_with_its_subscription(client: DDPClient, server: Server) -> None:
    subscription = client.subscribe("ticks", 5)
    client.wait_until(lambda: client.documents["ticks"]["tick"]["count"] > 10)
    client.unsubscribe(subscription)
    assert client.documents["ticks"] == {}
    server.wait_for_log("ticks were cancelled")


def test_an_endless_function_ends_with_its_connection(people: Database, server: Server) -> None:
    with DDPClient(server.url) as client:
        client.subscribe("ticks")
        client.subscribe("script", "x", [["ready"], ["sleep"]])
    server.wait_for_log("ticks were cancelled")
    server.wait_for_log("script x was stopped")


def test_it_may_stop_itself(client: DDPClient, server: Server) -> None:
    for name, steps in [
        ("a", [["added", "things", "1", {}], ["stop"], ["added", "things", "2", {}]]),
        ("b", [["stop"], ["sleep"]]),
        ("c", [["ready"], ["stop"]]),
    ]:
        assert ended(client, client.start_subscription("script", name, steps)) is None
        server.wait_for_log(f"script {name} was stopped")
    assert client.documents["things"] == {}


def test_errors(client: DDPClient, server: Server) -> None:
    server.errors_expected = True
    for number, (code, *steps) in enumerate(
        [
            ("enough", ["error"]),
            ("enough", ["ready"], ["error"], ["sleep"]),
            ("members-only", ["refuse"]),
            (500, ["raise"]),
            (500, ["ready"], ["raise"]),
            (500, ["exit"]),
            (500, ["removed", "things", "9"]),
            (500, ["added", "things"]),
            (500, ["nothing in particular"]),
        ]
    ):
        name = f"number {number}"
        subscription = client.start_subscription("script", name, [["added", "things", "1", {}], *steps])
        error = ended(client, subscription)
        assert error is not None
        assert error["error"] == code
        assert "secret" not in str(error)
        assert client.documents["things"] == {}
        server.wait_for_log(f"script {name} was stopped")
    server.wait_for_log(
        r"publication script failed \[.*\]\n(.*\n)*Traceback(.*\n)*.*the publication's secret"
    )


def test_params_are_checked(client: DDPClient) -> None:
    for params in ([], ["x"], ["x", "y"], ["x", [], 1], [1, []]):
        error = ended(client, client.start_subscription("script", *params))
        assert error is not None
        assert (error["error"], error["reason"]) == (400, "Match failed")


def test_an_on_stop_that_fails(client: DDPClient, server: Server) -> None:
    server.errors_expected = True
    client.unsubscribe(client.subscribe("script", "x", [["failing on_stop"], ["ready"]]))
    server.wait_for_log("the callback's secret")


# -- another user ---------------------------------------------------------------------------------


def test_functions_run_again_as_another_user(client: DDPClient, server: Server) -> None:
    subscription = client.subscribe("script", "x", [["who"], ["added", "things", "1", {"n": 1}], ["ready"]])
    drive(client, "changed", "things", "1", {"n": 2})
    since = len(client.messages)
    ok(client.call("become", 1))
    server.wait_for_log("script x was stopped")
    assert told(client, since) == [
        ("changed", "who", "me"), ("changed", "things", "1"), ("ready", subscription), ("result",),
        ("updated",),
    ]  # fmt: skip
    assert client.documents["who"]["me"]["name"] == "ann"
    assert client.documents["things"] == {"1": {"n": 1}}
    drive(client, "added", "things", "2", {})
    client.unsubscribe(subscription)
    assert not client.documents["things"]


def test_a_function_with_querysets_as_another_user(people: Database, client: DDPClient) -> None:
    subscription = client.subscribe("script", "x", [["added", AUTHORS, "9", {}], ["authors", "a", "b"]])
    since = len(client.messages)
    ok(client.call("become", 1))
    assert told(client, since) == [("ready", subscription), ("result",), ("updated",)]
    people.psql("DELETE FROM bookstore_author WHERE id = 1")
    client.settle()
    assert set(client.documents[AUTHORS]) == {"2", "9"}


@pytest.mark.parametrize("step", ["error", "stop"])
def test_a_function_that_will_not_have_another_user(client: DDPClient, step: str) -> None:
    ticks, subscription = (
        client.subscribe("ticks"),
        client.subscribe("script", "x", [["nobody goes no further"], [step]]),
    )
    since = len(client.messages)
    ok(client.call("become", 1))
    assert [what for what in told(client, since) if what[0] in ("nosub", "ready")] == [
        ("nosub", subscription), ("ready", ticks),
    ]  # fmt: skip
    (nosub,) = [m for m in client.messages if m["msg"] == "nosub"]
    assert ("error" in nosub) == (step == "error")
    assert client.documents["things"] == {}
    client.wait_until(lambda: client.documents["ticks"]["tick"]["count"] > 3)


def test_a_switch_does_not_wait_for_ever(client: DDPClient, server: Server) -> None:
    client.start_subscription("script", "x", [["added", "things", "1", {}], ["sleep"]])
    client.wait_until(lambda: client.documents["things"])
    drive_from_elsewhere(server, "unblock")
    ok(client.call("become", 1))
    drive(client, "added", "things", "2", {})
    drive(client, "ready")
    client.settle()
    assert set(client.documents["things"]) == {"1", "2"}
    assert len([m for m in client.messages if m["msg"] == "ready"]) == 1


# -- universal ------------------------------------------------------------------------------------


@pytest.fixture
def universal(serve: Callable[..., Server], people: Database) -> Server:
    return serve(TDDP_TEST_UNIVERSAL="1")


def test_universal_publications_come_first_and_unasked(universal: Server) -> None:
    with DDPClient(universal.url) as client:
        client.settle()
        assert told(client, 0) == [("connected",), ("added", "motd", "today"), ("result",), ("updated",)]
        assert client.documents["motd"] == {"today": {"text": "Hello stranger"}}


def test_universal_publications_follow_the_user(people: Database, universal: Server) -> None:
    with DDPClient(universal.url) as client:
        subscription = client.subscribe("AuthorsOfMyLetter")
        since = len(client.messages)
        ok(client.call("become", 1))
        assert told(client, since) == [
            ("changed", "motd", "today"), ("added", AUTHORS, "1"), ("added", AUTHORS, "2"),
            ("added", "auth.user", "1"), ("ready", subscription), ("result",), ("updated",),
        ]  # fmt: skip
        people.psql("UPDATE auth_user SET last_name = 'Now' WHERE id = 1")
        client.settle()
        assert client.documents["auth.user"]["1"]["last_name"] == "Now"
        ok(client.call("become", 2))
        assert set(client.documents["auth.user"]) == {"2"}
        ok(client.call("become_nobody"))
        assert client.documents["auth.user"] == {}
        assert client.documents["motd"] == {"today": {"text": "Hello stranger"}}
        assert not [m for m in client.messages if m["msg"] == "nosub"]
        assert client.violations == []


def test_only_universal_publications_and_updated(people: Database, universal: Server) -> None:
    """What a method writes is told before `updated`, although the client never subscribed."""
    with DDPClient(universal.url) as client:
        ok(client.call("become", 1))
        ok(client.call("promote_me"))
        assert client.documents["auth.user"]["1"]["is_superuser"] is True
