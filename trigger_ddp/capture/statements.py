"""The statements that make and remove a table's triggers, as SQL text without parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from trigger_ddp.capture import names
from trigger_ddp.capture.catalog import Function
from trigger_ddp.capture.functions import Level, transition_tables
from trigger_ddp.capture.names import EVENTS, Event
from trigger_ddp.capture.resources import script
from trigger_ddp.capture.status import TableStatus
from trigger_ddp.capture.tables import Table

#: Where a statement names the table, until that is known. No identifier can contain it.
_HERE = "\0"


def install(status: TableStatus) -> list[str]:
    """What brings a table from how it stands to how it should; nothing if it is current or refused.

    Functions come first: replacing them takes no lock on the table, and often is all there is to do.
    """
    table, level = status.table, status.level
    if not status.members:
        return []
    schema = status.members[0].schema
    statements: list[sql.Composable] = []
    if status.other_level:
        statements += [_drop_function(sql.Identifier(schema, _name(table, event))) for event in EVENTS]
    for event in status.stale_functions:
        statements += _function(table, schema, level, event)
    for event, member in status.stale_triggers:
        statements += _trigger(table, schema, level, event, member.identifier)
    for trigger in status.stray_triggers:
        statements.append(
            script("drop_trigger").fill(
                trigger=sql.Identifier(trigger.name), table=sql.Identifier(trigger.schema, trigger.table)
            )
        )
    return [statement.as_string(None) for statement in statements]


def create(table: Table, level: Level, *, descendants: bool) -> list[str]:
    """What makes a table's triggers in any database, for a migration.

    Args:
        table: the table; where it names no schema, neither do the statements.
        level: of the triggers.
        descendants: see to partitions and inheriting tables too.
    """
    statements: list[sql.Composable] = []
    for event in EVENTS:
        statements += _function(table, table.schema, level, event)
    for event in EVENTS:
        statements += _trigger(table, table.schema, level, event, table.identifier)
    if descendants:
        statements.append(_on_descendants(table, level))
    return [statement.as_string(None) for statement in statements]


def remove(table: Table) -> list[str]:
    """What removes a table's triggers and their functions from any database, for a migration."""
    return [
        _drop_function(_identifier(table.schema, _name(table, event))).as_string(None) for event in EVENTS
    ]


def drop(functions: Sequence[Function]) -> list[str]:
    """What removes functions of ours and the triggers that call them."""
    return [_drop_function(function.identifier).as_string(None) for function in functions]


def dollar_quoted(text: str) -> sql.Composable:
    """``text`` as a string constant that a person can read."""
    tag = "ddp"
    while f"${tag}$" in text:
        tag += "_"
    return sql.SQL(f"${tag}${text}${tag}$")


def _name(table: Table, event: Event) -> str:
    return names.trigger(table.schema, table.relation, event)


def _identifier(schema: str | None, name: str) -> sql.Identifier:
    return sql.Identifier(name) if schema is None else sql.Identifier(schema, name)


def _drop_function(function: sql.Identifier) -> sql.Composable:
    return script("drop_function").fill(function=function)


def _function(table: Table, schema: str | None, level: Level, event: Event) -> Iterator[sql.Composable]:
    function = _identifier(schema, _name(table, event))
    yield script("create_function").fill(function=function, body=dollar_quoted(table.bodies[level, event]))
    comment = f"trigger_ddp {table.version}: tells which rows of {table.name} {event.upper()} wrote"
    if event == "truncate":
        comment = f"trigger_ddp {table.version}: tells that {table.name} was truncated"
    yield script("comment_function").fill(function=function, comment=sql.Literal(comment))


def _trigger(
    table: Table, schema: str | None, level: Level, event: Event, on: sql.Composable
) -> Iterator[sql.Composable]:
    name = _name(table, event)
    common = {"trigger": sql.Identifier(name), "table": on, "function": _identifier(schema, name)}
    if event == "truncate":
        yield script("create_truncate_trigger").fill(**common)
    elif level == "row":
        yield script("create_row_trigger").fill(**common, event=sql.SQL(event.upper()))
    else:
        referencing = [
            sql.SQL("{} TABLE AS {}").format(sql.SQL(which), sql.Identifier(name))
            for which, name in transition_tables(event).items()
        ]
        yield script("create_statement_trigger").fill(
            **common, event=sql.SQL(event.upper()), transition_tables=sql.SQL(" ").join(referencing)
        )
    if level == "row":
        yield script("enable_always").fill(trigger=sql.Identifier(name), table=on)


def _on_descendants(table: Table, level: Level) -> sql.Composable:
    """One statement that repeats the table's triggers on all below it."""
    lines: dict[bool, list[sql.Composable]] = {True: [sql.SQL("      NULL;")], False: []}
    for event in EVENTS:
        cloned = level == "row" and event != "truncate"
        for statement in _trigger(table, table.schema, level, event, sql.SQL(_HERE)):
            before, after = statement.as_string(None).removesuffix(";").split(_HERE)
            lines[cloned].append(
                sql.SQL("    EXECUTE pg_catalog.concat({}, below, {});").format(
                    sql.Literal(before), sql.Literal(after)
                )
            )
    body = script("on_descendants").fill(
        table=sql.Literal(table.identifier.as_string(None)),
        on_all=sql.SQL("\n").join(lines[False]),
        unless_partition=sql.SQL("\n").join(lines[True]),
    )
    return sql.SQL("DO {};").format(dollar_quoted(f"\n{body.as_string(None)}\n"))
