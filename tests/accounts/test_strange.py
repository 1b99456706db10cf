"""What stock clients never send, user models without addresses, and what else there is in accounts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.accounts.conftest import Project
from tests.accounts.test_login import (  # noqa: F401  fixtures
    AMBIGUOUS,
    PASSWORD,
    connect,
    digest,
    error,
    ok,
    server,
    sign_up,
)
from tests.ddp import DDPClient
from tests.serving import Server

Connect = Callable[[], DDPClient]
only_django = pytest.mark.parametrize("users", ["django"], indirect=True)


def both_ways(connect: Connect, selector: dict[str, Any], password: str = PASSWORD) -> list[dict[str, Any]]:  # noqa: F811
    return [
        connect().call("login", {"user": selector, "password": given})
        for given in (password, digest(password))
    ]


@only_django
def test_case_matters_only_between_several(project: Project, connect: Connect) -> None:  # noqa: F811
    ids = [sign_up(connect(), project, "ann")["id"]]
    project.db.psql(
        "INSERT INTO auth_user SELECT id + 1, password, last_login, is_superuser, 'ANN', first_name,"
        " last_name, 'ANN@x.org', is_staff, is_active, date_joined FROM auth_user"
    )
    for kind, name, number in [("username", "ann", 0), ("username", "ANN", 1), ("email", "ANN@x.org", 1)]:
        for answer in both_ways(connect, {kind: name}):
            assert int(ok(answer)["id"]) == int(ids[0]) + number
    for selector in ({"username": "Ann"}, {"email": "Ann@x.org"}):
        for answer in both_ways(connect, selector):
            assert error(answer) == AMBIGUOUS
    project.db.psql(
        "BEGIN; DELETE FROM trigger_ddp_accounts_logintoken;"
        " DELETE FROM auth_user WHERE username = 'ANN'; COMMIT"
    )
    for selector in ({"username": "Ann"}, {"email": "aNN@X.org"}):
        for answer in both_ways(connect, selector):
            assert ok(answer)["id"] == ids[0]


def test_selectors_of_nobody(project: Project, connect: Connect) -> None:  # noqa: F811
    for selector in (
        {}, "ann", None, {"username": ""}, {"username": "a\x00"}, {"email": "a\x00"}, {"id": "\x00"},
        {"id": "x"}, {"id": "9" * 40}, {"username": "x" * 1001}, {"username": {"$gt": ""}}, {"role": "x"},
        {"username": "ann", "email": "ann@x.org"},
    ):  # fmt: skip
        for answer in both_ways(connect, selector):
            assert error(answer) in (AMBIGUOUS, (400, "Match failed")), selector


@only_django
def test_logins_that_must_not_be(project: Project, connect: Connect) -> None:  # noqa: F811
    client = connect()
    sign_up(client, project)
    project.python(
        "from django.contrib.auth.models import User;"
        "from django.contrib.auth.hashers import make_password;"
        "User.objects.create(username='old', password=make_password('a secret', hasher='pbkdf2_sha256'))"
    )

    # Whether there is such a user costs the same, whatever is wrong with the password.
    for password in ("wrong", digest("wrong"), "\x00"):
        work = set()
        for selector in (
            {"username": "ann"}, {"username": "old"}, {"username": "nobody"}, {"username": "n\x00"},
            {"email": "ann@x.org"}, {"email": "nobody@x.org"}, {"id": "1"}, {"id": "12345"},
        ):  # fmt: skip
            before = ok(client.call("hashed"))
            assert error(connect().call("login", {"user": selector, "password": password})) == AMBIGUOUS
            work.add(ok(client.call("hashed")) - before)
        assert work == {1}, password

    # A password that only some backend knows does not become one that digests are compared with.
    directory = "known to the directory"
    answers = both_ways(connect, {"username": "old"}, directory)
    assert "error" not in answers[0]
    assert error(answers[1]) == AMBIGUOUS
    assert project.db.psql("SELECT password FROM auth_user WHERE username = 'old'").startswith("pbkdf2_")

    # A reset between the comparison of the old password and the login logs out that login, too.
    sign_up(connect(), project, "reset-meanwhile")
    by_digest = {"user": {"username": "reset-meanwhile"}, "password": digest(PASSWORD)}
    assert error(connect().call("login", by_digest)) == AMBIGUOUS
    assert project.db.psql(
        "SELECT count(*) FROM trigger_ddp_accounts_logintoken t JOIN auth_user u ON u.id = t.user_id"
        " WHERE username = 'reset-meanwhile'"
    ).strip() == "0"  # fmt: skip


@only_django
def test_names_are_normalized(project: Project, connect: Connect) -> None:  # noqa: F811
    key = sign_up(connect(), project, "\ufb00", email="ff@x.org")["id"]
    for name in ("ff", "\ufb00", "FF"):
        for answer in both_ways(connect, {"username": name}):
            assert ok(answer)["id"] == key
    assert error(connect().call("createUser", {"username": "ff", "password": digest("x")})) == AMBIGUOUS


def test_one_of_several_who_sign_up_at_once(project: Project, server: Server) -> None:  # noqa: F811
    gate, made = threading.Barrier(6), []

    def create(number: int) -> None:
        options = {"email": "ann@x.org" if number % 2 else "ANN@x.org", "password": digest(PASSWORD)}
        if project.users == "django":
            options["username"] = f"user{number}"
        with DDPClient(server.url) as client:
            gate.wait(20)
            made.append("result" in client.call("createUser", options))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 5 + [True]
    assert project.db.psql(f"SELECT count(*) FROM {project.table}").strip() == "1"


@only_django
def test_profiles_that_nobody_could_be_shown(project: Project, connect: Connect) -> None:  # noqa: F811
    client = connect()
    key = sign_up(client, project)["id"]
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    large = {"password": digest("x"), "username": "large", "profile": {"a": "x" * 70_000}}
    assert error(connect().call("createUser", large)) == (400, "Match failed")
    ok(client.call("/users/updateAsync", key, {"$set": {"profile.a": deep}}))
    for path in ("b." * 100 + "c", "b." * 300 + "c", "b." * 20_000 + "c"):
        answer = client.call("/users/updateAsync", key, {"$set": {f"profile.{path}": deep}})
        assert error(answer) == (400, "Match failed")
        assert len(answer["error"]["details"]) < 200
    assert client.documents["users"][key]["profile"] == {"a": deep}


@only_django
def test_passwords_that_are_none(project: Project, connect: Connect) -> None:  # noqa: F811
    sign_up(connect(), project)
    for password in (
        "x" * 257, {"digest": "x", "algorithm": "sha-256"}, {**digest("x"), "algorithm": "md5"}, {"$ne": ""},
        {**digest("x"), "more": 1}, ["x"], 1, True, "\x00", "\ud800",
    ):  # fmt: skip
        client = connect()
        if password != "\ud800":  # which is no JSON text that anybody takes
            answer = client.call("login", {"user": {"username": "ann"}, "password": password})
            assert error(answer) in (AMBIGUOUS, (400, "Match failed"))
        assert not client.documents["users"]
    for options in ({}, {"resume": 1}, {"resume": ["a"]}, {"user": {"username": "ann"}}, {"password": ""}):
        assert error(connect().call("login", options))[0] == 400


@only_django
def test_accounts_that_can_not_be(project: Project, connect: Connect) -> None:  # noqa: F811
    for options in (
        {"username": "x" * 255}, {"username": "a b"}, {"username": "a\x00"}, {"username": 1},
        {"email": "a\x00@x.org"}, {"email": "x" * 255}, {"username": "x", "profile": {"a": ["\x00"]}},
        {"username": "x", "profile": []}, {"username": "x", "password": None},
        {"username": "x", "password": ""}, {"username": "x", "password": "p" * 257},
    ):  # fmt: skip
        client = connect()
        answer = client.call("createUser", {"password": digest("x"), **options})
        assert error(answer)[0] == 400, options
        assert not client.documents["users"]
    assert project.db.psql("SELECT count(*) FROM auth_user").strip() == "0"


@only_django
def test_profiles_have_all_that_ejson_has(project: Project, connect: Connect) -> None:  # noqa: F811
    profile = {
        "born": {"$date": 0}, "photo": {"$binary": "AAEC"}, "far": {"$InfNaN": 1},
        "odd": {"$escape": {"$date": 1}},
    }  # fmt: skip
    client = connect()
    key = sign_up(client, project, "long-name", profile=profile)["id"]
    document = client.documents["users"][key]
    assert document["profile"] == profile
    assert document["length"] == len("long-name")
    project.db.psql("""UPDATE trigger_ddp_accounts_account SET profile = '{"born": {"$date": "never"}}'""")
    client.wait_until(lambda: document["profile"] == {"born": {"$escape": {"$date": "never"}}})


@only_django
def test_a_text_upgrades_although_the_project_prefers_another_hasher(project: Project) -> None:
    project.python(
        "from django.contrib.auth.models import User; from django.contrib.auth.hashers import make_password; "
        f"User.objects.create(username='ann', password=make_password({PASSWORD!r}, hasher='pbkdf2_sha256'))"
    )
    options = {"user": {"username": "ann"}, "password": digest(PASSWORD)}
    with DDPClient(project.serve(TDDP_DJANGO_FIRST="1").url) as client:
        assert error(client.call("login", options)) == AMBIGUOUS
        for _ in range(2):
            ok(client.call("login", {**options, "password": PASSWORD}))
            ok(client.call("login", options))
    warned = project.manage("check", TDDP_DJANGO_FIRST="1").stderr
    assert "trigger_ddp.W201" in warned


@only_django
def test_of_others_a_publication_may_show_the_names_alone(project: Project, connect: Connect) -> None:  # noqa: F811
    key = sign_up(connect(), project)["id"]
    client = connect()
    client.subscribe("Names")
    assert client.documents["users"] == {key: {"username": "ann"}}
    own = ok(client.call("login", {"user": {"id": key}, "password": PASSWORD}))["id"]
    assert client.documents["users"][own]["emails"] == [{"address": "ann@x.org", "verified": False}]


@only_django
def test_a_user_that_the_application_has_set_has_no_token(project: Project, connect: Connect) -> None:  # noqa: F811
    key = sign_up(connect(), project)["id"]
    client = connect()
    ok(client.call("become", key))
    assert list(client.documents["users"]) == [key]
    assert error(client.call("getNewToken")) == ("Invalid login token", None)
    ok(client.call("logout"))
    sign_up(client, project, "bob")
    ok(client.call("become", key))  # what bob's token is worth, it is worth for bob
    assert error(client.call("getNewToken")) == ("Invalid login token", None)
    ok(client.call("logout"))
    assert project.db.psql("SELECT count(*) FROM trigger_ddp_accounts_logintoken").strip() == "2"


def test_an_account_begun_by_mail(project: Project) -> None:
    with DDPClient(project.serve(DDP_SEND_VERIFICATION_EMAIL="true").url) as client:
        assert error(client.call("createUser", {"email": "ann@x.org"}))[0] == "enrollment-mailed"
        assert not client.documents["users"]
        assert "/#/enroll-account/" in project.mails()[-1].get_content()
        ok(client.call("resetPassword", project.link(), digest(PASSWORD)))
        [document] = client.documents["users"].values()
        assert document["emails"] == [{"address": "ann@x.org", "verified": True}]
        ok(client.call("login", {"user": {"email": "ann@x.org"}, "password": PASSWORD}))


@only_django
def test_links_are_good_for_one_thing_once(project: Project) -> None:
    server = project.serve(DDP_SEND_VERIFICATION_EMAIL="true")  # noqa: F811

    def call(*call: Any) -> dict[str, Any]:
        with DDPClient(server.url) as client:
            return client.call(*call)

    with DDPClient(server.url) as client:
        sign_up(client, project)
    verifies = project.link()
    assert error(call("resetPassword", verifies, digest("x"))) == (403, "Token expired")
    project.db.psql("UPDATE auth_user SET email = 'new@x.org'")
    unknown = (403, "Verify email link is for unknown address")
    assert error(call("verifyEmail", verifies)) == unknown
    project.db.psql("UPDATE auth_user SET email = 'ann@x.org'")
    ok(call("forgotPassword", {"email": "ann@x.org"}))
    resets = project.link()

    project.db.psql("UPDATE auth_user SET is_active = false")
    before = project.db.psql("SELECT password FROM auth_user")
    assert error(call("resetPassword", resets, digest("x"))) == (403, "Token expired")
    assert error(call("verifyEmail", verifies)) == (403, "Login forbidden")
    assert error(call("forgotPassword", {"email": "ann@x.org"})) == AMBIGUOUS
    assert project.db.psql("SELECT password FROM auth_user") == before
    assert len(project.mails()) == 2
    project.db.psql("UPDATE auth_user SET is_active = true")

    gate, answers = threading.Barrier(4), []

    def reset() -> None:
        with DDPClient(server.url) as client:
            gate.wait(20)
            answers.append(client.call("resetPassword", resets, digest("x")))

    threads = [threading.Thread(target=reset) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("result" in answer for answer in answers) == [False] * 3 + [True]
    assert {error(answer) for answer in answers if "error" in answer} == {(403, "Token expired")}


@pytest.mark.parametrize("users", ["member"], indirect=True)
def test_neither_addresses_nor_dates(project: Project, connect: Connect) -> None:  # noqa: F811
    client = connect()
    options = {"username": "max", "email": "max@x.org", "password": digest(PASSWORD)}
    key = ok(client.call("createUser", options))["id"]
    document = client.documents["users"][key]
    assert (set(document), document["username"]) == ({"username", "profile", "createdAt"}, "max")
    assert error(client.call("forgotPassword", {"email": "max@x.org"})) == AMBIGUOUS
    for answer in both_ways(connect, {"username": "MAX"}) + both_ways(connect, {"id": key}):
        assert ok(answer)["id"] == key
    for answer in both_ways(connect, {"email": "max@x.org"}):
        assert error(answer) == AMBIGUOUS
    ok(client.call("changePassword", digest(PASSWORD), "another password"))
    stored = json.loads(project.db.psql("SELECT row_to_json(m) FROM people_member m"))
    assert stored["password"] not in str(client.messages)


def test_no_schema_of_secrets(connect: Connect) -> None:  # noqa: F811
    assert ok(connect().call("/schema"))["users"] == {}


def test_migrations_are_whole_and_the_command_sweeps(project: Project) -> None:
    done = project.manage("makemigrations", "--check", "--dry-run", "trigger_ddp_accounts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert project.manage("ddp_sweep_tokens").stdout == "0 expired tokens were deleted.\n"
