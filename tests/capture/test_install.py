"""Installed triggers, compared and mended."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from django.db import connection, models, transaction
from django.test import override_settings

from tests.capture.capturing import install_on, model
from tests.conftest import Database
from trigger_ddp.capture import install
from trigger_ddp.capture.install import State
from trigger_ddp.capture.tables import Table
from trigger_ddp.demo.bookstore.models import Author, Book

pytestmark = pytest.mark.every_major


def thing() -> Table:
    owner = models.ForeignKey("self", models.CASCADE, db_constraint=False)
    return Table.from_model(model("thing", id=models.IntegerField(primary_key=True), owner=owner))


@pytest.fixture
def table(db: Database) -> Table:
    db.psql("CREATE TABLE thing (id int PRIMARY KEY, owner_id int)")
    return thing()


def differences(table: Table) -> tuple[str, ...]:
    (status,) = install.status(connection, [table]).tables
    assert (status.state is State.CURRENT) is (not status.differences)
    assert install.status(connection, [table]).is_current(table) is (not status.differences)
    return status.differences


def test_missing_then_current_then_removed(db: Database, table: Table) -> None:
    assert differences(table) == ("thing has no triggers",)
    install_on(table)
    assert differences(table) == ()
    assert install.install_steps(install.status(connection, [table])) == []
    for step in install.uninstall_steps(install.status(connection, [table])):
        install.apply(connection, step, lock_timeout=1)
    assert differences(table) == ("thing has no triggers",)
    assert db.psql("SELECT proname FROM pg_proc WHERE proname LIKE 'ddp%'") == ""


@pytest.mark.parametrize(
    ("harm", "difference"),
    [
        ("ALTER TABLE thing DISABLE TRIGGER {insert}", "is disabled"),
        ("ALTER TABLE thing DISABLE TRIGGER ALL", "is disabled"),
        ("ALTER TABLE thing ENABLE ALWAYS TRIGGER {insert}", "fires always"),
        ("ALTER TABLE thing ENABLE REPLICA TRIGGER {update}", "fires for replicated changes only"),
        ("DROP TRIGGER {truncate} ON thing", "has no trigger for TRUNCATE"),
        (
            "CREATE OR REPLACE FUNCTION {update}() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RETURN NULL; END'",
            "was edited after it was made",
        ),
        ("ALTER FUNCTION {delete}() SECURITY DEFINER", "was altered"),
        ("ALTER FUNCTION {delete}() SET work_mem = '1GB'", "was altered"),
        (
            "CREATE OR REPLACE TRIGGER {update} AFTER UPDATE OF id ON thing EXECUTE FUNCTION {update}()",
            "is not as it was made",
        ),
        (
            "CREATE OR REPLACE TRIGGER {update} AFTER UPDATE ON thing "
            "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows WHEN (false)"
            " EXECUTE FUNCTION {update}()",
            "is not as it was made",
        ),
        (
            "CREATE OR REPLACE TRIGGER {truncate} AFTER TRUNCATE ON thing"
            " EXECUTE FUNCTION {truncate}('argument')",
            "is not as it was made",
        ),
        ("CREATE TRIGGER extra AFTER DELETE ON thing EXECUTE FUNCTION {truncate}()", "trigger extra is left"),
    ],
)  # fmt: skip
def test_whatever_differs_is_said_and_mended(db: Database, table: Table, harm: str, difference: str) -> None:
    install_on(table)
    names = {
        name.split("_")[-2]: name
        for name in db.psql("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'ddp%'").split()
    }
    db.psql(harm.format(**names))
    found = differences(table)
    assert any(difference in sentence for sentence in found), found
    install_on(table)
    assert differences(table) == ()


def test_another_version_is_outdated_and_replaced_without_locking_the_table(
    db: Database, table: Table
) -> None:
    with override_settings(DDP_BULK_THRESHOLD=3):
        older = thing()
    install_on(older)
    assert all(
        f"is of version {older.version}, not {table.version}" in sentence for sentence in differences(table)
    )
    with db.connect() as writer:
        writer.execute("BEGIN; INSERT INTO thing VALUES (1)")
        install_on(table)
        writer.execute("ROLLBACK")
    comment = db.psql("SELECT obj_description(oid) FROM pg_proc WHERE proname LIKE 'ddp%insert%'")
    assert table.version in comment
    assert older.version not in comment


def test_the_level_stays_unless_told(db: Database, table: Table) -> None:
    install_on(table, level="row")
    assert differences(table) == ()
    (status,) = install.status(connection, [table], level="statement").tables
    assert status.differences == ("thing has row-level triggers, not statement-level",)
    install_on(table, level="statement")
    install_on(table, level="row")
    assert install.status(connection, [table]).tables[0].level == "row"


def test_what_no_table_asks_for_is_pruned(db: Database, table: Table) -> None:
    books, authors = Table.from_model(Book), Table.from_model(Author)
    install_on(books, authors, table)
    db.psql("DROP TABLE bookstore_author CASCADE")
    db.psql("CREATE FUNCTION ddp_mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    db.psql("CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.thing (id int PRIMARY KEY)")
    db.psql("ALTER ROLE postgres SET search_path = elsewhere")
    try:
        connection.close()
        other = Table.from_model(model("thing", id=models.IntegerField(primary_key=True)))
        install_on(other)
    finally:
        db.psql("ALTER ROLE postgres RESET search_path")
        connection.close()
    report = install.status(connection, [books])
    assert [step.table for step in install.prune_steps(report)] != []
    for step in install.prune_steps(report):
        install.apply(connection, step, lock_timeout=1)
    report = install.status(connection, [books])
    assert report.is_current(books)
    assert report.orphans == ()
    left = db.psql(
        "SELECT DISTINCT pronamespace::regnamespace FROM pg_proc WHERE proname ~ '^ddp' ORDER BY 1"
    ).split()
    assert set(left) == {"elsewhere", "public"}
    assert db.psql("SELECT count(*) FROM pg_proc WHERE proname = 'ddp_mine'").strip() == "1"


def test_a_table_in_use_is_left_after_the_timeout(db: Database, table: Table) -> None:
    (step,) = install.install_steps(install.status(connection, [table]))
    with db.connect() as writer:
        writer.execute("BEGIN; INSERT INTO thing VALUES (1)")
        with pytest.raises(install.LockTimeout, match="thing is in use by another transaction"):
            install.apply(connection, step, lock_timeout=0.05)
        writer.execute("INSERT INTO thing VALUES (2); COMMIT")
    assert db.psql("SELECT proname FROM pg_proc WHERE proname LIKE 'ddp%'") == ""
    install.apply(connection, step, lock_timeout=0.05)
    assert differences(table) == ()
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)


def test_a_step_is_done_whole_or_not_at_all(db: Database, table: Table) -> None:
    (step,) = install.install_steps(install.status(connection, [table]))
    broken = dataclasses.replace(step, statements=(*step.statements, "SELECT 1/0"))
    with pytest.raises(Exception, match="division by zero"):
        install.apply(connection, broken, lock_timeout=1)
    assert differences(table) == ("thing has no triggers",)


def test_installers_at_once_do_not_disturb_each_other(db: Database, table: Table) -> None:
    report = install.status(connection, [table])
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for step in install.install_steps(report):
                install.apply(connection, step, lock_timeout=30)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test tells
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert differences(table) == ()


def test_works_inside_a_transaction_of_the_caller(db: Database, table: Table) -> None:
    with transaction.atomic():
        install_on(table)
        transaction.set_rollback(True)
    assert differences(table) == ("thing has no triggers",)
