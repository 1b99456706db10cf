"""What a query depends on: every table that decides its rows or its documents, and how."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db import connections
from django.db.models import Model
from django.db.models.constants import LOOKUP_SEP
from django.db.models.sql import Query

from trigger_ddp.api.dependencies import has_raw_sql, is_path, joins_of, resolve_dependency, tables_of
from trigger_ddp.api.documents import Serializer
from trigger_ddp.api.publication import Dependency as DeclaredDependency
from trigger_ddp.capture.tables import Table
from trigger_ddp.live.explain import tables_in_plan
from trigger_ddp.live.links import Link, links_of, links_of_path, model_of


@dataclasses.dataclass(frozen=True, slots=True)
class Dependency:
    """How a query depends on one table.

    Args:
        table: the table.
        links: the ways from a changed row of it to the rows of the root; None where any row may be concerned.
    """

    table: Table
    links: tuple[Link, ...] | None

    @property
    def strategy(self) -> str:
        """What a change of the table means, for people."""
        if self.links is None:
            return "everything is looked at again"
        if all(link.find is None for link in self.links):
            return "the notification tells the keys"
        return "the keys are looked up through the join"


class _Dependencies:
    """Collects them."""

    def __init__(self) -> None:
        self._links: dict[type[Model], list[Link | None]] = {}

    def add(self, model: type[Model], link: Link | None) -> None:
        concrete: Any = model._meta.concrete_model
        self._links.setdefault(concrete, []).append(link)

    def tables(self, *, everything: bool) -> dict[str, Dependency]:
        found = {}
        for model in sorted(self._links, key=lambda model: model._meta.label):
            table = Table.from_model(model)
            links = self._links[model]
            known = tuple(link for link in links if link is not None)
            complete = not everything and len(known) == len(links)
            found[table.name] = Dependency(table, known if complete else None)
        return found


def dependencies_of(
    root: Table,
    rows: Query | None,
    selected: Query | None,
    serializer: Serializer,
    declared: Iterable[DeclaredDependency],
    alias: str,
    text: str,
) -> Mapping[str, Dependency]:
    """Every table that matters, by name.

    Args:
        root: the table of the rows themselves.
        rows: decides which rows there are; None for SQL that Django does not understand.
        selected: the same with the documents' fields selected, which may join further tables.
        serializer: tells what else the documents read.
        declared: what ``depends_on`` names.
        alias: the database.
        text: the SQL with its parameters, for asking PostgreSQL where Django does not know.

    Raises:
        NotLive: a table has no model.
    """
    found = _Dependencies()
    found.add(serializer.model, Link(tuple(range(len(root.primary_key)))))
    if rows is not None and selected is not None:
        for model, link in links_of(joins_of(selected, alias), root, alias):
            found.add(model, link)
        for table in _read_inside(rows, alias):
            found.add(model_of(table), None)
    opaque = rows is None or has_raw_sql(rows)
    if opaque:
        for table in tables_in_plan(connections[alias], text):
            found.add(model_of(table), None)
    for model, link in _read_by_documents(serializer, declared, root, alias):
        found.add(model, link)
    # What a fragment of raw SQL does with a table's rows can't be told.
    return found.tables(everything=opaque)


def _read_inside(rows: Query, alias: str) -> Iterator[str]:
    """The tables that subqueries read."""
    joined = joins_of(rows, alias)
    outside = Counter(
        join.table_name for name, join in joined.alias_map.items() if joined.alias_refcount.get(name)
    )
    yield from tables_of(rows, alias) - outside


def _read_by_documents(
    serializer: Serializer, declared: Iterable[DeclaredDependency], root: Table, alias: str
) -> Iterator[tuple[type[Model], Link | None]]:
    for path in serializer.read_paths:
        yield from links_of_path(serializer.model, path, root, alias, trim=True)
    for dependency in declared:
        if isinstance(dependency, str) and is_path(dependency):
            for path in _with_parents(serializer.model, dependency):
                yield from links_of_path(serializer.model, path, root, alias)
        else:
            for model in resolve_dependency(dependency, None):
                yield model, None


def _with_parents(model: Any, path: str) -> Iterator[str]:
    """A relation path, and on from each of its models to the parents that hold the rest of its fields."""
    yield path
    names: list[str] = []
    for name in path.split(LOOKUP_SEP):
        names.append(name)
        model = model._meta.get_field(name).related_model
        yield from (LOOKUP_SEP.join([*names, *links]) for links in _parent_links(model))


def _parent_links(model: Any) -> Iterator[list[str]]:
    for parent, link in model._meta.parents.items():
        if link is not None:
            yield [link.name]
            yield from ([link.name, *further] for further in _parent_links(parent))


def everything_of(tables: Mapping[str, Dependency]) -> Mapping[str, Dependency]:
    """The same tables, any change of which may concern any row."""
    return {name: Dependency(dependency.table, None) for name, dependency in tables.items()}
