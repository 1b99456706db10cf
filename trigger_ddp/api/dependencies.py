"""Which models' tables the declarations read, and so need triggers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models import F, Q
from django.db.models.constants import LOOKUP_SEP
from django.db.models.expressions import RawSQL
from django.db.models.sql import Query
from django.db.models.sql.where import ExtraWhere

from trigger_ddp.errors import ConfigurationError

if TYPE_CHECKING:
    from trigger_ddp.api.collection import Collection
    from trigger_ddp.api.publication import Dependency, Publication

Model = type[models.Model]


def watched_by_collection(collection: Collection) -> Iterator[Model]:
    """The models a collection reads, its own first; may repeat.

    Raises:
        ConfigurationError: its declaration names a field or model that is not there.
    """
    try:
        yield from with_parents(collection.model)
        for model in collection.serializer().related_models:
            yield from with_parents(model)
        yield from joined_models(_probe(collection))
        yield from collection.serializer().depends_on
    except (FieldError, ConfigurationError) as error:
        raise ConfigurationError(f"collection {collection.name!r}: {str(error).rstrip('.')}") from error


def watched_by_publication(publication: Publication) -> Iterator[Model]:
    """The models a publication's static queries join and its ``depends_on`` names; may repeat.

    Raises:
        ConfigurationError: ``depends_on`` names a model that is not there.
    """
    for query in publication.queries or ():
        queryset = query[0] if isinstance(query, tuple) else query
        if isinstance(queryset, models.QuerySet):
            yield from joined_models(queryset.query)
    for dependency in publication.depends_on:
        try:
            yield from resolve_dependency(dependency, None)
        except ConfigurationError as error:
            raise ConfigurationError(f"publication {publication.name!r}: {str(error).rstrip('.')}") from error


def is_path(dependency: Dependency) -> bool:
    """Whether an entry of ``depends_on`` is a relation path ("author__publisher") rather than a model."""
    return isinstance(dependency, str) and "." not in dependency


def resolve_dependency(dependency: Dependency, model: Model | None) -> Iterator[Model]:
    """The models that one entry of ``depends_on`` names: one for a model, all on the way for a relation path.

    Raises:
        ConfigurationError: it names what is not there.
    """
    if not isinstance(dependency, str):
        yield from with_parents(dependency)
        return
    if "." in dependency:
        try:
            yield from with_parents(apps.get_model(dependency))
        except (LookupError, ValueError) as error:
            raise ConfigurationError(f"depends_on names {dependency!r}: {error}") from error
        return
    if model is None:
        raise ConfigurationError(
            f"depends_on names {dependency!r}; a publication names models as 'app.Model'"
        )
    for name in dependency.split(LOOKUP_SEP):
        try:
            field: Any = model._meta.get_field(name)
        except FieldDoesNotExist as error:
            raise ConfigurationError(f"depends_on names {dependency!r}: {error}") from error
        if field.related_model is None:
            raise ConfigurationError(
                f"depends_on names {dependency!r}: {model._meta.label}.{name} is no relation"
            )
        if field.many_to_many:
            # The field itself knows its through model by its remote_field, the reverse relation directly.
            yield getattr(field, "through", None) or field.remote_field.through
        model = field.related_model
        assert model is not None
        yield from with_parents(model)


def with_parents(model: Model) -> Iterator[Model]:
    """The concrete model and the parents whose tables hold the rest of its fields."""
    concrete = model._meta.concrete_model
    assert concrete is not None, f"{model} is abstract"
    yield concrete
    yield from (parent for parent in concrete._meta.all_parents if not parent._meta.proxy)


def joined_models(query: Query) -> Iterator[Model]:
    """The models of all tables that a query reads, also in its subqueries."""
    by_table = {
        model._meta.db_table: model
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy
    }
    for table in tables_of(query, DEFAULT_DB_ALIAS):
        if table in by_table:
            yield by_table[table]


def tables_of(query: Query, using: str) -> Counter[str]:
    """The ``db_table`` of every table in ``query``'s FROM clauses, with how often it stands there.

    Subqueries and combinations count. Fragments of raw SQL are opaque, see `has_raw_sql`. ``query`` is left
    as it is: whatever Django sets up while it compiles is set up on copies.
    """
    counted: Counter[str] = Counter()
    for node in nodes_in(query):
        if not isinstance(node, Query):
            continue
        joined = joins_of(node, using)
        if not node.combinator:
            counted.update(
                join.table_name
                for alias, join in joined.alias_map.items()
                if joined.alias_refcount.get(alias)
            )
        counted.update(table.strip('"') for table in joined.extra_tables)
    return counted


def joins_of(query: Query, using: str) -> Query:
    """A copy of ``query`` with all its joins: those of ORDER BY and DISTINCT ON are made while compiling."""
    copy = query.clone()
    if not copy.combinator:
        compiler = copy.get_compiler(using)
        compiler.setup_query()
        compiler.get_order_by()
        compiler.get_distinct()
    return copy


def has_raw_sql(query: Query) -> bool:
    """Whether some part of ``query`` is SQL that Django passes on as it is."""
    return any(
        isinstance(node, RawSQL | ExtraWhere) or (isinstance(node, Query) and bool(node.extra))
        for node in nodes_in(query)
    )


def _probe(collection: Collection) -> Query:
    """A query that joins what the collection's own conditions and order join."""
    queryset = collection.get_queryset()
    for path in collection.user_rels:
        # Compared with anything: `isnull` might join more than a comparison with a user does.
        queryset = queryset.filter(Q((path, F("pk"))))
    for name in queryset.query.order_by:
        path = name.lstrip("-") if isinstance(name, str) else "?"
        if path not in ("?", "pk") and path not in queryset.query.annotations:
            queryset = queryset.filter(Q((f"{path}__isnull", False)))
    return queryset.query


def nodes_in(node: Any) -> Iterator[Any]:
    """Every expression, condition and query in a tree, the tree's root first."""
    if node is None or isinstance(node, str | bytes | int):
        return
    if isinstance(node, list | tuple):
        for child in node:
            yield from nodes_in(child)
        return
    yield node
    children: list[Any]
    if isinstance(node, Query):
        filtered = (getattr(join, "filtered_relation", None) for join in node.alias_map.values())
        conditions = [relation.resolved_condition for relation in filtered if relation is not None]
        children = [
            node.where, *node.annotations.values(), *node.select, *node.order_by, *node.combined_queries,
            node.group_by if isinstance(node.group_by, tuple) else None, conditions,
        ]  # fmt: skip
    else:
        children = [*node.get_source_expressions()] if hasattr(node, "get_source_expressions") else []
        right = getattr(node, "rhs", None)
        if isinstance(right, list | tuple):  # of an `__in`, where expressions may stand among values
            children.append(right)
    for child in children:
        yield from nodes_in(child)
