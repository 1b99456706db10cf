"""docs/database-roles.md: its SQL is what the command prints, and it suffices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from tests import postgres, roles
from tests.conftest import Database, new_database
from tests.ddp import DDPClient
from tests.rights.test_grants import ROWS
from tests.serving import start_server

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "database-roles.md").read_text("utf-8")
ROLES, GRANTS = re.findall(r"^```sql\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def db(cluster: postgres.Cluster) -> Iterator[Database]:
    with new_database(cluster) as database:
        try:
            yield database
        finally:
            database.psql("DROP OWNED BY ddp_install, ddp_serve CASCADE; DROP ROLE ddp_install, ddp_serve")


def test_its_roles_install_and_serve(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    grants = GRANTS.replace('"mysite"', f'"{db.name}"')
    db.psql(f"REVOKE ALL ON DATABASE {db.name} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;" + ROLES)
    out = StringIO()
    (command,) = re.findall(r"^    python manage\.py ddp_grants (.*)$", TEXT, re.MULTILINE)
    call_command("ddp_grants", *command.split(), stdout=out)
    printed = {line.partition(";")[0] for line in out.getvalue().splitlines()}
    assert {line.partition(";")[0] for line in grants.splitlines()} <= printed
    db.psql(grants + ROWS)

    monkeypatch.setattr(roles, "INSTALLING", "ddp_install")
    roles.install(db.environ, "bookstore")
    # The project of the tests has more tables than the page, of which these roles know nothing.
    server = start_server(
        Database(db.cluster, db.name, "ddp_serve"), DDP_ALLOW_STALE="true", DDP_TRIGGER_CHECK_SECONDS="0"
    )
    try:
        with DDPClient(server.url) as client:
            client.subscribe("AllBooks")
            db.psql("UPDATE bookstore_author SET name = 'Eve' WHERE id = 1")
            assert "error" not in client.call("rename", "1", "Uno")
            assert client.documents["bookstore.author"]["1"]["name"] == "Eve"
            assert client.documents["bookstore.book"]["1"]["title"] == "Uno"
        server.errors_expected = True  # it names the other tables
        assert "permission denied" not in server.log()
    finally:
        server.stop()
