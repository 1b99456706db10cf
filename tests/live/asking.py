"""Asks a real database what a compiled queryset asks, without a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import connection

from trigger_ddp.api import API
from trigger_ddp.live.compile import compile_queryset
from trigger_ddp.live.compiled import CompiledQuery
from trigger_ddp.live.document import Document, Key, Name
from trigger_ddp.live.evaluation import Found, Route, Statement


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
    found = query.shape.read(ask(query.shape.load, query.routes), set(query.routes))
    return {str(name): document for _, name, document in flat(found) if document is not None}


def look(query: CompiledQuery, *keys: str) -> list[tuple[Route, Name, Document | None]]:
    """What the shape says about some rows for this query."""
    return look_at(query, *[(key,) for key in keys])


def look_at(query: CompiledQuery, *keys: Key) -> list[tuple[Route, Name, Document | None]]:
    """The same, about rows whose keys may have several parts."""
    return flat(query.shape.read_look(ask(query.shape.look, keys), set(query.routes)))


def flat(found: Found) -> list[tuple[Route, Name, Document | None]]:
    """What was found, one by one."""
    return [(route, name, document) for route, those in found.items() for name, document in those.items()]


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
