"""docs/publications.md holds: what it declares is served, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path

from django.contrib.auth.hashers import make_password

from tests.conftest import Database
from tests.ddp import DDPClient
from tests.serving import Server
from tests.test_users import COLUMNS, ok
from trigger_ddp.api import Handle
from trigger_ddp.server.client import Client
from trigger_ddp.server.subscribing import PATIENCE

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "publications.md").read_text("utf-8")


def test_the_examples(db: Database, serve) -> None:  # type: ignore[no-untyped-def]
    db.psql(
        f"INSERT INTO auth_user ({COLUMNS}) VALUES"
        f" (1, 'ann', '{make_password('secret')}', '', '', '', false, false, true, now());"
        "INSERT INTO bookstore_author (id, name, email) VALUES (1, 'Ada', 'a@x');"
        "INSERT INTO bookstore_book (id, title, author_id, price, in_stock) VALUES (1, 'One', 1, 5, true)"
    )
    server: Server = serve(TDDP_TEST_DOCS="1")
    with DDPClient(server.url) as client:
        client.subscribe("Shelf", "Ada")
        assert client.documents["motd"]["today"] == {"text": "Hello stranger"}
        assert client.documents["notes"] == {"Ada": {"text": "1 found"}}
        assert set(client.documents["bookstore.book"]) == {"1"}
        client.subscribe("clock", 0.01)
        client.wait_until(lambda: client.documents["clock"]["now"]["ticks"] > 2)
        refused = client.start_subscription("AffordableBooks", 6)
        error = client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] == refused)["error"]
        assert error["error"] == "members-only"
        assert client.call("login_with_secret", "ann", "wrong")["error"]["error"] == 403
        ok(client.call("login_with_secret", "ann", "secret"))
        assert client.documents["motd"]["today"] == {"text": "Hello ann"}
        assert set(client.documents["documented-users"]) == {"1"}
        assert "password" not in client.documents["documented-users"]["1"]
        client.subscribe("AffordableBooks", 6)
        ok(client.call("leave"))
        client.wait_for(lambda m: m["msg"] == "nosub" and m["id"] != refused)
        assert client.documents["documented-users"] == {}
        assert client.violations == []


def test_the_table_of_the_handle_is_whole() -> None:
    table = re.search(r"^\| the handle has .*?\n\n", TEXT, re.DOTALL | re.MULTILINE)
    assert table
    named = {
        name for row in table[0].strip().splitlines() for name in re.findall(r"`(\w+)", row.split("|")[1])
    }
    assert named == {*Handle.__abstractmethods__, *Handle.__annotations__}
    (connection,) = (row for row in table[0].splitlines() if row.startswith("| `connection`"))
    public = {name for name in vars(Client) if not name.startswith("_")} - {"ended", "answering"}
    assert set(re.findall(r"`(\w+)", connection)) == {"connection", *public}


def test_numbers() -> None:
    assert set(re.findall(r"(\d+) seconds", TEXT)) == {f"{PATIENCE:g}"}
