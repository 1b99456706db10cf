"""Logins that last as long as a row is there, whoever deletes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_users import ok, people

__all__ = ["people"]

LOGINS = ["login_while", "login_while_async"]


@pytest.fixture
def clients(people: Database, server: Server) -> Iterator[Callable[[], DDPClient]]:
    opened: list[DDPClient] = []

    def client() -> DDPClient:
        opened.append(DDPClient(server.url))
        return opened[-1]

    yield client
    for one in opened:
        one.close()


def who(client: DDPClient) -> str | None:
    answer = ok(client.call("who"))
    return None if answer is None else answer[2]


@pytest.mark.parametrize("login", LOGINS)
def test_deleting_the_row_closes_those_who_have_it(
    people: Database, clients: Callable[[], DDPClient], login: str
) -> None:
    ann, ann_too, bob = clients(), clients(), clients()
    for client, user, keeper in [(ann, 1, 1), (ann_too, 1, 1), (bob, 2, 2)]:
        ok(client.call(login, user, keeper))
    people.psql("UPDATE zoo_keeper SET name = 'still there'")
    people.psql("BEGIN; DELETE FROM zoo_visit; DELETE FROM zoo_keeper WHERE id = 1; ROLLBACK")
    assert [who(client) for client in (ann, ann_too, bob)] == ["ann", "ann", "bob"]
    people.psql("DELETE FROM zoo_visit; DELETE FROM zoo_keeper WHERE id = 1")
    for client in (ann, ann_too):
        client.wait_until(lambda: client.closed)  # noqa: B023
    assert who(bob) == "bob"


@pytest.mark.parametrize(
    "how", ["TRUNCATE zoo_keeper CASCADE", "SET session_replication_role = replica; DELETE"]
)
def test_rows_that_go_in_other_ways(people: Database, clients: Callable[[], DDPClient], how: str) -> None:
    client = clients()
    ok(client.call("login_while", 1, 1))
    if "replica" in how:  # nobody is told; but whoever listens anew looks
        people.psql("SET session_replication_role = replica; DELETE FROM zoo_keeper")
        people.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'LISTEN|pg_notify'"
        )
    else:
        people.psql(how)
    client.wait_until(lambda: client.closed)


def test_a_row_of_the_same_transaction(people: Database, clients: Callable[[], DDPClient]) -> None:
    people.psql("SELECT setval('zoo_keeper_id_seq', 100)")
    client, failing = clients(), clients()
    ok(client.call("login_while_made", 1, "made"))
    assert who(client) == "ann"
    failing.start_call("login_while_made", 1, "rolled back", True)
    failing.wait_until(lambda: failing.closed)
    assert who(client) == "ann"
    people.psql("DELETE FROM zoo_keeper WHERE name = 'made'")
    client.wait_until(lambda: client.closed)


def test_what_can_not_be_a_lease(people: Database, clients: Callable[[], DDPClient], server: Server) -> None:
    server.errors_expected = True
    client = clients()
    assert client.call("login_while_deleted", 1, 2)["error"]["reason"] == "The login is no longer valid"
    people.psql("DELETE FROM zoo_visit")
    assert client.call("login_while_true", 1)["error"]["error"] == 500
    assert client.call("login_while_permitted", 1)["error"]["error"] == 500
    server.wait_for_log("the lease of set_user_id is a saved row")
    server.wait_for_log("triggers are missing or out of date on auth_permission")
    assert who(client) is None


def test_a_logout_or_another_login_ends_the_lease(people: Database, clients: Callable[[], DDPClient]) -> None:
    people.psql("DELETE FROM zoo_visit")
    client = clients()
    ok(client.call("login_while", 1, 1))
    ok(client.call("logout_and_delete", 1))
    assert who(client) is None
    ok(client.call("login_while", 1, 2))
    ok(client.call("become", 2))
    people.psql("DELETE FROM zoo_keeper")
    client.settle()
    assert who(client) == "bob"
