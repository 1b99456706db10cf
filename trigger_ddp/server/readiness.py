"""Whether a process is ready for clients: it hears of changes, the database answers, and nothing piles up."""

from __future__ import annotations

import math

import trio
from django.db import connections

from trigger_ddp.server.operations import Check
from trigger_ddp.server.service import Service

#: Seconds for which an answer of the database is good, and for which it is not asked again.
ANSWER_SECONDS = 1.0
#: Seconds that the database has to answer a question that it is asked to learn whether it does.
PROBE_SECONDS = 3.0
#: Seconds that a change may wait, while no evaluation at all succeeds.
EVALUATION_SECONDS = 15.0


def checks_of(service: Service) -> list[tuple[str, Check]]:
    """The checks of a process with a service."""

    async def accepting() -> str | None:
        return "the server is shutting down" if service.draining else None

    async def listener() -> str | None:
        return None if service.source.connected else "the listening connection is down"

    async def evaluations() -> str | None:
        waiting = min(service.lag(), trio.current_time() - service.evaluated_at)
        return None if waiting < EVALUATION_SECONDS else f"nothing was evaluated for {waiting:.0f} s"

    async def triggers() -> str | None:
        # Where stale tables are accepted, that is no reason to send clients elsewhere.
        stale = 0 if service.settings.allow_stale else len(service.stale_tables)
        return f"{stale} tables in use have no current trigger, as the log says" if stale else None

    return [
        ("accepting", accepting),
        ("listener", listener),
        ("database", DatabaseCheck(service)),
        ("evaluations", evaluations),
        ("triggers", triggers),
    ]


class DatabaseCheck:
    """Whether the database answers: it has just answered an evaluation, or it answers a small question.

    However many ask, it is asked one question at a time, and at most one each `ANSWER_SECONDS`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._asking = trio.Lock()
        self._asked_at = -math.inf
        self._wrong: str | None = None

    async def __call__(self) -> str | None:
        async with self._asking:
            now = trio.current_time()
            if now - self._service.evaluated_at <= ANSWER_SECONDS:
                return None
            if now - self._asked_at > ANSWER_SECONDS:
                self._wrong = await self._ask()
                self._asked_at = trio.current_time()
            return self._wrong

    async def _ask(self) -> str | None:
        service = self._service
        with trio.move_on_after(PROBE_SECONDS) as patience:
            try:
                await service.evaluators.run(_ping, service.settings.database)
            except Exception:  # noqa: BLE001 - whatever it is; the words of it are not for strangers
                return "the database can't be asked"
        return "the database does not answer" if patience.cancelled_caught else None


def _ping(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
