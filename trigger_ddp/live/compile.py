"""From a Django queryset to what the engine needs: statements, what they depend on, how to read their rows.

Compiling asks Django for SQL and may open a database connection: do it on a worker thread.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from django.apps import apps
from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import (
    BooleanField,
    Expression,
    F,
    Model,
    Q,
    QuerySet,
    TextField,
    prefetch_related_objects,
)
from django.db.models.query import ModelIterable
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND

from trigger_ddp import conf
from trigger_ddp.api import Collection
from trigger_ddp.api.dependencies import has_raw_sql, resolve_dependency, tables_of
from trigger_ddp.api.documents import Serializer, loaded_fields
from trigger_ddp.api.publication import Dependency as DeclaredDependency
from trigger_ddp.capture.columns import Column, quoted_parts
from trigger_ddp.capture.tables import Table
from trigger_ddp.errors import NotLive
from trigger_ddp.live.document import Document
from trigger_ddp.live.evaluation import Answer, KeyPart, Route, Statement
from trigger_ddp.live.explain import tables_in_plan

#: Per position of a row, what Django does to the value that PostgreSQL gave, and the expression it came from.
Converters = Mapping[int, tuple[Sequence[Callable[[Any, Any, Any], Any]], Any]]


Identity = tuple[str, str, tuple[tuple[str, str], ...]]

#: Django sets up joins on queries that querysets share while it compiles them.
_compiling = threading.Lock()


class Reach(enum.Enum):
    """What a change of a table means for a query that reads it."""

    KEYS = "the notification names the rows to look at"
    EVERYTHING = "any row may be concerned"


@dataclasses.dataclass(frozen=True, slots=True)
class Dependency:
    """How a query depends on one table.

    Args:
        table: the table.
        reach: what a change of it means.
        first: for `Reach.KEYS`, where in a `Row` of the table the key of the root's row begins …
        last: … and ends.
    """

    table: Table
    reach: Reach
    first: int = 0
    last: int = 0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CompiledQuery:
    """One queryset of one collection, ready to be kept live.

    Args:
        collection: the collection's name.
        identity: equal for two querysets just when they can share a shape: the collection, the SQL
            with its parameters, and what it depends on.
        route: the parameters that were lifted out of the SQL.
        tables: table name to dependency, for every table the query or its documents read.
        everything: the statement for all rows, or None where there can't be any.
        by_keys: the statement for given keys, or None likewise.
        read: see `Evaluation.read`.
    """

    collection: str
    identity: Identity
    route: Route
    tables: Mapping[str, Dependency]
    everything: Statement | None
    by_keys: Statement | None
    read: Callable[[Iterable[Sequence[Any]]], list[Answer]]


class _KeyText(Expression):
    """One part of the root's primary key, as the text that notifications carry."""

    output_field = TextField()

    def __init__(self, column: Column) -> None:
        super().__init__(output_field=self.output_field)
        self.column = column
        self.alias = ""

    def resolve_expression(self, query: Any = None, *args: Any, **kwargs: Any) -> _KeyText:
        resolved = self.copy()
        resolved.alias = query.get_initial_alias()
        return resolved

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        # Percent signs in names are doubled: the statement is executed with parameters.
        return self.column.as_text(self.alias).as_string(None).replace("%", "%%"), ()


class _KeyIn(Expression):
    """Whether the root's primary key is among the keys asked about; the keys are left open as `KeyPart`s."""

    output_field = BooleanField()
    conditional = True

    def __init__(self, columns: Sequence[Column], alias: str) -> None:
        super().__init__(output_field=self.output_field)
        self.columns = columns
        self.alias = alias

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return Table.keys_condition(self.columns, self.alias).as_string(None), tuple(
            KeyPart(position) for position in range(len(self.columns))
        )


def compile_queryset(
    collection: Collection, queryset: QuerySet[Any], depends_on: Iterable[DeclaredDependency] = ()
) -> CompiledQuery:
    """Compile ``queryset`` for ``collection``.

    Args:
        collection: gives the documents their fields.
        queryset: any queryset of the collection's model.
        depends_on: models whose changes concern it although its SQL does not show them.

    Raises:
        NotLive: it can't be kept live as it is written.
        Exception: whatever Django raises for a queryset it can't compile.
    """
    with _compiling:
        return _compile(collection, queryset, depends_on)


def _compile(
    collection: Collection, queryset: Any, depends_on: Iterable[DeclaredDependency]
) -> CompiledQuery:
    label, alias = queryset.model._meta.label, conf.settings().database
    if not isinstance(queryset.query, Query):
        raise NotLive(f"a raw queryset of {label} can't be kept live")
    if queryset._db not in (None, alias):
        raise NotLive(f"a queryset of {label} is of database {queryset._db!r}; only {alias!r} is listened to")
    serializer = collection.serializer(queryset.model, _fields_asked_for(queryset))
    reader = (_InstanceReader if serializer.custom else _RowReader)(serializer, alias)
    rows = _plain(queryset, alias)
    root = Table.from_model(queryset.model)
    keys = {f"_key{index}": _KeyText(column) for index, column in enumerate(root.primary_key)}
    selected = rows.annotate(**keys, **reader.expressions).values_list(*keys, *reader.expressions)
    try:
        everything, converters = _statement(selected.query, alias)
        keyed = selected.query.chain()
        keyed.where.add(_KeyIn(root.primary_key, keyed.get_initial_alias()), AND)
        by_keys, _ = _statement(keyed, alias)
    except EmptyResultSet:  # none(), or a filter that Django knows to match nothing
        return CompiledQuery(collection.name, (collection.name, "", ()), (), {}, None, None, lambda _: [])
    declared = [
        model
        for dependency in (*collection.depends_on, *depends_on)
        for model in resolve_dependency(dependency, collection.model)
    ]
    operations: Any = connections[alias].ops
    text = operations.compose_sql(everything.sql, everything.params)
    tables = _dependencies(root, rows.query, selected.query, serializer, declared, alias, text)
    reaches = tuple(sorted((name, dependency.reach.name) for name, dependency in tables.items()))
    width = len(root.primary_key)

    def read(rows: Iterable[Sequence[Any]]) -> list[Answer]:
        found = {tuple(row[:width]): row for row in rows}  # a join may find a row more than once
        connection = connections[alias]
        converted = [_convert(row, converters, connection)[width:] for row in found.values()]
        return [(key, (), document) for key, document in zip(found, reader.documents(converted), strict=True)]

    return CompiledQuery(
        collection.name, (collection.name, text, reaches), (), tables, everything, by_keys, read
    )


class _RowReader:
    """Documents straight from the selected values."""

    def __init__(self, serializer: Serializer, alias: str) -> None:
        self._serializer = serializer
        self.expressions = dict(serializer.values())

    def documents(self, rows: list[list[Any]]) -> list[Document]:
        return [Document(*self._serializer.document(row)) for row in rows]


class _InstanceReader:
    """Documents from model instances, for a collection that overrides ``serialize``."""

    def __init__(self, serializer: Serializer, alias: str) -> None:
        self._serializer = serializer
        self._alias = alias
        self._attributes = [field.attname for field in serializer.model._meta.concrete_fields]
        self.expressions = {f"_field{index}": F(name) for index, name in enumerate(self._attributes)}
        published = {column.name for column in serializer.columns}
        # An own `serialize` knows nothing of `only` and `defer`; it may still add fields of its own.
        everything = serializer.collection.serializer(serializer.model)
        self._hidden = {column.name for column in everything.columns} - published

    def documents(self, rows: list[list[Any]]) -> list[Document]:
        serializer = self._serializer
        instances = [serializer.model.from_db(self._alias, self._attributes, row) for row in rows]
        if instances:
            prefetch_related_objects(instances, *serializer.related_paths)
        documents = []
        for instance in instances:
            document_id, fields = serializer.document_of_instance(instance)
            shown = {name: value for name, value in fields.items() if name not in self._hidden}
            documents.append(Document(document_id, shown))
        return documents


def _convert(row: Sequence[Any], converters: Converters, connection: Any) -> list[Any]:
    values = list(row)
    for position, (functions, expression) in converters.items():
        for function in functions:
            values[position] = function(values[position], expression, connection)
    return values


def _dependencies(
    root: Table,
    rows: Query,
    selected: Query,
    serializer: Serializer,
    declared: list[type[Model]],
    alias: str,
    text: str,
) -> dict[str, Dependency]:
    """Every table that matters, with how.

    Args:
        root: the table of the rows themselves.
        rows: decides which rows there are.
        selected: the same with the documents' fields selected, which may read further tables.
        serializer: tells how through rows lead to the root.
        declared: models named by ``depends_on``.
        alias: the database.
        text: the SQL with its parameters, for asking PostgreSQL where Django does not know.
    """
    read, read_in_all = tables_of(rows, alias), tables_of(selected, alias)
    raw = has_raw_sql(selected)
    models = [*map(_model_of, read_in_all), *declared, *serializer.related_models]
    if raw:
        models += [_model_of(table) for table in tables_in_plan(connections[alias], text)]
    dependencies = {}
    for model in sorted(set(models), key=lambda model: model._meta.label):
        table = Table.from_model(model)
        dependencies[table.name] = Dependency(table, Reach.EVERYTHING)
    if raw:
        return dependencies  # what a fragment does with a table's rows can't be told
    seen: set[type[Model]] = set()
    for model, column in serializer.through_dependencies:
        table = Table.from_model(model)
        columns = [known.name for known in (*table.primary_key, *table.foreign_keys)]
        source: Any = next(field for field in model._meta.concrete_fields if field.column == column)
        leads_to_key = source.target_field.primary_key and len(root.primary_key) == 1 and column in columns
        if leads_to_key and model not in seen and model not in declared and not read[model._meta.db_table]:
            position = columns.index(column)
            dependencies[table.name] = Dependency(table, Reach.KEYS, position, position + 1)
        else:
            dependencies[table.name] = Dependency(table, Reach.EVERYTHING)
        seen.add(model)
    root_model = _model_of(serializer.model._meta.db_table)
    if read_in_all[root_model._meta.db_table] == 1 and root_model not in declared:
        dependencies[root.name] = Dependency(root, Reach.KEYS, 0, len(root.primary_key))
    return dependencies


@cache
def _models_by_table() -> dict[str, type[Model]]:
    models = apps.get_models(include_auto_created=True)
    tables = [(model._meta.db_table, model) for model in models if not model._meta.proxy]
    return {quoted_parts(db_table)[-1]: model for db_table, model in tables} | dict(tables)


def _model_of(db_table: str) -> type[Model]:
    models = _models_by_table()
    model = models.get(db_table) or models.get(quoted_parts(db_table)[-1])
    if model is None:
        raise NotLive(f"a queryset reads the table {db_table}, which no model describes")
    return model


def _fields_asked_for(queryset: Any) -> frozenset[str] | None:
    """Names of the fields that `only`, `defer` or `values` restrict the documents to; None for all."""
    if queryset._fields is None:
        return loaded_fields(queryset)
    query = queryset.query
    fields = {name for field in queryset.model._meta.concrete_fields for name in (field.name, field.attname)}
    if not query.values_select or query.annotation_select or not fields.issuperset(query.values_select):
        raise NotLive(
            f"values() of a queryset of {queryset.model._meta.label} asks for what is no field of the model; "
            "publish the model's own fields"
        )
    return frozenset(query.values_select)


def _plain(queryset: Any, alias: str) -> Any:
    """A queryset of the same rows that can be restricted to keys: what can't be becomes a subquery."""
    query = queryset.query
    if query.combinator:
        return QuerySet(queryset.model, using=alias).filter(_in_combination(queryset.model, query))
    if (
        query.is_sliced
        or query.distinct_fields
        or query.group_by is not None
        or any(_spans_rows(annotation) for annotation in query.annotations.values())
    ):
        return QuerySet(queryset.model, using=alias).filter(pk__in=queryset.values("pk"))
    plain = queryset._chain()
    plain._db = alias
    plain._iterable_class = ModelIterable
    plain._fields = None
    plain.query.clear_ordering(force=True)
    plain.query.distinct = False  # the key is selected: `read` drops the repetitions that joins make
    plain.query.select_for_update = False
    plain.query.clear_deferred_loading()
    plain.query.select_related = False
    return plain


def _in_combination(model: type[Model], query: Query) -> Q:
    """Whether a row is in a union, intersection or difference, each of its parts asked for itself."""
    if query.is_sliced:
        raise NotLive(f"a slice of a {query.combinator} of {model._meta.label} can't be kept live")
    parts = [
        _in_combination(model, part)
        if part.combinator
        else Q(pk__in=QuerySet(model, query=part.clone()).values("pk"))
        for part in query.combined_queries
    ]
    first, *others = parts
    for other in others:
        if query.combinator == "union":
            first |= other
        else:
            first &= other if query.combinator == "intersection" else ~other
    return first


def _spans_rows(annotation: Any) -> bool:
    return bool(
        getattr(annotation, "contains_aggregate", False) or getattr(annotation, "contains_over_clause", False)
    )


def _statement(query: Query, alias: str) -> tuple[Statement, Converters]:
    compiler = query.get_compiler(alias)
    sql, params = compiler.as_sql()
    return Statement(sql, tuple(params)), compiler.get_converters([column[0] for column in compiler.select])
