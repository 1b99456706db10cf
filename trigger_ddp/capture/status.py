"""Installed triggers against those that there should be."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator, Sequence

from trigger_ddp.capture import names
from trigger_ddp.capture.catalog import Catalog, Function, Member, Relation, Trigger, kind_name
from trigger_ddp.capture.functions import Level, transition_tables
from trigger_ddp.capture.names import EVENTS, Event
from trigger_ddp.capture.tables import Table

#: Bits of pg_trigger.tgtype.
_TYPE_BITS: dict[Event, int] = {"insert": 4, "delete": 8, "update": 16, "truncate": 32}
_ROW_BIT = 1
_ENABLED: dict[Level, str] = {"statement": "O", "row": "A"}
_WHEN_ENABLED = {
    "O": "fires, but not for replicated changes",
    "A": "fires always",
    "D": "is disabled",
    "R": "fires for replicated changes only",
}


class State(enum.Enum):
    """How a table stands."""

    CURRENT = "current"
    MISSING = "missing"
    OUTDATED = "outdated"
    #: There can't be triggers on it.
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True, slots=True)
class TableStatus:
    """How one table stands.

    Args:
        table: the table.
        level: the level of its triggers, as wanted, or else as installed, or else "statement".
        state: what `differences` come to.
        differences: a sentence for each, for people.
        members: the table and all below it; empty if it does not exist.
        functions: its functions that exist.
        stale_functions: events whose function must be made or replaced.
        stale_triggers: triggers that must be made or replaced, by event and the table they belong to.
        stray_triggers: triggers on tables that are no longer below this one.
        other_level: triggers of the other level are installed and must go first.
    """

    table: Table
    level: Level
    state: State
    differences: tuple[str, ...]
    members: tuple[Member, ...] = ()
    functions: tuple[Function, ...] = ()
    stale_functions: tuple[Event, ...] = ()
    stale_triggers: tuple[tuple[Event, Member], ...] = ()
    stray_triggers: tuple[Trigger, ...] = ()
    other_level: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """How all tables that were asked about stand.

    Args:
        tables: in the order asked.
        orphans: functions of ours that none of them has.
    """

    tables: tuple[TableStatus, ...]
    orphans: tuple[Function, ...]

    def is_current(self, table: Table) -> bool:
        """Whether ``table`` is among those asked about and its triggers are as they should be."""
        return any(
            status.table.name == table.name and status.state is State.CURRENT for status in self.tables
        )


def compare(tables: Sequence[Table], catalog: Catalog, level: Level | None) -> Report:
    """Compare the catalog with what should be there.

    Args:
        tables: what was read into ``catalog``, in the same order.
        level: the level that triggers should have; None accepts what is installed.
    """
    statuses = []
    ours: set[tuple[str, str]] = set()
    for position, table in enumerate(tables):
        relation = catalog.relations.get(position)
        if relation is None:
            reason = f"there is no table {table.name} in the database: has `manage.py migrate` run?"
            statuses.append(TableStatus(table, level or "statement", State.REFUSED, (reason,)))
            continue
        comparison = _Comparison(table, relation, catalog, level)
        statuses.append(comparison.status())
        ours |= {(function.schema, function.name) for function in comparison.found}
    orphans = [
        function
        for function in catalog.functions
        if function.here and (function.schema, function.name) not in ours
    ]
    return Report(tuple(statuses), tuple(orphans))


def targets(members: Sequence[Member], level: Level, event: Event) -> list[Member]:
    """The tables that need a trigger of their own.

    A statement fires the statement-level triggers of the table it names alone, so every table below has its
    own. Row-level triggers are cloned to partitions by PostgreSQL, but not to inheriting tables.
    """
    local = [member for member in members if member.kind in "rp"]
    if level == "row" and event != "truncate":
        return [member for member in local if member is members[0] or not member.partition]
    return local


class _Comparison:
    """One table's triggers against those it should have."""

    def __init__(self, table: Table, relation: Relation, catalog: Catalog, level: Level | None) -> None:
        self.table = table
        self.relation = relation
        self.root = relation.members[0]
        self.expected = {event: names.trigger(table.schema, table.relation, event) for event in EVENTS}
        named = [function for function in catalog.functions if function.name in self.expected.values()]
        #: Installed triggers by table and name, each with its function.
        self.installed = {
            (trigger.table_id, trigger.name): (trigger, function)
            for function in named
            for trigger in function.triggers or ()
        }
        #: For each event the function that the table's own trigger calls.
        self.functions = {
            event: self.installed[self.root.id, name][1]
            for event, name in self.expected.items()
            if (self.root.id, name) in self.installed
        }
        #: The functions that are this table's: its triggers call them, or installing would replace them.
        self.found = tuple(
            function
            for function in named
            if function.schema == self.root.schema or function in self.functions.values()
        )
        levels = {
            "row" if trigger.type & _ROW_BIT else "statement"
            for event, name in self.expected.items()
            if event != "truncate" and (self.root.id, name) in self.installed
            for trigger in [self.installed[self.root.id, name][0]]
        }
        self.installed_level: Level | None = "row" if levels == {"row"} else "statement" if levels else None
        self.level: Level = level or self.installed_level or "statement"
        self.mixed = len(levels) > 1 or (bool(levels) and self.level not in levels)

    def status(self) -> TableStatus:
        if refusal := self.refusal():
            members = self.relation.members
            return TableStatus(self.table, self.level, State.REFUSED, (refusal,), members, self.found)
        function_differences = dict(self.function_differences())
        trigger_differences = dict(self.trigger_differences())
        stray = tuple(self.stray())
        if not self.functions:
            state, sentences = State.MISSING, [f"{self.table.name} has no triggers"]
        else:
            sentences = [
                *function_differences.values(),
                *trigger_differences.values(),
                *(
                    f"trigger {trigger.name} is left on {trigger.schema}.{trigger.table}, "
                    f"which is not part of {self.table.name}"
                    for trigger in stray
                ),
            ]
            if self.mixed:
                sentences = [
                    f"{self.table.name} has {self.other_level()}-level triggers, not {self.level}-level"
                ]
            state = State.OUTDATED if sentences else State.CURRENT
        everything = self.mixed or state is State.MISSING
        return TableStatus(
            table=self.table,
            level=self.level,
            state=state,
            differences=tuple(sentences),
            members=self.relation.members,
            functions=self.found,
            stale_functions=EVENTS if everything else tuple(function_differences),
            stale_triggers=tuple(self.all_triggers() if everything else trigger_differences),
            stray_triggers=() if self.mixed else stray,
            other_level=self.mixed,
        )

    def other_level(self) -> Level:
        return "statement" if self.level == "row" else "row"

    def refusal(self) -> str | None:
        """Why the table can't have triggers, as a sentence."""
        if self.root.kind not in "rp":
            return f"{self.table.name} is a {kind_name(self.root.kind)}: only tables can have these triggers"
        absent = [
            column.name
            for column in (*self.table.primary_key, *self.table.foreign_keys)
            if column.name not in (self.relation.columns or ())
        ]
        if absent:
            return f"{self.table.name} has no column {', '.join(absent)}: has `manage.py migrate` run?"
        if not self.relation.has_key:
            return f"{self.table.name} has no primary key, so its rows can't be told apart"
        foreign = [member.name for member in self.relation.members if member.kind == "f"]
        if foreign and self.level == "statement":
            return (
                f"{self.table.name} has foreign tables below it ({', '.join(foreign)}), whose rows "
                "statement-level triggers can't collect: use --for-each row"
            )
        return None

    def function_differences(self) -> Iterator[tuple[Event, str]]:
        for event in EVENTS:
            function = self.functions.get(event)
            body = self.table.bodies[self.level, event]
            if function is None:
                yield event, f"{self.table.name} has no trigger for {event.upper()}"
            elif function.body != body:
                version = re.search(r'\["([0-9a-f]{8})"', function.body)
                if version and version[1] != self.table.version:
                    yield (
                        event,
                        f"function {function.name} is of version {version[1]}, not {self.table.version}",
                    )
                else:
                    yield event, f"function {function.name} was edited after it was made"
            elif not function.plain:
                yield event, f"function {function.name} was altered (SECURITY DEFINER, SET or its language)"

    def all_triggers(self) -> Iterator[tuple[Event, Member]]:
        for event in EVENTS:
            for member in targets(self.relation.members, self.level, event):
                yield event, member

    def trigger_differences(self) -> Iterator[tuple[tuple[Event, Member], str]]:
        for event, member in self.all_triggers():
            where = f"{member.schema}.{member.name}"
            found = self.installed.get((member.id, self.expected[event]))
            if found is None:
                yield (event, member), f"{where} has no trigger for {event.upper()}"
                continue
            trigger, function = found
            row = self.level == "row" and event != "truncate"
            tables = {} if row else transition_tables(event)
            if function != self.functions.get(event, function) or (
                (trigger.type, trigger.old, trigger.new, trigger.plain)
                != (_TYPE_BITS[event] | (_ROW_BIT if row else 0), tables.get("OLD"), tables.get("NEW"), True)
            ):
                yield (event, member), f"trigger {trigger.name} on {where} is not as it was made"
            elif trigger.enabled != _ENABLED[self.level]:
                yield (event, member), f"trigger {trigger.name} on {where} {_WHEN_ENABLED[trigger.enabled]}"

    def stray(self) -> Iterator[Trigger]:
        """Triggers that call this table's functions for tables that are not below it, or not by our name."""
        expected = {(member.id, self.expected[event]) for event, member in self.all_triggers()}
        for key, (trigger, function) in self.installed.items():
            if function in self.found and key not in expected:
                yield trigger
