"""Nothing trusts a cookie, or any other header: who connects is nobody until a method says who it is."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.conftest import Database
from tests.ddp import DDPClient, RawWire, SockJSHTTPWire, SockJSWire
from tests.serving import Server
from tests.sockjs import TRANSPORTS, SockJSSocket
from tests.test_users import ok, people

__all__ = ["people"]

EVIL = "https://evil.example"


def signed_session(user_id: int) -> str:
    """The cookie of a session at Django's site, by the backend that keeps all of it in the cookie."""
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.signed_cookies import SessionStore

    session = SessionStore()
    session[SESSION_KEY] = str(user_id)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = User.objects.get(pk=user_id).get_session_auth_hash()
    session.save()
    key: str = session.session_key
    return key


def credentials() -> dict[str, str]:
    """Ann's, as her browser sends them to Django's site, with what else people trust."""
    return {
        "Cookie": f"sessionid={signed_session(1)}; csrftoken=x; JSESSIONID=conforms; meteor_login_token=1",
        "Authorization": "Basic YW5uOmFubg==", "Remote-User": "ann", "X-Remote-User": "ann",
        "X-Forwarded-User": "ann", "X-Forwarded-For": "127.0.0.1",
    }  # fmt: skip


class Headers:
    """A wire whose requests have headers."""

    def __init__(self, wire: RawWire, headers: dict[str, str]) -> None:
        self._wire, self._headers = wire, headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def connect(self, url: str, path: str | None) -> Any:
        if isinstance(self._wire, SockJSHTTPWire):
            return SockJSSocket(url, self._wire.transport, headers=self._headers)
        address = url.replace("http", "ws", 1) + (path or self._wire.path)
        return connect(address, additional_headers=self._headers, max_size=None)


def test_a_session_at_the_site_is_no_login_here(people: Database, server: Server) -> None:
    headers = credentials() | {"Origin": EVIL}
    for one in (RawWire(), SockJSWire(), *map(SockJSHTTPWire, TRANSPORTS)):
        wire: Any = Headers(one, headers)
        with DDPClient(server.url, wire=wire) as client:
            assert client.call("who").get("result") is None
            client.subscribe("MyKeepers")
            client.subscribe("MyVisits")
            assert not client.documents
            ok(client.call("become", 2))  # a method has the last word
            assert ok(client.call("who")) == [2, "2", "bob"]


def ask(
    server: Server, method: str, path: str, body: str = "", **headers: str
) -> tuple[int, dict[str, str], str]:
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=30)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()


def test_a_cookie_leads_to_nobodys_session(people: Database, serve: Callable[..., Server]) -> None:
    """The cookie of a load balancer may be the same for everybody, as SockJS's is."""
    server = serve(DDP_SOCKJS_COOKIE="true")
    wire = SockJSHTTPWire("xhr_streaming")
    with DDPClient(server.url, wire=wire) as client:
        ok(client.call("become", 1))
        session = client.socket.session  # type: ignore[union-attr]
        key = session.rpartition("/")[2]
        cookie = f"JSESSIONID={key}; sessionid={key}"
        status, headers, body = ask(server, "POST", "/sockjs/000/another/xhr", Cookie=cookie)
        assert (status, body) == (200, "o\n"), "a session of its own"
        assert headers["Set-Cookie"] == f"JSESSIONID={key}; path=/", (
            "which is the client's, and means nothing"
        )
        message = json.dumps([json.dumps({"msg": "method", "id": "evil", "method": "who", "params": []})])
        status, _, _ = ask(server, "POST", "/sockjs/000/nobodys/xhr_send", message, Cookie=cookie)
        assert status == 404
        client.settle()
        assert not [m for m in client.messages if m.get("id") == "evil"]


def test_who_knows_the_id_of_a_session_may_send(people: Database, server: Server) -> None:
    """As with every server of SockJS: the id is the only secret, and the client chooses it."""
    with DDPClient(server.url, wire=SockJSHTTPWire("xhr_streaming")) as client:
        ok(client.call("become", 1))
        message = json.dumps([json.dumps({"msg": "method", "id": "other", "method": "who", "params": []})])
        status, _, _ = ask(server, "POST", f"{client.socket.session}/xhr_send", message)  # type: ignore[union-attr]
        assert status == 204
        result = client.wait_for(lambda m: m.get("msg") == "result" and m["id"] == "other")
        assert result["result"] == [1, "1", "ann"]


def test_pages_of_other_origins_may_be_refused(people: Database, serve: Callable[..., Server]) -> None:
    server = serve("--workers", "2", DDP_ALLOWED_ORIGINS='["https://app.example.org"]')
    for path in ("/websocket", "/sockjs/000/abcd/websocket"):
        address = server.url.replace("http", "ws", 1) + path
        with pytest.raises(InvalidStatus) as refused:
            connect(address, additional_headers={"Origin": EVIL})
        assert refused.value.response.status_code == 403
    for number in range(4):
        path = f"/sockjs/000/of-another-worker-{number}/xhr"
        assert ask(server, "POST", path, Origin=EVIL)[0] == 403
        assert ask(server, "POST", path, Origin="https://app.example.org")[2] == "o\n"
    for headers in ({}, {"Origin": "https://app.example.org"}):
        wire: Any = Headers(RawWire(), headers)
        with DDPClient(server.url, wire=wire) as client:
            client.settle()
    server.wait_for_log(f"is refused: DDP_ALLOWED_ORIGINS does not have '{EVIL}'")
    assert 'trigger_ddp_refusals_total{reason="origin"} 6.0' in ask(server, "GET", "/_ddp/metrics")[2]


def test_a_malformed_list_is_no_list_that_serves(db: Database) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trigger_ddp", "serve", "--bind", "127.0.0.1:0"], capture_output=True,
        text=True, env={**os.environ, **db.environ, "DDP_ALLOWED_ORIGINS": '["app.example.org"]'},
    )  # fmt: skip
    assert done.returncode != 0
    assert "DDP_ALLOWED_ORIGINS must not contain 'app.example.org'" in done.stderr
