"""What operators ask a server over HTTP: is it alive, is it ready for clients, and its metrics.

Health is answered as long as the process turns; a server that is not healthy is to be started anew. Ready
means that clients can be sent here. It is made of named checks, each of which is cheap, however often it
is asked for: on a public port anybody may.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec
import trio
from django.db import connections
from prometheus_client.core import Metric

from trigger_ddp import __version__
from trigger_ddp.server.exchange import Request, Response, not_allowed, not_found
from trigger_ddp.server.families import CONTENT_TYPE, render
from trigger_ddp.server.service import Service

#: What begins with this is the server's own.
PREFIX = "/_ddp/"

#: Seconds for which an answer of the database is good, and for which it is not asked again.
ANSWER_SECONDS = 1.0
#: Seconds that the database has to answer a question that it is asked to learn whether it does.
PROBE_SECONDS = 3.0
#: Seconds that a change may wait, while no evaluation at all succeeds.
EVALUATION_SECONDS = 15.0

_NO_STORE = ("Cache-Control", "no-store")

#: Says what is wrong in a few words, none of which a stranger should not read; None if nothing is.
Check: TypeAlias = Callable[[], Awaitable[str | None]]
#: Gives the metrics of this process, or of all that it stands for.
Collect: TypeAlias = Callable[[], Awaitable[Iterable[Metric]]]


class Operations:
    """Answers requests below `PREFIX`; `respond` is a `Handler`.

    Args:
        checks: of readiness, by name; they are asked in this order.
        collect: gives the metrics.
    """

    def __init__(self, checks: Sequence[tuple[str, Check]], collect: Collect) -> None:
        self._checks = checks
        self._collect = collect
        self._routes = {"health": self._health, "ready": self._ready, "metrics": self._metrics}

    async def respond(self, request: Request) -> Response:
        """The answer to any request below `PREFIX`."""
        route = self._routes.get(request.raw_path.removeprefix(PREFIX))
        if route is None:
            return not_found()
        if request.method not in ("GET", "HEAD"):
            return not_allowed("GET", "HEAD")
        return await route()

    async def _health(self) -> Response:
        return _json(200, {"status": "ok", "version": __version__})

    async def _ready(self) -> Response:
        found = {name: await check() for name, check in self._checks}
        ready = not any(found.values())
        body = {
            "status": "ready" if ready else "not ready",
            "checks": {name: wrong or "ok" for name, wrong in found.items()},
        }
        return _json(200 if ready else 503, body)

    async def _metrics(self) -> Response:
        return Response(200, (("Content-Type", CONTENT_TYPE), _NO_STORE), render(await self._collect()))


def _json(status: int, body: object) -> Response:
    return Response(status, (("Content-Type", "application/json"), _NO_STORE), msgspec.json.encode(body))


def checks_of(service: Service) -> list[tuple[str, Check]]:
    """The checks of a process with a service."""

    async def accepting() -> str | None:
        return "the server is shutting down" if service.draining else None

    async def listener() -> str | None:
        return None if service.source.connected else "the listening connection is down"

    async def evaluations() -> str | None:
        waiting = min(service.lag(), trio.current_time() - service.evaluated_at)
        return None if waiting < EVALUATION_SECONDS else f"nothing was evaluated for {waiting:.0f} s"

    return [
        ("accepting", accepting),
        ("listener", listener),
        ("database", DatabaseCheck(service)),
        ("evaluations", evaluations),
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
