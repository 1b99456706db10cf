"""Lifts ``expression = constant`` out of a queryset's conditions, so that all constants share one statement.

Of ``filter(author__email="a@x", price__gte=3)`` the first condition is lifted: the statement selects
``author.email`` beside each row and no longer compares it, and a dictionary leads from its value to the live
queries with that constant. That is right only where two values are equal in Python just when they are equal
in PostgreSQL; docs/queries.md lists what is lifted, and what is not and why.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import BooleanField, Field, Func, Transform
from django.db.models.expressions import Col, Value
from django.db.models.fields.related_lookups import RelatedExact, RelatedIn
from django.db.models.lookups import Exact, In, IntegerFieldExact, YearExact
from django.db.models.sql.query import Query
from django.db.models.sql.where import AND, WhereNode

from trigger_ddp.api.dependencies import nodes_in
from trigger_ddp.capture.columns import base_type, quoted_parts
from trigger_ddp.live.evaluation import Part, Route
from trigger_ddp.live.explain import impatient

#: Constants of one ``__in`` above which it is left in the SQL.
MOST_VALUES = 50
#: Routes of one live query: what its ``__in`` lists come to when combined.
MOST_ROUTES = 200

#: Lookups that are equality and nothing else. Others, also subclasses of these, may compare differently.
_EQUALITIES = (Exact, IntegerFieldExact, RelatedExact, YearExact)
_LISTS = (In, RelatedIn)


def _is_text(value: Any) -> bool:
    # PostgreSQL refuses both; left in the SQL, they fail for the one who sent them and nobody else.
    return isinstance(value, str) and "\0" not in value and _encodes(value)


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


#: Type of the expression to the type of its constants, and whether a constant is of the right class.
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("smallint", "integer", "bigint"),
        ("bigint", lambda value: isinstance(value, int) and -(2**63) <= value < 2**63),
    ),
    **dict.fromkeys(("text", "varchar"), ("text", _is_text)),
    "boolean": ("boolean", lambda value: isinstance(value, bool)),
    "uuid": ("uuid", lambda value: isinstance(value, uuid.UUID)),
    "date": ("date", lambda value: type(value) is datetime.date),
    "numeric": ("numeric", lambda value: isinstance(value, decimal.Decimal) and value.is_finite()),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Lifted:
    """One lifted condition.

    Args:
        expression: what is compared, resolved by its query.
        sql: the same as SQL, for sorting and for people.
        array_type: the type of arrays of its constants, without the brackets.
        values: the constants it may be equal to, as psycopg gives and takes them; sorted, each once.
    """

    expression: Any
    sql: str
    array_type: str
    values: tuple[Any, ...]


class RouteIn(Func):
    """Whether the lifted expressions are equal to one of the routes asked about, left open as `Part`s."""

    output_field = BooleanField()

    def __init__(self, lifted: Sequence[Lifted]) -> None:
        super().__init__(*(one.expression for one in lifted), output_field=self.output_field)
        self.types = [one.array_type for one in lifted]

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, tuple[Any, ...]]:  # type: ignore[override]
        compiled = [compiler.compile(expression) for expression in self.get_source_expressions()]
        params = [param for _, params in compiled for param in params]
        params += [Part(position) for position in range(len(self.types))]
        if len(compiled) == 1:
            return f"{compiled[0][0]} = ANY (%s::pg_catalog.{_array(self.types[0])})", tuple(params)
        expressions = ", ".join(sql for sql, _ in compiled)
        sql = f"({expressions}) IN (SELECT * FROM {routes_sql(self.types)})"  # noqa: S608
        return sql, tuple(params)


class RouteIs(Func):
    """Whether an expression is the n-th value of the route at hand, in a statement run for each route."""

    output_field = BooleanField()
    arity = 1

    def __init__(self, expression: Any, position: int) -> None:
        template = f'%(expressions)s = _route."{position}"'
        super().__init__(expression, output_field=self.output_field, template=template)


def routes_sql(types: Sequence[str]) -> str:
    """SQL for the routes asked about: a table ``_route`` with columns "0", "1", … and a `Part` for each."""
    lists = ", ".join(f"pg_catalog.unnest(%s::pg_catalog.{_array(kind)})" for kind in types)
    names = ", ".join([f'"{position}"' for position in range(len(types))])
    return f"ROWS FROM ({lists}) AS _route ({names})"


def _array(kind: str) -> str:
    return {"bigint": "int8", "boolean": "bool"}.get(kind, kind) + "[]"


def lift(query: Query, alias: str, *, most_routes: int) -> tuple[list[Lifted], WhereNode, WhereNode]:
    """Find what can be lifted out of a query's conditions.

    Args:
        query: any query; it is left as it is.
        alias: the database.
        most_routes: how many routes there may be; 1 where rows of different routes depend on each other.

    Returns:
        What was lifted, in an order that does not depend on how it was written; the other conditions; and all
        conditions with each lifted one replaced by a `RouteIs`.
    """
    compiler = query.get_compiler(alias)
    candidates: list[tuple[Lifted, Any]] = []
    kept: list[Any] = []
    routes, to_many = 1, ""
    for child in _conjuncts(query.where):
        lifted = _lifted(child, query, compiler)
        joined = "" if lifted is None else _to_many(lifted.expression, query)
        if lifted is None or routes * len(lifted.values) > most_routes:
            kept.append(child)
        elif joined and to_many and joined != to_many:
            kept.append(child)  # lifted out of two such joins, a look would find the product of their rows
        else:
            to_many = to_many or joined
            routes *= len(lifted.values)
            candidates.append((lifted, child))
    everything = [lifted for lifted, _ in candidates]
    everything.sort(key=lambda one: one.sql)
    bound = [*kept, *(RouteIs(one.expression, position) for position, one in enumerate(everything))]
    return everything, WhereNode(kept, AND), WhereNode(bound, AND)


def routes_of(lifted: Sequence[Lifted]) -> tuple[Route, ...]:
    """Every combination of the constants."""
    return tuple(itertools.product(*(one.values for one in lifted)))


def _conjuncts(node: WhereNode) -> Iterator[Any]:
    if node.negated or (node.connector != AND and len(node.children) > 1):
        yield node
        return
    for child in node.children:
        if isinstance(child, WhereNode):
            yield from _conjuncts(child)
        else:
            yield child


def _lifted(lookup: Any, query: Query, compiler: Any) -> Lifted | None:
    several = type(lookup) in _LISTS
    if type(lookup) not in _EQUALITIES and not several:
        return None
    if not lookup.rhs_is_direct_value() or lookup.bilateral_transforms or not _is_plain(lookup.lhs):
        return None
    connection = compiler.connection
    known = _TYPES.get(base_type(lookup.lhs.output_field.db_type(connection) or ""))
    if known is None:
        return None
    array_type, fits = known
    if array_type == "text" and not all(
        _compares_by_bytes(connection, query.alias_map[column.alias].table_name, str(column.target.column))
        for column in nodes_in(lookup.lhs)
        if isinstance(column, Col)
    ):
        return None
    try:
        placeholders, values = lookup.process_rhs(compiler, connection)
        sql, _ = compiler.compile(lookup.lhs)
    except (EmptyResultSet, FullResultSet):
        return None  # compiling the whole query says so as well
    expected = "(" + ", ".join(["%s"] * len(values)) + ")" if several else "%s"
    if placeholders != expected or not values or len(values) > MOST_VALUES or not all(map(fits, values)):
        return None
    if type(lookup.lhs.output_field).select_format is not Field.select_format:
        return None
    if _type_of(lookup.lhs, query, compiler) not in _OIDS[array_type]:
        return (
            None  # TruncMonth of a date, for one: the model's field is a date, PostgreSQL's value a timestamp
        )
    return Lifted(lookup.lhs, sql, array_type, tuple(sorted(set(map(_builtin, values)))))


def _to_many(expression: Any, query: Query) -> str:
    """The join to many rows, the nearest to the root, that an expression is behind; empty without one."""
    found = ""
    for column in nodes_in(expression):
        name = column.alias if isinstance(column, Col) else None
        while name is not None and (join := query.alias_map[name]).parent_alias is not None:
            if getattr(getattr(join, "join_field", None), "one_to_many", False):
                found = name
            name = join.parent_alias
    return found


def _is_plain(expression: Any) -> bool:
    """Whether it is a column, or registered transforms of one: their value depends on the row alone."""
    return all(
        isinstance(node, Col | Transform | Value) and not getattr(node, "contains_aggregate", False)
        for node in nodes_in(expression)
    )


def _builtin(value: Any) -> Any:
    """Without the subclasses that Django and psycopg mark values with, and enums are."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    return str.__str__(value) if isinstance(value, str) else value


#: Types whose values in Python are those of constants of a type: int2, int4, int8 and numeric, which EXTRACT
#: gives; text and varchar; bool; uuid; date; numeric.
_OIDS = {
    "bigint": {20, 21, 23, 1700}, "text": {25, 1043}, "boolean": {16}, "uuid": {2950}, "date": {1082},
    "numeric": {1700},
}  # fmt: skip
_known_types: dict[tuple[Any, ...], int] = {}


def _type_of(expression: Any, query: Query, compiler: Any) -> int:
    """The oid of an expression's type as the database sees it; once per process."""
    connection = compiler.connection
    sql, params = compiler.compile(expression)
    name = (*_database(connection), sql, *params)
    if name not in _known_types:
        bare = query.clone()
        bare.where = WhereNode()
        bare.clear_ordering(force=True)
        bare.clear_limits()
        bare.clear_select_clause()
        bare.group_by, bare.distinct, bare.distinct_fields = None, False, ()
        bare.annotations, bare.extra, bare.select_for_update = {}, {}, False
        bare.add_annotation(expression, "_type")
        bare.set_values(["_type"])
        sql, params = bare.get_compiler(connection.alias).as_sql()
        with impatient(connection) as cursor:
            cursor.execute(f"{sql} LIMIT 0", params)
            _known_types[name] = cursor.description[0].type_code
    return _known_types[name]


def forget_columns() -> None:
    """Ask the database again what its columns are: it may be another one."""
    _known_types.clear()
    _known_facts.clear()


def _database(connection: Any) -> tuple[str, ...]:
    where = connection.settings_dict
    return where["HOST"], str(where["PORT"]), where["NAME"]


_FACTS = """
    SELECT a.attcollation = 0 OR (c.collisdeterministic AND t.oid IN ('text'::regtype, 'varchar'::regtype))
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
    WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s
"""
_known_facts: dict[tuple[Any, ...], bool] = {}


def _compares_by_bytes(connection: Any, db_table: str, column: str) -> bool:
    """Whether texts made from a column are equal just when their characters are: no citext, no collation that
    takes different texts for equal. The database is asked, since a model need not know; once per process.
    """
    name = (*_database(connection), db_table, column)
    if name not in _known_facts:
        with connection.cursor() as cursor:
            cursor.execute(_FACTS, [connection.ops.quote_name(db_table), quoted_parts(column)[-1]])
            row = cursor.fetchone()
        _known_facts[name] = row is not None and bool(row[0])
    return _known_facts[name]
