"""Making accounts, passwords and mails; hooks and signals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.accounts.conftest import AMBIGUOUS, LOGGED_OUT, digest, mails, ok, refused, token_of
from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from trigger_ddp.accounts.models import Account, LoginToken, MailToken

SECRET = "ann's secret"
Start, Connect = Callable[..., Server], Callable[[Server], DDPClient]


def by_password(client: DDPClient, password: Any, username: str = "ann") -> Any:
    return client.call("login", {"user": {"username": username}, "password": password})


# -- createUser -----------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["bob's secret", digest("bob's secret")])
def test_a_client_makes_an_account(start: Start, connect: Connect, password: Any) -> None:
    server = start()
    client = connect(server)
    profile = {"colour": "blue", "born": {"$date": 0}, "$odd": {"$escape": {"$date": 1}}}
    options = {"username": "bob", "email": "bob@Example.COM", "password": password, "profile": profile}
    result = ok(client.call("createUser", options))
    user = User.objects.get()
    assert (result["id"], result["type"]) == (str(user.pk), "password")
    assert (user.username, user.email, user.is_staff, user.is_superuser) == (
        "bob", "bob@example.com", False, False,
    )  # fmt: skip
    assert user.check_password("bob's secret")
    document = client.documents["users"][str(user.pk)]
    assert document["profile"]["colour"] == "blue"
    assert document["profile"]["born"] == {"$date": 0}
    ok(by_password(connect(server), digest("bob's secret"), "bob"))
    ok(connect(server).call("login", {"resume": result["token"]}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (400, "Need to set a username or email")),
        ({"username": "", "email": ""}, (400, "Need to set a username or email")),
        ({"username": "ANN"}, AMBIGUOUS),
        ({"username": "x", "email": "ann@EXAMPLE.com"}, AMBIGUOUS),
        ({"username": "x" * 255}, (400, "Match failed")),
        ({"username": "a b"}, (400, None)),
        ({"username": "a\x00"}, (400, "Match failed")),
        ({"username": "x", "email": "no address"}, (400, None)),
        ({"username": "x", "profile": {"a": "\x00"}}, (400, "Match failed")),
        ({"username": "x", "profile": []}, (400, "Match failed")),
        ({"username": 1}, (400, "Match failed")),
        ({"username": "x", "password": None}, (400, "Match failed")),
        ({"username": "x", "password": ""}, (400, "Match failed")),
        ({"username": "x", "password": "p" * 257}, (400, "Match failed")),
    ],
)
def test_accounts_that_can_not_be(
    ann: User, start: Start, connect: Connect, options: Any, expected: tuple[int, str | None]
) -> None:
    client = connect(start())
    code, reason = refused(client.call("createUser", {"password": digest("x"), **options}))
    assert code == expected[0]
    assert expected[1] in (reason, None)
    assert User.objects.count() == 1
    assert not client.documents["users"]


def test_what_it_says_where_it_may(ann: User, start: Start, connect: Connect) -> None:
    client = connect(
        start(DDP_AMBIGUOUS_ERROR_MESSAGES="false", DDP_RESTRICT_CREATION_BY_EMAIL_DOMAIN='"example.com"')
    )

    def create(**options: str) -> tuple[Any, Any]:
        return refused(client.call("createUser", {"password": "long and strange", **options}))

    assert create(username="ANN", email="a@example.com") == (403, "Username already exists.")
    assert create(username="x", email="ANN@example.com") == (403, "Email already exists.")
    assert create(username="x", email="x@example.org") == (403, "Email doesn't match the criteria.")
    assert create(username="x") == (403, "@example.com email required")
    ok(client.call("createUser", {"email": "x@EXAMPLE.com", "password": "long and strange"}))
    assert User.objects.get(email="x@example.com").username == "x@EXAMPLE.com"


def test_nobody_may(start: Start, connect: Connect) -> None:
    client = connect(start(DDP_FORBID_CLIENT_ACCOUNT_CREATION="true"))
    assert refused(client.call("createUser", {"username": "x", "password": "y"})) == (
        403,
        "Signups forbidden",
    )


# -- passwords ------------------------------------------------------------------------------------


def test_changing_the_password(ann: User, start: Start, connect: Connect) -> None:
    server = start()
    client, other = connect(server), connect(server)
    new = digest("new secret")
    assert refused(client.call("changePassword", digest(SECRET), new)) == (401, "Must be logged in")
    token = ok(by_password(client, digest(SECRET)))["token"]
    ok(by_password(other, SECRET))
    for wrong in ("wrong", digest("wrong")):
        assert refused(client.call("changePassword", wrong, new)) == AMBIGUOUS
    for junk in ([digest(SECRET)], [digest(SECRET), {}], [digest(SECRET), ""], [None, "x"]):
        assert refused(client.call("changePassword", *junk)) == (400, "Match failed")
    assert ok(client.call("changePassword", digest(SECRET), new)) == {"passwordChanged": True}
    other.wait_until(lambda: other.closed)
    assert ok(client.call("who"))[2] == "ann"
    ok(connect(server).call("login", {"resume": token}))
    assert refused(by_password(connect(server), digest(SECRET))) == AMBIGUOUS
    ok(by_password(connect(server), "new secret"))
    ok(client.call("changePassword", "new secret", "newer secret"))
    ok(by_password(connect(server), digest("newer secret")))


def test_the_projects_validators_speak(ann: User, start: Start, connect: Connect) -> None:
    client = connect(start(TDDP_TEST_VALIDATORS="1"))
    message = (400, "This password is too short. It must contain at least 8 characters.")
    assert refused(client.call("createUser", {"username": "bob", "password": "short"})) == message
    ok(by_password(client, SECRET))
    assert refused(client.call("changePassword", SECRET, "short")) == message
    ok(client.call("changePassword", SECRET, digest("short")))  # which shows nothing of its length


def test_a_forgotten_password(ann: User, start: Start, connect: Connect, mail_directory: Path) -> None:
    server = start(DDP_ROOT_URL='"https://books.example/app/"')
    client, other = connect(server), connect(server)
    old = ok(by_password(client, SECRET))["token"]
    assert refused(other.call("forgotPassword", {"email": "x@example.com"})) == AMBIGUOUS
    assert refused(other.call("forgotPassword", {"email": ""})) == AMBIGUOUS
    assert refused(other.call("forgotPassword", {})) == (400, "Match failed")
    assert ok(other.call("forgotPassword", {"email": "ann@example.COM"})) is None
    ok(other.call("forgotPassword", {"email": "ann@example.COM"}))
    first, second = mails(mail_directory)
    assert second["To"] == "Ann@example.com"
    assert second["Subject"] == "Your password on books.example"
    token = token_of(second)
    assert f"https://books.example/app/#/reset-password/{token}" in second.get_content()
    assert token not in str(list(MailToken.objects.values()))
    new = digest("new secret")
    assert refused(other.call("resetPassword", token_of(first), new)) == (403, "Token expired")
    assert refused(other.call("resetPassword", "x", new)) == (403, "Token expired")
    assert refused(other.call("verifyEmail", token)) == (403, "Verify email link expired")
    result = ok(other.call("resetPassword", token, new))
    assert (result["id"], result["type"]) == (str(ann.pk), "password")
    assert other.documents["users"][str(ann.pk)]["emails"] == [
        {"address": "Ann@example.com", "verified": True}
    ]
    client.wait_until(lambda: client.closed)
    again = connect(server)
    assert refused(again.call("login", {"resume": old})) == LOGGED_OUT
    assert refused(again.call("resetPassword", token, new)) == (403, "Token expired")
    assert refused(by_password(again, SECRET)) == AMBIGUOUS
    ok(by_password(again, new))
    ok(again.call("login", {"resume": result["token"]}))


def test_links_end(db: Database, ann: User, start: Start, connect: Connect, mail_directory: Path) -> None:
    client = connect(start())
    ok(client.call("forgotPassword", {"email": "ann@example.com"}))
    (mail,) = mails(mail_directory)
    db.psql("UPDATE trigger_ddp_accounts_mailtoken SET created = created - interval '3 days'")
    assert refused(client.call("resetPassword", token_of(mail), digest("x"))) == (403, "Token expired")
    db.psql("UPDATE trigger_ddp_accounts_mailtoken SET created = now()")
    db.psql("UPDATE auth_user SET email = 'other@example.com'")
    message = (403, "Token has invalid email address")
    assert refused(client.call("resetPassword", token_of(mail), digest("x"))) == message
    db.psql("UPDATE auth_user SET email = 'Ann@example.com', is_active = false")
    assert refused(client.call("resetPassword", token_of(mail), digest("x"))) == (403, "Token expired")
    ann.refresh_from_db()
    assert ann.check_password(SECRET)
    assert refused(client.call("forgotPassword", {"email": "ann@example.com"})) == AMBIGUOUS


def test_resetting_the_own_password_keeps_the_connection(
    ann: User, start: Start, connect: Connect, mail_directory: Path
) -> None:
    client = connect(start())
    ok(by_password(client, SECRET))
    ok(client.call("forgotPassword", {"email": "ann@example.com"}))
    ok(client.call("resetPassword", token_of(mails(mail_directory)[0]), digest("new secret")))
    assert ok(client.call("who"))[2] == "ann"
    assert LoginToken.objects.count() == 1
    assert list(client.documents["users"]) == [str(ann.pk)]


def test_an_address_is_verified(start: Start, connect: Connect, mail_directory: Path) -> None:
    server = start(DDP_SEND_VERIFICATION_EMAIL="true")
    client = connect(server)
    options = {"username": "bob", "email": "bob@example.com", "password": digest("x")}
    key = ok(client.call("createUser", options))["id"]
    (mail,) = mails(mail_directory)
    token = token_of(mail)
    assert f"http://localhost:8000/#/verify-email/{token}" in mail.get_content()
    assert client.documents["users"][key]["emails"] == [{"address": "bob@example.com", "verified": False}]
    other = connect(server)
    assert refused(other.call("resetPassword", token, digest("y"))) == (403, "Token expired")
    assert ok(other.call("verifyEmail", token))["id"] == key
    client.wait_until(lambda: client.documents["users"][key]["emails"][0]["verified"])
    assert refused(other.call("verifyEmail", token)) == (403, "Verify email link expired")
    User.objects.update(email="new@example.com")
    client.wait_until(
        lambda: (
            client.documents["users"][key]["emails"] == [{"address": "new@example.com", "verified": False}]
        )
    )


def test_an_account_begun_by_mail(start: Start, connect: Connect, mail_directory: Path) -> None:
    client = connect(start(DDP_SEND_VERIFICATION_EMAIL="true"))
    error, _ = refused(client.call("createUser", {"email": "bob@example.com"}))
    assert error == "enrollment-mailed"
    assert not client.documents["users"]
    (mail,) = mails(mail_directory)
    assert "/#/enroll-account/" in mail.get_content()
    ok(client.call("resetPassword", token_of(mail), digest("bob's secret")))
    ok(client.call("login", {"user": {"email": "bob@example.com"}, "password": "bob's secret"}))


# -- hooks ----------------------------------------------------------------------------------------


def test_hooks_and_signals(ann: User, start: Start, connect: Connect, mail_directory: Path) -> None:
    server = start(TDDP_TEST_ACCOUNT_HOOKS="1")
    client = connect(server)
    for username in ("banned", "unwelcome"):
        User.objects.create(username=username, password=ann.password)
    assert refused(by_password(client, digest(SECRET), "banned")) == (403, "You are banned")
    server.wait_for_log("on_login_failure banned You are banned")
    assert refused(by_password(client, digest(SECRET), "unwelcome")) == (403, "Login forbidden")
    assert not LoginToken.objects.exists()
    assert refused(by_password(client, digest("wrong"))) == AMBIGUOUS
    server.wait_for_log("signal user_login_failed 127.0.0.1 .*'username': 'ann'")
    server.wait_for_log("attempt password login None False")
    ok(by_password(client, digest(SECRET)))
    server.wait_for_log("attempt password login ann True")
    server.wait_for_log("signal user_logged_in 127.0.0.1 .*ann")
    server.wait_for_log("on_login ann")
    assert client.documents["users"][str(ann.pk)]["staff"] is False
    ok(client.call("changePassword", SECRET, "new secret"))
    server.wait_for_log("signal password_changed")
    ok(client.call("logout"))
    server.wait_for_log("signal user_logged_out 127.0.0.1 .*ann")
    server.wait_for_log("on_logout ann 127.0.0.1")
    ok(client.call("forgotPassword", {"email": "ann@example.com"}))
    server.wait_for_log("signal forgot_password")
    ok(client.call("resetPassword", token_of(mails(mail_directory)[0]), "newest secret"))
    server.wait_for_log("signal password_reset")
    assert refused(client.call("login", {"magic": "now"})) == (403, "Say please")
    assert ok(client.call("login", {"magic": "please"}))["type"] == "magic"
    refusal = refused(client.call("createUser", {"username": "impossible", "password": "x"}))
    assert refusal == (403, "User validation failed")
    result = ok(client.call("createUser", {"username": "bob", "password": "x-secret", "firstName": "Bob"}))
    assert client.documents["users"][result["id"]]["profile"] == {"made": "here", "name": "Bob"}
    server.wait_for_log("signal create_user .*bob")
    assert Account.objects.get(user__username="bob").profile == {"made": "here"}
    for secret in (
        SECRET,
        "new secret",
        "newest secret",
        "x-secret",
        digest(SECRET)["digest"],
        result["token"],
    ):
        assert secret not in server.log()


def test_failures_are_written_down(ann: User, start: Start, connect: Connect) -> None:
    """What receivers write of a login that fails is not undone with it."""
    client = connect(start(TDDP_TEST_ACCOUNT_HOOKS="writes"))
    assert refused(by_password(client, digest("wrong"))) == AMBIGUOUS
    ann.refresh_from_db()
    assert ann.last_name == "failed once"
