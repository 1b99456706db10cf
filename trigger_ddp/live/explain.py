"""What PostgreSQL says a statement reads: for SQL that Django passes on without understanding it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

#: A partition's rows are its root's: the root is what has a model.
_TABLE = """
    SELECT relname FROM pg_catalog.pg_class
    WHERE oid = coalesce(pg_catalog.pg_partition_root(pg_catalog.to_regclass(%s)), pg_catalog.to_regclass(%s))
"""


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
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT JSON, VERBOSE) {text}")
        (plan,) = cursor.fetchone()
        found: set[str] = set()
        for name in set(_relations(json.loads(plan) if isinstance(plan, str) else plan)):
            cursor.execute(_TABLE, [name, name])
            found.update(relation for (relation,) in cursor.fetchall())
    return found


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
