"""Install, compare and remove the triggers of tables in one database."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.errors import LockNotAvailable

from trigger_ddp.capture import catalog, statements
from trigger_ddp.capture.catalog import Function
from trigger_ddp.capture.functions import Level
from trigger_ddp.capture.status import Report, State, TableStatus, compare
from trigger_ddp.capture.tables import Table
from trigger_ddp.errors import ConfigurationError

__all__ = [
    "LockTimeout",
    "Report",
    "State",
    "Step",
    "TableStatus",
    "apply",
    "install_steps",
    "prune_steps",
    "status",
    "tables_of",
    "uninstall_steps",
]

#: Two installers at once would replace the same functions, which PostgreSQL answers with an error.
_ADVISORY_LOCK = 7_236_716_190_455_061


class LockTimeout(ConfigurationError):
    """A table is in use by a transaction that did not end in time.

    Args:
        table: the table.
        seconds: how long it was waited for.
    """

    def __init__(self, table: str, seconds: float) -> None:
        super().__init__(table, seconds)
        self.table = table
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"{self.table} is in use by another transaction; gave up after {self.seconds:g} s, so that "
            "nobody else has to queue: run this again, or with a longer --lock-timeout"
        )


def status(connection: BaseDatabaseWrapper, tables: Sequence[Table], *, level: Level | None = None) -> Report:
    """How the triggers of ``tables`` stand, found by one query.

    Args:
        connection: Django's connection to the database.
        tables: any number of them.
        level: the level they should have; None accepts what is installed.

    Raises:
        ConfigurationError: it is not a PostgreSQL database.
        django.db.Error: it can't be asked.
    """
    return compare(tables, catalog.read(connection, tables), level)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What is to be done for one table, in one transaction.

    Args:
        table: the table, as people write it.
        done: what has been done once it is: "installed", "updated", "removed".
        statements: SQL without parameters.
        why: the differences that it mends, a sentence each.
    """

    table: str
    done: str
    statements: tuple[str, ...]
    why: tuple[str, ...] = ()


def install_steps(report: Report) -> list[Step]:
    """What brings every table of ``report`` up to date that isn't and can be."""
    return [
        Step(
            status.table.name,
            "installed" if status.state is State.MISSING else "updated",
            tuple(statements.install(status)),
            status.differences,
        )
        for status in report.tables
        if status.state in (State.MISSING, State.OUTDATED)
    ]


def uninstall_steps(report: Report) -> list[Step]:
    """What removes the triggers of every table of ``report`` that has some."""
    return [
        Step(status.table.name, "removed", tuple(statements.drop(status.functions)))
        for status in report.tables
        if status.functions
    ]


def prune_steps(report: Report) -> list[Step]:
    """What removes the triggers that none of the report's tables has; for a report of all wanted tables."""
    by_tables: dict[str, list[Function]] = {}
    for function in report.orphans:
        by_tables.setdefault(tables_of(function), []).append(function)
    return [
        Step(tables, "removed", tuple(statements.drop(functions))) for tables, functions in by_tables.items()
    ]


def tables_of(function: Function) -> str:
    """The tables whose triggers call ``function``, for people; the function itself where there are none."""
    called_for = {f"{trigger.schema}.{trigger.table}" for trigger in function.triggers or ()}
    return ", ".join(sorted(called_for)) or f"{function.schema}.{function.name}"


def apply(connection: BaseDatabaseWrapper, step: Step, *, lock_timeout: float) -> None:
    """Do one step, in a transaction of its own: all of it or nothing.

    Args:
        connection: Django's connection to the database.
        step: what to do.
        lock_timeout: seconds to wait for other transactions that write the table. Whoever wants to write it
            meanwhile has to queue, so keep it short; 0 waits for ever.

    Raises:
        LockTimeout: they took longer.
        django.db.Error: PostgreSQL refused, for instance for lack of rights.
    """
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_catalog.set_config('lock_timeout', %s, true)", [f"{round(lock_timeout * 1000)}ms"]
            )
            cursor.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s)", [_ADVISORY_LOCK])
            for statement in step.statements:
                cursor.execute(statement)
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            raise LockTimeout(step.table, lock_timeout) from error
        raise
