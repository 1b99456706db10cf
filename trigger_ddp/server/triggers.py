"""Whether the tables that somebody depends on have their triggers, for as long as somebody does.

A trigger that is dropped or disabled tells nobody. PostgreSQL sends no notification for DDL; an event trigger
could, but only a superuser may create one, and none fires for a whole database that is restored. So the
catalog is looked at every few seconds: one query for all tables, and the only thing this server polls.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

import trio
from django.db import connections

from trigger_ddp.capture.installed import Look, look, running
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Gap
from trigger_ddp.live.compile import forget_columns
from trigger_ddp.server.database import first_line, is_passing
from trigger_ddp.server.workers import Workers

logger = logging.getLogger("trigger_ddp.triggers")


class Triggers:
    """What is known of the triggers of the tables in use.

    Args:
        evaluators: threads for asking the database.
        alias: the database.
        on_gap: called with a `Gap` for a table of which changes may have been missed.
    """

    def __init__(self, evaluators: Workers, alias: str, on_gap: Callable[[Gap], None]) -> None:
        self._evaluators = evaluators
        self._alias = alias
        self._on_gap = on_gap
        self._uses: Counter[str] = Counter()
        self._tables: dict[str, Table] = {}  # those in use
        self._looks: dict[str, Look] = {}  # the latest look at each of them
        self._doubted: set[str] = set()  # those of which the latest look need not be true any more
        self._again: dict[str, frozenset[str]] = {}  # those to be read again once these transactions are over
        self._looking = trio.Lock()  # the looks are noted in the order in which they were taken
        self._due = trio.Event()

    def stale(self) -> dict[str, str]:
        """The tables in use whose changes may go unnoticed now, each with a sentence that says why."""
        return {name: seen.stale for name, seen in sorted(self._looks.items()) if seen.stale}

    def use(self, tables: Iterable[Table]) -> None:
        """Somebody depends on these tables from now on. Pair with `unuse`."""
        for table in tables:
            self._uses[table.name] += 1
            self._tables[table.name] = table

    def unuse(self, tables: Iterable[Table]) -> None:
        """End one `use`."""
        for table in tables:
            self._uses[table.name] -= 1
            if not self._uses[table.name]:
                del self._uses[table.name], self._tables[table.name]
                self._looks.pop(table.name, None)
                self._again.pop(table.name, None)
                self._doubted.discard(table.name)

    def doubt(self) -> None:
        """The database may be another one than before: look again soon, and before anybody is let in."""
        self._doubted.update(self._looks)
        self._due.set()

    async def check(self, tables: Iterable[Table]) -> dict[str, str]:
        """Those of ``tables``, all in use, that are stale now, as `stale` has them.

        Asks the database about those of which it does not know that they were current at the latest look.

        Raises:
            django.db.Error: it can't be asked.
        """
        tables = list(tables)
        if not all(self._known_current(table.name) for table in tables):
            async with self._looking:
                unknown = [table for table in tables if not self._known_current(table.name)]
                await self._look_at(unknown)
        stale = self.stale()
        return {table.name: stale[table.name] for table in tables if table.name in stale}

    def _known_current(self, name: str) -> bool:
        return name in self._looks and name not in self._doubted and not self._looks[name].stale

    async def run(self, seconds: float) -> None:
        """Look at all tables in use every so often, until cancelled; 0: only after `doubt`."""
        while True:
            with trio.move_on_after(seconds or float("inf")):
                await self._due.wait()
            self._due = trio.Event()
            try:
                async with self._looking:
                    await self._look_at(list(self._tables.values()))
            except Exception as error:
                if is_passing(error):  # those who need an answer say so in the log
                    logger.debug("the triggers can't be looked at now: %s", first_line(error))
                else:
                    logger.exception("the triggers can't be looked at")

    async def _look_at(self, tables: list[Table]) -> None:
        if not tables:
            return
        found, still_running = await self._evaluators.run(
            _look, tables, dict(self._looks), bool(self._again), self._alias
        )
        for name, seen in found.items():
            if name in self._tables:
                self._note(name, seen, still_running)

    def _note(self, name: str, seen: Look, still_running: frozenset[str]) -> None:
        before = self._looks.get(name)
        self._looks[name] = seen
        self._doubted.discard(name)
        if before is None:
            return  # who depends on it from now on says what it means for them
        if seen.columns != before.columns:
            forget_columns()
        if seen.stale and seen.stale != before.stale:
            logger.error(
                "changes of %s may go unnoticed: %s; `manage.py ddp_install_triggers` mends it",
                name, seen.stale,
            )  # fmt: skip
        if before.stale and not seen.stale:
            logger.info("%s has its triggers again; what depends on it is read again", name)
        elif not seen.stale and seen.triggers != before.triggers:
            logger.info("the triggers of %s were made anew; what depends on it is read again", name)
        if seen.triggers != before.triggers or (before.stale and not seen.stale):
            # Changes may have been missed since the latest look, also where it found nothing wrong. Those who
            # wrote with another function in place may commit after this; they are read once they have ended.
            self._again[name] = still_running
            self._on_gap(Gap(name, "triggers"))
        elif name in self._again and self._again[name].isdisjoint(still_running):
            del self._again[name]
            self._on_gap(Gap(name, "triggers"))


def _look(
    tables: list[Table], before: dict[str, Look], anyway: bool, alias: str
) -> tuple[dict[str, Look], frozenset[str]]:
    """Looks, and if one is another than before, or ``anyway``, the transactions that ran after them."""
    connection = connections[alias]
    found = look(connection, tables, before)
    another = any(name in before and before[name] != seen for name, seen in found.items())
    return found, running(connection) if another or anyway else frozenset()
