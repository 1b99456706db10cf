"""Every key type has one text, whatever the sessions' settings, and the text finds the row again."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from tests.capture.capturing import install_on, listening, model
from tests.conftest import Database
from trigger_ddp.capture.columns import Column, quoted_parts
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change
from trigger_ddp.errors import ConfigurationError

#: By type: values as SQL literals, and the text of the first one.
VALUES = {
    "smallint": (["-32768", "32767"], "-32768"),
    "integer": (["2147483647", "0"], "2147483647"),
    "bigint": (["-9223372036854775808", "9223372036854775807"], "-9223372036854775808"),
    "numeric(20, 4)": (["1.5000", "-12345678901234.0001", "NaN"], "1.5000"),
    "boolean": (["true", "false"], "true"),
    "uuid": (["0f0e0d0c-0b0a-0908-0706-050403020100"], "0f0e0d0c-0b0a-0908-0706-050403020100"),
    "text": (["", 'é "\\ % {x} \n\t\x01', "null"], ""),
    "varchar(40)": (["Ünïcode", "2020-01-01"], "Ünïcode"),
    "char(5)": (["ab", "abcde"], "ab"),
    "date": (["2021-02-03", "0044-03-15 BC", "infinity", "-infinity"], "2021-02-03"),
    "time": (["13:14:15.000016", "24:00:00"], "13:14:15.000016"),
    "timestamp without time zone": (
        ["2021-02-03 04:05:06.000007", "4713-01-01 BC", "infinity"],
        "2021-02-03T04:05:06.000007",
    ),
    "timestamp with time zone": (
        ["2021-07-03 04:05:06.000007+00", "294276-12-31 23:59:59Z", "4713-11-24 00:00:00+00 BC", "infinity"],
        "2021-07-03T04:05:06.000007",
    ),
    "interval": (
        ["P1Y2M-3DT4H5M6.000007S", "P-1Y-2M3DT-4H-5M-6.5S", "PT-0.5S", "P0D", "P178000000Y"],
        "P1Y2M-3DT4H5M6.000007S",
    ),
    "bytea": (["\\x00ff5c27", "\\x"], "00ff5c27"),
    "real": (["0.1", "-3.4028235e38", "1e-45", "NaN", "-Infinity"], "1.0000000149011612e-01"),
    "double precision": (
        ["0.1", "1.7976931348623157e308", "5e-324", "-0.30000000000000004", "NaN", "Infinity", "-Infinity"],
        "1.0000000000000001e-01",
    ),
    "inet": (["192.168.0.1", "::1"], "192.168.0.1/32"),
    "integer[]": (["{1,NULL,3}"], "{1,NULL,3}"),
}  # fmt: skip
SETTINGS = [
    "SET datestyle = 'ISO, DMY'",
    "SET datestyle = 'SQL, DMY'; SET timezone = 'America/St_Johns'; SET intervalstyle = 'sql_standard';"
    "SET bytea_output = 'escape'; SET extra_float_digits = -15",
    "SET datestyle = 'German'; SET timezone = 'Pacific/Chatham'; SET intervalstyle = 'postgres_verbose';"
    "SET bytea_output = 'hex'; SET extra_float_digits = 3",
    "SET datestyle = 'Postgres, MDY'; SET timezone = 'UTC'; SET intervalstyle = 'iso_8601';"
    "SET quote_all_identifiers = on",
]


@pytest.mark.every_major
@pytest.mark.parametrize("db_type", VALUES)
def test_one_text_for_one_value(db: Database, db_type: str) -> None:
    literals, expected = VALUES[db_type]
    column = Column("k%1", db_type)
    with db.connect() as conn:
        conn.execute(sql.SQL('CREATE TABLE kinds ("k%1" {} PRIMARY KEY)').format(sql.SQL(db_type)))
        for literal in literals:
            conn.execute("SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'")
            conn.execute(
                sql.SQL("TRUNCATE kinds; INSERT INTO kinds VALUES ({})").format(sql.Literal(literal))
            )
            texts = set()
            for settings in SETTINGS:
                conn.execute(settings)
                texts.add(_text(conn, column))
            assert len(texts) == 1, literal
            (text,) = texts
            if literal == literals[0]:
                assert text == expected
            for settings in SETTINGS:
                conn.execute(settings)
                assert _found(conn, column, text) == 1, (literal, text, settings)


def _text(conn: psycopg.Connection, column: Column) -> str:
    row = conn.execute(sql.SQL("SELECT {} FROM kinds k").format(column.as_text("k"))).fetchone()
    assert row is not None
    return str(row[0])


def _found(conn: psycopg.Connection, column: Column, text: str) -> int:
    condition = Table.keys_condition([column], "k").as_string(None)
    return conn.execute(f"SELECT FROM kinds k WHERE {condition}", [[text]]).rowcount


@pytest.mark.every_major
@pytest.mark.parametrize("db_type", VALUES)
def test_notifications_carry_that_text(db: Database, db_type: str) -> None:
    """From writers of every kind of session, in one-row and in many-row statements."""
    from django.db import models

    class Custom(models.Field):
        def db_type(self, connection: object) -> str:
            return db_type

    table = Table.from_model(model("kinds", key=Custom(primary_key=True, db_column="k%1")))
    literals, _ = VALUES[db_type]
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(sql.SQL('CREATE TABLE kinds ("k%1" {} PRIMARY KEY, x int)').format(sql.SQL(db_type)))
        install_on(table)
        conn.execute("SET datestyle = 'ISO, YMD'")
        values = sql.SQL(", ").join([sql.SQL("({})").format(sql.Literal(literal)) for literal in literals])
        conn.execute(sql.SQL("INSERT INTO kinds VALUES {}").format(values))
        texts = {
            (text,)
            for (text,) in conn.execute(
                sql.SQL("SELECT {} FROM kinds k").format(table.primary_key[0].as_text("k"))
            )
        }
        assert _rows(ear.changes()) == texts
        for settings in SETTINGS:
            conn.execute(settings)
            conn.execute("UPDATE kinds SET x = coalesce(x, 0) + 1")
            assert _rows(ear.changes()) == texts
        conn.execute("DELETE FROM kinds WHERE ctid = (SELECT ctid FROM kinds LIMIT 1)")
        assert _rows(ear.changes()) < texts | {()}


def _rows(changes: list[object]) -> set[tuple[str | None, ...]]:
    assert all(isinstance(change, Change) and not change.old for change in changes)
    return {row for change in changes if isinstance(change, Change) for row in change.rows}


def test_composite_keys_are_found(db: Database) -> None:
    columns = [Column("a", "integer"), Column("b%", "timestamp with time zone")]
    with db.connect() as conn:
        conn.execute('CREATE TABLE two (a int, "b%" timestamptz, PRIMARY KEY (a, "b%"))')
        conn.execute("INSERT INTO two VALUES (1, '2020-01-01Z'), (1, '2020-01-02Z'), (2, '2020-01-01Z')")
        condition = Table.keys_condition(columns, "two").as_string(None)
        found = conn.execute(
            f"SELECT a FROM two WHERE {condition}", [["1", "2", "3"], ["2020-01-02T00:00:00"] * 3]
        ).fetchall()
        assert found == [(1,)]


def test_keys_are_looked_up_by_the_index(db: Database) -> None:
    with db.connect() as conn:
        for db_type in (
            "integer",
            "bigint",
            "uuid",
            "varchar(10)",
            "char(3)",
            "timestamp with time zone",
            "numeric(8, 2)",
        ):
            conn.execute(sql.SQL("CREATE TABLE i (k {} PRIMARY KEY)").format(sql.SQL(db_type)))
            conn.execute("SET enable_seqscan = off")
            condition = Table.keys_condition([Column("k", db_type)], "i").as_string(None)
            plan = conn.execute(f"EXPLAIN SELECT FROM i WHERE {condition}", [[]]).fetchall()
            assert any("Index" in line for (line,) in plan), (db_type, plan)
            conn.execute("DROP TABLE i")


@pytest.mark.parametrize(
    "db_type", ["daterange", "tstzrange", "date[]", "double precision[]", "money", "time with time zone"]
)
def test_types_whose_text_depends_on_the_session_are_refused(db_type: str) -> None:
    with pytest.raises(ConfigurationError, match="can't be a key of a live table"):
        Column("k", db_type).as_text("t")


def test_a_type_must_be_a_name() -> None:
    with pytest.raises(ConfigurationError, match="not a type's name"):
        Column("k", "int); DROP TABLE x; --").from_text(sql.Literal("1"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("book", ("book",)),
        ('shop"."book', ("shop", "book")),
        ('"shop"."book"', ("shop", "book")),
        ('"Odd. Name"', ("Odd. Name",)),
        ('we""ird', ('we"ird',)),
        ("100%", ("100%",)),
    ],
)
def test_names_are_read_as_django_quotes_them(name: str, parts: tuple[str, ...]) -> None:
    assert quoted_parts(name) == parts


@pytest.mark.parametrize("name", ["", 'we"ird', 'a"."b"."c', '"', "nul\0"])
def test_names_that_postgresql_can_not_have(name: str) -> None:
    with pytest.raises(ConfigurationError):
        quoted_parts(name)
