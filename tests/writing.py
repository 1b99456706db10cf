"""What the property tests share: writers whose transactions interleave, and statements to make up."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import psycopg
from hypothesis import strategies as st

from tests.conftest import Database

#: What PostgreSQL may say to a statement or commit that hypothesis made up.
REFUSALS = (
    psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.IntegrityError,
    psycopg.errors.ObjectInUse,
)  # fmt: skip


def examples(default: int) -> int:
    """How many scripts to try; more for a long run: TDDP_PROPERTY_EXAMPLES=5000."""
    return int(os.environ.get("TDDP_PROPERTY_EXAMPLES", default))


def sql(template: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """Statements from a template with ``{0}``, ``{1}`` … for the parts."""
    return st.tuples(*parts).map(lambda values: template.format(*values))


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of the strategies, each as often as its number says: `one_of` drops repetitions and nesting."""
    repeated = [strategy for times, strategy in choices for _ in range(times)]
    return st.sampled_from(repeated).flatmap(lambda strategy: strategy)


class Writer:
    """A connection with a transaction that may stay open while others write."""

    #: What `control` does.
    CONTROLS = ("commit", "rollback", "savepoint", "rollback to savepoint")

    def __init__(self, db: Database) -> None:
        self.connection = psycopg.connect(db.dsn)
        # Statements that wait for another writer's lock give up: the test has one thread.
        self.connection.execute("SET lock_timeout = '20ms'")
        self.connection.commit()
        self.savepoint = False

    def sql(self, statement: str) -> None:
        # A refused statement is rolled back to before it.
        with contextlib.suppress(*REFUSALS), self.connection.transaction():
            self.connection.execute(statement)

    def control(self, what: str) -> None:
        if what == "savepoint":
            self.connection.execute("SAVEPOINT s")
            self.savepoint = True
        elif what == "rollback to savepoint":
            if self.savepoint:
                self.connection.execute("ROLLBACK TO SAVEPOINT s")
        else:
            self.savepoint = False
            with contextlib.suppress(*REFUSALS):  # a deferred constraint: the transaction is rolled back
                getattr(self.connection, what)()

    def close(self) -> None:
        self.connection.close()
