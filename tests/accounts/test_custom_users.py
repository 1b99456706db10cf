"""User models of all kinds: nothing but what is meant for clients leaves the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.accounts.conftest import AMBIGUOUS, digest, ok, refused
from tests.conftest import Database, postgres
from tests.ddp import DDPClient
from tests.serving import Server, start_server


@pytest.fixture
def project(cluster: postgres.Cluster) -> Iterator[Callable[[str], tuple[Database, Server]]]:
    """A server of tests.accounts.settings with one of its user models, in a database of its own."""
    started: list[tuple[Database, Server]] = []

    def start(model: str) -> tuple[Database, Server]:
        database = Database(cluster, f"custom_{model.lower()}")
        with cluster.connect() as conn:
            conn.execute(f"CREATE DATABASE {database.name}")
        settings = {"DJANGO_SETTINGS_MODULE": "tests.accounts.settings", "TDDP_TEST_USER": model}
        environ = {**os.environ, **database.environ, **settings}
        manage = [sys.executable, "-m", "django"]
        subprocess.run([*manage, "migrate", "--run-syncdb", "-v0"], env=environ, check=True)
        subprocess.run(
            [*manage, "makemigrations", "--check", "trigger_ddp_accounts"], env=environ, check=True
        )
        started.append((database, start_server(database, **settings)))
        return started[-1]

    yield start
    for database, server in started:
        server.stop()
        with cluster.connect() as conn:
            conn.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


def secrets_of(database: Database, table: str) -> list[str]:
    row = json.loads(database.psql(f"SELECT row_to_json(t) FROM {table} t"))
    tokens = database.psql("SELECT hashed_token FROM trigger_ddp_accounts_logintoken").split()
    return [row["password"], *tokens, *filter(None, [row.get("api_key")])]


def test_a_uuid_and_an_address(project: Callable[[str], tuple[Database, Server]]) -> None:
    database, server = project("Person")
    options: dict[str, Any] = {"email": "Eve@example.com", "password": digest("eve's secret")}
    with DDPClient(server.url) as client, DDPClient(server.url) as other:
        key = ok(client.call("createUser", options))["id"]
        assert str(uuid.UUID(key)) == key
        document = client.documents["users"][key]
        assert set(document) == {"emails", "profile", "createdAt"}
        assert document["emails"] == [{"address": "Eve@example.com", "verified": False}]
        assert refused(client.call("createUser", {"username": "eve", "password": "x"}))[0] == 400
        assert refused(client.call("createUser", {**options, "email": "EVE@example.com"})) == AMBIGUOUS
        for selector in ({"id": key}, {"email": "eve@example.com"}):
            for password in ("eve's secret", options["password"]):
                result = ok(other.call("login", {"user": selector, "password": password}))
                assert result["id"] == key
        assert refused(other.call("login", {"user": {"username": "eve"}, "password": "x"})) == AMBIGUOUS
        assert ok(other.call("/schema")) == {"users": {}}
        database.psql("UPDATE custom_person SET api_key = 'another secret'")
        database.psql("UPDATE custom_person SET mail = 'new@example.com'")
        client.wait_until(lambda: document["emails"][0]["address"] == "new@example.com")
        everything = str((client.messages, other.messages))
        secrets = [*secrets_of(database, "custom_person"), "the secret api key", "eve's secret"]
        assert len(secrets) > 5
        for secret in secrets:
            assert secret not in everything
        database.psql("DELETE FROM trigger_ddp_accounts_logintoken")
        client.wait_until(lambda: client.closed)
        other.wait_until(lambda: other.closed)
        assert client.violations == other.violations == []


def test_neither_address_nor_names(project: Callable[[str], tuple[Database, Server]]) -> None:
    database, server = project("Member")
    with DDPClient(server.url) as client:
        options = {"username": "max", "email": "max@example.com", "password": digest("max's secret")}
        result = ok(client.call("createUser", options))
        document = client.documents["users"][result["id"]]
        assert (set(document), document["username"]) == ({"username", "profile", "createdAt"}, "max")
        assert refused(client.call("forgotPassword", {"email": "max@example.com"})) == AMBIGUOUS
        ok(client.call("login", {"user": {"username": "MAX"}, "password": "max's secret"}))
        assert (
            refused(client.call("login", {"user": {"email": "max@example.com"}, "password": "x"}))[0] == 403
        )
        ok(client.call("changePassword", options["password"], "a new secret"))
        ok(client.call("logout"))
        ok(client.call("login", {"user": {"id": result["id"]}, "password": digest("a new secret")}))
        everything = str(client.messages)
        for secret in secrets_of(database, "custom_member"):
            assert secret not in everything
        assert client.violations == []
