"""From a Django queryset to what the engine needs: statements, what they depend on, how to read their rows.

Compiling asks Django for SQL and may ask the database: do it on a worker thread.

A queryset becomes one of two kinds of shape:

kept by keys
    Whether a row belongs to it depends on that row and those joined to it. The statement restricted to some
    keys says what is true of them.
run again
    Rows depend on each other (a slice, DISTINCT ON), are counted (an aggregate), or are SQL's own business
    (a raw queryset). A cheap question finds the live queries that a change can concern; these run again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import F, QuerySet, Window
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, WhereNode

from trigger_ddp import conf
from trigger_ddp.api import Collection
from trigger_ddp.api.dependencies import has_raw_sql, nodes_in
from trigger_ddp.api.documents import Serializer
from trigger_ddp.api.publication import Dependency as DeclaredDependency
from trigger_ddp.capture.tables import Table
from trigger_ddp.errors import NotLive
from trigger_ddp.live import lifting
from trigger_ddp.live.cache import CompiledCache, key_of
from trigger_ddp.live.compiled import CompiledQuery, CompiledShape, Identity
from trigger_ddp.live.depends import dependencies_of, everything_of
from trigger_ddp.live.evaluation import Found, Part, Statement
from trigger_ddp.live.fields import extras_of, fields_asked_for, prefetches_of, related_of
from trigger_ddp.live.lifting import MOST_ROUTES, Lifted, RouteIn, lift, routes_of, routes_sql
from trigger_ddp.live.links import KeyIn, KeyText
from trigger_ddp.live.querysets import (
    bare,
    drop_outer_joins,
    in_combination,
    is_over,
    order_definitely,
    why_rows_depend_on_each_other,
)
from trigger_ddp.live.readers import (
    Converters,
    Extra,
    InstanceReader,
    Reader,
    RowReader,
    are_plain,
    read_instances,
    read_rows,
    read_whom,
)

#: Django sets up joins on queries that querysets share while it compiles them.
_compiling = threading.Lock()

_compiled = CompiledCache()
_shapes: WeakValueDictionary[Identity, CompiledShape] = WeakValueDictionary()


def compile_queryset(
    collection: Collection, queryset: Any, depends_on: Iterable[DeclaredDependency] = ()
) -> CompiledQuery:
    """Compile ``queryset`` for ``collection``.

    Args:
        collection: gives the documents their fields.
        queryset: any queryset of the collection's model, or a raw one.
        depends_on: models whose changes concern it although its SQL does not show them.

    Raises:
        NotLive: it can't be kept live as it is written.
        Exception: whatever Django raises for a queryset it can't compile.
    """
    with _compiling:
        label, alias = queryset.model._meta.label, conf.settings().database
        if queryset._db not in (None, alias):
            raise NotLive(
                f"a queryset of {label} is of database {queryset._db!r}; only {alias!r} is listened to"
            )
        declared = (*collection.depends_on, *depends_on)
        key = key_of(collection, queryset, declared, alias)
        found = _compiled.get(key) if key is not None else None
        if found is None:
            generation = _compiled.generation
            compiler = _Compiler(collection, queryset, list(declared), alias)
            try:
                found = compiler.compile()
            except EmptyResultSet:  # none(), or a filter that Django knows to match nothing
                found = compiler.empty()
            if key is not None:
                _compiled.put(key, found, generation)
        return found


def forget_columns() -> None:
    """The database may have other columns, or be another one: ask it again."""
    lifting.forget_columns()
    _compiled.clear()


class _Compiler:
    """Compiles one queryset."""

    def __init__(
        self, collection: Collection, queryset: Any, declared: list[DeclaredDependency], alias: str
    ) -> None:
        self.collection = collection
        self.queryset = queryset
        self.declared = declared
        self.alias = alias
        self.model = queryset.model
        self.root = Table.from_model(self.model)
        self.keys = {f"_key{index}": KeyText(column) for index, column in enumerate(self.root.primary_key)}

    def compile(self) -> CompiledQuery:
        query = self.queryset.query
        if not isinstance(query, Query):
            return self.evaluated(query.sql, query.params, "PostgreSQL alone understands a raw query")
        if query.combinator and (query.is_sliced or query.annotation_select or query.extra_select):
            sql, params = query.get_compiler(self.alias).as_sql()
            kind = "slice" if query.is_sliced else "union with annotations"
            return self.evaluated(sql, params, f"it is a {kind} of a {query.combinator}")
        if query.combinator:
            combined = in_combination(self.model, query)
            return self.kept_by_keys(QuerySet(self.model, using=self.alias).filter(combined))
        if because := why_rows_depend_on_each_other(query):
            return self.run_again(because)
        return self.kept_by_keys(self.queryset)

    # -- the kinds ------------------------------------------------------------------------------

    def empty(self) -> CompiledQuery:
        shape = _shapes.get(("", self.collection.name)) or self.shared(CompiledShape(
            self.collection.name, (), ("", self.collection.name), (), {}, None, None, True, _nothing, _nothing
        ))  # fmt: skip
        return CompiledQuery(shape, ((),))

    def kept_by_keys(self, queryset: Any) -> CompiledQuery:
        rows = bare(queryset, self.alias)
        rows.query.clear_ordering(force=True)
        rows.query.distinct = False  # the key is selected: reading drops the repetitions that joins make
        lifted, others, _ = lift(rows.query, self.alias, most_routes=MOST_ROUTES)
        rows.query.where = others
        serializer, extras, reader = self.reader(rows)
        routes = {f"_route{position}": one.expression for position, one in enumerate(lifted)}
        query = self.selected(rows, routes | self.keys, reader, extras)
        text, converters = self.text(query)
        identity = self.identity(serializer, extras, text)
        shape = _shapes.get(identity)
        if shape is None:
            read = read_rows(len(lifted), len(self.keys), converters, reader, self.alias)
            shape = self.shared(CompiledShape(
                collection=self.collection.name,
                fields=_names(serializer, extras),
                identity=identity,
                lifted=tuple(one.sql for one in lifted),
                tables=dependencies_of(
                    self.root, rows.query, query, serializer, self.declared, self.alias, text
                ),
                load=self.statement(query, *([RouteIn(lifted)] if lifted else [])),
                look=self.statement(query, self.key_in(query)),
                by_keys=True,
                read=read,
                read_look=read,
                looks_plainly=isinstance(reader, RowReader) and are_plain(converters),
            ))  # fmt: skip
        return CompiledQuery(shape, routes_of(lifted))

    def run_again(self, because: str) -> CompiledQuery:
        rows = bare(self.queryset, self.alias)
        if rows.query.is_sliced or rows.query.distinct_fields:
            order_definitely(rows.query)
        # The window of a list's rows is not made of the windows of each constant's.
        lifted, others, bound = lift(rows.query, self.alias, most_routes=1)
        rows.query.where = bound
        if lifted and has_raw_sql(rows.query):  # PostgreSQL is asked what that reads, by the whole statement
            lifted, rows.query.where = [], self.queryset.query.where
        serializer, extras, reader = self.reader(rows)
        query = self.selected(rows, self.keys, reader, extras)
        text, converters = self.text(query)
        identity = self.identity(serializer, extras, text)
        shape = _shapes.get(identity)
        if shape is None:
            look = self.look_whom(rows.query, lifted, others)
            tables = dependencies_of(
                self.root, rows.query, query, serializer, self.declared, self.alias, text
            )
            shape = self.shared(CompiledShape(
                collection=self.collection.name,
                fields=_names(serializer, extras),
                identity=identity,
                lifted=tuple(one.sql for one in lifted),
                tables=tables if look is not None else everything_of(tables),
                load=_for_each_route(self.statement(query), lifted),
                look=look,
                by_keys=False,
                read=read_rows(
                    len(lifted), len(self.keys), _moved(converters, len(lifted)), reader, self.alias
                ),
                read_look=read_whom(len(lifted), len(self.keys)),
                rerun_because=because,
            ))  # fmt: skip
        return CompiledQuery(shape, routes_of(lifted))

    def evaluated(self, sql: str, params: Any, because: str) -> CompiledQuery:
        """Django evaluates the queryset itself: everything about it may be out of the ordinary."""
        if getattr(self.queryset, "_fields", None) is not None:
            raise NotLive(
                f"values() of a slice of combined querysets of {self.model._meta.label} have no ids"
            )
        fields, _ = fields_asked_for(self.queryset)
        serializer = self.collection.serializer(self.model, fields)
        extras = [Extra(name, name, encode, kind) for name, encode, kind in self.extras(self.queryset)]
        text = self.composed(sql, params)
        identity = self.identity(serializer, extras, text)
        shape = _shapes.get(identity) or self.shared(CompiledShape(
            collection=self.collection.name,
            fields=_names(serializer, extras),
            identity=identity,
            lifted=(),
            tables=dependencies_of(self.root, None, None, serializer, self.declared, self.alias, text),
            load=None,
            look=None,
            by_keys=False,
            read=read_instances(
                partial(_evaluated, self.queryset, self.alias), serializer, extras,
                related_of(self.queryset, self.collection),
            ),
            read_look=_nothing,
            rerun_because=because,
        ))  # fmt: skip
        return CompiledQuery(shape, ((),))

    # -- their parts ----------------------------------------------------------------------------

    def reader(self, rows: Any) -> tuple[Serializer, list[Extra], Reader]:
        """How documents are made. Adds to ``rows`` what its extra fields need selected."""
        fields, paths = fields_asked_for(self.queryset)
        serializer = self.collection.serializer(self.model, fields)
        aliases = {f"_path{position}": path for position, path in enumerate(paths)}
        for alias, path in aliases.items():
            rows.query.add_annotation(F(path), alias)
        extras = [
            Extra(aliases.get(name, name), name, encode, kind) for name, encode, kind in self.extras(rows)
        ]
        if serializer.custom:
            related = related_of(self.queryset, self.collection)
            return serializer, extras, InstanceReader(serializer, extras, related, self.alias)
        return serializer, extras, RowReader(serializer, extras)

    def extras(self, queryset: Any) -> Any:
        return extras_of(queryset, self.collection, self.alias)

    def selected(self, rows: Any, names: dict[str, Any], reader: Reader, extras: list[Extra]) -> Query:
        """``rows`` with everything selected that is read: the route, the key, what documents are made of."""
        named = {**names, **reader.expressions}
        selected = rows.annotate(**named).values_list(*named, *(extra.alias for extra in extras))
        query: Query = selected.query
        return query

    def text(self, query: Query) -> tuple[str, Converters]:
        """The SQL of a query with its parameters in it, and Django's converters of what it selects."""
        compiler = query.get_compiler(self.alias)
        sql, params = compiler.as_sql()
        return self.composed(sql, params), compiler.get_converters([column[0] for column in compiler.select])

    def composed(self, sql: str, params: Any) -> str:
        operations: Any = connections[self.alias].ops
        composed: str = operations.compose_sql(sql, params)
        return composed

    def statement(self, query: Query, *conditions: Any) -> Statement:
        restricted = query.chain()
        for condition in conditions:
            restricted.where.add(condition, AND)
        sql, params = restricted.get_compiler(self.alias).as_sql()
        return Statement(sql, tuple(params))

    def key_in(self, query: Query) -> KeyIn:
        return KeyIn(self.root.primary_key, query.get_initial_alias())

    def look_whom(self, query: Query, lifted: list[Lifted], others: WhereNode) -> Statement | None:
        """The statement for the routes that given keys belong to, ignoring how rows depend on each other.

        None where it would not do. It does because of what a row that a live query does not hold can do
        to it by leaving: nothing, unless it stood before the window, or was counted by a window function.
        """
        where, _, over = others.split_having_qualify()
        windows = any(isinstance(node, Window) for node in nodes_in(query.order_by))
        if query.low_mark or over is not None or windows or any(map(is_over, query.annotations.values())):
            return None
        plain = query.chain()
        plain.clear_ordering(force=True)
        plain.clear_limits()
        plain.group_by, plain.distinct, plain.distinct_fields, plain.annotations = None, False, (), {}
        plain.where = WhereNode([where] if where is not None else [], AND)
        drop_outer_joins(plain, [plain.where, *(one.expression for one in lifted)])
        named = {f"_route{position}": one.expression for position, one in enumerate(lifted)} | self.keys
        selected: Any = QuerySet(self.model, plain).annotate(**named).values_list(*named)
        return self.statement(selected.query, self.key_in(plain))

    # -- shared shapes --------------------------------------------------------------------------

    def identity(self, serializer: Serializer, extras: list[Extra], text: str) -> Identity:
        """Equal for two querysets just when they can share a shape: the same SQL but for what was lifted, the
        same dependencies, and documents read in the same way. Whatever decides a document must be in it,
        since the first to compile a shape gives it the reader for all who share it.
        """
        declared = tuple(entry if isinstance(entry, str) else entry._meta.label for entry in self.declared)
        seen = prefetches_of(self.queryset) if serializer.custom else ()
        read_as = [extra.kind for extra in extras]
        read_as += map(repr, sorted(getattr(self.queryset, "translations", {}).items()))  # of a raw queryset
        version = str(conf.settings().bulk_threshold)  # it is in the version of every table
        return (
            text,
            self.collection.name,
            self.model._meta.label,
            version,
            *_names(serializer, extras),
            *read_as,
            "depends_on",
            *declared,
            *seen,
        )

    def shared(self, shape: CompiledShape) -> CompiledShape:
        _shapes[shape.identity] = shape
        return shape


def _names(serializer: Serializer, extras: list[Extra]) -> tuple[str, ...]:
    columns = (column.name for column in serializer.columns if column.name not in serializer.hidden)
    return (*columns, *(extra.name for extra in extras))


def _evaluated(queryset: Any, alias: str) -> Any:
    """The queryset anew: without what it has loaded, and the objects it was made from, which may be stale."""
    fresh = queryset.using(alias)
    fresh._known_related_objects = {}
    return fresh


def _nothing(*_: Any) -> Found:
    return {}


def _for_each_route(statement: Statement, lifted: list[Lifted]) -> Statement:
    """A statement with `RouteIs` in it, run for each of the routes asked about."""
    if not lifted:
        return statement
    columns = ", ".join([f'_route."{position}"' for position in range(len(lifted))])
    routes = routes_sql([one.array_type for one in lifted])
    parts = tuple(Part(position) for position in range(len(lifted)))
    sql = f"SELECT {columns}, _row.* FROM {routes} CROSS JOIN LATERAL ({statement.sql}) AS _row"  # noqa: S608
    return Statement(sql, (*parts, *statement.params))


def _moved(converters: Converters, by: int) -> Converters:
    return {position + by: converter for position, converter in converters.items()}
