"""What operators ask a server over HTTP: is it alive, is it ready for clients, and its metrics.

Health is answered as long as the process turns; a server that is not healthy is to be started anew. Ready
means that clients can be sent here. It is made of named checks, each of which is cheap, however often it
is asked for: on a public port anybody may.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import msgspec
from prometheus_client.core import Metric

from trigger_ddp import __version__
from trigger_ddp.server.exchange import Request, Response, not_allowed, not_found
from trigger_ddp.server.families import CONTENT_TYPE, render

#: What begins with this is the server's own.
PREFIX = "/_ddp/"

_NO_STORE = ("Cache-Control", "no-store")

#: Says what is wrong in a few words, none of which a stranger should not read; None if nothing is.
Check: TypeAlias = Callable[[], Awaitable[str | None]]
#: Gives the metrics of this process, or of all that it stands for; None if they can't be had now.
Collect: TypeAlias = Callable[[], Awaitable[Iterable[Metric] | None]]


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
        families = await self._collect()
        if families is None:
            return Response.text(503, "503 Service Unavailable\n", _NO_STORE)
        return Response(200, (("Content-Type", CONTENT_TYPE), _NO_STORE), render(families))


def _json(status: int, body: object) -> Response:
    return Response(status, (("Content-Type", "application/json"), _NO_STORE), msgspec.json.encode(body))
