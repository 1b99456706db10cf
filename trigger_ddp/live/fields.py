"""Which fields a queryset asks for: the model's, and those that it adds to its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.db import connections
from django.db.models.constants import LOOKUP_SEP
from django.db.models.query import RawQuerySet

from trigger_ddp import ejson
from trigger_ddp.api import Collection
from trigger_ddp.api.documents import encoder_of, loaded_fields
from trigger_ddp.errors import NotLive

Encode = Callable[[Any], bytes]


def fields_asked_for(queryset: Any) -> tuple[frozenset[str] | None, list[str]]:
    """What `only`, `defer`, `values` and `values_list` restrict the documents to.

    Returns:
        The names of the model's own fields, None for all; and the paths to fields of related models.

    Raises:
        NotLive: ``values()`` asks for what has several values for one row.
    """
    if isinstance(queryset, RawQuerySet) or queryset._fields is None:
        return (None if isinstance(queryset, RawQuerySet) else loaded_fields(queryset)), []
    meta: Any = queryset.model._meta
    own = {name for field in meta.concrete_fields for name in (field.name, field.attname)} | {"pk"}
    asked = queryset.query.values_select
    paths = [name for name in asked if name not in own]
    for path in paths:
        steps, *_ = queryset.query.names_to_path(path.split(LOOKUP_SEP), meta)
        if any(step.m2m for step in steps):
            raise NotLive(
                f"values() of a queryset of {meta.label} asks for {path!r}, of which a row may have several; "
                "a document is one row of the model"
            )
    return frozenset(asked) - set(paths), paths


def extras_of(queryset: Any, collection: Collection, alias: str) -> Iterator[tuple[str, Encode, str]]:
    """The fields that a queryset adds to its documents: annotations, ``extra(select=…)``, and columns of raw
    SQL that are no fields.

    Returns:
        The names they are selected by, how their values are encoded, and what tells that from other ways.
    """
    if isinstance(queryset, RawQuerySet):
        quote = connections[alias].introspection.identifier_converter
        model: Any = queryset.model
        known = {quote(field.column) for field in model._meta.concrete_fields}
        for name in queryset.using(alias).columns:
            if quote(name) not in known and name not in queryset.model_fields:
                yield name, ejson.encode, ""
        return
    for name, annotation in queryset.query.annotation_select.items():
        field = annotation.output_field
        kind = f"{type(annotation).__qualname__} {type(field).__qualname__} {field.deconstruct()[1:]}"
        yield name, encoder_of(field, collection.decimal_as), kind
    for name in queryset.query.extra_select:
        yield name, ejson.encode, ""


def related_of(queryset: Any, collection: Collection) -> list[Any]:
    """What instances should have loaded before an own ``serialize`` reads it, besides the published fields.

    The paths of ``depends_on``, and whatever the queryset itself asked for with ``select_related`` and
    ``prefetch_related``.
    """
    paths: list[Any] = [path for path in collection.depends_on if isinstance(path, str) and "." not in path]
    if not isinstance(queryset, RawQuerySet) and isinstance(queryset.query.select_related, dict):
        paths += _paths(queryset.query.select_related)
    return [*dict.fromkeys(paths), *queryset._prefetch_related_lookups]


def prefetches_of(queryset: Any) -> Iterator[str]:
    """What tells the prefetches of two querysets apart: an own ``serialize`` sees what they have filtered."""
    for lookup in queryset._prefetch_related_lookups:
        yield str(getattr(lookup, "prefetch_to", lookup))
        if (filtered := getattr(lookup, "queryset", None)) is not None:
            yield repr(filtered.query.sql_with_params())
            yield from prefetches_of(filtered)


def _paths(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, below in tree.items():
        yield above + name
        yield from _paths(below, above + name + LOOKUP_SEP)
