"""Logging in and out, as Meteor's accounts packages have it."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.accounts.conftest import Project
from tests.ddp import DDPClient
from tests.serving import Server

AMBIGUOUS = (403, "Something went wrong. Please check your credentials.")
PASSWORD = "correct horse"


def digest(password: str) -> dict[str, str]:
    """A password as Meteor's clients send it."""
    return {"digest": hashlib.sha256(password.encode()).hexdigest(), "algorithm": "sha-256"}


def ok(answer: dict[str, Any]) -> Any:
    assert "error" not in answer, answer
    return answer.get("result")


def error(answer: dict[str, Any]) -> tuple[Any, Any]:
    return answer["error"]["error"], answer["error"].get("reason")


@pytest.fixture
def server(project: Project) -> Server:
    return project.serve()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[], DDPClient]]:
    clients: list[DDPClient] = []

    def connect() -> DDPClient:
        clients.append(DDPClient(server.url))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
        assert client.violations == []


def sign_up(client: DDPClient, project: Project, name: str = "ann", **more: Any) -> dict[str, Any]:
    options = {"email": f"{name}@x.org", "password": digest(PASSWORD), **more}
    if project.users == "django":
        options["username"] = name
    login: dict[str, Any] = ok(client.call("createUser", options))
    return login


def test_a_new_user_is_logged_in_and_comes_back(project: Project, connect: Callable[[], DDPClient]) -> None:
    client = connect()
    login = sign_up(client, project)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", login["token"])
    assert list(login) == ["id", "token", "tokenExpires", "type"]
    assert login["type"] == "password"
    days = (login["tokenExpires"]["$date"] / 1000 - time.time()) / 86400
    assert 89.9 < days < 90.1
    [(document_id, document)] = client.documents["users"].items()
    assert document_id == login["id"] == ok(client.call("who"))
    assert document["emails"] == [{"address": "ann@x.org", "verified": False}]
    assert document.get("username") == ("ann" if project.users == "django" else None)
    assert set(document) <= {"username", "emails", "profile", "createdAt", "permissions"}
    # The document comes before the result.
    kinds = [m["msg"] for m in client.messages if m["msg"] in ("added", "result")]
    assert kinds[:2] == ["added", "result"]

    for options in [
        {"resume": login["token"]},
        {"user": {"email": "ann@x.org"}, "password": digest(PASSWORD)},
        {"user": {"email": "ANN@X.org"}, "password": PASSWORD},
        {"user": {"id": login["id"]}, "password": digest(PASSWORD)},
    ]:
        other = connect()
        again = ok(other.call("login", options))
        assert again["id"] == login["id"]
        assert (again["token"] == login["token"]) == ("resume" in options)
        assert again["type"] == ("resume" if "resume" in options else "password")
        other.subscribe("Mine")
        assert list(other.documents["users"]) == [login["id"]]


def test_what_is_stored_lets_nobody_in(project: Project, connect: Callable[[], DDPClient]) -> None:
    login = sign_up(connect(), project)
    stored = project.db.psql("SELECT hashed_token FROM trigger_ddp_accounts_logintoken").strip()
    assert stored == base64.b64encode(hashlib.sha256(login["token"].encode()).digest()).decode()
    assert error(connect().call("login", {"resume": stored}))[0] == 403
    encoded = project.db.psql(f"SELECT password FROM {project.table}").strip()
    assert encoded.startswith("meteor_pbkdf2_sha256$")
    assert digest(PASSWORD)["digest"] not in encoded


@pytest.mark.parametrize("users", ["django"], indirect=True)
def test_who_is_refused(project: Project, connect: Callable[[], DDPClient]) -> None:
    sign_up(connect(), project)
    project.db.psql(
        f"INSERT INTO {project.table} SELECT 1000 + id, password, last_login, is_superuser, 'gone',"
        f" first_name, last_name, 'gone@x.org', is_staff, false, date_joined FROM {project.table}"
    )
    for options in [
        {"user": {"username": "nobody"}, "password": digest(PASSWORD)},
        {"user": {"username": "nobody"}, "password": PASSWORD},
        {"user": {"email": "nobody@x.org"}, "password": PASSWORD},
        {"user": {"id": "12345"}, "password": digest(PASSWORD)},
        {"user": {"id": "no number"}, "password": digest(PASSWORD)},
        {"user": {"username": "an\x00n"}, "password": digest(PASSWORD)},
        {"user": {"username": "ann"}, "password": digest("wrong")},
        {"user": {"username": "ann"}, "password": "wrong"},
        {"user": {"username": "ann"}, "password": digest(PASSWORD)["digest"]},
    ]:
        assert error(connect().call("login", options)) == AMBIGUOUS, options
    ann = {"username": "ann"}
    short, md5 = {**digest("x"), "digest": "short"}, {**digest("x"), "algorithm": "md5"}
    for options, expected in [
        ({"user": {"username": "gone"}, "password": digest(PASSWORD)}, (403, "Login forbidden")),
        ({"user": {"username": "gone"}, "password": PASSWORD}, AMBIGUOUS),  # as Django's backend has it
        ({"resume": "x" * 43}, (403, "You've been logged out by the server. Please log in again.")),
        ({"something": "else"}, (400, "Unrecognized options for login request")),
        ({}, (400, "Unrecognized options for login request")),
        ({"user": {"username": "ann", "email": "ann@x.org"}, "password": "x"}, (400, "Match failed")),
        ({"user": {}, "password": "x"}, (400, "Match failed")),
        ({"user": {"username": {"$gt": ""}}, "password": "x"}, (400, "Match failed")),
        ({"user": ann, "password": short}, (400, "Match failed")),
        ({"user": ann, "password": md5}, (400, "Match failed")),
        ({"user": {"username": "ann"}, "password": "x" * 300}, (400, "Match failed")),
        ({"user": "ann", "password": "x"}, (400, "Match failed")),
        ({"resume": 7}, (400, "Match failed")),
        ("ann", (400, "Match failed")),
        (None, (400, "Match failed")),
    ]:  # fmt: skip
        assert error(connect().call("login", options)) == expected, options


@pytest.mark.parametrize("users", ["django"], indirect=True)
def test_errors_may_say_why(project: Project) -> None:
    server = project.serve(DDP_AMBIGUOUS_ERROR_MESSAGES="false")

    def attempt(method: str, options: Any) -> Any:
        with DDPClient(server.url) as client:
            return error(client.call(method, options))

    with DDPClient(server.url) as client:
        sign_up(client, project)
    project.db.psql(f"UPDATE {project.table} SET password = '!' WHERE false")
    by_name = {"username": "ann"}
    assert attempt("login", {"user": {"username": "bob"}, "password": "x"}) == (403, "User not found")
    assert attempt("login", {"user": by_name, "password": digest("x")}) == (403, "Incorrect password")
    assert attempt("createUser", {**by_name, "password": digest("x")}) == (403, "Username already exists.")
    assert attempt("createUser", {"username": "ANN", "password": digest("x")}) == (
        403,
        "Username already exists.",
    )
    new = {"username": "b", "email": "Ann@x.org", "password": digest("x")}
    assert attempt("createUser", new) == (403, "Email already exists.")
    project.db.psql(f"UPDATE {project.table} SET password = '!'")
    assert attempt("login", {"user": by_name, "password": digest("x")}) == (403, "User has no password set")


@pytest.mark.parametrize("users", ["django"], indirect=True)
def test_a_django_password_is_upgraded_at_the_first_login_with_its_text(
    project: Project, connect: Callable[[], DDPClient]
) -> None:
    project.python(
        "from django.contrib.auth.models import User;"
        "from django.contrib.auth.hashers import make_password;"
        "User.objects.create(username='old', password=make_password('a secret', hasher='pbkdf2_sha256'))"
    )
    who = {"username": "old"}
    assert error(connect().call("login", {"user": who, "password": digest("a secret")})) == AMBIGUOUS
    ok(connect().call("login", {"user": who, "password": "a secret"}))
    ok(connect().call("login", {"user": who, "password": digest("a secret")}))
    ok(connect().call("login", {"user": who, "password": "a secret"}))
    assert (
        project.python(
            "from django.contrib.auth import authenticate;"
            "print(authenticate(username='old', password='a secret'))"
        )
        == "old"
    )


def test_a_token_that_is_gone_closes_its_sessions(project: Project, connect: Callable[[], DDPClient]) -> None:
    first, second, other = connect(), connect(), connect()
    login = sign_up(first, project)
    ok(second.call("login", {"resume": login["token"]}))
    sign_up(other, project, "bob")
    hashed = base64.b64encode(hashlib.sha256(login["token"].encode()).digest()).decode()
    project.db.psql(f"DELETE FROM trigger_ddp_accounts_logintoken WHERE hashed_token = '{hashed}'")
    for client in (first, second):
        client.wait_until(lambda: client.closed)  # noqa: B023
    assert ok(other.call("who"))
    assert error(connect().call("login", {"resume": login["token"]})) == (
        403, "You've been logged out by the server. Please log in again.",
    )  # fmt: skip


def test_an_old_token_ends(project: Project, connect: Callable[[], DDPClient]) -> None:
    client, other = connect(), connect()
    login = sign_up(client, project)
    sign_up(other, project, "bob")
    project.db.psql(
        "UPDATE trigger_ddp_accounts_logintoken SET created = now() - interval '91 days' WHERE user_id ="
        " (SELECT user_id FROM trigger_ddp_accounts_logintoken ORDER BY id LIMIT 1)"
    )
    assert error(connect().call("login", {"resume": login["token"]})) == (
        403, "Your session has expired. Please log in again.",
    )  # fmt: skip
    assert ok(other.call("sweep")) == 1
    client.wait_until(lambda: client.closed)
    assert ok(other.call("who"))
    assert ok(other.call("sweep")) == 0


def test_logout(project: Project, connect: Callable[[], DDPClient], server: Server) -> None:
    client, other = connect(), connect()
    login = sign_up(client, project)
    other_login = ok(other.call("login", {"user": {"email": "ann@x.org"}, "password": digest(PASSWORD)}))
    client.subscribe("Mine")
    ok(client.call("logout"))
    assert client.documents["users"] == {}
    assert ok(client.call("who")) is None
    assert not client.closed
    assert error(client.call("login", {"resume": login["token"]}))[0] == 403
    assert ok(other.call("who")) == login["id"]
    ok(client.call("login", {"resume": other_login["token"]}))
    ok(client.call("logout"))
    other.wait_until(lambda: other.closed)
    ok(client.call("logout"))  # of nobody is no error
    server.wait_for_log("signal user_logged_out of 127.0.0.1")
    server.wait_for_log("hook on_logout")


def test_new_tokens_and_others(project: Project, connect: Callable[[], DDPClient]) -> None:
    client, other, third = connect(), connect(), connect()
    for method in ("getNewToken", "removeOtherTokens", "logoutOtherClients"):
        assert error(client.call(method)) == ("You are not logged in.", None)
    login = sign_up(client, project)
    ok(other.call("login", {"resume": login["token"]}))
    ok(third.call("login", {"user": {"email": "ann@x.org"}, "password": digest(PASSWORD)}))
    new = ok(client.call("getNewToken"))
    assert new["id"] == login["id"]
    assert new["token"] != login["token"]
    assert new["tokenExpires"] == login["tokenExpires"]
    assert ok(other.call("who")), "the old one is still good"
    ok(client.call("removeOtherTokens"))
    for one in (other, third):
        one.wait_until(lambda: one.closed)  # noqa: B023
    assert ok(client.call("who")) == login["id"]
    fourth = connect()
    ok(fourth.call("login", {"resume": new["token"]}))
    last = ok(client.call("logoutOtherClients"))
    assert set(last) == {"token", "tokenExpires"}
    fourth.wait_until(lambda: fourth.closed)
    ok(connect().call("login", {"resume": last["token"]}))
    assert ok(client.call("who")) == login["id"]


def test_hooks_and_signals(project: Project, connect: Callable[[], DDPClient], server: Server) -> None:
    sign_up(connect(), project)
    server.wait_for_log("signal create_user of 127.0.0.1")
    server.wait_for_log("signal user_logged_in of 127.0.0.1")
    server.wait_for_log("hook on_login password createUser")
    assert (
        error(connect().call("login", {"user": {"email": "ann@x.org"}, "password": digest("x")})) == AMBIGUOUS
    )
    server.wait_for_log("hook on_login_failure password login Something went wrong")
    server.wait_for_log("signal user_login_failed of 127.0.0.1")
    assert project.db.psql("SELECT name FROM bookstore_tag").split() == ["user_login_failed"]
    name = "username" if project.users == "django" else "email"
    for who, expected in [("banned", ("banned", "You are banned")), ("unwanted", (403, "Login forbidden"))]:
        options = {name: f"{who}@x.org", "password": digest(PASSWORD)}
        assert error(connect().call("createUser", options)) == expected
        again = {"user": {name: f"{who}@x.org"}, "password": digest(PASSWORD)}
        assert error(connect().call("login", again)) == expected
    invalid = {name: "invalid@x.org", "password": digest(PASSWORD)}
    assert error(connect().call("createUser", invalid)) == (403, "User validation failed")
    assert error(connect().call("login", {"magic": "hocus pocus"})) == ("no-magic", "Wrong word")
    magic = ok(connect().call("login", {"magic": "abracadabra"}))
    assert magic["type"] == "magic"


def test_five_attempts_in_ten_seconds(project: Project, connect: Callable[[], DDPClient]) -> None:
    client = connect()
    options = {"user": {"email": "nobody@x.org"}, "password": digest("x")}
    for _ in range(5):
        assert error(client.call("login", options)) == AMBIGUOUS
    refused = client.call("login", options)["error"]
    assert refused["error"] == "too-many-requests"
    assert re.fullmatch(
        r"Error, too many requests\. Please slow down\. You must wait \d+ seconds before trying again\.",
        refused["reason"],
    )
    assert 0 < refused["details"]["timeToReset"] <= 10_000
    assert error(client.call("forgotPassword", {"email": "nobody@x.org"})) == AMBIGUOUS
    assert error(connect().call("login", options)) == AMBIGUOUS


def test_no_secret_in_the_log(project: Project, connect: Callable[[], DDPClient], server: Server) -> None:
    client = connect()
    login = sign_up(client, project)
    client.call("login", {"user": {"email": "ann@x.org"}, "password": "wrong but secret"})
    client.call("changePassword", PASSWORD, "another secret")
    client.call("resetPassword", "a token that is none", "one more secret")
    client.call("login", {"resume": login["token"]})
    for secret in (PASSWORD, digest(PASSWORD)["digest"], "secret", login["token"], "token that is none"):
        assert secret not in server.log()
