"""What methods and clients should not do, and what is going on just when something ends."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_resume import come_back, session_of
from tests.test_users import ok, people

__all__ = ["people"]


def ponged(client: DDPClient) -> None:
    """Everything that was sent before has been read."""
    since = len(client.messages)
    client.send(msg="ping", id="read?")
    client.wait_for(lambda m: m["msg"] == "pong", since=since)


def wait_for_sessions(client: DDPClient, number: int) -> None:
    """Wait until there are so many sessions in the server's memory."""
    until = time.monotonic() + 10
    while (found := ok(client.call("abuse/sessions"))) != number:
        assert time.monotonic() < until, f"{found} sessions"


def test_a_child_task_of_a_method_that_exits(db: Database, server: Server) -> None:
    server.errors_expected = True
    with DDPClient(server.url) as client:
        assert client.call("abuse/exit_in_nursery")["error"]["error"] == 500
        assert client.call("echo", 1)["result"] == 1


def test_what_can_not_be_sent(db: Database, server: Server) -> None:
    server.errors_expected = True
    with DDPClient(server.url) as client:
        for method, *params in [("abuse/tell", "object"), ("abuse/tell", "half"), ("abuse/return_half",)]:
            assert client.call(method, *params)["error"]
        assert client.call("echo", 1)["result"] == 1


def test_the_lease_of_one_method_and_the_end_of_another(people: Database, server: Server) -> None:
    people.psql("SELECT setval('zoo_keeper_id_seq', 100)")
    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        call = client.start_call("abuse/login_while_made_and_wait", 1, "made", "lease")
        assert client.call("echo", 1)["result"] == 1
        other.call("echo", 1)
        ok(other.call("login_while", 1, 1))  # whose lease is asked for after the other's
        other.call("gates/open", "lease")
        ok(client.finish_call(call))
        assert ok(client.call("who"))[2] == "ann"
        people.psql("DELETE FROM zoo_keeper WHERE name = 'made'")
        client.wait_until(lambda: client.closed)


def test_a_lease_whose_key_was_given_as_a_text(people: Database, server: Server) -> None:
    people.psql("DELETE FROM zoo_visit")
    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        ok(client.call("abuse/login_while_of_text", 1, 1))
        ok(other.call("login_while", 1, 1))
        assert ok(client.call("who"))[2] == "ann"
        people.psql("DELETE FROM zoo_keeper WHERE id = 1")
        client.wait_until(lambda: client.closed)


def test_a_lease_that_comes_after_the_end_of_its_method(people: Database, server: Server) -> None:
    people.psql("DELETE FROM zoo_visit")
    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        client.subscribe("SlowForUsers", "late lease")
        client.subscribe("script", "late lease", [["who"], ["ready"]])
        assert ok(client.call("abuse/login_and_leave", 1, 1)) == "left"
        other.call("gates/open", "late lease")
        client.wait_until(lambda: client.documents["who"]["me"]["name"] == "ann")
        people.psql("DELETE FROM zoo_keeper WHERE id = 1")
        client.wait_until(lambda: client.closed)


def test_subscribing_while_the_user_changes(people: Database, server: Server) -> None:
    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        client.subscribe("SlowForUsers", "switch")
        call = client.start_call("abuse/login_and_leave", 1)
        subscription = client.start_subscription("MyKeepers")
        assert ok(client.finish_call(call)) == "left"
        ponged(client)
        other.call("gates/open", "switch")
        client.wait_for(lambda m: m["msg"] == "ready" and subscription in m["subs"])
        client.unsubscribe(subscription)
        assert client.documents["owned-keepers"] == {}


def test_one_who_waits_for_room_and_goes(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(
        DDP_MAX_PENDING_MESSAGES="3", DDP_DISCONNECT_GRACE_PERIOD="0.3", DDP_HEARTBEAT_INTERVAL="0.2"
    )
    with DDPClient(server.url) as other:
        wait_for_sessions(other, 1)
        client = DDPClient(server.url)
        client.call("gates/watch_close", "waiting")
        client.start_call("gates/wait", "room")
        for number in range(10):
            client.start_call("echo", number)
        other.settle()
        client.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.socket.shutdown(socket.SHUT_RD)
        client.socket.socket.close()
        server.wait_for_log("waiting: closed", 10)
        other.call("gates/open", "room")
        wait_for_sessions(other, 1)


def test_one_who_waits_for_room_and_is_ended(db: Database, serve: Callable[..., Server]) -> None:
    server = serve(DDP_MAX_PENDING_MESSAGES="3", DDP_HEARTBEAT_INTERVAL="0")
    with DDPClient(server.url) as other:
        client = DDPClient(server.url)
        client.start_call("gates/wait", "end")
        for number in range(10):
            client.start_call("echo", number)
        with come_back(server, client):
            pass
        other.call("gates/open", "end")
        client.wait_until(lambda: client.closed)
        wait_for_sessions(other, 2)  # the one that came back is away


def test_a_session_that_takes_its_time_to_end(db: Database, server: Server) -> None:
    with DDPClient(server.url) as other:
        client = DDPClient(server.url)
        client.subscribe("script", "ending", [["ready"], ["sleep"]])
        client.start_call("abuse/stay", "stays")
        ponged(client)
        client.close()
        other.call("gates/close_session", "ending")
        with come_back(server, client) as again:
            assert session_of(again) != session_of(client)
            other.call("gates/open", "stays")
            again.settle()
