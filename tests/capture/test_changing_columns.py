"""Columns that are named, dropped, renamed or generated as the trigger functions might not expect it."""

from __future__ import annotations

import psycopg
import pytest
from django.db import models
from psycopg import sql

from tests.capture.capturing import install_on, listening, model
from tests.capture.test_notifications import BULK, LEVELS, thing
from tests.conftest import Database
from trigger_ddp.capture.functions import Level
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap

pytestmark = pytest.mark.every_major

#: What the functions call their own variables and columns.
NAMES_OF_FUNCTIONS = (
    "item", "written", "replaced", "r", "n", "o", "one", "keys", "before", "unchanged", "whole", "missing",
    "old_rows", "new_rows", "tg_op", "size", "used", "key1", "row",
)  # fmt: skip


@LEVELS
@pytest.mark.parametrize(
    "name",
    [
        "Üñïçødé table",
        'quo""te',
        "per%cent %s %(x)s",
        "semi;colon $ddp$ -- /*",
        "back\\slash 'q' {x}",
        "ORDER",
        "x" * 63,
        "é" * 31,
    ],
)
def test_names_that_need_quotes(db: Database, level: Level, name: str) -> None:
    key = models.IntegerField(primary_key=True, db_column="the %key")
    table = Table.from_model(
        model(name, key=key, n=models.ForeignKey("self", models.CASCADE, db_column='new""rows'))
    )
    with db.connect() as conn, listening(db, table) as ear:
        identifier = sql.SQL(table.identifier.as_string(None))
        conn.execute(
            sql.SQL('CREATE TABLE {} ("the %key" int PRIMARY KEY, "new""rows" int)').format(identifier)
        )
        install_on(table, level=level)
        conn.execute(sql.SQL("INSERT INTO {} VALUES (1, 2), (2, 3)").format(identifier))
        conn.execute(sql.SQL('UPDATE {} SET "new""rows" = 5').format(identifier))
        conn.execute(sql.SQL("TRUNCATE {}").format(identifier))
        told = ear.changes()
        rows = {row for change in told if isinstance(change, Change) for row in change.rows}
        assert rows == {("1", "2"), ("2", "3"), ("1", "5"), ("2", "5")}
        assert told[-1] == Gap(table.name, "truncate")


@LEVELS
@pytest.mark.parametrize("name", NAMES_OF_FUNCTIONS)
def test_columns_named_as_the_functions_own_things(db: Database, level: Level, name: str) -> None:
    table = Table.from_model(model("thing", key=models.IntegerField(primary_key=True, db_column=name)))
    with db.connect() as conn, listening(db, table) as ear:
        identifier = sql.Identifier(name)
        conn.execute(
            sql.SQL("CREATE TABLE thing ({} int PRIMARY KEY, other int, other2 int)").format(identifier)
        )
        install_on(table, level=level)
        conn.execute("INSERT INTO thing VALUES (1)")
        conn.execute("INSERT INTO thing VALUES (2), (3)")
        conn.execute("UPDATE thing SET other = 1")
        conn.execute("UPDATE thing SET other = 2 WHERE {} = 1".replace("{}", identifier.as_string(None)))
        conn.execute("DELETE FROM thing")
        told = ear.changes()
        assert BULK not in told
        rows = [row for change in told if isinstance(change, Change) for row in change.rows]
        assert sorted(rows) == [("1",)] * 4 + [("2",)] * 3 + [("3",)] * 3


def test_a_plain_column_may_have_any_name_too(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(
            "CREATE TABLE thing (id int PRIMARY KEY, owner_id int,"
            " r int, n int, o int, whole int, missing int, item int, keys int, written text[], size int)"
        )
        install_on(table)
        conn.execute("INSERT INTO thing VALUES (1), (2)")
        conn.execute("UPDATE thing SET r = 1")
        conn.execute("UPDATE thing SET r = 2 WHERE id = 1")
        conn.execute("UPDATE thing SET r = r")
        told = [len(change.rows) for change in ear.changes() if isinstance(change, Change)]
        assert told == [2, 2, 1]


def test_generated_and_dropped_columns(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        kinds = ["STORED", "VIRTUAL"] if db.cluster.major >= 18 else ["STORED"]
        generated = ", ".join(
            f"g{number} int GENERATED ALWAYS AS (n * 2) {kind}" for number, kind in enumerate(kinds)
        )
        conn.execute(
            f"CREATE TABLE thing (gone int, id int PRIMARY KEY, gone2 text, owner_id int, n int, {generated})"
        )
        conn.execute("ALTER TABLE thing DROP gone, DROP gone2")
        install_on(table)
        conn.execute("INSERT INTO thing VALUES (1, 1, 1), (2, 2, 2)")
        conn.execute("UPDATE thing SET n = 3")
        conn.execute("UPDATE thing SET n = 3")
        conn.execute("UPDATE thing SET n = 4 WHERE id = 1")
        assert [len(change.rows) for change in ear.changes() if isinstance(change, Change)] == [2, 2, 1]


@LEVELS
def test_a_renamed_or_dropped_column_does_not_fail_the_statement(db: Database, level: Level) -> None:
    """Between a migration and the triggers that fit it, writers go on, in sessions old and new."""
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int, n int)")
        install_on(table, level=level)

        def write_by(writer: psycopg.Connection) -> list[Change | Gap]:
            writer.execute("INSERT INTO thing (n) VALUES (5)")
            writer.execute("INSERT INTO thing (n) VALUES (6), (7)")
            writer.execute("UPDATE thing SET n = 8 WHERE n = 5")
            writer.execute("UPDATE thing SET n = n + 1")
            writer.execute("DELETE FROM thing WHERE n = 9")
            writer.execute("DELETE FROM thing")
            return ear.changes()

        def write() -> list[Change | Gap]:
            told = write_by(conn)
            with db.connect() as another:
                write_by(another)
            return told

        conn.execute("ALTER TABLE thing ALTER id ADD GENERATED ALWAYS AS IDENTITY")
        told = write()
        assert BULK not in told
        conn.execute("ALTER TABLE thing RENAME owner_id TO keeper_id")
        assert [type(change) for change in write()] == [type(change) for change in told]
        conn.execute("ALTER TABLE thing DROP keeper_id")
        assert BULK not in write()
        conn.execute(
            "ALTER TABLE thing ALTER id DROP IDENTITY; ALTER TABLE thing ALTER id TYPE text USING id::text; "
            "ALTER TABLE thing ALTER id SET DEFAULT random()"
        )
        # a row-level function of an older session can't read the row any more
        assert (BULK in write()) is (level == "row")
        conn.execute("ALTER TABLE thing RENAME id TO code")
        assert set(write()) == {BULK}
        conn.execute("ALTER TABLE thing DROP code")
        assert set(write()) == {BULK}
        conn.execute("ALTER TABLE thing DROP n; ALTER TABLE thing ADD n int")
        assert set(write()) == {BULK}


@LEVELS
@pytest.mark.parametrize("rows", [1, 2])
def test_columns_named_so_may_be_dropped(db: Database, level: Level, rows: int) -> None:
    fields = {
        name: models.ForeignKey("self", models.CASCADE, db_constraint=False, db_column=name, related_name="+")
        for name in NAMES_OF_FUNCTIONS
    }
    table = Table.from_model(model("thing", id=models.IntegerField(primary_key=True), **fields))
    with db.connect() as conn, listening(db, table) as ear:

        def write() -> list[Change | Gap]:
            with db.connect() as writer:
                writer.execute("INSERT INTO thing SELECT i FROM generate_series(1, %s) i", [rows])
                writer.execute("UPDATE thing SET extra = 1")
                writer.execute("DELETE FROM thing")
            return ear.changes()

        columns = ", ".join(f'"{name}" int' for name in NAMES_OF_FUNCTIONS)
        conn.execute(f"CREATE TABLE thing (id int PRIMARY KEY, {columns}, extra int)")
        install_on(table, level=level)
        told = write()
        assert {row[0] for change in told if isinstance(change, Change) for row in change.rows} == {
            str(number) for number in range(1, rows + 1)
        }
        for name in NAMES_OF_FUNCTIONS:
            conn.execute(f'ALTER TABLE thing DROP "{name}"')
            assert write() == told
        conn.execute("ALTER TABLE thing RENAME id TO code")
        assert set(write()) == {BULK}
