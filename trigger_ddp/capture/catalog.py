"""What PostgreSQL's catalog says about the wanted tables and about everything of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from trigger_ddp.capture import names
from trigger_ddp.capture.resources import script
from trigger_ddp.capture.tables import Table
from trigger_ddp.errors import ConfigurationError


class Member(msgspec.Struct, frozen=True):
    """A table, or one of its partitions or inheriting tables.

    Args:
        kind: ``pg_class.relkind``: r table, p partitioned, f foreign, v view, m materialized view.
        partition: it is a partition of another table.
    """

    id: int
    schema: str
    name: str
    kind: str
    partition: bool

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


class Relation(msgspec.Struct, frozen=True, tag_field="kind", tag="table"):
    """A wanted table that exists.

    Args:
        position: which of the wanted ones.
        members: itself, then all below it.
        has_key: there is a primary key or another unique index on plain columns.
    """

    position: int
    members: tuple[Member, ...]
    columns: tuple[str, ...] | None
    has_key: bool


class Trigger(msgspec.Struct, frozen=True):
    """A trigger that calls a function of ours; the fields are columns of ``pg_trigger``.

    Args:
        plain: it has no arguments, no list of columns and no condition.
    """

    name: str
    table_id: int
    schema: str
    table: str
    enabled: str
    type: int
    old: str | None
    new: str | None
    plain: bool


class Function(msgspec.Struct, frozen=True, tag_field="kind", tag="function"):
    """A trigger function that is named as ours are.

    Args:
        plain: in PL/pgSQL, without SECURITY DEFINER and without settings of its own.
        here: in a schema of the search path, or one that a wanted table names.
    """

    schema: str
    name: str
    body: str
    plain: bool
    here: bool
    triggers: tuple[Trigger, ...] | None

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


class Catalog(msgspec.Struct, frozen=True):
    """One look at the catalog."""

    relations: dict[int, Relation]
    functions: tuple[Function, ...]


_decoder = msgspec.json.Decoder(Relation | Function)


def read(connection: BaseDatabaseWrapper, tables: Sequence[Table]) -> Catalog:
    """Look up all ``tables`` with one query.

    Raises:
        ConfigurationError: the connection is not to PostgreSQL.
        django.db.Error: the database can't be asked.
    """
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"database {connection.alias!r} is {connection.display_name}, not PostgreSQL"
        )
    asked: dict[str, Any] = {
        "tables": [table.identifier.as_string(None) for table in tables],
        "schemas": [table.schema for table in tables if table.schema is not None],
        "ours": names.OURS,
    }
    with connection.cursor() as cursor:
        cursor.execute(script("catalog").text, asked)
        found = [_decoder.decode(text) for (text,) in cursor.fetchall()]
    return Catalog(
        relations={entry.position: entry for entry in found if isinstance(entry, Relation)},
        functions=tuple(entry for entry in found if isinstance(entry, Function)),
    )


def kind_name(kind: str) -> Literal["foreign table", "view", "materialized view", "relation"]:
    """What people call a ``relkind`` that can't have our triggers."""
    match kind:
        case "f":
            return "foreign table"
        case "v":
            return "view"
        case "m":
            return "materialized view"
        case _:
            return "relation"
