"""Rows that logins last as long as: whoever deletes one, by SQL as well, ends the sessions that have it."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import trio
from django.db import models

from trigger_ddp.api.ids import id_part
from trigger_ddp.capture.tables import Table
from trigger_ddp.changes.change import Change, Gap
from trigger_ddp.errors import TriggersMissing
from trigger_ddp.server.source import ChangeSource
from trigger_ddp.server.triggers import Triggers
from trigger_ddp.server.workers import Workers

logger = logging.getLogger("trigger_ddp.users")


class Lease:
    """One session's interest in a row.

    Args:
        row: a saved row, whose primary key is an int, a text or a UUID.
        on_gone: called when the row is no longer there.

    Attributes:
        armed: whether the row is expected to be visible: the transaction that made it may still run.

    Raises:
        TypeError: it is no such row.
    """

    def __init__(self, row: models.Model, on_gone: Callable[[], object]) -> None:
        if not isinstance(row, models.Model) or not isinstance(row.pk, (int, str, uuid.UUID)):
            raise TypeError(
                "the lease of set_user_id is a saved row, known by an int, a text or a UUID, "
                f"not {type(row).__name__}"
            )
        self.model = type(row)
        self.pk = row._meta.pk.to_python(row.pk)  # whoever made the row may have given it as a text
        self.on_gone = on_gone
        self.armed = False
        self.table = Table.from_model(self.model)
        self.key = id_part(self.pk)  # the same text as PostgreSQL's, for keys of these kinds

    def exists(self) -> bool:
        """Whether the row is there. For a worker thread."""
        return self.model._base_manager.filter(pk=self.pk).exists()


class Leases:
    """Tells sessions when the rows that their logins last as long as are gone.

    Args:
        source: where changes come from.
        evaluators: threads for asking the database.
        patiently: makes an attempt again for as long as the database is away.
        triggers: what is known of tables' triggers.
    """

    def __init__(
        self,
        source: ChangeSource,
        evaluators: Workers,
        patiently: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
        triggers: Triggers,
    ) -> None:
        self._source = source
        self._evaluators = evaluators
        self._patiently = patiently
        self._triggers = triggers
        self._leases: dict[str, dict[str, dict[Lease, None]]] = {}  # by table, then by key
        self._doubted: dict[Lease, None] = {}
        self._doubt = trio.Event()

    async def hold(self, lease: Lease) -> None:
        """Watch the lease's row: whatever deletes it from now on is heard of. Pair with `let_go`.

        Until `arm` it may be a row of a transaction that still runs.

        Raises:
            TriggersMissing: its table has no current trigger, so that nobody would hear.
        """
        await self._source.subscribe([lease.table])
        self._triggers.use([lease.table])
        try:
            await self._patiently(partial(self._check_trigger, lease.table))
        except BaseException:
            self._triggers.unuse([lease.table])
            with trio.CancelScope(shield=True):
                await self._source.unsubscribe([lease.table])
            raise
        self._leases.setdefault(lease.table.name, {}).setdefault(lease.key, {})[lease] = None

    def let_go(self, lease: Lease, nursery: trio.Nursery) -> None:
        """End one `hold`."""
        self._doubted.pop(lease, None)
        keys = self._leases[lease.table.name]
        del keys[lease.key][lease]
        if not keys[lease.key]:
            del keys[lease.key]
        if not keys:
            del self._leases[lease.table.name]
        self._triggers.unuse([lease.table])
        nursery.start_soon(self._source.unsubscribe, [lease.table])

    def arm(self, lease: Lease) -> None:
        """The transaction in which the lease was taken is over: the row is there, or the lease is over."""
        lease.armed = True
        self._ask([lease])

    def receive(self, event: Change | Gap) -> None:
        """Have the rows looked at that ``event`` concerns."""
        if not self._leases:
            return
        if isinstance(event, Gap):
            for table, keys in self._leases.items():
                if event.table in (None, table):
                    for leases in keys.values():
                        self._ask(leases)
        elif keys := self._leases.get(event.table, {}):
            for row in (*event.rows, *event.old):
                self._ask(keys.get(row[0] or "", ()))

    def _ask(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            if lease.armed:
                self._doubted[lease] = None
                self._doubt.set()

    async def run(self) -> None:
        """Look at what is in doubt, until cancelled."""
        while True:
            await self._doubt.wait()
            self._doubt = trio.Event()
            doubted, self._doubted = list(self._doubted), {}
            try:
                gone = await self._patiently(lambda: self._evaluators.run(_gone, doubted))  # noqa: B023
            except Exception:
                # Who can't be shown to be logged in is not; the client may log in again.
                logger.exception("the rows of %d logins can't be looked up; they end", len(doubted))
                gone = doubted
            for lease in gone:
                if lease in self._leases.get(lease.table.name, {}).get(lease.key, {}):
                    lease.on_gone()

    async def _check_trigger(self, table: Table) -> None:
        if stale := await self._triggers.check([table]):
            raise TriggersMissing(list(stale))


def _gone(leases: list[Lease]) -> list[Lease]:
    by_model: dict[type[models.Model], list[Lease]] = defaultdict(list)
    for lease in leases:
        by_model[lease.model].append(lease)
    gone: list[Lease] = []
    for model, some in by_model.items():
        keys = {lease.pk for lease in some}
        there = set(model._base_manager.filter(pk__in=keys).values_list("pk", flat=True))
        gone += [lease for lease in some if lease.pk not in there]
    return gone
