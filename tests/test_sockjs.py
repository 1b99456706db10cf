"""DDP over each of SockJS's transports, from outside."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient, SockJSHTTPWire, SockJSWire
from tests.proxy import Proxy
from tests.serving import Server
from tests.sockjs import TRANSPORTS, SockJSSocket
from tests.test_operations import metrics
from tests.test_resume import come_back, session_of

AUTHORS = "bookstore.author"


def insert(db: Database, *names: str) -> None:
    for name in names:
        db.psql(f"INSERT INTO bookstore_author (name, email) VALUES ('{name}', '{name}@x')")


def names(client: DDPClient) -> set[str]:
    return {fields["name"] for fields in client.documents[AUTHORS].values()}


def leave(client: DDPClient) -> None:
    """Go while a request waits, so that the server notices at once, and let it."""
    time.sleep(0.2)
    client.close()
    time.sleep(0.2)


def tell(socket: SockJSSocket, **message: Any) -> None:
    socket.send(json.dumps([json.dumps(message)]))


def messages_of(socket: SockJSSocket) -> Iterator[dict[str, Any]]:
    for frame in socket:
        if frame[0] == "a":
            yield from map(json.loads, json.loads(frame[1:]))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_subscription_is_live_and_methods_answer(db: Database, server: Server, transport: str) -> None:
    insert(db, "a")
    with DDPClient(server.url, wire=SockJSHTTPWire(transport)) as client:
        subscription = client.subscribe("Authors")
        assert names(client) == {"a"}
        insert(db, "b", "100 % \u2028 </script> 🌍")
        client.wait_until(lambda: names(client) == {"a", "b", "100 % \u2028 </script> 🌍"})
        db.psql("UPDATE bookstore_author SET name = 'B' WHERE name = 'b'")
        db.psql("DELETE FROM bookstore_author WHERE name = 'a'")
        client.wait_until(lambda: names(client) == {"B", "100 % \u2028 </script> 🌍"})
        for value in ("Gödel, “Escher”, \\ Bach 🌍 \u2028\u200d%25", [1, {"a": None}], "x" * 300_000):
            assert client.call("echo", value)["result"] == value
        client.unsubscribe(subscription)
        assert client.documents[AUTHORS] == {}
        assert client.violations == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_much_comes_in_several_responses_and_in_order(db: Database, server: Server, transport: str) -> None:
    """More than a streaming response may hold, and changes while the first documents come."""
    db.psql(
        "INSERT INTO bookstore_author (name, email)"
        " SELECT repeat(chr(97 + n % 26), 100), n::text FROM generate_series(1, 3000) n"
    )
    with DDPClient(server.url, wire=SockJSHTTPWire(transport)) as client:
        client.start_subscription("Authors")
        for number in range(10):
            db.psql(f"UPDATE bookstore_author SET name = '{number}' WHERE email = '3000'")
        client.wait_until(lambda: "9" in names(client))
        client.settle()
        assert len(client.documents[AUTHORS]) == 3000
        assert client.violations == []
        assert isinstance(client.socket, SockJSSocket)
        assert client.socket.responses > 3


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_session_is_resumed(db: Database, server: Server, transport: str) -> None:
    insert(db, "a")
    client = DDPClient(server.url, wire=SockJSHTTPWire(transport))
    client.subscribe("Authors")
    leave(client)
    insert(db, "b")
    with come_back(server, client, wire=SockJSHTTPWire(transport)) as again:
        assert session_of(again) == session_of(client)
        again.wait_until(lambda: names(again) == {"a", "b"})
        again.settle()
        assert again.violations == []


def test_a_session_is_resumed_over_another_transport(db: Database, server: Server) -> None:
    insert(db, "a")
    client = DDPClient(server.url, wire=SockJSHTTPWire("xhr_streaming"))
    client.subscribe("Authors")
    leave(client)
    insert(db, "b")
    with come_back(server, client, wire=SockJSHTTPWire("xhr")) as again:
        assert session_of(again) == session_of(client)
        again.wait_until(lambda: names(again) == {"a", "b"})
    with come_back(server, client, wire=SockJSWire()) as other:  # another wire
        assert session_of(other) != session_of(client)


@pytest.mark.parametrize("transport", ["xhr", "xhr_streaming"])
def test_a_client_whose_network_breaks(db: Database, server: Server, transport: str) -> None:
    insert(db, "a")
    with Proxy(server.host, server.port) as proxy:
        client = DDPClient(f"http://{proxy.host}:{proxy.port}", wire=SockJSHTTPWire(transport))
        client.subscribe("Authors")
        time.sleep(0.2)
        proxy.cut()
        client.wait_until(lambda: client.closed)
        leave(client)
    with come_back(server, client, wire=SockJSHTTPWire(transport)) as again:
        assert session_of(again) == session_of(client)
        again.settle()
        assert names(again) == {"a"}


def test_what_is_known_of_the_connection(serve: Callable[..., Server]) -> None:
    server = serve()
    with SockJSSocket(server.url, "xhr_streaming", {"X-Test": "yes"}) as socket:
        messages = messages_of(socket)
        tell(socket, msg="connect", version="1", support=["1"])
        session = next(messages)["session"]
        tell(socket, msg="method", id="1", method="connections/known", params=[])
        result = next(message for message in messages if message["msg"] == "result")
        assert result["result"] == [session, "127.0.0.1", "yes"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_server_closes(server: Server, transport: str) -> None:
    with DDPClient(server.url, wire=SockJSHTTPWire(transport)) as client:
        since = len(client.messages)
        client.start_call("connections/close")
        client.wait_until(lambda: client.closed)
        assert client.messages[since]["result"] == "closing"
        assert client.socket.close_code == 1000
    with DDPClient(server.url, wire=SockJSHTTPWire(transport)) as client:
        client.send(msg="disconnect")
        client.wait_until(lambda: client.closed)
        assert client.socket.close_code == 1000


@pytest.mark.parametrize("transport", ["xhr", "eventsource"])
def test_the_server_stops(server: Server, transport: str) -> None:
    with DDPClient(server.url, wire=SockJSHTTPWire(transport)) as client:
        server.process.send_signal(signal.SIGTERM)
        client.wait_until(lambda: client.closed)
        assert (client.socket.close_code, client.socket.close_reason) == (1001, "the server is shutting down")
        assert server.process.wait(30) == 0


def connected(server: Server, gate: str) -> SockJSSocket:
    """A client that asks for nothing more; the log tells the end of its session."""
    socket = SockJSSocket(server.url, "xhr")
    messages = messages_of(socket)
    tell(socket, msg="connect", version="1", support=["1"])
    assert next(messages)["msg"] == "connected"
    tell(socket, msg="method", id="1", method="gates/watch_close", params=[gate])
    assert next(message for message in messages if message["msg"] == "result")["id"] == "1"
    return socket


def test_a_client_that_never_asks_again(serve: Callable[..., Server]) -> None:
    server = serve(DDP_SOCKJS_DISCONNECT_DELAY="1", DDP_DISCONNECT_GRACE_PERIOD="0")
    with connected(server, "silent") as socket:
        assert "silent: closed" not in server.log()
        server.wait_for_log("silent: closed", 10)
        assert list(messages_of(socket)) == []
        assert socket.close_code == 1002


def test_a_client_that_asks_too_rarely(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_OUTBOX_BYTES="20000", DDP_DISCONNECT_GRACE_PERIOD="0")
    with connected(server, "slow") as socket:
        tell(socket, msg="sub", id="a", name="Authors", params=[])
        with DDPClient(server.url) as other:
            other.settle()
            db.psql(
                "INSERT INTO bookstore_author (name, email)"
                " SELECT repeat('x', 100), n FROM generate_series(1, 500) n"
            )
            server.wait_for_log("slow: closed", 10)
            other.settle()
        list(socket)
        assert socket.close_code == 1002


def test_what_waits_too_long(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_OUTBOX_SECONDS="1", DDP_DISCONNECT_GRACE_PERIOD="0")
    with connected(server, "late") as socket:
        tell(socket, msg="ping")
        server.wait_for_log("late: closed", 10)
        list(socket)
        assert socket.close_code == 1002


def test_without_a_websocket(serve: Callable[..., Server]) -> None:
    server = serve(DDP_SOCKJS_WEBSOCKET="false")
    with urllib.request.urlopen(f"{server.url}/sockjs/info", timeout=10) as answer:
        assert json.load(answer)["websocket"] is False
    with DDPClient(server.url, wire=SockJSHTTPWire("xhr_streaming")) as client:
        client.settle()


def test_sessions_are_bounded(serve: Callable[..., Server]) -> None:
    server = serve(DDP_SOCKJS_SESSIONS_PER_ADDRESS="2")
    with (
        DDPClient(server.url, wire=SockJSHTTPWire("xhr")) as first,
        DDPClient(server.url, wire=SockJSHTTPWire("xhr_streaming")) as second,
    ):
        with pytest.raises(AssertionError, match="503"):
            SockJSSocket(server.url, "xhr")
        server.wait_for_log("DDP_SOCKJS_SESSIONS_PER_ADDRESS are open with 127.0.0.1")
        with DDPClient(server.url, wire=SockJSWire()) as other:
            other.settle()
        first.settle()
        second.settle()
        seen = metrics(server.url)
        assert seen['trigger_ddp_refusals_total{reason="sockjs_sessions"}'] == 1
        assert seen['trigger_ddp_connections_total{wire="sockjs"}'] == 1
        assert seen['trigger_ddp_connections_total{wire="sockjs_http"}'] == 2
