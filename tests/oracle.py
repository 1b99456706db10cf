"""What clients should have, told by Django's ORM alone.

Independent of how the server goes about it: a publication's querysets are evaluated as an application would,
for instances, and each document is made of a freshly loaded instance.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.query import RawQuerySet

from trigger_ddp import ejson
from trigger_ddp.api import API, Collection
from trigger_ddp.api.documents import loaded_fields
from trigger_ddp.api.encoders import form_of

#: As `DDPClient.documents` has them: collection to document id to fields.
Documents = dict[str, dict[str, dict[str, Any]]]


#: What a publication publishes: a collection, and a queryset of what of it the subscriber may see.
Query = tuple[Collection, QuerySet[Any]]


def queries(publication: str, params: list[Any], user: Any = None) -> list[Query]:
    """The publication's queries, as ``user`` is to see them."""
    asked = map(API.qs_and_collection, API.get_pub_by_name(publication).user_queries(user, *params))
    return [(collection, collection.objects_for_user(user, queryset)) for queryset, collection in asked]


class Oracle:
    """The database as it is now. Make a new one after each change: what it has loaded, it keeps."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, type[Model]], dict[Any, tuple[str, dict[str, Any]]]] = {}

    def documents(self, queries: Iterable[Query]) -> Documents:
        """What a session has that subscribes to these: of a document, the union of its fields."""
        told: Documents = defaultdict(dict)
        for collection, queryset in queries:
            fresh = queryset.using("default") if isinstance(queryset, RawQuerySet) else queryset.all()
            for document_id, fields in self._of(collection, fresh):
                told[collection.name].setdefault(document_id, {}).update(fields)
        return dict(told)

    def _of(self, collection: Collection, queryset: QuerySet[Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        model, rows = queryset.model, list(queryset)
        if isinstance(queryset, RawQuerySet):
            yield from self._of_raw(collection, rows)
            return
        if rows and isinstance(rows[0], dict):
            asked: frozenset[str] | None = frozenset(rows[0])
            rows = list(queryset.values("pk", *rows[0].keys() - {"pk"}))
            keys = [row["pk"] for row in rows]
        else:
            keys, asked = [row.pk for row in rows], loaded_fields(queryset)
            rows = [vars(row) for row in rows]
        columns = {column.name: column.loaded_as for column in collection.serializer(model).columns}
        for key, row in zip(keys, rows, strict=True):
            document_id, everything = self._fresh(collection, model)[key]
            fields = {
                name: value
                for name, value in everything.items()
                if asked is None or name not in columns or not asked.isdisjoint(columns[name])
            }
            for name, annotation in queryset.query.annotation_select.items():
                form = form_of(annotation.output_field, collection.decimal_as)
                value = None if row[name] is None else form.publish(row[name])
                fields[name] = json.loads(ejson.encode(value))
            yield document_id, fields

    def _of_raw(self, collection: Collection, rows: list[Any]) -> Iterable[tuple[str, dict[str, Any]]]:
        for row in rows:
            document_id, fields = self._fresh(collection, type(row))[row.pk]
            own = {field.attname for field in row._meta.concrete_fields}
            extras = {name: value for name, value in vars(row).items() if name not in own and name[0] != "_"}
            yield (
                document_id, {**fields, **{k: json.loads(ejson.encode(v)) for k, v in extras.items()}},
            )  # fmt: skip

    def _fresh(self, collection: Collection, model: type[Model]) -> dict[Any, tuple[str, dict[str, Any]]]:
        """Every row's document with all its fields, by primary key."""
        found = self._all.get((collection.name, model))
        if found is None:
            serializer = collection.serializer(model)
            found = self._all[collection.name, model] = {}
            for instance in model._base_manager.prefetch_related(*serializer.related_paths):
                document_id, fields = serializer.document_of_instance(instance)
                found[instance.pk] = (
                    document_id, {name: json.loads(text) for name, text in fields.items()},
                )  # fmt: skip
        return found


def differences(told: Documents, wanted: Documents) -> list[str]:
    """What is wrong with what a client was told, a line for each document; empty if nothing is."""
    lines = []
    for collection in sorted(told.keys() | wanted.keys()):
        has, should = told.get(collection, {}), wanted.get(collection, {})
        for document_id in sorted(has.keys() | should.keys()):
            mine, right = has.get(document_id), should.get(document_id)
            if mine is None or right is None:
                lines.append(f"{collection} {document_id}: {'missing' if mine is None else 'too many'}")
            elif mine != right:
                wrong = [
                    f"{name} is {mine.get(name, 'not there')!r} for {right.get(name, 'not there')!r}"
                    for name in sorted(mine.keys() | right.keys())
                    if (name in mine, mine.get(name)) != (name in right, right.get(name))
                ]
                lines.append(f"{collection} {document_id}: {', '.join(wrong)}")
    return lines
