"""Meteor's ``insert``, ``update`` and ``remove``, by a client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from trigger_ddp.alea import RandomStream

MINE = "personal-keepers"


@pytest.fixture
def client(db: Database, server: Server) -> Iterator[DDPClient]:
    for number, name in enumerate(("ann", "bob"), 1):
        user = User.objects.create(pk=number, username=name)
        user.user_permissions.set(Permission.objects.filter(codename__endswith="_keeper"))
    with DDPClient(server.url) as client:
        assert "error" not in client.call("become", 1)
        client.subscribe("MyPersonalKeepers")
        yield client
        assert client.violations == []


def call(client: DDPClient, name: str, *params: Any, **message: Any) -> Any:
    client.send(msg="method", id=(number := f"m{len(client.messages)}"), method=f"/{MINE}/{name}",
                params=params, **message)  # fmt: skip
    answer = client.finish_call(number)
    return answer.get("error", answer.get("result"))


@pytest.mark.parametrize("suffix", ["", "Async"])
def test_what_a_client_writes_it_is_told(db: Database, client: DDPClient, suffix: str) -> None:
    foretold = RandomStream("5eed")(f"/collection/{MINE}").id()
    key = call(client, f"insert{suffix}", {"name": "a"}, randomSeed="5eed")
    assert key == foretold
    assert client.documents[MINE][key]["name"] == "a"
    assert call(client, f"update{suffix}", {"_id": key}, {"$set": {"name": "b"}}, {}) == 1
    assert client.documents[MINE][key]["name"] == "b"
    assert call(client, f"remove{suffix}", {"_id": key}) == 1
    assert not client.documents[MINE]
    assert call(client, f"remove{suffix}", key) == 0


def test_what_it_may_not_it_is_told_too(db: Database, client: DDPClient, server: Server) -> None:
    key = call(client, "insert", {"name": "fixed"})
    fields = {"message", "isClientSafe", "error", "reason", "errorType"}
    denied = call(client, "update", key, {"$set": {"name": "b"}})
    assert set(denied) == fields
    assert (denied["error"], denied["reason"]) == (403, "Access denied")
    invalid = call(client, "insert", {"name": ""})
    assert (invalid["error"], invalid["details"][0]["name"]) == ("validation-error", "name")
    assert call(client, "insert", {"name": "a", "_id": key})["error"] == 409
    assert call(client, "update", key, {"$set": {"account_id": "2"}})["error"] == 403
    assert call(client, "update", {}, {"$set": {}})["reason"].startswith("Not permitted. Untrusted code")
    assert call(client, "insert", 1)["error"] == call(client, "remove")["error"] == 400
    assert call(client, "upsert", key, {})["reason"] == f"Method '/{MINE}/upsert' not found"
    missing = client.call("/keepers/insert", {"name": "a"})["error"]
    assert (missing["error"], missing["reason"]) == (404, "Method '/keepers/insert' not found")
    with DDPClient(server.url) as nobody:
        assert call(nobody, "remove", key)["error"] == 403
        assert "error" not in nobody.call("become", 2)
        assert call(nobody, "remove", key) == 0
    assert {row["name"] for row in client.documents[MINE].values()} == {"fixed"}
    assert db.psql("SELECT name, account_id FROM zoo_keeper").strip() == "fixed|1"
    assert "Traceback" not in server.log()
