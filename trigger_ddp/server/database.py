"""The questions that the engine asks, run on Django's connection of a worker thread."""

from __future__ import annotations

from django.db import connections
from django.db.utils import InterfaceError, OperationalError

from trigger_ddp.live.evaluation import Answer, Evaluation

#: SQLSTATE classes after which the same question may well be answered later: connection exceptions,
#: rollbacks (serialisation, deadlock), insufficient resources, and the server going down or coming up.
_PASSING = ("08", "40", "53", "57P", "55P03")


def answer(evaluation: Evaluation, alias: str) -> list[Answer]:
    """Run one evaluation. For a worker thread.

    Raises:
        Exception: whatever the database, or a `serialize` of the application, raises.
    """
    statement = evaluation.statement
    if statement is None:
        return []
    with connections[alias].cursor() as cursor:
        cursor.execute(statement.sql, evaluation.params)
        rows = cursor.fetchall()
    return evaluation.read(rows)


def is_passing(error: BaseException) -> bool:
    """Whether ``error`` says that the database is away or busy, rather than that the question is wrong."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    return sqlstate is None or sqlstate.startswith(_PASSING)


def first_line(error: BaseException) -> str:
    """What went wrong, without PostgreSQL's drawing of where."""
    return str(error).strip().partition("\n")[0]
