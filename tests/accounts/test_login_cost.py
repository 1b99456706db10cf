"""How long a failing login takes says nothing of why: hashing is what takes time, and it is done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.accounts.conftest import Project
from tests.accounts.test_login import AMBIGUOUS, PASSWORD, connect, digest, error, ok, server, sign_up
from tests.ddp import DDPClient
from tests.serving import Server

__all__ = ["connect", "server"]

PEOPLE = ("ann", "inactive", "unusable", "empty", "strange", "of-django")


@pytest.mark.parametrize("users", ["django"], indirect=True)
def test_each_failure_hashes_once(project: Project, connect: Callable[[], DDPClient], server: Server) -> None:
    for name in PEOPLE:
        sign_up(connect(), project, name)
    project.db.psql(
        "UPDATE auth_user SET is_active = false WHERE username = 'inactive';"
        "UPDATE auth_user SET password = '!unusable' WHERE username = 'unusable';"
        "UPDATE auth_user SET password = '' WHERE username = 'empty';"
        "UPDATE auth_user SET password = 'of no hasher at all' WHERE username = 'strange';"
        "UPDATE auth_user SET password = replace(password, 'meteor_', '') WHERE username = 'of-django'"
    )
    watcher = connect()

    def cost(call: Callable[[], dict[str, Any]]) -> tuple[int, Any]:
        before = ok(watcher.call("hashed"))
        answer = error(call())
        return ok(watcher.call("hashed")) - before, answer

    for password in ("wrong", digest("wrong")):
        for name in (*PEOPLE, "nobody"):
            for selector in ({"username": name}, {"email": f"{name}@x.org"}):
                options = {"user": selector, "password": password}
                assert cost(lambda: connect().call("login", options)) == (1, AMBIGUOUS), options  # noqa: B023
    # A right password of somebody who may not log in takes no longer than a wrong one.
    inactive = {"user": {"username": "inactive"}, "password": digest(PASSWORD)}
    assert cost(lambda: connect().call("login", inactive)) == (1, (403, "Login forbidden"))
    # Tokens are looked up by their hash, which takes as long for those that are nobody's.
    assert cost(lambda: connect().call("login", {"resume": "x" * 43}))[0] == 0
    # What does not match is refused before anybody is looked for.
    for bad in ({"digest": "short", "algorithm": "sha-256"}, {**digest("x"), "algorithm": "md5"}):
        for name in ("ann", "nobody"):
            wrong = {"user": {"username": name}, "password": bad}
            assert cost(lambda: connect().call("login", wrong)) == (0, (400, "Match failed"))  # noqa: B023


@pytest.mark.parametrize("users", ["django"], indirect=True)
def test_nor_does_a_change_of_password(project: Project, connect: Callable[[], DDPClient]) -> None:
    client, watcher = connect(), connect()
    sign_up(client, project)
    costs = set()
    for stored in ("password", "'!unusable'", "''", "replace(password, 'meteor_', '')"):
        project.db.psql(f"UPDATE auth_user SET password = {stored}")
        before = ok(watcher.call("hashed"))
        assert error(client.call("changePassword", digest("wrong"), digest("new"))) == AMBIGUOUS
        costs.add(ok(watcher.call("hashed")) - before)
    assert costs == {1}
