"""What the triggers say of every kind of statement and table; and that they never get in its way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection, models
from django.test import override_settings

from tests.capture.capturing import install_on, listening, model
from tests.conftest import Database
from trigger_ddp.capture.functions import Level
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.demo.bookstore.models import Author, Book

pytestmark = pytest.mark.every_major

LEVELS = pytest.mark.parametrize("level", ["statement", "row"])
BULK = Gap("thing", "bulk")


def thing(**fields: Any) -> Table:
    """A table ``thing`` with a key ``id``, and a foreign key ``owner_id`` to itself."""
    fields.setdefault("id", models.IntegerField(primary_key=True))
    owner = models.ForeignKey("self", models.CASCADE, db_constraint=False)
    return Table.from_model(model("thing", owner=owner, **fields))


@LEVELS
def test_each_kind_of_statement(db: Database, level: Level) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int, data json)")
        install_on(table, level=level)
        for statement, expected in [
            ("INSERT INTO thing VALUES (1, NULL, '{}')", [Change("thing", "I", (("1", None),))]),
            ("UPDATE thing SET data = '[]'", [Change("thing", "U", (("1", None),))]),
            ("UPDATE thing SET data = '[]'", []),
            ("UPDATE thing SET owner_id = 2", [Change("thing", "U", (("1", "2"),), (("1", None),))]),
            ("UPDATE thing SET id = 3", [Change("thing", "U", (("3", "2"),), (("1", "2"),))]),
            ("UPDATE thing SET id = 3 WHERE id = 4", []),
            ("INSERT INTO thing SELECT WHERE false", []),
            ("DELETE FROM thing", [Change("thing", "D", (("3", "2"),))]),
            ("DELETE FROM thing", []),
            ("TRUNCATE thing", [Gap("thing", "truncate")]),
        ]:  # fmt: skip
            conn.execute(statement)
            assert ear.changes() == expected, statement


def test_many_rows_make_as_few_notifications_as_hold_them(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        install_on(table)
        conn.execute("INSERT INTO thing SELECT i, i FROM generate_series(10001, 14000) i")
        payloads = ear.payloads()
        # "[10001,10001]," is 14 bytes
        assert len(payloads) == -(-4000 // (7977 // 14))
        conn.execute("UPDATE thing SET owner_id = -owner_id")
        changes = ear.changes()
        assert sum(len(change.rows) for change in changes if isinstance(change, Change)) == 4000
        assert all(
            {key for key, _ in change.rows} == {key for key, _ in change.old}
            for change in changes
            if isinstance(change, Change)
        )


@override_settings(DDP_BULK_THRESHOLD=10)
def test_above_the_threshold_there_is_one_notification(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        install_on(table)
        for rows, expected in [(10, False), (11, True)]:
            for statement in [
                f"INSERT INTO thing SELECT i, i FROM generate_series(1, {rows}) i",
                "UPDATE thing SET owner_id = 0",
                "DELETE FROM thing",
            ]:
                conn.execute(statement)
                changes = ear.changes()
                assert (changes == [BULK]) is expected
                assert (
                    expected
                    or sum(len(change.rows) for change in changes if isinstance(change, Change)) == 10
                )


@LEVELS
def test_a_key_that_does_not_fit_is_bulk(db: Database, level: Level) -> None:
    table = thing(id=models.TextField(primary_key=True))
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id text PRIMARY KEY, owner_id text, n int)")
        install_on(table, level=level)
        room = 7999 - len('["01234567","U",[["",null]],[]]')
        for key, fits in [
            ("x" * room, True),
            ("x" * (room + 1), False),
            ("é" * (room // 2 + 1), False),
            ('"' * 4500, False),
        ]:
            for statement in [
                "INSERT INTO thing VALUES (%s)",
                "UPDATE thing SET n = 1 WHERE id = %s",
                "DELETE FROM thing WHERE id = %s",
            ]:
                conn.execute(statement, [key])
                (change,) = ear.changes()
                assert isinstance(change, Change) if fits else change == BULK, (statement, len(key))
        # two at once, each half of what a notification holds
        conn.execute("INSERT INTO thing VALUES (repeat('y', 5000)), (repeat('z', 5000)), ('a')")
        rows = sorted(
            row[0] or "" for change in ear.changes() if isinstance(change, Change) for row in change.rows
        )
        assert rows == ["a", "y" * 5000, "z" * 5000]
        conn.execute("INSERT INTO thing VALUES ('b'), (repeat('x', 9000))")
        assert BULK in ear.changes()
        conn.execute("UPDATE thing SET owner_id = repeat('o', 100000)")
        assert BULK in ear.changes()


def test_an_enormous_foreign_key_does_not_fail_the_statement(db: Database) -> None:
    """The JSON of 300 MB of control characters would be 1.8 GB, which PostgreSQL can't build."""
    table = thing(id=models.TextField(primary_key=True))
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id text PRIMARY KEY, owner_id text)")
        install_on(table)
        conn.execute("INSERT INTO thing VALUES ('a', repeat(chr(1), 300000000))")
        assert ear.changes() == [BULK]


@LEVELS
def test_nothing_is_told_of_what_is_rolled_back(db: Database, level: Level) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        install_on(table, level=level)
        with conn.transaction(force_rollback=True):
            conn.execute("INSERT INTO thing VALUES (1)")
        assert ear.changes() == []
        with conn.transaction():
            conn.execute("INSERT INTO thing VALUES (1)")
            with conn.transaction(force_rollback=True):
                conn.execute("INSERT INTO thing VALUES (2)")
            with conn.transaction():
                conn.execute("INSERT INTO thing VALUES (3)")
            with pytest.raises(psycopg.errors.UniqueViolation), conn.transaction():
                conn.execute("INSERT INTO thing VALUES (4), (3)")
            assert ear.changes() == []
        assert [change.rows for change in ear.changes() if isinstance(change, Change)] == [
            (("1", None),),
            (("3", None),),
        ]


def test_copy_upsert_and_cascade(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute(
            "CREATE TABLE thing (id int PRIMARY KEY, n int,"
            " owner_id int REFERENCES thing ON DELETE CASCADE ON UPDATE CASCADE)"
        )
        install_on(table)
        with conn.cursor().copy("COPY thing (id, owner_id, n) FROM STDIN") as copy:
            copy.write("1\t\\N\t0\n2\t1\t0\n3\t2\t0\n")
        assert ear.changes() == [Change("thing", "I", (("1", None), ("2", "1"), ("3", "2")))]
        conn.execute(
            "INSERT INTO thing (id, owner_id, n) VALUES (3, 2, 5), (4, 1, 5), (2, 1, 0)"
            " ON CONFLICT (id) DO UPDATE SET n = excluded.n"
        )
        assert ear.changes() == [Change("thing", "U", (("3", "2"),)), Change("thing", "I", (("4", "1"),))]
        conn.execute("INSERT INTO thing VALUES (3, 5, 2) ON CONFLICT DO NOTHING")
        assert ear.changes() == []
        conn.execute("UPDATE thing SET id = 20 WHERE id = 2")
        told = ear.changes()
        assert {row for change in told if isinstance(change, Change) for row in change.rows} == {
            ("20", "1"),
            ("3", "20"),
        }
        assert {row for change in told if isinstance(change, Change) for row in change.old} == {
            ("2", "1"),
            ("3", "2"),
        }
        conn.execute("DELETE FROM thing WHERE id = 1")
        rows = {row for change in ear.changes() if isinstance(change, Change) for row in change.rows}
        assert rows == {("1", None), ("20", "1"), ("3", "20"), ("4", "1")}


def test_merge(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int, n int)")
        conn.execute("INSERT INTO thing VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)")
        install_on(table)
        conn.execute(
            "MERGE INTO thing t USING (VALUES (1), (2), (3), (4)) AS s (id) ON t.id = s.id "
            "WHEN MATCHED AND t.id = 1 THEN DELETE WHEN MATCHED AND t.id = 2 THEN UPDATE SET owner_id = 9 "
            "WHEN MATCHED THEN UPDATE SET n = n WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.id, 0)"
        )
        assert sorted(ear.changes(), key=str) == [
            Change("thing", "D", (("1", "1"),)),
            Change("thing", "I", (("4", "4"),)),
            Change("thing", "U", (("2", "9"),), (("2", "2"),)),
        ]


def test_keys_that_change_places(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY DEFERRABLE, owner_id int)")
        conn.execute("INSERT INTO thing VALUES (1, 10), (2, 20), (3, 30), (4, NULL), (5, NULL)")
        install_on(table)
        conn.execute("UPDATE thing SET id = 6 - id")
        (change,) = ear.changes()
        assert isinstance(change, Change)
        # 3 stays where it is and as it is
        assert set(change.rows) == {("5", "10"), ("4", "20"), ("2", None), ("1", None)}
        assert set(change.old) == {("1", "10"), ("2", "20"), ("4", None), ("5", None)}


def test_the_second_statement_may_be_larger_than_the_first(db: Database) -> None:
    """Without a nested loop: joining 4000 old with 4000 new rows by one visits 16 million pairs."""
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        conn.execute("INSERT INTO thing SELECT i, 0 FROM generate_series(1, 4000) i")
        install_on(table)
        plans: list[str] = []
        conn.add_notice_handler(lambda notice: plans.append(notice.message_detail or ""))
        conn.execute("SET debug_print_plan = on; SET client_min_messages = log")
        conn.execute("UPDATE thing SET owner_id = 1 WHERE id = 1")
        conn.execute("UPDATE thing SET owner_id = 1 WHERE id IN (2, 3)")
        joins = [plan for plan in plans if "{HASHJOIN" in plan or "{MERGEJOIN" in plan]
        assert len(joins) == 1
        assert "{NESTLOOP" not in joins[0]
        plans.clear()
        conn.execute("UPDATE thing SET owner_id = 2 WHERE id <= 4000")
        assert not any("JOIN" in plan for plan in plans), "the plan was not kept"
        assert sum(len(change.rows) for change in ear.changes() if isinstance(change, Change)) == 4003


def test_a_writer_needs_no_more_rights_than_before(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        install_on(table)
        conn.execute("DROP ROLE IF EXISTS clerk; CREATE ROLE clerk LOGIN; GRANT INSERT ON thing TO clerk")
        try:
            with psycopg.connect(db.dsn.replace("user=postgres", "user=clerk"), autocommit=True) as clerk:
                clerk.execute("INSERT INTO thing VALUES (1), (2)")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    clerk.execute("SELECT * FROM thing")
            assert ear.changes() == [Change("thing", "I", (("1", None), ("2", None)))]
        finally:
            conn.execute("REVOKE ALL ON thing FROM clerk; DROP ROLE clerk")


@LEVELS
def test_the_search_path_has_no_say(db: Database, level: Level) -> None:
    """A writer whose search path puts look-alikes before PostgreSQL's own."""
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        install_on(table, level=level)
        conn.execute(
            """
            CREATE SCHEMA trap;
            CREATE FUNCTION trap.fail() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END';
            CREATE FUNCTION trap.pg_notify(text, text) RETURNS int LANGUAGE sql AS 'SELECT trap.fail()';
            CREATE FUNCTION trap.octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT trap.fail()';
            CREATE FUNCTION trap.same(int, int) RETURNS bool LANGUAGE sql AS 'SELECT trap.fail() IS NULL';
            CREATE FUNCTION trap.same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT trap.fail() IS NULL';
            CREATE FUNCTION trap.plus(int, int) RETURNS int LANGUAGE sql AS 'SELECT trap.fail()';
            CREATE OPERATOR trap.+ (FUNCTION = trap.plus, LEFTARG = int, RIGHTARG = int);
            CREATE OPERATOR trap.> (FUNCTION = trap.same, LEFTARG = int, RIGHTARG = int);
            CREATE OPERATOR trap.<= (FUNCTION = trap.same, LEFTARG = int, RIGHTARG = int);
            CREATE OPERATOR trap.<> (FUNCTION = trap.same, LEFTARG = text, RIGHTARG = text);
            CREATE OPERATOR trap.= (FUNCTION = trap.same, LEFTARG = text, RIGHTARG = text);
            CREATE DOMAIN trap.text AS pg_catalog.text CHECK (false);
            CREATE TABLE trap.new_rows (id int, owner_id int);
            CREATE TEMPORARY TABLE old_rows (id int, owner_id int);
            CREATE DOMAIN pg_temp.int4 AS int CHECK (false);
            SET search_path = trap, pg_temp, pg_catalog;
            """
        )
        conn.execute("INSERT INTO public.thing VALUES (1, 1)")
        conn.execute("INSERT INTO public.thing VALUES (2, 2), (3, 3)")
        conn.execute("UPDATE public.thing SET owner_id = NULL WHERE public.thing.id OPERATOR(pg_catalog.=) 1")
        conn.execute("UPDATE public.thing SET owner_id = NULL")
        conn.execute("DELETE FROM public.thing")
        told = {
            (change.op, row) for change in ear.changes() if isinstance(change, Change) for row in change.rows
        }
        assert told == {
            ("I", ("1", "1")), ("I", ("2", "2")), ("I", ("3", "3")),
            ("U", ("1", None)), ("U", ("2", None)), ("U", ("3", None)),
            ("D", ("1", None)), ("D", ("2", None)), ("D", ("3", None)),
        }  # fmt: skip


def test_a_bulk_statement_keeps_no_rows_in_memory(db: Database) -> None:
    table = thing()

    def most_memory(conn: psycopg.Connection) -> int:
        status = Path(f"/proc/{conn.info.backend_pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) // 1024

    with db.connect() as conn, db.connect() as another:
        for name in ("thing", "other"):
            conn.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, owner_id int)")
        install_on(table)
        another.execute("INSERT INTO other SELECT i FROM generate_series(1, 500000) i")
        conn.execute("INSERT INTO thing SELECT i FROM generate_series(1, 500000) i")
        assert most_memory(conn) - most_memory(another) < 20  # MiB; kept they are some 40


def test_composite_keys(db: Database) -> None:
    table = Table.from_model(
        model(
            "pair",
            pk=models.CompositePrimaryKey("b", "a"),
            a=models.IntegerField(),
            b=models.TextField(),
            c=models.IntegerField(),
        )
    )
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE pair (a int, b text, c int, PRIMARY KEY (b, a))")
        install_on(table)
        conn.execute("INSERT INTO pair VALUES (1, 'x', 0), (1, 'y', 0), (2, 'x', 0)")
        conn.execute("UPDATE pair SET a = 3 WHERE b = 'x' AND a = 1")
        conn.execute("UPDATE pair SET c = CASE WHEN a = 2 THEN 0 ELSE 1 END")
        assert (
            ear.changes()
            == [
                Change("pair", "I", (("x", "1"), ("y", "1"), ("x", "2"))),
                Change("pair", "U", (("x", "3"),), (("x", "1"),)),
                Change("pair", "U", (("x", "3"), ("y", "1"))),
            ]
            or ear.changes() == []
        )


@LEVELS
def test_collations_that_take_different_texts_for_equal(db: Database, level: Level) -> None:
    owner = models.ForeignKey("self", models.CASCADE, db_constraint=False)
    table = Table.from_model(model("thing", id=models.TextField(primary_key=True), owner=owner))
    with db.connect() as conn, listening(db, table) as ear:
        try:
            conn.execute(
                "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("this PostgreSQL was built without ICU, so all its collations are deterministic")
        conn.execute('CREATE TABLE thing (id text COLLATE nocase PRIMARY KEY, owner_id text COLLATE "POSIX")')
        install_on(table, level=level)
        conn.execute("INSERT INTO thing VALUES ('a', 'x'), ('b', 'y')")
        ear.changes()
        conn.execute("UPDATE thing SET id = 'A' WHERE id = 'a'")
        assert ear.changes() == [Change("thing", "U", (("A", "x"),), (("a", "x"),))]
        conn.execute("UPDATE thing SET id = lower(id), owner_id = upper(owner_id)")
        changes = [change for change in ear.changes() if isinstance(change, Change)]
        assert {row for change in changes for row in change.rows} == {("a", "X"), ("b", "Y")}
        assert {row for change in changes for row in change.old} == {("A", "x"), ("b", "y")}


def test_what_a_replication_role_writes_is_seen_by_row_triggers_alone(db: Database) -> None:
    table = thing()
    with db.connect() as conn, listening(db, table) as ear:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        for level, seen in (("statement", False), ("row", True)):
            install_on(table, level=level)  # type: ignore[arg-type]
            conn.execute("SET session_replication_role = replica")
            conn.execute("INSERT INTO thing VALUES (1)")
            conn.execute("TRUNCATE thing")
            conn.execute("SET session_replication_role = origin")
            assert bool(ear.changes()) is seen


def test_prepared_transactions_are_refused_by_postgresql(db: Database) -> None:
    """A limit of NOTIFY that the documentation names."""
    table = thing()
    with db.connect() as conn:
        conn.execute("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
        install_on(table)
        conn.execute("BEGIN")
        conn.execute("INSERT INTO thing VALUES (1)")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            conn.execute("PREPARE TRANSACTION 'x'")
        conn.execute("ROLLBACK")


def test_every_way_the_orm_writes(db: Database) -> None:
    books, links = Table.from_model(Book), Table.from_model(Book.tags.through)
    install_on(books, links)
    with listening(db, books, links) as ear:
        author = Author.objects.create(name="A", email="a@example.org")
        book = Book.objects.create(title="one", author=author)
        Book.objects.bulk_create([Book(title=str(n), author=author) for n in range(3)])
        Book.objects.filter(title="0").update(title="zero")
        book.tags.create(name="t")
        Book.objects.all().delete()
        keys = {
            (change.table, change.op, len(change.rows))
            for change in ear.changes()
            if isinstance(change, Change)
        }
    assert keys == {
        ("bookstore_book", "I", 1), ("bookstore_book", "I", 3),
        ("bookstore_book", "U", 1), ("bookstore_book", "D", 4),
        ("bookstore_book_tags", "I", 1), ("bookstore_book_tags", "D", 1),
    }  # fmt: skip
    connection.close()


def test_other_server_encodings(db: Database) -> None:
    """The limit counts bytes of the server's encoding; a LATIN1 server stores é in one."""
    name = f"{db.name}_latin1"
    with db.cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        latin = Database(db.cluster, name)
        from tests.conftest import point_django_at

        point_django_at(db.cluster, name)
        table = Table.from_model(model("thíng", id=models.TextField(primary_key=True)))
        with latin.connect() as conn, listening(latin, table) as ear:
            conn.execute('CREATE TABLE "thíng" (id text PRIMARY KEY)')
            install_on(table)
            conn.execute("""INSERT INTO "thíng" VALUES (repeat('é', 5000)), ('ü')""")
            rows = {
                row
                for change in [decode_any(table, payload) for _, payload in ear.payloads()]
                for row in change.rows
            }
            assert rows == {("é" * 5000,), ("ü",)}
    finally:
        connection.close()
        with db.cluster.connect() as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def decode_any(table: Table, payload: str) -> Change:
    from trigger_ddp.changes.decode import decode

    change = decode(table, payload)
    assert isinstance(change, Change)
    return change
