"""Partitions, inheritance, schemas; and what can't have triggers."""

from __future__ import annotations

import pytest
from django.db import connection, models

from tests.capture.capturing import install_on, listening, model
from tests.conftest import Database
from trigger_ddp.capture import install
from trigger_ddp.capture.functions import Level
from trigger_ddp.capture.install import State
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap

pytestmark = pytest.mark.every_major
LEVELS = pytest.mark.parametrize("level", ["statement", "row"])


def plain(db_table: str = "thing") -> Table:
    return Table.from_model(model(db_table, id=models.IntegerField(primary_key=True)))


def told(changes: list[Change | Gap]) -> list[tuple[str, ...]]:
    """Operations and keys; statement-level and row-level triggers differ in how they are bundled."""
    return sorted(
        (change.op, row[0] or "") if isinstance(change, Change) else (change.reason,)
        for change in changes
        for row in (change.rows if isinstance(change, Change) else [()])
    )


@LEVELS
def test_writing_partitions_directly_tells_of_the_root(db: Database, level: Level) -> None:
    table = plain()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(
            """
            CREATE TABLE thing (id int, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
            CREATE TABLE low PARTITION OF thing FOR VALUES FROM (0) TO (100);
            CREATE TABLE mid PARTITION OF thing FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
            CREATE SCHEMA "Other";
            CREATE TABLE "Other"."mid %s" (n int, dropped int, id int NOT NULL);
            ALTER TABLE "Other"."mid %s" DROP dropped;
            ALTER TABLE mid ATTACH PARTITION "Other"."mid %s" FOR VALUES FROM (100) TO (150);
            """
        )
        install_on(table, level=level)
        for statement, expected in [
            ("INSERT INTO thing VALUES (1), (101)", [("I", "1"), ("I", "101")]),
            ("INSERT INTO low VALUES (2)", [("I", "2")]),
            ("INSERT INTO mid VALUES (102)", [("I", "102")]),
            ('INSERT INTO "Other"."mid %s" (id) VALUES (103), (104)', [("I", "103"), ("I", "104")]),
            ('UPDATE "Other"."mid %s" SET n = 1 WHERE id > 103', [("U", "104")]),
            ('UPDATE "Other"."mid %s" SET n = 1', [("U", "101"), ("U", "102"), ("U", "103")]),
            ("DELETE FROM mid", [("D", "101"), ("D", "102"), ("D", "103"), ("D", "104")]),
            ("TRUNCATE low", [("truncate",)]),
            ("TRUNCATE thing", [("truncate",)]),
        ]:
            conn.execute(statement)
            assert told(ear.changes()) == expected, statement


LOW_AND_HIGH = """
    CREATE TABLE thing (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF thing FOR VALUES FROM (0) TO (100);
    CREATE TABLE high PARTITION OF thing FOR VALUES FROM (100) TO (200)
"""


def test_a_row_that_moves_to_another_partition(db: Database) -> None:
    table = plain()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(
            f"""
            {LOW_AND_HIGH};
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            INSERT INTO thing VALUES (1), (2), (3), (4);
            """
        )
        install_on(table)
        conn.execute("UPDATE thing SET id = 101 WHERE id = 1")
        assert ear.changes() == [Change("thing", "U", (("101",),), (("1",),))]
        # the row is gone after this
        conn.execute("CREATE TRIGGER refuse BEFORE INSERT ON high FOR EACH ROW EXECUTE FUNCTION refuse()")
        conn.execute("UPDATE thing SET id = 102 WHERE id = 2")
        assert ear.changes() == [Change("thing", "U", (), (("2",),))]
        conn.execute("UPDATE thing SET id = id + 100 WHERE id IN (3, 4)")
        (change,) = ear.changes()
        assert isinstance(change, Change)
        assert (change.rows, sorted(change.old)) == ((), [("3",), ("4",)])


@LEVELS
def test_a_row_that_merge_moves_to_another_partition(db: Database, level: Level) -> None:
    """PostgreSQL fires none of the statement-level triggers for it: docs/capture.md says so."""
    table = plain()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(f"{LOW_AND_HIGH}; INSERT INTO thing VALUES (1)")
        install_on(table, level=level)
        conn.execute(
            "MERGE INTO thing USING (VALUES (1)) it (id) ON thing.id = it.id"
            " WHEN MATCHED THEN UPDATE SET id = thing.id + 100"
        )
        told = {(change.op, change.rows) for change in ear.changes() if isinstance(change, Change)}
        assert told == ({("D", (("1",),)), ("I", (("101",),))} if level == "row" else set())


@LEVELS
def test_inheriting_tables_tell_of_their_parent(db: Database, level: Level) -> None:
    table, own = plain(), plain("special")
    with db.connect() as conn, listening(db, table, own) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, n int)")
        conn.execute("CREATE TABLE special (extra text, PRIMARY KEY (id)) INHERITS (thing)")
        install_on(table, own, level=level)
        conn.execute("INSERT INTO special VALUES (1)")
        assert {change.table for change in ear.changes() if change.table} == {"thing", "special"}
        conn.execute("UPDATE thing SET n = 1")
        assert Change("thing", "U", (("1",),)) in ear.changes()
        conn.execute("TRUNCATE thing")
        assert Gap("thing", "truncate") in ear.changes()


@LEVELS
def test_partitions_that_come_and_go_are_drift(db: Database, level: Level) -> None:
    table = plain()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(
            "CREATE TABLE thing (id int PRIMARY KEY) PARTITION BY RANGE (id);"
            "CREATE TABLE low PARTITION OF thing FOR VALUES FROM (0) TO (100)"
        )
        install_on(table, level=level)
        conn.execute("CREATE TABLE high PARTITION OF thing FOR VALUES FROM (100) TO (200)")
        (status,) = install.status(connection, [table]).tables
        assert status.state is State.OUTDATED
        assert "public.high has no trigger for TRUNCATE" in status.differences
        install_on(table, level=level)
        conn.execute("ALTER TABLE thing DETACH PARTITION low")
        (status,) = install.status(connection, [table]).tables
        assert any("left on public.low" in difference for difference in status.differences)
        install_on(table, level=level)
        conn.execute("INSERT INTO low VALUES (1)")
        conn.execute("TRUNCATE low")
        assert ear.changes() == []


def test_schemas(db: Database) -> None:
    here, there = plain(), plain('s"."thing')
    with db.connect() as conn, listening(db, here, there) as ear:
        conn.execute(
            "CREATE SCHEMA s;"
            "CREATE TABLE thing (id int PRIMARY KEY); CREATE TABLE s.thing (id int PRIMARY KEY)"
        )
        install_on(here, there)
        conn.execute("INSERT INTO s.thing VALUES (1)")
        assert ear.changes() == [Change("s.thing", "I", (("1",),))]
        conn.execute("INSERT INTO thing VALUES (1)")
        assert ear.changes() == [Change("thing", "I", (("1",),))]


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("CREATE VIEW thing AS SELECT 1 AS id", "is a view"),
        ("CREATE MATERIALIZED VIEW thing AS SELECT 1 AS id", "is a materialized view"),
        ("CREATE TABLE thing (id int)", "has no primary key"),
        ("CREATE TABLE thing (key int PRIMARY KEY)", "has no column id"),
        ("SELECT 1", "there is no table thing"),
        (
            "CREATE FOREIGN DATA WRAPPER fdw; CREATE SERVER s FOREIGN DATA WRAPPER fdw;"
            "CREATE FOREIGN TABLE thing (id int) SERVER s",
            "is a foreign table",
        ),
        (
            "CREATE FOREIGN DATA WRAPPER fdw; CREATE SERVER s FOREIGN DATA WRAPPER fdw;"
            "CREATE TABLE thing (id int UNIQUE); CREATE FOREIGN TABLE below () INHERITS (thing) SERVER s",
            "has foreign tables below it",
        ),
    ],
)  # fmt: skip
def test_what_can_not_have_triggers_is_refused(db: Database, ddl: str, reason: str) -> None:
    table = plain()
    db.psql(ddl)
    report = install.status(connection, [table])
    assert report.tables[0].state is State.REFUSED
    assert reason in report.tables[0].differences[0]
    assert install.install_steps(report) == []
    assert not report.is_current(table)
