"""A Django model's table, as its triggers and the server's queries see it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.models import Field, Model
from psycopg import sql

from trigger_ddp import conf
from trigger_ddp.capture import names
from trigger_ddp.capture.columns import Column, quoted_parts
from trigger_ddp.capture.functions import Bodies, fingerprinted
from trigger_ddp.errors import ConfigurationError

__all__ = ["Column", "Table", "column_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """One table whose changes can be told.

    Args:
        name: as people write it: ``bookstore_book``, ``shop."Odd Name"``. Unique, but not meant
            to become SQL.
        model_label: ``app_label.Model``.
        schema: the schema that the model names, or None where it leaves it to the search path.
        relation: the table's name as PostgreSQL knows it, without quotes.
        primary_key: the columns of the key; the first values of every row in a notification.
        foreign_keys: further columns that ride along in every row, sorted by name.
        channel: the channel that its triggers notify, at most 63 bytes.
        version: fingerprint of its trigger functions; it stands in every notification.
        bodies: the trigger functions' texts.
    """

    name: str
    model_label: str
    schema: str | None
    relation: str
    primary_key: tuple[Column, ...]
    foreign_keys: tuple[Column, ...]
    channel: str
    version: str
    bodies: Bodies = dataclasses.field(repr=False, compare=False)

    @classmethod
    def from_model(cls, model: type[Model]) -> Table:
        """The table of a concrete or proxy model, with triggers for the settings in force.

        Raises:
            ConfigurationError: the model is abstract, or its key can't be told in a notification.
        """
        options = model._meta
        if options.abstract or options.swapped:
            raise ConfigurationError(f"{options.label} has no table: it is abstract or swapped out")
        if options.proxy:
            assert options.concrete_model is not None
            return cls.from_model(options.concrete_model)
        parts = quoted_parts(options.db_table)
        schema, relation = (None, *parts) if len(parts) == 1 else parts
        key_fields = options.pk_fields
        primary_key = tuple(map(_column, key_fields))
        foreign_keys = tuple(
            sorted(
                (
                    _column(field)
                    for field in options.local_concrete_fields
                    if field.is_relation
                    and (field.many_to_one or field.one_to_one)
                    and field not in key_fields
                ),
                key=lambda column: column.name,
            )
        )
        channel = names.channel(schema, relation)
        version, bodies = fingerprinted(channel, primary_key, foreign_keys, conf.settings().bulk_threshold)
        return cls(
            name=".".join(map(_as_written, parts)),
            model_label=options.label,
            schema=schema,
            relation=relation,
            primary_key=primary_key,
            foreign_keys=foreign_keys,
            channel=channel,
            version=version,
            bodies=bodies,
        )

    @property
    def width(self) -> int:
        """Values of one row in a notification."""
        return len(self.primary_key) + len(self.foreign_keys)

    @property
    def identifier(self) -> sql.Identifier:
        """The table's name for SQL."""
        return (
            sql.Identifier(self.relation)
            if self.schema is None
            else sql.Identifier(self.schema, self.relation)
        )

    @staticmethod
    def keys_condition(columns: Sequence[Column], alias: str) -> sql.Composable:
        """SQL for "this row's key is among these", to be executed with parameters.

        Args:
            columns: the key's columns.
            alias: the table's alias, or Django's ``db_table``.

        Returns:
            A condition with one ``%s`` for each column: a list of the keys' values of that column, as text.
            Percent signs in names are doubled, as a statement with parameters needs them.
        """
        names_of_parts = [sql.Identifier(f"k{number}") for number in range(len(columns))]
        key = sql.SQL("({})").format(sql.SQL(", ").join([column.of(alias) for column in columns]))
        values = [column.from_text(part) for column, part in zip(columns, names_of_parts, strict=True)]
        lists = sql.SQL(", ").join([sql.SQL("pg_catalog.unnest(%s::pg_catalog.text[])")] * len(columns))
        asked = sql.SQL("SELECT {} FROM ROWS FROM ({}) AS k ({})").format(
            _doubling_percent(sql.SQL(", ").join(values)), lists, sql.SQL(", ").join(names_of_parts)
        )
        if len(columns) == 1 and not columns[0].db_type.endswith("]"):
            # An array is looked up in the index directly. IN is planned as a join, and takes twice the time.
            return sql.SQL("{} = ANY (ARRAY({}))").format(_doubling_percent(key), asked)
        return sql.SQL("{} IN ({})").format(_doubling_percent(key), asked)


def column_of(model: type[Model], name: str) -> Column:
    """The column of a model's own table that PostgreSQL knows by ``name``.

    Raises:
        ConfigurationError: the model has no such column.
    """
    for field in model._meta.local_concrete_fields:
        if field.column is not None and quoted_parts(field.column) == (name,):
            return _column(field)
    raise ConfigurationError(f"{model._meta.label} has no column {name}")


def _column(field: Field[Any, Any]) -> Column:
    connection = connections[conf.settings().database]
    db_type = field.db_type(connection)
    if db_type is None or field.column is None or connection.vendor != "postgresql":
        raise ConfigurationError(f"{field} has no column in a PostgreSQL database")
    (name,) = quoted_parts(field.column)
    return Column(name, db_type)


def _as_written(part: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_$]*", part):
        return part
    return '"' + part.replace('"', '""') + '"'


def _doubling_percent(composable: sql.Composable) -> sql.Composable:
    return sql.SQL(composable.as_string(None).replace("%", "%%"))
