"""The bodies of a table's trigger functions, composed from the scripts in ``sql/``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from psycopg import sql

from trigger_ddp.capture.columns import Column
from trigger_ddp.capture.names import EVENTS, Event
from trigger_ddp.capture.resources import script

#: Whether INSERT, UPDATE and DELETE are seen statement by statement or row by row. TRUNCATE has no rows.
Level = Literal["statement", "row"]
LEVELS: tuple[Level, ...] = ("statement", "row")

#: PostgreSQL raises for a payload of 8000 bytes or more (NOTIFY_PAYLOAD_MAX_LENGTH).
PAYLOAD_BYTES = 7999

_OPERATIONS: dict[Event, str] = {"insert": "I", "update": "U", "delete": "D"}
_VERSION_DIGITS = 8
#: How payloads begin until the version is known; names are quoted otherwise, so nothing else looks like it.
_NO_VERSION = f'["{"?" * _VERSION_DIGITS}"'

#: A table's function bodies, as PostgreSQL stores them.
Bodies = Mapping[tuple[Level, Event], str]


def transition_tables(event: Event) -> dict[str, str]:
    """The transition tables that a statement's trigger has: "OLD" or "NEW" to the name our functions use."""
    return {
        which: f"{which.lower()}_rows"
        for which, events in (("OLD", ("update", "delete")), ("NEW", ("insert", "update")))
        if event in events
    }


@cache
def fingerprinted(
    channel: str, primary_key: tuple[Column, ...], foreign_keys: tuple[Column, ...], bulk_threshold: int
) -> tuple[str, Bodies]:
    """The version of a table's capture, and its function bodies, which carry that version in every payload.

    Args:
        channel: the channel to notify.
        primary_key: the columns of the key.
        foreign_keys: the columns that ride along.
        bulk_threshold: rows of a statement above which they are not told one by one.

    Returns:
        Some hexadecimal digits that differ whenever any of the bodies does; the bodies.
    """

    bodies = {
        (level, event): _Body(channel, event, primary_key, foreign_keys, bulk_threshold).at(level)
        for level in LEVELS
        for event in EVENTS
    }
    everything = repr(sorted(bodies.items())).encode("utf-8", "surrogatepass")
    version = hashlib.sha256(everything).hexdigest()[:_VERSION_DIGITS]
    return version, {which: body.replace(_NO_VERSION, f'["{version}"') for which, body in bodies.items()}


class _Body:
    """What the placeholders of the scripts stand for, for one event on one table."""

    def __init__(
        self,
        channel: str,
        event: Event,
        primary_key: Sequence[Column],
        foreign_keys: Sequence[Column],
        bulk_threshold: int,
    ) -> None:
        self.channel = channel
        self.event = event
        self.primary_key = primary_key
        self.foreign_keys = foreign_keys
        self.bulk_threshold = bulk_threshold

    def at(self, level: Level) -> str:
        channel: dict[str, sql.Composable] = {
            "channel": sql.Literal(self.channel),
            "channel_name": sql.SQL(self.channel),  # for a comment; only a-z, 0-9 and _
        }
        if self.event == "truncate":
            body = script("truncate_function").fill(**channel, truncated=self.payload("T"))
        elif level == "row":
            body = script("row_function").fill(
                **channel,
                one=self.one({"OLD": sql.SQL("(SELECT OLD.*)"), "NEW": sql.SQL("(SELECT NEW.*)")}),
                payload_of_one=self.payload_of_one(),
                bulk=self.payload("B"),
            )
        else:
            tables: dict[str, sql.Composable] = {
                which: sql.Identifier(name) for which, name in transition_tables(self.event).items()
            }
            # an UPDATE has at most as many new rows as old ones
            counted = tables.get("OLD", tables.get("NEW"))
            assert counted is not None
            body = script("statement_function").fill(
                **channel,
                one=self.one(tables),
                payload_of_one=self.payload_of_one(),
                every=self.every(tables),
                counted=counted,
                bulk_threshold=sql.Literal(self.bulk_threshold),
                room=self.room(),
                bulk=self.payload("B"),
                payload=self.full_payload(),
            )
        return f"\n{body.as_string(None)}\n"

    def one(self, rows: Mapping[str, sql.Composable]) -> sql.Composable:
        """Statements that read the first row."""
        common = {"missing": self.missing(), "keys": self.keys()}
        if self.event == "update":
            return script("one_updated").fill(**common, old_rows=rows["OLD"], new_rows=rows["NEW"])
        return script("one_written").fill(**common, rows=rows["OLD" if self.event == "delete" else "NEW"])

    def every(self, rows: Mapping[str, sql.Composable]) -> sql.Composable:
        """The query for all rows."""
        common = {"missing": self.missing(), "keys": self.keys()}
        if self.event == "update":
            names = [sql.Identifier(f"key{number}") for number in range(1, len(self.primary_key) + 1)]
            # byte by byte: what a collation takes for equal has two texts, and so is two keys
            texts = [
                sql.SQL('{} COLLATE pg_catalog."C" AS {}').format(column.as_text(None), name)
                for column, name in zip(self.primary_key, names, strict=True)
            ]
            same = [sql.SQL("o.{0} OPERATOR(pg_catalog.=) n.{0}").format(name) for name in names]
            return script("every_updated").fill(
                **common,
                key_texts=sql.SQL(", ").join(texts),
                same_key=sql.SQL(" AND ").join(same),
                old_rows=rows["OLD"],
                new_rows=rows["NEW"],
            )
        return script("every_written").fill(**common, rows=rows["OLD" if self.event == "delete" else "NEW"])

    def missing(self) -> sql.Composable:
        """NULLs under the columns' names."""
        return _missing(*self.primary_key, *self.foreign_keys)

    def keys(self) -> sql.Composable:
        """What a notification tells of a row, as JSON text; NULL where its key is not known."""
        return _keys(tuple(self.primary_key), tuple(self.foreign_keys))

    def room(self) -> sql.Composable:
        """The bytes that rows can take up in a payload, with the commas between them."""
        return sql.Literal(PAYLOAD_BYTES - len(self.head()) - len("],[") - len("]]"))

    def head(self) -> str:
        return f'{_NO_VERSION},"{_OPERATIONS[self.event]}",['

    def payload(self, op: str) -> sql.Composable:
        """The payload of a notification without rows."""
        return sql.Literal(f'{_NO_VERSION},"{op}"]')

    def payload_of_one(self) -> sql.Composable:
        """An expression for the payload of the row that `one` has read."""
        return sql.SQL(
            "CASE WHEN pg_catalog.octet_length(keys) OPERATOR(pg_catalog.<=) {}"
            " THEN {} OPERATOR(pg_catalog.||) keys OPERATOR(pg_catalog.||) ']]' ELSE {} END"
        ).format(self.room(), sql.Literal(self.head()), self.payload("B"))

    def full_payload(self) -> sql.Composable:
        """An expression for the payload of the rows gathered so far."""
        written = sql.SQL("pg_catalog.array_to_string(written, ',')")
        if self.event != "update":
            return sql.SQL("pg_catalog.concat({}, {}, ']]')").format(sql.Literal(self.head()), written)
        return sql.SQL(
            "pg_catalog.concat({}, {}, '],[', pg_catalog.array_to_string(replaced, ','), ']]')"
        ).format(sql.Literal(self.head()), written)


# What all bodies of a table have in common, put together once: a project may have hundreds of tables.


@cache
def _missing(*columns: Column) -> sql.SQL:
    return _text(sql.SQL(", ").join([column.missing() for column in columns]))


@cache
def _keys(primary_key: tuple[Column, ...], foreign_keys: tuple[Column, ...]) -> sql.SQL:
    values = [column.as_json(None) for column in primary_key] + [
        sql.SQL("COALESCE({}, 'null')").format(column.as_json(None)) for column in foreign_keys
    ]
    inner = sql.SQL(" OPERATOR(pg_catalog.||) ',' OPERATOR(pg_catalog.||) ").join(values)
    # compared byte by byte, whatever collations the columns have
    return _text(
        sql.SQL(
            "('[' OPERATOR(pg_catalog.||) {} OPERATOR(pg_catalog.||) ']') COLLATE pg_catalog.\"C\""
        ).format(inner)
    )


def _text(composed: sql.Composable) -> sql.SQL:
    return sql.SQL(composed.as_string(None))
