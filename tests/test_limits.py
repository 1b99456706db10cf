"""Rate limits as clients meet them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_operations import metrics

LONG = 600_000
REASON = r"Error, too many requests\. Please slow down\. You must wait \d+ seconds before trying again\."


@pytest.fixture
def client(server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client
        assert client.violations == []


def refused(answer: dict[str, Any]) -> bool:
    if "error" not in answer:
        return False
    error = answer["error"]
    assert (error["error"], error["errorType"]) == ("too-many-requests", "Meteor.Error")
    assert re.fullmatch(REASON, error["reason"])
    seconds = int(re.findall(r"\d+", error["reason"])[0])
    assert (seconds - 1) * 1000 < error["details"]["timeToReset"] <= seconds * 1000 <= LONG
    return True


def limit(client: DDPClient, matcher: dict[str, Any], requests: int = 2, interval: int = LONG) -> str:
    return str(client.call("limits/add", matcher, requests, interval)["result"])


def test_a_method_is_refused_with_result_and_updated(server: Server, client: DDPClient) -> None:
    rule = limit(client, {"type": "method", "name": "limits/of_a_number", "connection_id": True})
    assert client.call("limits/of_a_number", 7)["result"] == 7
    # Counted before its arguments are looked at.
    assert client.call("limits/of_a_number", "seven")["error"]["error"] == 400
    assert refused(client.call("limits/of_a_number", 7))
    assert refused(client.call("limits/of_a_number", "seven"))
    assert metrics(server.url)['trigger_ddp_refusals_total{reason="method_rate"}'] == 2
    assert client.call("echo", 7)["result"] == 7
    client.call("limits/say", rule, "Patience")
    assert client.call("limits/of_a_number", 7)["error"]["reason"] == "Patience"
    assert client.call("limits/remove", rule)["result"] is True
    assert client.call("limits/of_a_number", 7)["result"] == 7


def test_other_connections_have_their_own_count(server: Server, client: DDPClient) -> None:
    limit(client, {"name": "echo", "connection_id": True}, 1)
    assert [refused(client.call("echo", 1)) for _ in range(2)] == [False, True]
    with DDPClient(server.url) as other:
        assert [refused(other.call("echo", 1)) for _ in range(2)] == [False, True]


def test_all_connections_of_an_address_have_one_count(server: Server, client: DDPClient) -> None:
    limit(client, {"name": "echo", "client_address": "127.0.0.1"}, 1)
    with DDPClient(server.url) as other:
        assert [refused(one.call("echo", 1)) for one in (client, other)] == [False, True]


def test_unknown_methods_and_publications_do_not_count(client: DDPClient, server: Server) -> None:
    limit(client, {"name": True}, 1)
    for _ in range(3):
        assert client.call("nothing")["error"]["error"] == 404
        client.send(msg="sub", id="x", name="nothing", params=[])
    client.wait_until(lambda: [m["msg"] for m in client.messages].count("nosub") == 3)
    assert {m["error"]["error"] for m in client.messages if m["msg"] == "nosub"} == {404}
    assert "'nothing'" not in server.log()


def test_subscriptions(server: Server, client: DDPClient) -> None:
    def subscribe(subscription: str, *params: Any) -> dict[str, Any]:
        since = len(client.messages)
        client.send(msg="sub", id=subscription, name="of a number", params=list(params))
        client.settle()
        answers = [m for m in client.messages[since:] if m["msg"] in ("ready", "nosub")]
        return answers[0] if answers else {}

    limit(client, {"type": "subscription", "name": "of a number"})
    assert subscribe("a", 1)["subs"] == ["a"]
    assert [subscribe("a", 1) for _ in range(5)] == [{}] * 5  # it has that: not counted
    assert subscribe("b", "two")["error"]["error"] == 400
    answer = subscribe("c", 1)
    assert (answer["msg"], answer["id"]) == ("nosub", "c")
    assert refused(answer)
    assert refused(subscribe("c", "two"))
    assert metrics(server.url)['trigger_ddp_refusals_total{reason="subscription_rate"}'] == 2
    assert client.call("limits/of_a_number", 1)["result"] == 1
    # It is not among its subscriptions.
    client.unsubscribe("c")


def test_counted_by_user(db: Database, server: Server, client: DDPClient) -> None:
    db.psql(
        "INSERT INTO auth_user (id, username, password, first_name, last_name, email, is_superuser,"
        " is_staff, is_active, date_joined)"
        " SELECT n, n, '', '', '', '', false, false, true, now() FROM generate_series(1, 2) n"
    )
    limit(client, {"name": "echo", "user_id": True}, 1)
    assert [refused(client.call("echo", 1)) for _ in range(2)] == [False, True]
    client.call("become", 1)
    assert [refused(client.call("echo", 1)) for _ in range(2)] == [False, True]
    client.call("become", 2)
    assert not refused(client.call("echo", 1))
    with DDPClient(server.url) as other:
        other.call("become", 1)
        assert refused(other.call("echo", 1))
        session = other.messages[0]["session"]
    server.wait_for_log(
        r"refused: Attempt\(type='method', name='echo', user_id='1', "
        rf"connection_id='{session}', client_address='127\.0\.0\.1'\)"
    )


def test_a_window_ends(client: DDPClient) -> None:
    limit(client, {"name": "echo"}, 1, 1)
    answers = [client.call("echo", 1) for _ in range(200)]
    # Between two calls there is a round trip, which is hardly ever shorter than the window.
    assert len([one for one in answers if "error" not in one]) > 20
