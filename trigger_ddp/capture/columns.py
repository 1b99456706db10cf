"""Key columns, and how PostgreSQL spells their values as text whatever a session's settings are.

The same value must have the same text in a writer's trigger and in the server's queries, although the two
sessions may differ in DateStyle, TimeZone, IntervalStyle, bytea_output and extra_float_digits. So each kind
of type has an expression that depends on none of them, and its inverse.
"""

from __future__ import annotations

import dataclasses
import re
from typing import LiteralString

from psycopg import sql

from trigger_ddp.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """How the types of one kind are told as text.

    Args:
        text: SQL from ``{value}`` to its text.
        value: SQL from ``{text}`` back to a value that compares with the column by its index.
        null: the type of a NULL that ``text`` accepts in place of a value.
        cut: ``text`` again, but cut off where it can't fit into a notification anyway, so that the JSON of
            a gigabyte of text is never built; None where the text is always short.
        json: SQL from ``{text}`` to the JSON that a notification carries. Calling ``to_json`` costs each
            writer a microsecond, so only texts that need escaping do.
    """

    text: LiteralString = "{value}::pg_catalog.text"
    value: LiteralString = "{text}"
    null: LiteralString = "pg_catalog.text"
    cut: LiteralString | None = None
    json: LiteralString = """'"' OPERATOR(pg_catalog.||) {text} OPERATOR(pg_catalog.||) '"'"""


CUT: LiteralString = "pg_catalog.left({value}::pg_catalog.text, 8000)"
NUMBER: LiteralString = "{text}"
ESCAPED: LiteralString = "pg_catalog.to_json({text})::pg_catalog.text"
TEXT = Kind(cut=CUT, json=ESCAPED)
FLOAT: LiteralString = (
    # 17 digits are exact for a double; to_char() prints them without looking at extra_float_digits
    "CASE WHEN {value} OPERATOR(pg_catalog.=) ANY ('{{NaN,Infinity,-Infinity}}'::pg_catalog.float8[])"
    " THEN {value}::pg_catalog.text"
    " ELSE pg_catalog.ltrim(pg_catalog.to_char({value}::pg_catalog.float8, '9.9999999999999999EEEE')) END"
)
INTERVAL: LiteralString = (
    # ISO 8601, which every IntervalStyle reads alike
    "CASE WHEN pg_catalog.isfinite({value}) THEN pg_catalog.concat("
    "'P', extract(year FROM {value}), 'Y', extract(month FROM {value}), 'M', extract(day FROM {value}), 'DT',"
    " extract(hour FROM {value}), 'H', extract(minute FROM {value}), 'M', extract(second FROM {value}), 'S')"
    " ELSE {value}::pg_catalog.text END"
)
#: JSON spells dates and times in ISO 8601 whatever DateStyle says.
ISO: LiteralString = "pg_catalog.to_jsonb({value}) OPERATOR(pg_catalog.#>>) '{{}}'"

#: Types as Django's ``db_type`` names them, without their modifiers.
KINDS: dict[str, Kind] = {
    "smallint": Kind(value="{text}::pg_catalog.int2", null="pg_catalog.int2", json=NUMBER),
    "integer": Kind(value="{text}::pg_catalog.int4", null="pg_catalog.int4", json=NUMBER),
    "bigint": Kind(value="{text}::pg_catalog.int8", null="pg_catalog.int8", json=NUMBER),
    "numeric": Kind(value="{text}::pg_catalog.numeric", null="pg_catalog.numeric", cut=CUT),
    "boolean": Kind(value="{text}::pg_catalog.bool", null="pg_catalog.bool"),
    "uuid": Kind(value="{text}::pg_catalog.uuid", null="pg_catalog.uuid"),
    "text": TEXT,
    "varchar": TEXT,
    "char": Kind(value="{text}::pg_catalog.bpchar", cut=CUT, json=ESCAPED),
    "date": Kind(ISO, "{text}::pg_catalog.date", "pg_catalog.date"),
    "time": Kind(value="{text}::pg_catalog.time", null="pg_catalog.time"),
    "timestamp": Kind(ISO, "{text}::pg_catalog.timestamp", "pg_catalog.timestamp"),
    "timestamp with time zone": Kind(
        "pg_catalog.to_jsonb({value} AT TIME ZONE 'UTC') OPERATOR(pg_catalog.#>>) '{{}}'",
        "({text}::pg_catalog.timestamp AT TIME ZONE 'UTC')",
        "pg_catalog.timestamptz",
    ),
    "interval": Kind(INTERVAL, "{text}::pg_catalog.interval", "pg_catalog.interval"),
    "bytea": Kind(
        "pg_catalog.encode({value}, 'hex')",
        "pg_catalog.decode({text}, 'hex')",
        "pg_catalog.bytea",
        cut="pg_catalog.encode(pg_catalog.substring({value}, 1, 8000), 'hex')",
    ),
    "real": Kind(FLOAT, "{text}::pg_catalog.float4", "pg_catalog.float4"),
    "double precision": Kind(FLOAT, "{text}::pg_catalog.float8", "pg_catalog.float8"),
}
_SPELLINGS = {
    "int2": "smallint", "int4": "integer", "int8": "bigint",
    "smallserial": "smallint", "serial": "integer", "bigserial": "bigint",
    "decimal": "numeric", "bool": "boolean", "float4": "real", "float8": "double precision",
    "character varying": "varchar", "character": "char", "bpchar": "char",
    "timestamptz": "timestamp with time zone", "timestamp without time zone": "timestamp",
    "time without time zone": "time",
}  # fmt: skip
#: Types without such an expression: their text depends on the session, and no model has them as a key.
_SESSION_DEPENDENT = re.compile(r"date|timestamp|interval|bytea|real|float|double|money|range|time with")


def quoted_parts(name: str) -> tuple[str, ...]:
    """The identifiers that a Django ``db_table`` or ``db_column`` stands for, schema first.

    Django puts quotes around a name unless it has them already, so projects name a schema by
    ``'schema"."table'`` or ``'"schema"."table"'``.

    Raises:
        ConfigurationError: PostgreSQL would not read the quoted name as one identifier or two.
    """
    quoted = name if name.startswith('"') and name.endswith('"') and len(name) > 1 else f'"{name}"'
    if not re.fullmatch(r'"(?:[^"\0]|"")+"(?:\."(?:[^"\0]|"")+")?', quoted):
        raise ConfigurationError(f"{name!r} is not a name that PostgreSQL can have for a table or column")
    return tuple(part.replace('""', '"') for part in re.findall(r'"((?:[^"]|"")+)"', quoted))


def base_type(db_type: str) -> str:
    """A type as Django's ``Field.db_type`` spells it, but in one spelling, and without modifiers."""
    base = re.sub(r"\s*\([\d\s,]*\)", "", db_type).strip().lower()
    return _SPELLINGS.get(base, base)


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of a primary key, or a foreign key.

    Args:
        name: as PostgreSQL knows it, without quotes.
        db_type: as Django's ``Field.db_type`` spells it, for instance ``varchar(20)``.
    """

    name: str
    db_type: str

    @property
    def kind(self) -> Kind:
        """How values of its type are told as text.

        Raises:
            ConfigurationError: their text depends on a session's settings.
        """
        base = base_type(self.db_type)
        kind = KINDS.get(base)
        if kind is not None:
            return kind
        if _SESSION_DEPENDENT.search(base):
            raise ConfigurationError(
                f"column {self.name} of type {self.db_type} can't be a key of a live table: "
                "its values have no text that is the same in every session"
            )
        if not re.fullmatch(r'[\w."\[\] ]+(?:\([\w\s,]*\))?', self.db_type):
            raise ConfigurationError(
                f"column {self.name} is of type {self.db_type}, which is not a type's name"
            )
        return dataclasses.replace(TEXT, value=f"CAST({{text}} AS {self.db_type})")

    def of(self, alias: str | None) -> sql.Composable:
        """The column of the table called ``alias`` in a query, quoted as Django quotes it; None: of any."""
        return sql.Identifier(*(quoted_parts(alias) if alias is not None else ()), self.name)

    def as_text(self, alias: str | None) -> sql.Composable:
        """SQL for the column's value as text, the same in every session; NULL for NULL.

        Args:
            alias: the table's alias, or Django's ``db_table``; None leaves the column's name by itself.

        A percent sign in the column's name stays as it is: double it in a statement with parameters.
        """
        return sql.SQL("({})").format(sql.SQL(self.kind.text).format(value=self.of(alias)))

    def from_text(self, text: sql.Composable) -> sql.Composable:
        """SQL for the value that ``text``, an SQL expression of type text, tells; other texts raise."""
        return sql.SQL(self.kind.value).format(text=text)

    def as_json(self, alias: str | None) -> sql.Composable:
        """SQL for the text of the JSON value that a notification carries of the column; NULL for NULL."""
        text = sql.SQL(self.kind.cut or self.kind.text).format(value=self.of(alias))
        return sql.SQL(self.kind.json).format(text=sql.SQL("({})").format(text))

    def missing(self) -> sql.Composable:
        """SQL for a NULL in the column's place, under its name."""
        return sql.SQL("NULL::{} AS {}").format(sql.SQL(self.kind.null), sql.Identifier(self.name))
