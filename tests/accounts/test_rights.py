"""Accounts under the serving role: what `manage.py ddp_grants` prints suffices, and all of it is needed."""

from __future__ import annotations

from typing import Any

from tests import roles
from tests.accounts.conftest import Project
from tests.accounts.test_login import PASSWORD, digest, sign_up
from tests.ddp import DDPClient
from tests.serving import Server
from trigger_ddp.capture.rights import ACCOUNTS


def conversation(project: Project, server: Server, name: str) -> list[Any]:
    """Everything that writes. Returns the errors that clients were told."""
    errors: list[Any] = []

    def call(client: DDPClient, method: str, *params: Any) -> None:
        if not client.closed:
            client.start_call(method, *params)
            answer = client.wait_for(lambda m: m["msg"] == "result", since=len(client.messages))
            errors.append(answer.get("error"))

    address = {"email": f"{name}@x.org"}
    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        options = {**address, "password": digest(PASSWORD)}
        call(client, "createUser", options | ({"username": name} if project.users == "django" else {}))
        call(other, "login", {"user": address, "password": digest(PASSWORD)})
        call(client, "removeOtherTokens")
        call(client, "changePassword", digest(PASSWORD), digest("new"))
        for me in list(client.documents["users"]):
            call(client, "/users/update", {"_id": me}, {"$set": {"profile.color": "red"}})
        mails = len(project.mails())
        call(client, "forgotPassword", address)
        if len(project.mails()) > mails:
            call(client, "resetPassword", project.link(), digest("newer"))
        call(client, "logout")
    return [error for error in errors if error is not None]


def test_the_core_of_accounts(project: Project) -> None:
    roles.make(project.db.cluster)
    assert project.manage("ddp_install_triggers", "-v0").returncode == 0
    printed = project.manage("ddp_grants", "--serve", roles.SERVING)
    assert printed.returncode == 0, printed.stderr
    project.db.psql("REVOKE ALL ON SCHEMA public FROM PUBLIC;" + printed.stdout)
    server = project.serve(TDDP_TEST_USER=roles.SERVING)
    with DDPClient(server.url) as client:
        login = sign_up(client, project, "zoe")
        assert client.documents["users"][login["id"]]["emails"] == [
            {"address": "zoe@x.org", "verified": False}
        ]
    assert conversation(project, server, "ann") == []
    assert "permission denied" not in server.log()

    server.errors_expected = True
    needed = {f"trigger_ddp_accounts_{name.lower()}": rights for name, rights in ACCOUNTS.items()}
    needed[project.table] = ("SELECT", "INSERT", "UPDATE")
    number = 0
    for table, privileges in needed.items():
        for privilege in privileges:
            number += 1
            denied = f"permission denied for table {table}"
            before = server.log().count(denied)
            project.db.psql(f"REVOKE {privilege} ON {table} FROM {roles.SERVING}")
            errors = conversation(project, server, f"user{number}")
            project.db.psql(f"GRANT {privilege} ON {table} TO {roles.SERVING}")
            assert server.log().count(denied) > before, (table, privilege)
            assert "permission" not in str(errors)
    assert conversation(project, server, "last") == []
