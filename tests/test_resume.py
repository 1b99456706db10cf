"""Sessions that go on over another connection, as in Meteor 3.5 (its pull requests 14051 and 14528)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient, RawWire
from tests.serving import Server

BOOKS = "bookstore.author"
SOCKJS = "/sockjs/000/abcdefgh/websocket"


def counted(client: DDPClient) -> int:
    return sum(message["msg"] not in ("ping", "pong") for message in client.messages)


def come_back(
    server: Server, before: DDPClient, lacking: int = 0, wire: RawWire | None = None, **connect: Any
) -> DDPClient:
    """A new connection that asks for the session of another, which received ``lacking`` less."""
    session = next(message["session"] for message in before.messages if message["msg"] == "connected")
    client = DDPClient(server.url, wire=wire, handshake=False)
    client.documents = before.documents
    client.send(
        **{
            "msg": "connect", "version": "1", "support": ["1"], "session": session,
            "receivedCount": counted(before) - lacking, **connect,
        }
    )  # fmt: skip
    client.wait_for(lambda m: m["msg"] == "connected")
    return client


def session_of(client: DDPClient) -> str:
    session: str = next(message["session"] for message in client.messages if message["msg"] == "connected")
    return session


@pytest.fixture
def client(db: Database, server: Server) -> DDPClient:
    db.psql("INSERT INTO bookstore_author (name, email) VALUES ('a', 'a@x')")
    client = DDPClient(server.url)
    client.subscribe("Authors")
    return client


def test_it_goes_on_where_it_was(db: Database, server: Server, client: DDPClient) -> None:
    client.close()
    for name in ("b", "c"):
        db.psql(f"INSERT INTO bookstore_author (name, email) VALUES ('{name}', '{name}@x')")
    db.psql("UPDATE bookstore_author SET name = 'A' WHERE name = 'a'")
    with come_back(server, client) as again:
        assert session_of(again) == session_of(client)
        again.send(msg="sub", id="c1", name="Authors", params=[])  # as its client does; to be ignored
        again.wait_until(lambda: {d["name"] for d in again.documents[BOOKS].values()} == {"A", "b", "c"})
        again.settle()
        kinds = [message["msg"] for message in again.messages]
        assert kinds[0] == "connected"
        assert sorted(kinds[1:]) == ["added", "added", "changed", "result", "updated"]
        assert again.violations == []
        # … and once more: what came since counts, and the connections are one stream.
        again.close()
        again.messages[:0] = client.messages
        with come_back(server, again) as once_more:
            assert session_of(once_more) == session_of(client)
            once_more.settle()
            assert once_more.violations == []


@pytest.mark.parametrize(
    "connect",
    [
        {"receivedCount": None}, {"receivedCount": "3"}, {"receivedCount": 10**20}, {"receivedCount": True},
        {"session": "nobody's", "receivedCount": 0}, {"session": None}, {"session": ["x"]},
        {"version": "pre2", "support": ["pre2"]},
    ],
)  # fmt: skip
def test_who_can_not_resume_gets_a_new_session(
    server: Server, client: DDPClient, connect: dict[str, Any]
) -> None:
    client.close()
    with come_back(server, client, **connect) as again:
        assert session_of(again) != session_of(client)
        again.documents.clear()
        again.subscribe("Authors")
        assert again.violations == []


@pytest.mark.parametrize("lacking", [1, -1])
def test_another_count_ends_the_old_session_at_once(server: Server, client: DDPClient, lacking: int) -> None:
    client.call("gates/watch_close", "old")
    client.close()
    with come_back(server, client, lacking) as again:
        assert session_of(again) != session_of(client)
        server.wait_for_log("old: closed", 5)
        with come_back(server, client) as too_late:
            assert session_of(too_late) not in (session_of(client), session_of(again))


def test_a_session_that_is_still_connected_is_not_shared(server: Server, client: DDPClient) -> None:
    with come_back(server, client) as thief:
        assert session_of(thief) != session_of(client)
        client.wait_until(lambda: client.closed)


def test_disconnect_is_for_good(server: Server, client: DDPClient) -> None:
    client.call("gates/watch_close", "wanted")
    client.send(msg="disconnect")
    client.wait_until(lambda: client.closed)
    server.wait_for_log("wanted: closed", 5)
    with come_back(server, client) as again:
        assert session_of(again) != session_of(client)


def test_what_the_server_closes_is_closed_for_good(server: Server, client: DDPClient) -> None:
    client.start_call("gates/close", "kicked")
    client.wait_until(lambda: client.closed)
    server.wait_for_log("kicked: closed", 5)
    with come_back(server, client) as again:
        assert session_of(again) != session_of(client)


def test_who_breaks_the_protocol_does_not_come_back(server: Server, client: DDPClient) -> None:
    client.socket.send(b"DDP is text")
    client.wait_until(lambda: client.closed)
    with come_back(server, client) as again:
        assert session_of(again) != session_of(client)


def test_close_while_the_client_is_away(server: Server, client: DDPClient) -> None:
    """The second of meteor#14527: it did nothing."""
    client.subscribe("script", "kept", [["ready"], ["sleep"]])
    client.call("gates/watch_close", "away")
    client.close()
    with DDPClient(server.url) as other:
        other.call("gates/close_session", "kept")
        server.wait_for_log("away: closed", 5)
        with come_back(server, client) as again:
            assert session_of(again) != session_of(client)
        other.call("gates/close_session", "kept")  # once more is no error
        other.settle()


def test_what_is_sent_after_the_end_goes_nowhere(db: Database, serve: Callable[..., Server]) -> None:
    """The first of meteor#14527: it crashed the server."""
    server = serve(DDP_DISCONNECT_GRACE_PERIOD="0.3")
    client = DDPClient(server.url)
    client.subscribe("Authors")
    client.call("gates/watch_close", "expired")
    client.start_call("gates/wait", "late")
    client.send(msg="ping")
    client.wait_for(lambda m: m["msg"] == "pong")
    client.close()
    server.wait_for_log("expired: closed", 10)
    with DDPClient(server.url) as other:
        other.call("gates/open", "late")  # the method of the session that is gone returns
        db.psql("INSERT INTO bookstore_author (name, email) VALUES ('z', 'z@x')")
        other.subscribe("Authors")
        other.settle()
        with come_back(server, client) as again:
            assert session_of(again) != session_of(client)


def test_too_much_for_one_who_is_away(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_RESUME_BYTES="2000")
    client = DDPClient(server.url)
    client.subscribe("Authors")
    client.call("gates/watch_close", "full")
    client.close()
    db.psql("INSERT INTO bookstore_author (name, email) SELECT 'n', 'e' || n FROM generate_series(1, 5) n")
    with DDPClient(server.url) as other:
        other.subscribe("Authors")
        other.settle()
        assert "full: closed" not in server.log()
        db.psql(
            "INSERT INTO bookstore_author (name, email) SELECT 'n', 'f' || n FROM generate_series(1, 50) n"
        )
        server.wait_for_log("full: closed", 5)
        with come_back(server, client) as again:
            assert session_of(again) != session_of(client)
        other.settle()


def test_only_so_many_are_kept(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_RESUMABLE="1")
    first, second = DDPClient(server.url), DDPClient(server.url)
    first.call("gates/watch_close", "first")
    first.close()
    second.close()
    server.wait_for_log("first: closed", 5)
    with come_back(server, second) as again:
        assert session_of(again) == session_of(second)


def test_it_can_be_turned_off(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_DISCONNECT_GRACE_PERIOD="0")
    client = DDPClient(server.url)
    client.call("gates/watch_close", "off")
    client.close()
    server.wait_for_log("off: closed", 5)
    with come_back(server, client) as again:
        assert session_of(again) != session_of(client)


def test_what_happens_meanwhile_comes_in_order(db: Database, server: Server, client: DDPClient) -> None:
    """The third of meteor#14527: what was kept was overtaken by what came after."""
    client.close()
    for number in range(20):
        db.psql(f"UPDATE bookstore_author SET name = '{number}'")
    with come_back(server, client) as again:
        for number in range(20, 30):
            db.psql(f"UPDATE bookstore_author SET name = '{number}'")
        again.settle()
        names = [int(m["fields"]["name"]) for m in again.messages if m["msg"] == "changed"]
        assert names == sorted(names)
        assert names[-1] == 29
        assert again.messages[0]["msg"] == "connected"


def test_the_end_of_one_loss_is_not_the_end_of_the_next(server: Server, client: DDPClient) -> None:
    """The fourth of meteor#14527: how a connection ended was remembered for the next."""
    known = list(client.messages)
    current = client
    for _ in range(3):
        current.close()
        with come_back(server, current) as again:
            assert session_of(again) == session_of(client)
            again.settle()
        known += again.messages
        again.messages[:] = known
        current = again


def test_a_login_and_its_method_survive(db: Database, server: Server) -> None:
    db.psql(
        "INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_superuser, is_staff,"
        " is_active, date_joined) VALUES (1, 'ann', '', '', '', '', false, false, true, now())"
    )
    client = DDPClient(server.url)
    client.call("become", 1)
    call = client.start_call("gates/wait", "resumed")
    client.send(msg="ping")
    client.wait_for(lambda m: m["msg"] == "pong")
    client.close()
    with DDPClient(server.url) as other:
        other.call("gates/open", "resumed")
        with come_back(server, client) as again:
            assert session_of(again) == session_of(client)
            assert again.finish_call(call)["result"] == "resumed"
            assert again.call("who")["result"] == [1, "1", "ann"]


def test_methods_that_are_called_again_run_once(db: Database, server: Server) -> None:
    """Meteor's client repeats those that had no result yet, before it knows that it has its session."""
    client = DDPClient(server.url)
    running = client.start_call("gates/wait", "repeated")
    waiting = client.start_call("gates/count", "repeated")
    client.send(msg="ping")
    client.wait_for(lambda m: m["msg"] == "pong")
    client.close()
    with DDPClient(server.url) as other, come_back(server, client) as again:
        for call, method in [(running, "gates/wait"), (waiting, "gates/count"), ("new", "gates/count")]:
            again.send(msg="method", id=call, method=method, params=["repeated"])
        other.call("gates/open", "repeated")
        results = [again.finish_call(call)["result"] for call in (running, waiting, "new")]
        assert results == ["repeated", 1, 2]
        again.send(msg="method", id="last", method="echo", params=["x"])
        again.finish_call("last")
        told = [method for m in again.messages if m["msg"] == "updated" for method in m["methods"]]
        assert sorted(told) == sorted([running, waiting, "new", "last"])


def test_another_wire_is_another_session(server: Server, client: DDPClient) -> None:
    """What is kept is framed already."""
    import json

    from websockets.sync.client import connect

    client.close()
    with connect(server.url.replace("http", "ws") + SOCKJS) as socket:
        assert socket.recv() == "o"
        message = {
            "msg": "connect", "version": "1", "support": ["1"], "session": session_of(client),
            "receivedCount": counted(client),
        }  # fmt: skip
        socket.send(json.dumps([json.dumps(message)]))
        [answer] = json.loads(socket.recv()[1:])
        assert json.loads(answer)["session"] != session_of(client)
