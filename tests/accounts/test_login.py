"""Logging in by password and token, and out again."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission, User

from tests.accounts.conftest import AMBIGUOUS, LOGGED_OUT, digest, ok, refused
from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from trigger_ddp.accounts.models import LoginToken

SECRET = "ann's secret"
Start, Connect = Callable[..., Server], Callable[[Server], DDPClient]


def by_password(client: DDPClient, password: Any = SECRET, **selector: str) -> Any:
    return client.call("login", {"user": selector or {"username": "ann"}, "password": password})


def test_a_stock_client_logs_in(ann: User, start: Start, connect: Connect) -> None:
    client = connect(start())
    result = ok(by_password(client, digest(SECRET)))
    assert set(result) == {"id", "token", "tokenExpires", "type"}
    assert (result["id"], result["type"]) == (str(ann.pk), "password")
    assert len(result["token"]) == 43
    days = (result["tokenExpires"]["$date"] / 1000 - time.time()) / 86400
    assert 89.9 < days <= 90
    document = client.documents["users"][str(ann.pk)]
    assert document == {
        "username": "ann",
        "emails": [{"address": "Ann@example.com", "verified": False}],
        "profile": {"name": "Ann Author"},
        "createdAt": {"$date": int(ann.date_joined.timestamp() * 1000)},
        "permissions": [],
    }
    kinds = [message["msg"] for message in client.messages]
    assert kinds.index("added") < kinds.index("result")
    row = LoginToken.objects.get()
    assert row.hashed_token == base64.b64encode(hashlib.sha256(result["token"].encode()).digest()).decode()
    everything = str(client.messages)
    ann.refresh_from_db()
    assert ann.last_login is not None
    assert ann.password not in everything
    assert digest(SECRET)["digest"] not in everything


def test_a_text_will_do_and_upgrades(db: Database, start: Start, connect: Connect) -> None:
    user = User.objects.create(username="ann", password=make_password(SECRET, hasher="pbkdf2_sha256"))
    client = connect(start())
    assert refused(by_password(client, digest(SECRET))) == AMBIGUOUS
    assert refused(by_password(client, "wrong")) == AMBIGUOUS
    user.refresh_from_db()
    assert user.password.startswith("pbkdf2_sha256$")
    ok(by_password(client, SECRET))
    user.refresh_from_db()
    assert user.password.startswith("meteor_pbkdf2_sha256$")
    ok(by_password(connect_again := client, digest(SECRET)))
    ok(by_password(connect_again, SECRET))
    assert user.check_password(SECRET)
    assert not user.check_password("wrong")


@pytest.mark.parametrize(
    "selector",
    [{"username": "ann"}, {"username": "ANN"}, {"email": "Ann@example.com"}, {"email": "ann@EXAMPLE.com"}],
)
def test_who_is_meant(ann: User, start: Start, connect: Connect, selector: dict[str, str]) -> None:
    client = connect(start())
    for password in (SECRET, digest(SECRET)):
        assert ok(by_password(client, password, **selector))["id"] == str(ann.pk)
        assert ok(by_password(client, password, id=str(ann.pk)))["id"] == str(ann.pk)


def test_who_can_not_be_meant(ann: User, start: Start, connect: Connect) -> None:
    for name in ("Bob", "bOB"):
        User.objects.create(username=name, password=make_password(SECRET, hasher="meteor_pbkdf2_sha256"))
    client = connect(start())
    assert refused(by_password(client, digest(SECRET), username="bob")) == AMBIGUOUS
    ok(by_password(client, digest(SECRET), username="Bob"))
    for selector in (
        {"username": "a\x00"},
        {"id": "x"},
        {"id": "9" * 40},
        {"email": ""},
        {"username": "a" * 999},
    ):
        code, _ = refused(by_password(client, digest(SECRET), **selector))
        assert code in (400, 403)
        assert refused(by_password(client, SECRET, **selector))[0] in (400, 403)
    assert refused(by_password(client, SECRET, username="ann", id="1")) == (400, "Match failed")


@pytest.mark.parametrize(
    "options",
    [
        {}, {"resume": 1}, {"resume": ["a"]}, {"password": "x"}, {"user": {"username": "ann"}},
        {"user": "ann", "password": "x"}, {"user": {}, "password": "x"},
        {"user": {"username": "ann", "role": "x"}, "password": "x"},
        {"user": {"username": {"$gt": ""}}, "password": "x"},
        {"user": {"username": "ann"}, "password": "x" * 257},
        {"user": {"username": "ann"}, "password": {"digest": "x", "algorithm": "sha-256"}},
        {"user": {"username": "ann"}, "password": {**digest("x"), "algorithm": "md5"}},
        {"user": {"username": "ann"}, "password": {"$ne": ""}},
        {"user": {"username": "ann"}, "password": "\x00"},
        None, "x", [], 1,
    ],
)  # fmt: skip
def test_junk(ann: User, start: Start, connect: Connect, options: Any) -> None:
    client = connect(start())
    assert refused(client.call("login", options))[0] in (400, 403)
    assert not client.documents["users"]


def test_what_it_says_where_it_may(ann: User, start: Start, connect: Connect) -> None:
    User.objects.create(username="bob", password="!")
    client = connect(start(DDP_AMBIGUOUS_ERROR_MESSAGES="false"))
    for password in ("wrong", digest("wrong")):
        assert refused(by_password(client, password)) == (403, "Incorrect password")
        assert refused(by_password(client, password, email="x@y.z")) == (403, "User not found")
        assert refused(by_password(client, password, username="eve")) == (403, "User not found")
    assert refused(by_password(client, digest("wrong"), username="bob")) == (403, "User has no password set")
    assert refused(client.call("login", {})) == (400, "Unrecognized options for login request")


def test_who_is_not_active(ann: User, start: Start, connect: Connect) -> None:
    token = ok(by_password(connect(server := start())))["token"]
    User.objects.update(is_active=False)
    client = connect(server)
    assert refused(by_password(client)) == AMBIGUOUS
    assert refused(by_password(client, digest(SECRET))) == (403, "Login forbidden")
    assert refused(client.call("login", {"resume": token})) == (403, "Login forbidden")


# -- tokens ---------------------------------------------------------------------------------------


def test_a_token_resumes_until_its_row_is_deleted(
    db: Database, ann: User, start: Start, connect: Connect
) -> None:
    server = start()
    client, again, other = (connect(server) for _ in range(3))
    token = ok(by_password(client))["token"]
    result = ok(again.call("login", {"resume": token}))
    assert (result["id"], result["token"], result["type"]) == (str(ann.pk), token, "resume")
    ok(by_password(other))
    assert LoginToken.objects.count() == 2
    db.psql(f"DELETE FROM trigger_ddp_accounts_logintoken WHERE id = {LoginToken.objects.earliest('pk').pk}")
    for closed in (client, again):
        closed.wait_until(lambda: closed.closed)  # noqa: B023
    assert ok(other.call("who"))[2] == "ann"
    assert refused(connect(server).call("login", {"resume": token})) == LOGGED_OUT


def test_expiry_and_sweep(db: Database, ann: User, start: Start, connect: Connect) -> None:
    from trigger_ddp.accounts.tokens import sweep

    server = start()
    client, other = connect(server), connect(server)
    token = ok(by_password(client))["token"]
    db.psql("UPDATE trigger_ddp_accounts_logintoken SET created = now() - interval '90 days 1 second'")
    ok(by_password(other))
    message = "Your session has expired. Please log in again."
    assert refused(connect(server).call("login", {"resume": token})) == (403, message)
    assert ok(client.call("who"))[2] == "ann"
    assert sweep() == 1
    client.wait_until(lambda: client.closed)
    assert ok(other.call("who"))[2] == "ann"
    assert refused(connect(server).call("login", {"resume": token})) == LOGGED_OUT


def test_logging_out(ann: User, start: Start, connect: Connect) -> None:
    server = start()
    client, other = connect(server), connect(server)
    token = ok(by_password(client))["token"]
    ok(by_password(other))
    assert ok(client.call("logout")) is None
    assert not client.documents["users"]
    assert refused(client.call("login", {"resume": token})) == LOGGED_OUT
    assert ok(client.call("who")) is None
    assert ok(other.call("who"))[2] == "ann"
    ok(client.call("logout"))


def test_new_and_other_tokens(ann: User, start: Start, connect: Connect) -> None:
    server = start()
    client, other = connect(server), connect(server)
    for method in ("getNewToken", "removeOtherTokens", "logoutOtherClients"):
        assert refused(client.call(method)) == ("You are not logged in.", None)
    first = ok(by_password(client))
    ok(by_password(other))
    second = ok(client.call("getNewToken"))
    assert set(second) == {"id", "token", "tokenExpires"}
    assert second["token"] != first["token"]
    assert second["tokenExpires"] == first["tokenExpires"]
    ok(client.call("removeOtherTokens"))
    other.wait_until(lambda: other.closed)
    assert LoginToken.objects.count() == 1
    third = ok(client.call("logoutOtherClients"))
    assert set(third) == {"token", "tokenExpires"}
    assert refused(connect(server).call("login", {"resume": second["token"]})) == LOGGED_OUT
    ok(connect(server).call("login", {"resume": third["token"]}))
    assert ok(client.call("who"))[2] == "ann"


def test_a_user_set_by_the_application_has_no_token(ann: User, start: Start, connect: Connect) -> None:
    client = connect(start())
    ok(client.call("become", ann.pk))
    assert client.documents["users"][str(ann.pk)]["username"] == "ann"
    assert refused(client.call("getNewToken")) == ("Invalid login token", None)


# -- what else there is -----------------------------------------------------------------------------


def test_the_document_is_live(db: Database, ann: User, start: Start, connect: Connect) -> None:
    client = connect(start())
    ok(by_password(client))
    document = client.documents["users"][str(ann.pk)]
    db.psql("UPDATE auth_user SET username = 'anna'")
    client.wait_until(lambda: document["username"] == "anna")
    ann.user_permissions.add(Permission.objects.get(codename="add_group"))
    client.wait_until(lambda: document["permissions"] == ["auth.add_group"])
    User.objects.filter(pk=ann.pk).delete()
    client.wait_until(lambda: client.closed or not client.documents["users"])


def test_login_services(start: Start, connect: Connect) -> None:
    client = connect(start())
    client.subscribe("meteor.loginServiceConfiguration")
    assert refused(client.call("configureLoginService", {"service": "x"})) == (403, "Service unknown")
    assert refused(client.call("configureLoginService", {})) == (400, "Match failed")
    assert ok(client.call("/schema"))["users"] == {}


def test_five_attempts_in_ten_seconds(ann: User, start: Start, connect: Connect) -> None:
    client = connect(server := start(TDDP_TEST_NO_RATE_LIMIT=""))
    for _ in range(5):
        assert refused(by_password(client, "wrong")) == AMBIGUOUS
    error = by_password(client, digest(SECRET))["error"]
    assert error["error"] == "too-many-requests"
    assert refused(client.call("forgotPassword", {"email": "x@y.z"})) == AMBIGUOUS
    ok(by_password(connect(server), digest(SECRET)))
