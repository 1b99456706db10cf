"""Passwords and tokens are in no log, traceback, notification, metric and console, whatever fails."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from tests.accounts.conftest import Project
from tests.accounts.test_login import digest, ok
from tests.ddp import DDPClient
from tests.server.test_debug import Console
from trigger_ddp.capture import names

only_django = pytest.mark.parametrize("users", ["django"], indirect=True)


#: Where the application may raise.
PLACES = (
    "user_logged_in", "user_logged_out", "user_login_failed", "create_user", "password_changed",
    "forgot_password", "password_reset", "validate", "on_login", "on_create_user",
)  # fmt: skip


class Secrets:
    """Passwords to try, and whatever has been one or is a token: what must be nowhere."""

    def __init__(self) -> None:
        self._number = 0
        self.texts: set[str] = set()
        self.hashes: set[str] = set()

    def password(self) -> str:
        self._number += 1
        return self.token(f"canary-password-{self._number}")

    def token(self, text: str) -> str:
        self.texts |= {text, digest(text)["digest"]}
        # As trigger_ddp.accounts stores it, whose models are not installed in this process.
        self.hashes.add(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
        return text

    def of(self, answer: dict[str, Any]) -> dict[str, Any]:
        if token := (answer.get("result") or {}).get("token"):
            self.token(token)
        return answer

    def found_in(self, text: str, *, hashes: bool = True) -> list[str]:
        return [
            secret for secret in sorted(self.texts | (self.hashes if hashes else set())) if secret in text
        ]


@contextlib.contextmanager
def listening(project: Project) -> Iterator[list[str]]:
    """What is notified on the channel of any table, until the block ends."""
    payloads: list[str] = []
    with project.db.connect() as ear:
        tables = ear.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 2200")
        for (table,) in tables.fetchall():
            ear.execute(
                psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(names.channel(None, table)))
            )
        ear.execute("LISTEN the_end")

        def listen() -> None:
            for notification in ear.notifies(timeout=60):
                if notification.channel == "the_end":
                    return
                payloads.append(f"{notification.channel} {notification.payload}")

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield payloads
        finally:
            project.db.psql("NOTIFY the_end")
            thread.join()


def through_every_method(
    project: Project, connect: Callable[[], DDPClient], secrets: Secrets, name: str
) -> None:
    """Call each method so that it may succeed, and in most ways in which it fails; with whatever outcome."""
    made: dict[str, Any] = {"username": name, "email": f"{name}@x.org"}
    selector = {"username": name}
    old, new = secrets.password(), secrets.password()
    mails = len(project.mails()) if project.mail.exists() else 0

    def call(client: DDPClient, method: str, *params: Any) -> dict[str, Any]:
        try:
            return secrets.of(client.call(method, *params))
        except (ConnectionClosed, AssertionError):
            assert client.closed  # another call has logged it out
            return {}

    client = connect()
    login = call(client, "createUser", {**made, "password": old, "profile": {"color": 1}})
    call(connect(), "createUser", {**made, "password": digest(secrets.password())})
    call(
        connect(),
        "createUser",
        {"username": f"{name}-2", "email": "no address", "password": secrets.password()},
    )
    call(connect(), "createUser", {"username": f"{name}-short", "password": "short"})
    call(connect(), "createUser", {**made, "password": [secrets.password()]})
    for password in (old, digest(old), secrets.password(), digest(secrets.password())):
        call(connect(), "login", {"user": selector, "password": password})
        call(connect(), "login", {"user": {"username": "nobody"}, "password": password})
    call(connect(), "login", {"user": selector, "password": {"digest": secrets.password(), "algorithm": "x"}})
    call(connect(), "login", {"user": secrets.password(), "password": old})
    call(connect(), "login", {"password": old, "magic": secrets.password()})
    resume = (login.get("result") or {}).get("token") or secrets.token(f"canary-nobodys-{name}")
    for token in (resume, secrets.token(f"canary-token-{name}"), [secrets.token(f"canary-in-a-list-{name}")]):
        call(connect(), "login", {"resume": token})
    other = connect()
    call(other, "login", {"resume": resume})
    for method in ("getNewToken", "logoutOtherClients"):
        call(other, method)
    call(other, "changePassword", secrets.password(), new)
    call(other, "changePassword", old, "short")
    call(other, "changePassword", digest(old), digest(new))
    call(other, "changePassword", {"digest": secrets.password(), "algorithm": "sha-256"}, new)
    call(connect(), "forgotPassword", {"email": made["email"]})
    sent = project.mails() if project.mail.exists() else []
    if len(sent) > mails:
        token = secrets.token(project.link())
        call(connect(), "resetPassword", token, "short")
        call(connect(), "resetPassword", token, secrets.password())
        call(connect(), "resetPassword", token, secrets.password())
        call(connect(), "verifyEmail", token)
    call(connect(), "resetPassword", secrets.token(f"canary-link-{name}"), secrets.password())
    call(connect(), "verifyEmail", secrets.token(f"canary-verify-{name}"))
    last = connect()
    call(last, "createUser", {"username": f"{name}-last", "password": secrets.password()})
    call(last, "logout")


@only_django
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_anywhere(project: Project, log_format: str) -> None:
    server = project.serve(
        "-v", "3", "--log-format", log_format, "--debug-port", "0", DDP_SEND_VERIFICATION_EMAIL="true"
    )
    server.errors_expected = True
    secrets, clients = Secrets(), contextlib.ExitStack()
    port = int(server.wait_for_log(r"debug console on 127\.0\.0\.1:(\d+)")[1])

    def connect() -> DDPClient:
        return clients.enter_context(DDPClient(server.url))

    admin = DDPClient(server.url)
    with listening(project) as payloads, clients, admin:
        through_every_method(project, connect, secrets, "ann")
        # Enrolment and verification have tokens of their own.
        secrets.of(connect().call("createUser", {"email": "enrolled@x.org", "username": "enrolled"}))
        link = secrets.token(project.link())
        ok(secrets.of(connect().call("resetPassword", link, secrets.password())))
        ok(secrets.of(connect().call("createUser", {
            "email": "v@x.org", "username": "v", "password": secrets.password()})))  # fmt: skip
        ok(secrets.of(connect().call("verifyEmail", secrets.token(project.link()))))
        # An application's code fails on top of our frames.
        for number, where in enumerate(PLACES[log_format == "json" :: 2]):
            ok(admin.call("failing", [where]))
            through_every_method(project, connect, secrets, f"user{number}")
            server.wait_for_log(f"RuntimeError: {where} fails")
        ok(admin.call("failing", []))
        # PostgreSQL refuses rows, and shows them.
        project.db.psql(
            "ALTER TABLE trigger_ddp_accounts_logintoken ADD CHECK (user_id < 0) NOT VALID;"
            "ALTER TABLE trigger_ddp_accounts_mailtoken ADD CHECK (user_id < 0) NOT VALID"
        )
        through_every_method(project, connect, secrets, "refused")
        server.wait_for_log("violates check constraint")
        console = Console(port)
        with console.socket:
            shown = "".join(
                console(command) for command in ("sessions", "tasks", "threads", "queries", "metrics")
            )
        metrics = urllib.request.urlopen(f"{server.url}/_ddp/metrics").read().decode()
    assert len(secrets.texts) > 200
    tables = {payload.split()[0] for payload in payloads}
    assert {
        names.channel(None, table) for table in ("auth_user", "trigger_ddp_accounts_logintoken")
    } <= tables
    assert secrets.found_in("\n".join(payloads)) == []
    assert secrets.found_in(metrics) == []
    assert "sessions" in shown
    assert secrets.found_in(shown) == []
    # What PostgreSQL says of a row that it refuses has the hash in it, which lets nobody in.
    assert secrets.found_in(server.log(), hashes=False) == []
