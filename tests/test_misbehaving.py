"""Clients that want too much, or take in too little, of a real server: each meets its limit, others live."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_operations import metrics

TOO_MANY_VALUES = "The message holds too many values"


def refusals(server: Server, reason: str) -> float:
    return metrics(server.url)[f'trigger_ddp_refusals_total{{reason="{reason}"}}']


def wait_for_metric(server: Server, name: str, value: float) -> None:
    until = time.monotonic() + 30
    while (found := metrics(server.url)[name]) != value:
        assert time.monotonic() < until, f"{name} {found}, not {value}"


class Raw:
    """A socket whose reading is up to the test; connected from another address than other clients."""

    def __init__(self, server: Server, source: str = "127.0.0.2", receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(30)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.bind((source, 0))
        self.socket.connect((server.host, server.port))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def upgrade(self, *headers: str) -> str:
        """Ask for a WebSocket. Returns the head of the answer."""
        lines = [
            "GET /websocket HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", *headers, "", "",
        ]  # fmt: skip
        self.socket.sendall("\r\n".join(lines).encode())
        return self.read_until(b"\r\n\r\n")

    def read_until(self, end: bytes) -> str:
        received = b""
        while end not in received and (data := self.socket.recv(4096)):
            received += data
        return received.decode("latin-1")

    def say(self, **message: Any) -> None:
        payload = json.dumps(message).encode()
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xff" + size.to_bytes(8, "big")
        self.socket.sendall(b"\x81" + length + bytes(4) + payload)


def never_reading(server: Server) -> Raw:
    client = Raw(server, receive_buffer=4096)
    assert client.upgrade().startswith("HTTP/1.1 101 ")
    client.say(msg="connect", version="1", support=["1"])
    return client


def call_until_cut(client: Raw, size: int) -> None:
    """Call a method that returns so many characters, and never read what it returns."""
    with pytest.raises(OSError):  # noqa: PT012 - whichever the kernel says
        for number in range(100_000):
            client.say(msg="method", id=str(number), method="echo", params=["x" * size])


# -- clients that do not read ---------------------------------------------------------------------


def test_who_does_not_read_costs_no_more_than_the_outbox(serve: Callable[..., Server]) -> None:
    server = serve("-v", "2", DDP_OUTBOX_BYTES="1000000", DDP_DISCONNECT_GRACE_PERIOD="0")
    with DDPClient(server.url) as other, never_reading(server) as client:
        call_until_cut(client, 100_000)
        wait_for_metric(server, 'trigger_ddp_disconnections_total{reason="slow_client"}', 1)
        server.wait_for_log(r"the client is too slow: 1\d{6} bytes were waiting for it")
        wait_for_metric(server, "trigger_ddp_outbox_bytes", 0)
        assert other.call("echo", 1)["result"] == 1


def test_all_who_do_not_read_cost_no_more_than_the_total(serve: Callable[..., Server]) -> None:
    server = serve("-v", "2", DDP_OUTBOX_TOTAL_BYTES="1000000", DDP_DISCONNECT_GRACE_PERIOD="0")
    with DDPClient(server.url) as other, never_reading(server) as client:
        call_until_cut(client, 100_000)
        wait_for_metric(server, 'trigger_ddp_disconnections_total{reason="slow_client"}', 1)
        server.wait_for_log(r"the client is too slow: of \d{7,} bytes for all, \d{7,} waited for it")
        assert other.call("echo", 1)["result"] == 1


# -- connections ----------------------------------------------------------------------------------


def test_too_many_connections(serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_CONNECTIONS="2")
    with DDPClient(server.url) as other:
        with Raw(server) as silent:
            for _ in range(2):
                with Raw(server) as one_more:
                    answer = one_more.read_until(b"connections.\n")
                assert answer.startswith("HTTP/1.1 503 ")
                assert "retry-after: 10" in answer.lower()
                assert answer.endswith("This server has too many connections.\n")
            assert other.call("echo", 1)["result"] == 1
            silent.socket.sendall(b"GET /_ddp/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert '"status":"ok"' in silent.read_until(b"}")
        server.wait_for_log("connections are refused: DDP_MAX_CONNECTIONS are open")
        until = time.monotonic() + 30
        while True:  # until the server has noticed that the other is gone
            try:
                assert refusals(server, "too_many_connections") >= 2
                break
            except AssertionError:
                assert time.monotonic() < until


def test_too_many_connections_of_one_address(serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_CONNECTIONS_PER_ADDRESS="3")
    with Raw(server), Raw(server) as second, Raw(server) as third:
        assert second.upgrade().startswith("HTTP/1.1 101 ")
        with Raw(server) as fourth:
            answer = fourth.read_until(b"connections.\n")
        assert answer.startswith("HTTP/1.1 429 ")
        assert answer.endswith("This address has too many connections.\n")
        assert refusals(server, "too_many_of_address") == 1  # asked from another address
        server.wait_for_log(r"DDP_MAX_CONNECTIONS_PER_ADDRESS are open with 127\.0\.0\.2")
        third.socket.close()
        wait_for_metric(server, 'trigger_ddp_connections_total{wire="raw"}', 1)
        until = time.monotonic() + 30
        answer = ""
        while not answer.startswith("HTTP/1.1 101 "):
            assert time.monotonic() < until
            with Raw(server) as again:
                answer = again.upgrade()


def test_too_many_websockets_of_one_address_behind_a_proxy(serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_CONNECTIONS_PER_ADDRESS="1", DDP_FORWARDED_COUNT="1")
    with Raw(server) as first, Raw(server) as second, Raw(server) as third:
        assert first.upgrade("X-Forwarded-For: 1.2.3.4").startswith("HTTP/1.1 101 ")
        assert second.upgrade("X-Forwarded-For: 1.2.3.4").startswith("HTTP/1.1 429 ")
        assert third.upgrade("X-Forwarded-For: 1.2.3.5").startswith("HTTP/1.1 101 ")
        assert refusals(server, "too_many_of_address") == 1
        first.socket.close()
        wait_for_metric(server, 'trigger_ddp_disconnections_total{reason="lost"}', 1)
        with Raw(server) as again:
            assert again.upgrade("X-Forwarded-For: 1.2.3.4").startswith("HTTP/1.1 101 ")


def test_who_does_not_connect_is_closed(serve: Callable[..., Server]) -> None:
    server = serve(DDP_CONNECT_TIMEOUT="0.2")
    with connect(server.url.replace("http", "ws") + "/websocket") as silent:
        silent.send("{}")
        assert json.loads(silent.recv())["msg"] == "error"
        with pytest.raises(ConnectionClosed):
            silent.recv()
        assert (silent.close_code, silent.close_reason) == (1008, "no `connect` in time")
    wait_for_metric(server, 'trigger_ddp_disconnections_total{reason="connect_timeout"}', 1)
    with DDPClient(server.url) as client:
        assert client.call("echo", 1)["result"] == 1


# -- messages -------------------------------------------------------------------------------------


@pytest.fixture
def client(server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client
        assert client.call("echo", "alive")["result"] == "alive"
        assert client.violations == []


def test_messages_of_too_many_values(server: Server, client: DDPClient) -> None:
    many: list[Any] = [[]] * 50_000
    assert client.call("echo", many[:24_000])["result"] == many[:24_000]
    error = client.call("echo", many)["error"]
    assert (error["error"], error["reason"]) == (413, TOO_MANY_VALUES)
    subscription = client.start_subscription("AllBooks", many)
    nosub = client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == subscription)
    assert (nosub["error"]["error"], nosub["error"]["reason"]) == (413, TOO_MANY_VALUES)
    client.send(msg="odd", params=many)
    client.wait_for(lambda m: m == {"msg": "error", "reason": TOO_MANY_VALUES})
    client.send_text(json.dumps({"msg": "method", "params": many})[:-5])
    client.wait_for(lambda m: m == {"msg": "error", "reason": "Bad request"})
    assert refusals(server, "message_too_complex") == 3


def test_what_is_inside_of_texts_does_not_count(client: DDPClient) -> None:
    for text in ('a,b,c,[],{}\n"quoted", \\ ' * 10_000, "," * 100_000, '\\",' * 100_000):
        assert client.call("echo", text)["result"] == text


def test_before_connect_there_are_no_results(server: Server) -> None:
    with DDPClient(server.url, handshake=False) as client:
        client.send(msg="method", id="1", method="echo", params=[[]] * 60_000)
        client.wait_for(lambda m: m == {"msg": "error", "reason": TOO_MANY_VALUES})


@pytest.mark.parametrize("shape", ["[%s]", '{"a":%s}', '{"$type":"oid","$value":%s}', '{"$escape":{"a":%s}}'])
def test_deep_nesting(client: DDPClient, shape: str) -> None:
    opening, _, closing = shape.partition("%s")
    for depth in (2, 250, 256, 257, 500, 900, *range(960, 1010, 3), 5000, 20_000):
        value = opening * depth + "1" + closing * depth
        since = len(client.messages)
        client.send_text(f'{{"msg":"method","id":"{depth}","method":"echo","params":[{value}]}}')
        client.send_text(f'{{"msg":"odd","id":{value}}}')
        client.send_text(f'{{"msg":"sub","id":"x","name":"none","params":[{value}]}}')
        client.send_text(f'{{"msg":"ping","id":{value}}}')
        client.send(msg="ping", id="heard")
        client.wait_for(lambda m: m["msg"] == "pong" and m.get("id") == "heard", since=since)
    assert client.call("echo", "alive")["result"] == "alive"


def test_ids_are_short(client: DDPClient) -> None:
    for message in ({"msg": "sub", "name": "AllBooks"}, {"msg": "method", "method": "echo"}):
        since = len(client.messages)
        client.send(id="x" * 1001, params=[], **message)
        client.wait_for(lambda m: m["msg"] == "error", since=since)
    client.send(msg="sub", id="x" * 1000, name="AllBooks", params=[])
    client.wait_for(lambda m: m["msg"] == "ready")


def test_parameters_of_subscriptions_are_bounded_together(serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_SUBSCRIPTION_BYTES="2000")
    with DDPClient(server.url) as client:
        first = client.subscribe("BooksByAuthorEmail", "a" * 1500)
        for _ in range(2):
            second = client.start_subscription("BooksByAuthorEmail", "b" * 1500)
            nosub = client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == second)  # noqa: B023
            assert nosub["error"]["error"] == "subscriptions-too-large"
        assert refusals(server, "subscriptions_too_large") == 2
        client.unsubscribe(first)
        client.subscribe("BooksByAuthorEmail", "b" * 1500)


# -- floods ---------------------------------------------------------------------------------------


def test_who_floods_is_read_more_slowly(serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_SESSION_SHARE="0.001")  # that is a message in 0.1 s after the first thousand
    with DDPClient(server.url) as flooding:
        for number in range(3000):
            flooding.send(msg="ping", id=str(number))
        for _ in range(4):  # others take more turns than the flood would need, and are not slowed
            with DDPClient(server.url) as other:
                for number in range(100):
                    assert other.call("echo", number)["result"] == number
        flooding.wait_for(lambda m: m["msg"] == "pong")
        assert len(flooding.messages) < 2500


def test_methods_that_wait_for_their_updated_are_bounded(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_PENDING_MESSAGES="10")

    def results(client: DDPClient) -> int:
        return [m["msg"] for m in client.messages].count("result")

    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        client.subscribe("Authors")
        with db.connect() as writer, writer.transaction():
            db.psql("INSERT INTO bookstore_author (name, email) VALUES ('a', 'a@x')")
            client.settle()
            lock(writer)
            with db.connect() as notifier:
                notify_of_author(notifier)
            for number in range(200):
                client.send(msg="method", id=f"m{number}", method="none", params=[])
            client.wait_until(lambda: results(client) >= 10)
            other.settle()
            # those that are told, those whose `updated` waits behind the first, those that run
            assert results(client) < 60
        client.wait_until(lambda: results(client) == 201)
        client.settle()


def lock(connection: psycopg.Connection) -> None:
    connection.execute("LOCK TABLE bookstore_author IN ACCESS EXCLUSIVE MODE")


def notify_of_author(connection: psycopg.Connection) -> None:
    from tests.test_hostile import notify
    from trigger_ddp.capture.tables import Table
    from trigger_ddp.demo.bookstore.models import Author

    notify(connection, Table.from_model(Author), "U", ["1"])
    connection.commit()
