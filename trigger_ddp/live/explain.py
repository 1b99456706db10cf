"""What PostgreSQL says of a statement: which tables it reads, and how. For worker threads and commands."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from django.db import transaction

#: A partition's rows are its root's: the root is what has a model.
_TABLE = """
    SELECT relname FROM pg_catalog.pg_class
    WHERE oid = coalesce(pg_catalog.pg_partition_root(pg_catalog.to_regclass(%s)), pg_catalog.to_regclass(%s))
"""


@contextlib.contextmanager
def impatient(connection: Any) -> Iterator[Any]:
    """A cursor that waits for a locked table a second at most: an ALTER TABLE must not hold up everybody."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '1s'")
        yield cursor
        cursor.execute("SET LOCAL lock_timeout = DEFAULT")  # for a transaction around this one


def tables_in_plan(connection: Any, text: str) -> set[str]:
    """The tables that the plan of a statement reads, partitions told as their root.

    A part that PostgreSQL knows to contribute nothing (``WHERE false``) is not in the plan; what functions
    read is not either. For a worker thread.

    Args:
        connection: Django's connection.
        text: SQL with its parameters in it.

    Returns:
        Names without quotes, and without their schemas.
    """
    with impatient(connection) as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON, VERBOSE) {text}")
        (plan,) = cursor.fetchone()
        found: set[str] = set()
        for name in set(_relations(json.loads(plan) if isinstance(plan, str) else plan)):
            cursor.execute(_TABLE, [name, name])
            found.update(relation for (relation,) in cursor.fetchall())
    return found


def plan_of(connection: Any, text: str) -> list[str]:
    """The lines of a statement's plan, as EXPLAIN prints it."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {text}")
        return [line for (line,) in cursor.fetchall()]


def read_whole(connection: Any, text: str) -> set[str]:
    """The tables that a statement reads from end to end, for want of an index that would find the rows.

    Tables that PostgreSQL reads whole only because they are small are not among them.
    """
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        # Left with nested loops alone, a plan looks rows up one by one wherever an index lets it.
        for how in ("seqscan", "hashjoin", "mergejoin"):
            cursor.execute(f"SET LOCAL enable_{how} = off")
        cursor.execute(f"EXPLAIN (FORMAT JSON) {text}")
        (plan,) = cursor.fetchone()
        for how in ("seqscan", "hashjoin", "mergejoin"):  # for a transaction around this one
            cursor.execute(f"RESET enable_{how}")
    return set(_scanned(json.loads(plan) if isinstance(plan, str) else plan))


def _scanned(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _scanned(child)
    elif isinstance(node, dict):
        kind = node.get("Node Type", "")
        if kind == "Seq Scan" or (kind in ("Index Scan", "Index Only Scan") and "Index Cond" not in node):
            yield node["Relation Name"]
        for child in node.values():
            yield from _scanned(child)


def _relations(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for child in node:
            yield from _relations(child)
    elif isinstance(node, dict):
        if "Relation Name" in node:
            parts = (node["Schema"], node["Relation Name"])
            yield ".".join('"' + part.replace('"', '""') + '"' for part in parts)
        for child in node.values():
            yield from _relations(child)
