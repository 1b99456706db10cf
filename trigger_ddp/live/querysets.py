"""What compiling does to Django's querysets: bares them, takes them apart, tells what kind they are."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from django.db.models.expressions import Col
from django.db.models.query import ModelIterable
from django.db.models.sql.constants import LOUTER
from django.db.models.sql.query import Query

from trigger_ddp.api.dependencies import nodes_in
from trigger_ddp.errors import NotLive


def bare(queryset: Any, alias: str) -> Any:
    """A queryset of the same rows without what only decides how they are handed out."""
    rows = queryset._chain()
    rows._db = alias
    rows._iterable_class = ModelIterable
    rows._fields = None
    rows.query.select_for_update = False
    rows.query.clear_deferred_loading()
    rows.query.select_related = False
    rows.query.clear_select_fields()
    return rows


def in_combination(model: Any, query: Query) -> Q:
    """Whether a row is in a union, intersection or difference, each of its parts asked for itself."""
    if query.is_sliced:
        raise NotLive(
            f"a slice of a {query.combinator} inside of another of {model._meta.label} can't be live"
        )
    for part in query.combined_queries:
        if part.model._meta.concrete_model is not model._meta.concrete_model:
            raise NotLive(
                f"a {query.combinator} of {model._meta.label} and {part.model._meta.label} has two models"
            )
    parts = [
        in_combination(model, part)
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


def why_rows_depend_on_each_other(query: Query) -> str:
    """Why a query can't be kept by keys, for people; empty if it can.

    Raises:
        NotLive: its rows are not those of its model.
    """
    model: Any = query.model
    if isinstance(query.group_by, tuple):
        grouped = {node.target for node in nodes_in(query.group_by) if isinstance(node, Col)}
        if not grouped.issuperset(model._meta.pk_fields):
            raise NotLive(
                f"a queryset of {model._meta.label} groups its rows by something else than their key, "
                "so that they have no ids; annotate() the model's rows instead of values()"
            )
    if query.is_sliced:
        return "it is a slice"
    if query.distinct_fields:
        return "it is DISTINCT ON some fields"
    if query.where.contains_over_clause or any(map(is_over, query.annotations.values())):
        return "it has a window function"
    return "it aggregates" if query.group_by is not None or query.where.contains_aggregate else ""


def order_definitely(query: Query) -> None:
    """Have rows that are equal in a query's order ordered too: else they may come and go with every run."""
    model: Any = query.model
    if not query.extra_order_by:
        ordering = query.order_by or (model._meta.ordering if query.default_ordering else ())
        ordering = ordering or query.distinct_fields  # which must come first
        query.order_by = (*ordering, "pk")


def is_over(annotation: Any) -> bool:
    return bool(getattr(annotation, "contains_over_clause", False))


def drop_outer_joins(query: Query, expressions: list[Any]) -> None:
    """Leave out the outer joins that no expression speaks of; they filter nothing and repeat rows."""
    needed = {
        node.alias for expression in expressions for node in nodes_in(expression) if isinstance(node, Col)
    }
    needed |= {name for name, join in query.alias_map.items() if join.join_type != LOUTER}
    for name in list(needed):
        while name in query.alias_map and (name := query.alias_map[name].parent_alias) is not None:
            needed.add(name)
    query.alias_refcount = {
        name: count if name in needed else 0 for name, count in query.alias_refcount.items()
    }
