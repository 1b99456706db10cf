"""Accounts that are made and changed, mails, and what clients see of users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.accounts.conftest import Project
from tests.accounts.test_login import AMBIGUOUS, PASSWORD, connect, digest, error, ok, server, sign_up
from tests.ddp import DDPClient
from tests.serving import Server

__all__ = ["connect", "server"]

BY_EMAIL = {"email": "ann@x.org"}


def can_log_in(client: DDPClient, password: str) -> bool:
    return "error" not in client.call("login", {"user": BY_EMAIL, "password": digest(password)})


# -- createUser -----------------------------------------------------------------------------------


def test_who_can_not_be_made(project: Project, connect: Callable[[], DDPClient]) -> None:
    sign_up(connect(), project)
    options: Any
    expected: Any
    for options, expected in [
        ({"password": digest("x")}, (400, "Need to set a username or email")),
        ({"email": "b@x.org"}, (400, "Match failed")),
        ({"email": 7, "password": digest("x")}, (400, "Match failed")),
        ({"email": "b@x.org", "password": digest("x"), "profile": "x"}, (400, "Match failed")),
        (None, (400, "Match failed")),
        ({"email": "ann@x.org", "password": digest("x")}, AMBIGUOUS),
        ({"email": "Ann@X.org", "password": digest("x")}, AMBIGUOUS),
    ]:
        assert error(connect().call("createUser", options)) == expected, options
    assert project.db.psql(f"SELECT count(*) FROM {project.table}").strip() == "1"


def test_what_is_no_address(project: Project, connect: Callable[[], DDPClient]) -> None:
    answer = connect().call("createUser", {"email": "no address", "password": digest("x")})
    assert answer["error"]["error"] != 500
    answer = connect().call("createUser", {"email": "a@x.org", "password": "short"})
    assert answer["error"]["error"] != 500
    assert project.db.psql(f"SELECT count(*) FROM {project.table}").strip() == "0"


def test_signups_can_be_forbidden_or_restricted(project: Project) -> None:
    server = project.serve(DDP_FORBID_CLIENT_ACCOUNT_CREATION="true")
    with DDPClient(server.url) as client:
        new = {"email": "b@x.org", "password": digest("x")}
        assert error(client.call("createUser", new)) == (403, "Signups forbidden")
    server = project.serve(DDP_RESTRICT_CREATION_BY_EMAIL_DOMAIN='"x.org"')
    with DDPClient(server.url) as client:
        for email in ("b@y.org", "b@evilx.org"):
            new = {"email": email, "password": digest("x")}
            assert error(client.call("createUser", new)) == (403, "Email doesn't match the criteria.")
        ok(client.call("createUser", {"email": "b@X.org", "password": digest("x")}))


def test_a_profile_and_its_hook(project: Project, connect: Callable[[], DDPClient]) -> None:
    client = connect()
    login = sign_up(client, project, profile={"color": "red", "deep": {"a": [1, None]}})
    assert client.documents["users"][login["id"]]["profile"] == {
        "color": "red", "deep": {"a": [1, None]}, "hooked": True,
    }  # fmt: skip


# -- passwords ------------------------------------------------------------------------------------


def test_change_password(project: Project, connect: Callable[[], DDPClient], server: Server) -> None:
    client, other = connect(), connect()
    assert error(client.call("changePassword", "a", "b")) == (401, "Must be logged in")
    sign_up(client, project)
    ok(other.call("login", {"user": BY_EMAIL, "password": digest(PASSWORD)}))
    assert error(client.call("changePassword", digest("wrong"), digest("new"))) == AMBIGUOUS
    assert error(client.call("changePassword", digest(PASSWORD), {"digest": "new"}))[0] == 400
    assert error(client.call("changePassword", digest(PASSWORD), "short"))[0] != 500
    assert ok(client.call("changePassword", digest(PASSWORD), digest("new"))) == {"passwordChanged": True}
    other.wait_until(lambda: other.closed)
    assert ok(client.call("who"))
    server.wait_for_log("signal password_changed of 127.0.0.1")
    assert not can_log_in(connect(), PASSWORD)
    assert can_log_in(connect(), "new")
    ok(client.call("changePassword", digest("new"), "a text this time"))
    assert can_log_in(connect(), "a text this time")


def test_forgotten_and_reset(project: Project, connect: Callable[[], DDPClient], server: Server) -> None:
    client = connect()
    login = sign_up(client, project)
    stranger = connect()
    assert error(stranger.call("forgotPassword", {"email": "nobody@x.org"})) == AMBIGUOUS
    for wrong in ({}, {"email": {"$gt": ""}}, None, "ann@x.org"):
        assert error(connect().call("forgotPassword", wrong))[0] == 400
    assert project.mails() == []
    ok(stranger.call("forgotPassword", {"email": "ANN@x.org"}))
    [mail] = project.mails()
    assert (mail["To"], mail["Subject"]) == ("ann@x.org", "Your password on books.example")
    token = project.link()
    assert token not in project.db.psql("TABLE trigger_ddp_accounts_mailtoken")
    server.wait_for_log("signal forgot_password of 127.0.0.1")
    assert error(stranger.call("resetPassword", "x" * 43, digest("new"))) == (403, "Token expired")
    assert error(connect().call("verifyEmail", token)) == (403, "Verify email link expired")
    again = ok(stranger.call("resetPassword", token, digest("new")))
    assert (again["id"], again["type"]) == (login["id"], "password")
    client.wait_until(lambda: client.closed)
    assert ok(stranger.call("who")) == login["id"]
    assert stranger.documents["users"][login["id"]]["emails"] == [{"address": "ann@x.org", "verified": True}]
    assert error(connect().call("resetPassword", token, digest("x"))) == (403, "Token expired")
    assert error(connect().call("login", {"resume": login["token"]}))[0] == 403
    assert can_log_in(connect(), "new")
    server.wait_for_log("signal password_reset of 127.0.0.1")


def test_resetting_while_logged_in(project: Project, connect: Callable[[], DDPClient]) -> None:
    client = connect()
    login = sign_up(client, project)
    ok(client.call("forgotPassword", BY_EMAIL))
    ok(client.call("resetPassword", project.link(), digest("new")))
    assert ok(client.call("who")) == login["id"]
    assert not client.closed


def test_links_end(project: Project, connect: Callable[[], DDPClient]) -> None:
    client = connect()
    sign_up(client, project)
    ok(client.call("forgotPassword", BY_EMAIL))
    first = project.link()
    ok(client.call("forgotPassword", BY_EMAIL))
    second = project.link()
    assert error(connect().call("resetPassword", first, digest("x"))) == (403, "Token expired")
    project.db.psql("UPDATE trigger_ddp_accounts_mailtoken SET purpose = 'enroll'")
    ok(client.call("changePassword", digest(PASSWORD), digest(PASSWORD)))
    assert project.db.psql("SELECT count(*) FROM trigger_ddp_accounts_mailtoken").strip() == "0"
    ok(client.call("forgotPassword", BY_EMAIL))
    second = project.link()
    project.db.psql("UPDATE trigger_ddp_accounts_mailtoken SET created = now() - interval '73 hours'")
    assert error(connect().call("resetPassword", second, digest("x"))) == (403, "Token expired")
    assert ok(client.call("sweep")) == 1
    ok(client.call("forgotPassword", BY_EMAIL))
    column = "mail" if project.users == "custom" else "email"
    project.db.psql(f"UPDATE {project.table} SET {column} = 'new@x.org'")
    assert error(connect().call("resetPassword", project.link(), digest("x"))) == (
        403, "Token has invalid email address",
    )  # fmt: skip


def test_addresses_are_verified(project: Project) -> None:
    server = project.serve(DDP_SEND_VERIFICATION_EMAIL="true")
    with DDPClient(server.url) as client:
        login = sign_up(client, project)
        assert project.mails()[-1]["Subject"] == "Your mail address on books.example"
        with DDPClient(server.url) as other:
            assert ok(other.call("verifyEmail", project.link()))["id"] == login["id"]
            verified = [{"address": "ann@x.org", "verified": True}]
            assert other.documents["users"][login["id"]]["emails"] == verified
            client.wait_until(lambda: client.documents["users"][login["id"]]["emails"] == verified)
            assert error(other.call("verifyEmail", project.link())) == (403, "Verify email link expired")
    with DDPClient(server.url) as client:
        sign_up(client, project, "eve")
        link = project.link()
        ok(client.call("forgotPassword", {"email": "eve@x.org"}))
        ok(client.call("resetPassword", project.link(), digest("mine")))
        assert error(client.call("verifyEmail", link)) == (403, "Verify email link expired")
    with DDPClient(server.url) as client:
        answer = client.call("createUser", {"email": "bob@x.org"})
        assert answer["error"]["error"] == "enrollment-mailed"
        assert project.mails()[-1]["Subject"] == "Your account on books.example"
        assert ok(client.call("resetPassword", project.link(), digest("mine")))["type"] == "password"
        assert ok(client.call("who"))


def test_configure_login_service_is_refused(connect: Callable[[], DDPClient]) -> None:
    client = connect()
    assert error(client.call("configureLoginService", {"service": "github"})) == (403, "Service unknown")
    assert error(client.call("configureLoginService", {})) == (400, "Match failed")
    client.subscribe("meteor.loginServiceConfiguration")


# -- documents ------------------------------------------------------------------------------------


def test_nothing_secret_is_told(project: Project, connect: Callable[[], DDPClient]) -> None:
    client = connect()
    sign_up(client, project)
    [document] = client.documents["users"].values()
    assert set(document) == (
        {"emails", "profile", "createdAt"}
        if project.users == "custom"
        else {"emails", "profile", "createdAt", "username", "permissions"}
    )
    assert "$date" in document["createdAt"]
    everything = str(client.messages)
    for secret in ("the api key", "12345", "pbkdf2", "last_login"):
        assert secret not in everything


def test_a_document_is_live_and_only_its_own_users(
    project: Project, connect: Callable[[], DDPClient]
) -> None:
    ann, bob = connect(), connect()
    ann_id = sign_up(ann, project, "ann")["id"]
    bob_id = sign_up(bob, project, "bob")["id"]
    column = "mail" if project.users == "custom" else "email"
    project.db.psql(f"UPDATE {project.table} SET {column} = 'new@x.org' WHERE {column} = 'ann@x.org'")
    ann.wait_until(lambda: ann.documents["users"][ann_id]["emails"][0]["address"] == "new@x.org")
    project.db.psql("""UPDATE trigger_ddp_accounts_account SET profile = '{"a": 1}'""")
    for client, key in ((ann, ann_id), (bob, bob_id)):
        client.wait_until(lambda: client.documents["users"][key]["profile"] == {"a": 1})  # noqa: B023
        assert set(client.documents["users"]) == {key}
    project.db.psql(f"DELETE FROM {project.table} WHERE false")


@pytest.mark.parametrize("users", ["django"], indirect=True)
def test_permissions_are_live(project: Project, connect: Callable[[], DDPClient]) -> None:
    client = connect()
    key = sign_up(client, project)["id"]
    assert client.documents["users"][key]["permissions"] == []
    project.db.psql(
        "INSERT INTO auth_group (id, name) VALUES (1, 'g');"
        f"INSERT INTO auth_user_groups (user_id, group_id) VALUES ({key}, 1);"
        "INSERT INTO auth_group_permissions (group_id, permission_id)"
        " SELECT 1, id FROM auth_permission WHERE codename = 'add_book'"
    )
    client.wait_until(lambda: client.documents["users"][key]["permissions"] == ["bookstore.add_book"])
    project.db.psql(f"UPDATE auth_user SET first_name = 'Ann', last_name = 'A' WHERE id = {key}")
    client.wait_until(lambda: client.documents["users"][key]["profile"] == {"name": "Ann A"})


# -- profiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["/users/update", "/users/updateAsync"])
def test_users_change_their_own_profile(
    project: Project, connect: Callable[[], DDPClient], method: str
) -> None:
    client, other = connect(), connect()
    key = sign_up(client, project, profile={"a": 1})["id"]
    other_key = sign_up(other, project, "bob")["id"]

    def profile() -> Any:
        return client.documents["users"][key]["profile"]

    assert ok(client.call(method, {"_id": key}, {"$set": {"profile.deep.er": [1], "profile.b": 2}})) == 1
    assert profile() == {"a": 1, "b": 2, "deep": {"er": [1]}}
    assert (
        ok(
            client.call(
                method, key, {"$unset": {"profile.a": "", "profile.no.such": ""}, "$set": {"profile.b": 3}}
            )
        )
        == 1
    )
    assert profile() == {"b": 3, "deep": {"er": [1]}}
    when = {"$date": 1_000}
    ok(client.call(method, {"_id": key}, {"$set": {"profile": {"when": when}}}))
    assert profile() == {"when": when}
    for selector, modifier, code in [
        ({"_id": other_key}, {"$set": {"profile.a": 1}}, 403), ({}, {"$set": {"profile.a": 1}}, 403),
        (key, {"$set": {"username": "x"}}, 403), (key, {"$set": {"is_superuser": True}}, 403),
        (key, {"$set": {"profile.a": 1, "emails": []}}, 403), (key, {"$set": {"profiles": 1}}, 403),
        (key, {"$push": {"profile.a": 1}}, 400), (key, {"profile": {}}, 400), (key, {}, 400),
        (key, {"$set": {"profile": 7}}, 400), (key, {"$set": {"profile.": 7}}, 400), (key, {"$set": 1}, 400),
        (key, {"$set": {"profile.s": "text", "profile.s.x": 1}}, 400),
        (key, {"$set": {"profile.a": "x\x00"}}, 400), (key, {"$set": {"profile.a": "x" * 70_000}}, 400),
    ]:  # fmt: skip
        assert error(client.call(method, selector, modifier))[0] == code, modifier
    assert profile() == {"when": when}
    assert error(connect().call(method, key, {"$set": {"profile.a": 1}}))[0] == 403
