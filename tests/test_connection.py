"""`this.connection`: what methods and publications know of their client's connection, and its end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from websockets.sync.client import connect

from tests.ddp import DDPClient
from tests.proxy import Proxy
from tests.serving import Server


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """One that does not wait long for clients who are gone."""
    return serve(DDP_DISCONNECT_GRACE_PERIOD="0.2")


@pytest.fixture
def client(server: Server) -> Iterator[DDPClient]:
    with DDPClient(server.url) as client:
        yield client
        assert client.violations == []


def session_of(client: DDPClient) -> str:
    return str(next(m["session"] for m in client.messages if m["msg"] == "connected"))


def short(client: DDPClient, since: int) -> list[str]:
    return [message["msg"] for message in client.messages[since:] if message["msg"] != "ping"]


# -- what is known --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["connections/known", "connections/known_async"])
def test_methods_know_it(server: Server, client: DDPClient, method: str) -> None:
    assert client.call(method)["result"] == [session_of(client), "127.0.0.1", None]
    with DDPClient(server.url) as other:
        assert other.call(method)["result"] == [session_of(other), "127.0.0.1", None]
        assert client.call(method)["result"][0] == session_of(client)


def test_publications_know_it(client: DDPClient) -> None:
    client.subscribe("known of the connection")
    expected = {session_of(client): {"address": "127.0.0.1", "header": None}}
    assert client.documents["connections"] == expected


def test_headers(server: Server) -> None:
    address = server.url.replace("http", "ws", 1) + "/websocket"
    with connect(address, additional_headers={"X-Test": "yes"}) as socket:
        socket.send('{"msg":"connect","version":"1","support":["1"]}')
        socket.send('{"msg":"method","method":"connections/known","params":[],"id":"1"}')
        while '"result"' not in (text := str(socket.recv(timeout=30))):
            pass
        assert '"127.0.0.1","yes"]' in text


# -- close ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["connections/close", "connections/close_async"])
def test_close_from_a_method_delivers_its_result(client: DDPClient, method: str) -> None:
    since = len(client.messages)
    client.start_call(method)
    client.wait_until(lambda: client.closed)
    assert "result" in short(client, since)
    assert client.messages[since].get("result") == "closing"
    assert client.socket.close_code == 1000


def test_close_from_a_method_delivers_its_error(client: DDPClient) -> None:
    since = len(client.messages)
    client.start_call("connections/close_and_fail")
    client.wait_until(lambda: client.closed)
    assert client.messages[since]["error"]["error"] == "enough"


def test_close_from_a_publication_delivers_what_it_told(client: DDPClient) -> None:
    since = len(client.messages)
    subscription = client.start_subscription("closes the connection")
    client.wait_until(lambda: client.closed)
    assert short(client, since) == ["added", "ready"]
    assert client.messages[-1]["subs"] == [subscription]
    assert client.socket.close_code == 1000


def test_close_of_another_and_of_one_that_is_gone(server: Server, client: DDPClient) -> None:
    with DDPClient(server.url) as other:
        other.call("connections/note_end")
        session = session_of(other)
        server.errors_expected = True  # one of its callbacks fails
        client.call("connections/close_other", session)
        other.wait_until(lambda: other.closed)
        assert other.socket.close_code == 1000
    server.wait_for_log(f"the end of {session}")
    assert "error" not in client.call("connections/close_other", session)
    client.call("connections/note_end_of", session)
    server.wait_for_log(f"long over: {session}")


# -- on_close -------------------------------------------------------------------------------------


def test_on_close_when_the_client_goes(server: Server) -> None:
    server.errors_expected = True
    with DDPClient(server.url) as client:
        client.call("connections/note_end")
        session = session_of(client)
        assert f"the end of {session}" not in server.log()
    server.wait_for_log(f"the end of {session}")
    assert "an on_close callback failed" in server.log()
    with DDPClient(server.url) as other:
        other.settle()
    assert server.log().count(f"the end of {session}") == 1


def test_on_close_when_the_client_is_cut(server: Server) -> None:
    server.errors_expected = True
    with Proxy(server.host, server.port) as proxy:
        client = DDPClient(f"http://{proxy.host}:{proxy.port}")
        client.call("connections/note_end")
        proxy.cut()
        server.wait_for_log(f"the end of {session_of(client)}")
        client.close()


def test_on_close_when_the_server_ends(server: Server) -> None:
    server.errors_expected = True
    with DDPClient(server.url) as client:
        client.call("connections/note_end")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log(f"the end of {session_of(client)}")
        client.wait_until(lambda: client.closed)
    server.process.wait(30)
    assert server.log().count(f"the end of {session_of(client)}") == 1
