"""What the tests of this folder ask of a collection: the documents of a queryset, decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from trigger_ddp import ejson
from trigger_ddp.api import Collection
from trigger_ddp.api.documents import Serializer
from trigger_ddp.api.ids import id_text


def collection_of(of_model: Any, **attributes: Any) -> Collection:
    """An unregistered collection of a model."""
    return type("Tested", (Collection,), {"model": of_model, **attributes})()


def documents(collection: Collection, queryset: QuerySet[Any], only: Any = None) -> dict[str, dict[str, Any]]:
    """Every row's document by its id, read both ways: by one query of columns, and from instances."""
    serializer = collection.serializer(queryset.model, only)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        rows = list(queryset.values_list(*(expression for _, expression in serializer.values())))
    assert len(queries) == 1
    by_columns = dict(document_of_row(serializer, row) for row in rows)
    assert len(by_columns) == len(rows)
    for obj in list(queryset.prefetch_related(*serializer.related_paths)):
        with CaptureQueriesContext(connection) as queries:
            document_id, fields = serializer.document_of_instance(obj)
        assert not queries.captured_queries
        published = {name: fields[name] for name in fields if name in by_columns[document_id]}
        assert decoded(published) == decoded(by_columns[document_id])
    return {document_id: decoded(fields) for document_id, fields in by_columns.items()}


def document_of_row(serializer: Serializer, row: Sequence[Any]) -> tuple[str, dict[str, bytes]]:
    """One row's document id and fields."""
    width = len(serializer.id_paths)
    fields = serializer.fields([[value] for value in row[width:]])
    return id_text(row[:width]), {name: text for name, (text,) in fields.items()}


def decoded(fields: dict[str, bytes]) -> dict[str, Any]:
    return {name: ejson.decode(text) for name, text in fields.items()}
