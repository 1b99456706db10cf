"""Methods from outside: their order, `this.unblock`, their transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server

WAITS = ["gates/wait", "gates/wait_async"]


@pytest.fixture
def client(db: Database, server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client


def answered(client: DDPClient) -> list[str]:
    return [message["id"] for message in client.messages if message["msg"] == "result"]


def ponged(client: DDPClient) -> None:
    """Everything that was sent before has been read."""
    client.send(msg="ping", id="read?")
    client.wait_for(lambda m: m["msg"] == "pong")


@pytest.mark.parametrize("method", WAITS)
def test_one_at_a_time_and_in_order(client: DDPClient, server: Server, method: str) -> None:
    first = client.start_call(method, "ordered")
    second = client.start_call("echo", 2)
    third = client.start_call("slow_echo", 3)
    subscription = client.start_subscription("Authors")
    ponged(client)
    with DDPClient(server.url) as other:
        other.call("gates/open", "ordered")
    client.wait_for(lambda m: m["msg"] == "ready" and subscription in m["subs"])
    assert answered(client) == [first, second, third]
    for call in (first, second, third):
        client.finish_call(call)


@pytest.mark.parametrize("method", WAITS)
def test_unblock_lets_the_next_go_on(client: DDPClient, method: str) -> None:
    first = client.start_call(method, "unblocked", True)
    assert client.call("echo", 2)["result"] == 2
    client.subscribe("Authors")
    assert first not in answered(client)
    client.call("gates/open", "unblocked")
    assert client.finish_call(first)["result"] == "unblocked"


@pytest.mark.parametrize("method", ["gates/login_after_unblock", "gates/login_after_unblock_async"])
def test_no_login_after_unblock(db: Database, client: DDPClient, server: Server, method: str) -> None:
    server.errors_expected = True
    assert client.call(method, 1)["error"]["error"] == 500
    server.wait_for_log("Can't call setUserId in a method after calling unblock")
    assert client.call("who").get("result") is None


def test_only_so_many_run_beside_each_other(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_RUNNING_METHODS="2")
    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        calls = [client.start_call("gates/wait", "bounded", True) for _ in range(2)]
        third = client.start_call("echo", 3)
        ponged(client)
        for _ in range(20):  # as long as the third would have needed
            assert other.call("echo", 1)["result"] == 1
        assert answered(client) == []
        other.call("gates/open", "bounded")
        for call in (*calls, third):
            client.finish_call(call)


def test_every_call_is_answered_twice(client: DDPClient, server: Server) -> None:
    server.errors_expected = True
    client.subscribe("Authors")
    calls: list[tuple[str, Any]] = [
        ("echo", [1]), ("no such method", []), ("broken", []), ("fail", []), ("echo", [1, 2, 3]),
        ("not_ejson", []), ("write_then_fail", []), ("rename", ["1", "x"]), ("slow_echo", [None]),
    ]  # fmt: skip
    ids = [client.start_call(name, *params) for name, params in calls]
    for call in ids:
        client.finish_call(call)
    told = [method for m in client.messages if m["msg"] == "updated" for method in m["methods"]]
    assert sorted(told) == sorted(ids)
    assert answered(client) == ids


def test_the_transaction_can_be_turned_off(client: DDPClient, serve: Callable[..., Server]) -> None:
    assert client.call("gates/in_transaction")["result"] is True
    assert client.call("gates/not_in_transaction")["result"] is False
    with DDPClient(serve(DDP_ATOMIC_METHODS="false").url) as other:
        assert other.call("gates/in_transaction")["result"] is False
