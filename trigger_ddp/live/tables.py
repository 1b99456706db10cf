"""Which tables a query reads, in any of its parts."""

from __future__ import annotations

from collections import Counter

from django.db.models.sql.query import Query

from trigger_ddp.api.dependencies import queries_in


def tables_of(query: Query) -> Counter[str]:
    """The ``db_table`` of every table in ``query``'s FROM clauses, with how often it stands there.

    Subqueries and combinations count. Fragments of raw SQL are opaque: what they read is
    declared with ``depends_on``.
    """
    counted: Counter[str] = Counter()
    for inner in queries_in(query):
        root = inner.get_initial_alias()
        counted.update(
            join.table_name
            for alias, join in inner.alias_map.items()
            if alias == root or inner.alias_refcount.get(alias)
        )
        counted.update(table.strip('"') for table in inner.extra_tables)
    return counted
