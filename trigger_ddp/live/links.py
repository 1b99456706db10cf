"""How a change of one table leads to the rows of another that it may concern.

A notification tells a changed row's primary key and foreign keys, as they are and as they were. From
these, `Link`s lead to the rows of a query's root: along each join, the value on the joined table's side is
one that the notification tells, so the other side can be asked for it.

    book JOIN author ON book.author_id = author.id   an author changed: the books with its id as author_id
    author JOIN book ON book.author_id = author.id   a book changed: the authors that it has and had
    book JOIN author JOIN publisher                  a publisher changed: the books whose author has its id

Nothing need be remembered of what was joined before. Where a row used to be reached but is no longer, some
row on the way has another foreign key now, and the notification of that change tells the old one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.apps import apps
from django.db.models import BooleanField, Expression, Model, QuerySet, TextField
from django.db.models.constants import LOOKUP_SEP
from django.db.models.sql import Query
from django.db.models.sql.where import AND, WhereNode

from trigger_ddp.capture.columns import Column, quoted_parts
from trigger_ddp.capture.tables import Table, column_of
from trigger_ddp.changes.change import Change
from trigger_ddp.errors import NotLive
from trigger_ddp.live.evaluation import MOST_KEYS, Part, Statement


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Link:
    """One way from a row of a table to the rows of the root.

    Args:
        positions: where in a `changes.change.Row` of the table the values are that lead there.
        find: the statement that finds the root's keys by such values, or None where the values are the key.
    """

    positions: tuple[int, ...]
    find: Statement | None = None

    def values(self, change: Change) -> Iterator[tuple[str | None, ...]]:
        """The values that a change of the table leads by: of the rows as they are and as they were."""
        for row in (*change.rows, *change.old):
            values = tuple([row[position] for position in self.positions])
            if None not in values:
                yield values


class KeyText(Expression):
    """One part of the root's primary key, as the text that notifications carry."""

    output_field = TextField()

    def __init__(self, column: Column) -> None:
        super().__init__(output_field=self.output_field)
        self.column = column
        self.alias = ""

    def resolve_expression(self, query: Any = None, *args: Any, **kwargs: Any) -> KeyText:
        resolved = self.copy()
        resolved.alias = query.get_initial_alias()
        return resolved

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        # Percent signs in names are doubled: the statement is executed with parameters.
        text = self.column.as_text(_as_named(self.alias, compiler)).as_string(None)
        return text.replace("%", "%%"), ()


class KeyIn(Expression):
    """Whether some columns' values are among those asked about, which are left open as `Part`s."""

    output_field = BooleanField()
    conditional = True

    def __init__(self, columns: tuple[Column, ...], alias: str) -> None:
        super().__init__(output_field=self.output_field)
        self.columns = columns
        self.alias = alias

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        condition = Table.keys_condition(self.columns, _as_named(self.alias, compiler))
        parts = [Part(position) for position in range(len(self.columns))]
        return condition.as_string(None), tuple(parts)


def _as_named(alias: str, compiler: Any) -> str:
    """An alias as PostgreSQL knows it: those that Django makes up, such as T4, it does not quote."""
    # Django 6.1 quotes all, and calls it so.
    quote = getattr(compiler, "quote_name", None) or compiler.quote_name_unless_alias
    return alias.lower() if quote(alias) == alias else alias


def links_of(query: Query, root: Table, alias: str) -> Iterator[tuple[type[Model], Link | None]]:
    """Every table that ``query`` joins to its root, with the link that leads back.

    Args:
        query: as `joins_of` gives it; subqueries in it are not looked into.
        root: the table of its model.
        alias: the database.

    Returns:
        Pairs of a joined model and its link; None where what the tables are joined by is no key, so that
        the notification does not tell it. A model that is joined twice comes twice.
    """
    for name, join in query.alias_map.items():
        if join.parent_alias is None or not query.alias_refcount.get(name):
            continue
        model = model_of(join.table_name)
        yield model, _link(query, join, model, root, alias)


def links_of_path(
    model: type[Model], path: str, root: Table, alias: str, *, trim: bool = False
) -> Iterator[tuple[type[Model], Link | None]]:
    """As `links_of`, of the tables along a relation path such as "author__publisher".

    Args:
        trim: leave out a last table of which only its key is read, which the foreign key to it tells.
    """
    query = QuerySet(model).query
    joined = query.setup_joins(path.split(LOOKUP_SEP), model._meta, query.get_initial_alias())
    if trim:
        query.trim_joins(joined.targets, joined.joins, joined.path)
    yield from links_of(query, root, alias)


def _link(query: Query, join: Any, model: type[Model], root: Table, alias: str) -> Link | None:
    table = Table.from_model(model)
    told = [column.name for column in (*table.primary_key, *table.foreign_keys)]
    if len(join.join_cols) != 1:
        return None
    [(parent_column, own_column)] = [tuple(map(_plain, columns)) for columns in join.join_cols]
    if own_column not in told:
        return None
    position = told.index(own_column)
    parent = query.alias_map[join.parent_alias]
    key = (column_of(model_of(parent.table_name), parent_column),)
    if parent.parent_alias is None and key == root.primary_key:
        return Link((position,))
    return Link((position,), _find(query, join.parent_alias, key, root, alias))


def _plain(column: str) -> str:
    return quoted_parts(column)[-1]


def _find(query: Query, parent: str, key: tuple[Column, ...], root: Table, alias: str) -> Statement:
    """The statement for the keys of the root's rows that reach the rows of ``parent`` with some keys."""
    needed: set[str] = set()
    above: str | None = parent
    while above is not None:
        needed.add(above)
        above = query.alias_map[above].parent_alias
    bare = query.chain()
    bare.where = WhereNode()
    bare.clear_ordering(force=True)
    bare.clear_limits()
    bare.set_limits(0, MOST_KEYS + 1)  # what is more than that, need not be known
    bare.clear_select_clause()
    bare.annotations, bare.group_by, bare.extra = {}, None, {}
    bare.distinct, bare.distinct_fields, bare.select_for_update = True, (), False
    bare.alias_refcount = {
        name: int(name in needed) * max(count, 1) for name, count in bare.alias_refcount.items()
    }
    bare.where.add(KeyIn(key, parent), AND)
    names = {f"_key{index}": KeyText(column) for index, column in enumerate(root.primary_key)}
    assert query.model is not None
    selected: Any = QuerySet(query.model, bare).annotate(**names).values_list(*names)
    sql, params = selected.query.get_compiler(alias).as_sql()
    return Statement(sql, tuple(params))


@cache
def _models_by_table() -> dict[str, type[Model]]:
    models = apps.get_models(include_auto_created=True)
    tables = [(model._meta.db_table, model) for model in models if not model._meta.proxy]
    return {quoted_parts(db_table)[-1]: model for db_table, model in tables} | dict(tables)


def model_of(db_table: str) -> type[Model]:
    """The model whose table this is.

    Raises:
        NotLive: no model has it.
    """
    models = _models_by_table()
    model = models.get(db_table) or models.get(quoted_parts(db_table)[-1])
    if model is None:
        raise NotLive(f"a queryset reads the table {db_table}, which no model describes")
    return model
