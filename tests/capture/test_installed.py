"""A look at triggers that costs little is another whenever something was done to them, and else the same."""

from __future__ import annotations

import pytest
from django.db import connection, models

from tests.capture.capturing import install_on, model
from tests.conftest import Database
from trigger_ddp.capture import installed
from trigger_ddp.capture.installed import Look
from trigger_ddp.capture.tables import Table

pytestmark = pytest.mark.every_major


@pytest.fixture
def table(db: Database) -> Table:
    db.psql(
        "CREATE TABLE thing (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);"
        "CREATE TABLE thing_1 PARTITION OF thing FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE thing_2 (LIKE thing); CREATE TABLE other (id int PRIMARY KEY);"
        "INSERT INTO thing VALUES (1, 1)"
    )
    table = Table.from_model(
        model("thing", id=models.IntegerField(primary_key=True), n=models.IntegerField(null=True))
    )
    install_on(table)
    return table


def look(table: Table, *before: Look) -> Look:
    return installed.look(connection, [table], dict(zip([table.name], before, strict=False)))[table.name]


def trigger(db: Database, on: str = "thing") -> str:
    return db.psql(
        f"SELECT tgname FROM pg_trigger WHERE tgrelid = '{on}'::regclass AND tgname ~ '_insert_'"
    ).strip()


def test_what_is_done_to_triggers_shows(db: Database, table: Table) -> None:
    name, below = trigger(db), trigger(db, "thing_1")
    looks = [look(table)]
    assert looks[0].stale == ""
    for sql, stale in [
        (f"ALTER TABLE thing DISABLE TRIGGER {name}", f"trigger {name} on public.thing is disabled"),
        (f"ALTER TABLE thing ENABLE TRIGGER {name}", ""),
        (f"ALTER FUNCTION {name} SECURITY DEFINER", "was altered"),
        (f"ALTER FUNCTION {name} SECURITY INVOKER", ""),
        (f"DROP TRIGGER {below} ON thing_1", "public.thing_1 has no trigger for INSERT"),
        (
            f"CREATE TRIGGER {below} AFTER INSERT ON thing_1 REFERENCING NEW TABLE AS new_rows"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {name}()",
            "",
        ),
        (
            "ALTER TABLE thing ATTACH PARTITION thing_2 FOR VALUES FROM (10) TO (20)",
            "public.thing_2 has no trigger",
        ),
        (
            "ALTER TABLE thing DETACH PARTITION thing_1;"
            "ALTER TABLE thing ATTACH PARTITION thing_1 FOR VALUES FROM (0) TO (10)",
            "public.thing_2 has no trigger",
        ),
        ("ALTER TABLE thing DETACH PARTITION thing_2", ""),
        (f"ALTER TABLE thing DISABLE TRIGGER {name}; ALTER TABLE thing ENABLE TRIGGER {name}", ""),
        ("DROP TABLE thing CASCADE", "there is no table thing"),
    ]:
        db.psql(sql)
        looks.append(look(table, looks[-1]))
        assert stale in looks[-1].stale
        assert (stale == "") == (looks[-1].stale == "")
        assert looks[-1].triggers not in {one.triggers for one in looks[:-1]}


def test_what_is_done_to_columns_shows_beside(db: Database, table: Table) -> None:
    looks = [look(table)]
    for sql, stale in [
        ("ALTER TABLE thing ADD extra int", ""),
        ("ALTER TABLE thing ALTER extra TYPE text", ""),
        ('ALTER TABLE thing ALTER extra TYPE text COLLATE "C"', ""),
        ("ALTER TABLE thing DROP extra", ""),
        ("ALTER TABLE thing RENAME id TO key", "has no column id"),
        ("ALTER TABLE thing RENAME key TO id", ""),
        ("ALTER TABLE thing DROP CONSTRAINT thing_pkey", "has no primary key"),
    ]:
        db.psql(sql)
        looks.append(look(table, looks[-1]))
        assert stale in looks[-1].stale
        assert (stale == "") == (looks[-1].stale == "")
        assert looks[-1].columns != looks[-2].columns
    assert {one.triggers for one in looks} == {looks[0].triggers}


def test_all_else_does_not_show(db: Database, table: Table) -> None:
    before = look(table)
    for sql in (
        "INSERT INTO thing VALUES (2, 2); UPDATE thing SET n = 3; DELETE FROM thing WHERE id = 1",
        "TRUNCATE thing",
        "ANALYZE",
        "VACUUM FREEZE thing",
        "VACUUM FREEZE pg_catalog.pg_trigger",
        "VACUUM FULL pg_catalog.pg_trigger",
        "REINDEX TABLE thing",
        "CREATE TRIGGER mine AFTER INSERT ON thing EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE thing DISABLE TRIGGER mine",
        "ALTER TABLE other ADD n int",
        "CREATE INDEX ON thing (n)",
    ):
        db.psql(sql)
        after = look(table, before)
        assert (after.triggers, after.columns, after.stale) == (before.triggers, before.columns, ""), sql


def test_why_a_table_is_stale_is_asked_once(
    db: Database, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    status = installed.status

    def noting(connection: object, tables: list[Table]) -> object:
        asked.append([table.name for table in tables])
        return status(connection, tables)  # type: ignore[arg-type]

    monkeypatch.setattr(installed, "status", noting)
    db.psql(f"ALTER TABLE thing DISABLE TRIGGER {trigger(db)}")
    first = look(table)
    second = look(table, first)
    assert "is disabled" in first.stale
    assert second.stale == first.stale
    assert asked == [["thing"]]


def test_transactions_that_run_are_told(db: Database, table: Table) -> None:
    """Also those that have not written yet, are prepared, or the latest to begin."""
    with db.connect() as writer, db.connect() as preparer:
        before = installed.running(connection)
        preparer.execute("BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'prepared'")
        prepared = installed.running(connection) - before
        writer.execute("BEGIN; SELECT 1")
        idle = installed.running(connection) - before
        writer.execute("INSERT INTO other VALUES (2)")
        written = installed.running(connection)
        assert idle & written
        writer.execute("COMMIT; BEGIN; INSERT INTO other VALUES (3)")
        assert written & installed.running(connection) == written & prepared
        preparer.execute("COMMIT PREPARED 'prepared'")
        assert not written & installed.running(connection)


def test_no_tables_and_tables_that_are_not_there(db: Database) -> None:
    absent = Table.from_model(model("absent", id=models.IntegerField(primary_key=True)))
    assert installed.look(connection, [], {}) == {}
    assert "there is no table absent" in look(absent).stale
