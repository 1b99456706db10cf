"""What an application has called when clients connect and when they say something."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.ddp import DDPClient
from tests.serving import Server
from trigger_ddp.api import API


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """One that does not wait long for clients who are gone."""
    return serve(DDP_DISCONNECT_GRACE_PERIOD="0.2")


@pytest.fixture
def client(server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client
        assert client.call("echo", "alive")["result"] == "alive"
        assert client.violations == []


def start(client: DDPClient, *names: str) -> None:
    for name in names:
        assert "error" not in client.call("hooks/start", name)


def stop(client: DDPClient, name: str) -> bool:
    return bool(client.call("hooks/stop", name)["result"])


def session_of(client: DDPClient) -> str:
    return str(client.messages[0]["session"])


def test_on_connection(server: Server, client: DDPClient) -> None:
    start(client, "note_connection", "note_connection")
    with DDPClient(server.url) as other:
        session = session_of(other)
        server.wait_for_log(f"connected: {session} from 127.0.0.1 as None")
        other.settle()
        assert server.log().count(f"connected: {session}") == 1
    server.wait_for_log(f"gone: {session}")
    assert session_of(client) not in server.log()
    assert stop(client, "note_connection")
    assert not stop(client, "note_connection")
    with DDPClient(server.url) as other:
        other.settle()
        assert session_of(other) not in server.log()


def test_connected_is_sent_first(server: Server, client: DDPClient) -> None:
    start(client, "close_connection")
    with DDPClient(server.url) as other:
        other.wait_until(lambda: other.closed)
        assert [message["msg"] for message in other.messages] == ["connected"]
        assert other.socket.close_code == 1000


def test_universal_publications_are_told_first(serve: Callable[..., Server]) -> None:
    server = serve(TDDP_TEST_UNIVERSAL="1")
    with DDPClient(server.url) as client:
        start(client, "close_connection")
    with DDPClient(server.url) as other:
        other.wait_until(lambda: other.closed)
        assert [message["msg"] for message in other.messages] == ["connected", "added"]
        assert other.documents["motd"] == {"today": {"text": "Hello stranger"}}


def test_a_resumed_session_is_no_new_connection(serve: Callable[..., Server]) -> None:
    server = serve()
    with DDPClient(server.url) as client:
        start(client, "note_connection", "stay_on_connection")
    before = DDPClient(server.url)
    session = session_of(before)
    before.close()
    again = DDPClient(server.url, handshake=False)
    again.send(msg="connect", version="1", support=["1"], session=session, receivedCount=len(before.messages))
    again.wait_for(lambda m: m["msg"] == "connected")
    assert session_of(again) == session
    again.settle()
    assert server.log().count(f"connected: {session}") == 1
    assert "gone" not in server.log()
    assert f"stay with {session}" not in server.log()
    again.start_call("connections/close")  # by the server: nobody comes back
    server.wait_for_log(f"gone: {session}")
    server.wait_for_log(f"no more need to stay with {session}")
    again.close()


@pytest.mark.parametrize("name", ["exit_on_connection", "fail_on_connection", "exit_later_on_connection"])
def test_what_a_hook_raises_breaks_nothing(server: Server, client: DDPClient, name: str) -> None:
    server.errors_expected = True
    start(client, name, "note_connection")
    with DDPClient(server.url) as other:
        server.wait_for_log(rf"API\.on_connection: tests\.project\.hooking\.{name} failed")
        server.wait_for_log("the hook's secret")
        server.wait_for_log(f"connected: {session_of(other)}")
        assert other.call("echo", 1)["result"] == 1


def test_the_database_is_asked_on_a_thread(server: Server, client: DDPClient) -> None:
    server.errors_expected = True
    start(client, "query_on_connection", "count_on_connection")
    with DDPClient(server.url) as other:
        server.wait_for_log("SynchronousOnlyOperation: a query on the server's event loop")
        server.wait_for_log(rf"\d+ authors for {session_of(other)}")


def test_async_hooks_end_with_the_session(server: Server, client: DDPClient) -> None:
    start(client, "stay_on_connection")
    with DDPClient(server.url) as other:
        other.settle()
        assert "no more need to stay" not in server.log()
    server.wait_for_log(f"no more need to stay with {session_of(other)}")


def test_on_message(server: Server, client: DDPClient) -> None:
    start(client, "note_message")
    session = session_of(client)
    client.send(msg="method", id="m", method="echo", params=[{"$date": 0}])
    client.send(msg="sub", id="s", name="nothing")
    client.send(msg="unsub", id="s")
    client.send(msg="ping")
    client.send(msg="whatever", x=1)
    client.send(msg="method", id=7)
    client.send(msg="method", id="n", method="echo", params=[{"$type": "unheard of", "$value": 1}])
    assert stop(client, "note_message")
    lines = [
        line.split(f"message of {session}: ")[1].removesuffix(f" [session={session}]")
        for line in server.log().splitlines()
        if session in line
    ]
    assert "datetime.datetime(1970, 1, 1" in lines.pop(0)
    assert lines[:4] == [
        "{'msg': 'sub', 'id': 's', 'name': 'nothing'}",
        "{'msg': 'unsub', 'id': 's'}",
        "{'msg': 'whatever', 'x': 1}",
        "{'msg': 'method', 'id': 7}",
    ]
    assert "hooks/stop" in lines[-1]
    assert len(lines) == 5  # what can't be decoded is not among them
    kinds = [message["msg"] for message in client.messages]
    assert kinds.count("error") == 3
    client.settle()
    assert server.log().count(f"message of {session}") == 6


def test_a_failing_message_hook(server: Server, client: DDPClient) -> None:
    server.errors_expected = True
    start(client, "fail_on_message")
    assert client.call("echo", 1)["result"] == 1
    server.wait_for_log(r"API\.on_message: tests\.project\.hooking\.fail_on_message failed")


def test_async_message_hooks_hold_back_who_starts_many(server: Server, client: DDPClient) -> None:
    start(client, "stay_on_message")
    with DDPClient(server.url) as other:
        for number in range(300):
            other.send(msg="method", id=str(number), method="echo", params=[number])
        other.wait_until(lambda: sum(m["msg"] == "result" for m in other.messages) >= 100)
        client.call("hooks/stop", "stay_on_message")
        assert sum(m["msg"] == "result" for m in other.messages) == 100
    server.wait_for_log("no more need to stay")


def test_decorators_return_the_function_and_are_restored() -> None:
    with API.restored():

        @API.on_connection
        @API.on_message
        def note(*arguments: object) -> None: ...

        assert callable(note)
        assert note in API.connection_hook.callbacks
        assert API.off(note)
        assert note not in API.connection_hook.callbacks + API.message_hook.callbacks
        assert not API.off(note)
        API.on_connection(note)
        with pytest.raises(TypeError, match=r"API\.on_message takes a function, not str"):
            API.on_message("note")  # type: ignore[type-var]
    assert note not in API.connection_hook.callbacks
