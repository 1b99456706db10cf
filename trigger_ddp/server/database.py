"""The questions that the engine asks, run on Django's connection of a worker thread."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from django.db import connections
from django.db.utils import InterfaceError, OperationalError

from trigger_ddp.live.evaluation import Answers, Evaluation, Row

#: How long an evaluation waits for a lock that conflicts with reading.
LOCK_MILLISECONDS = 250

_prepared: WeakSet[Any] = WeakSet()  # connections, the driver's own

#: SQLSTATE classes after which the same question may well be answered later: connection exceptions,
#: rollbacks (serialisation, deadlock), insufficient resources, and the server going down or coming up.
_PASSING = ("08", "40", "53", "57P", "55P03")


def answer(evaluation: Evaluation, alias: str) -> Answers:
    """Run one evaluation. For a worker thread.

    Raises:
        Exception: whatever the database, or a `serialize` of the application, raises.
    """
    connection = connections[alias]
    _prepare(connection)
    steps = evaluation.steps()
    try:
        question = next(steps)
        while True:
            question = steps.send(_rows(connection, *question.statement.about(question.tuples)))
    except StopIteration as end:
        answers: Answers = end.value
        return answers


def _rows(connection: Any, sql: str, params: tuple[Any, ...]) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        rows: list[Row] = cursor.fetchall()
        return rows


def _prepare(connection: Any) -> None:
    """Once for each connection: don't let one table that is locked keep a thread that others need."""
    connection.ensure_connection()
    if connection.connection not in _prepared:
        # Through Django, so that a connection that is lost here raises what `is_passing` knows.
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {LOCK_MILLISECONDS}")
        _prepared.add(connection.connection)


def is_locked(error: BaseException) -> bool:
    """Whether ``error`` says that a table was locked for too long: an ALTER TABLE, for instance."""
    return getattr(error.__cause__, "sqlstate", None) == "55P03"


def is_passing(error: BaseException) -> bool:
    """Whether ``error`` says that the database is away or busy, rather than that the question is wrong."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    return sqlstate is None or sqlstate.startswith(_PASSING)


def first_line(error: BaseException) -> str:
    """What went wrong, without PostgreSQL's drawing of where."""
    return str(error).strip().partition("\n")[0]
