"""Asks a real database what a compiled queryset asks, without a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import connection

from trigger_ddp.api import API
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.document import Document, Key
from trigger_ddp.live.evaluation import Answer, Statement


def compiled(queryset: Any, **kwargs: Any) -> CompiledQuery:
    return compile_queryset(API.collection_for_model(queryset.model), queryset, **kwargs)


def ask(statement: Statement | None, tuples: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows of a statement about these keys, routes or foreign keys; none without a statement."""
    if statement is None:
        return []
    with connection.cursor() as cursor:
        cursor.execute(*statement.about(tuples))
        return cursor.fetchall()


def load(query: CompiledQuery) -> dict[str, Document]:
    """All documents, by the row's key."""
    answers = query.shape.read(ask(query.shape.load, query.routes), set(query.routes))
    return {key: document for (key,), _, document in answers if document is not None}


def look(query: CompiledQuery, *keys: str) -> list[Answer]:
    """What the shape says about some rows for this query."""
    rows = ask(query.shape.look, [(key,) for key in keys])
    return query.shape.read_look(rows, set(query.routes))


def found_by(query: CompiledQuery, table: str, row: tuple[str | None, ...]) -> set[Key] | None:
    """The root's keys that the query looks at when ``row`` of ``table`` is told; None for all."""
    links = query.shape.tables[table].links
    if links is None:
        return None
    keys: set[Key] = set()
    for link in links:
        values = tuple(row[position] for position in link.positions)
        if None not in values:
            keys |= {values} if link.find is None else set(map(tuple, ask(link.find, [values])))
    return keys
